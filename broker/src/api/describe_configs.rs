//! DescribeConfigs: what is configured, where it comes from, and what it would be otherwise.
//!
//! A topic has its own values, then those of the broker that is asked, then those of all brokers, then their files',
//! then Kafka's defaults; a broker the same without the first. What takes effect only at a broker's start is
//! read-only. Nothing is sensitive.

use super::call::Call;
use super::context::Shared;
use super::convert::{opt_text, refused, text};
use super::metadata::is_legal_name;
use crate::config::BrokerConfig;
use crate::loggers::Loggers;
use leasehold_metadata::broker_config::{BROKER_KEYS, BrokerKey, Kind as BrokerKind};
use leasehold_metadata::client_metrics::METRICS_KEYS;
use leasehold_metadata::configs::{TOPIC_KEYS, TopicKey};
use leasehold_metadata::dynamic::DynamicKey;
use leasehold_metadata::group_configs::GROUP_KEYS;
use leasehold_metadata::image::ConfigSource;
use leasehold_metadata::rpc::Outcome;
use leasehold_metadata::{Image, Topic};
use leasehold_types::BrokerId;
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::create_topics_request::CreatableTopicConfig;
use leasehold_wire::kafka::messages::create_topics_response::CreatableTopicConfigs;
use leasehold_wire::kafka::messages::describe_configs_request::DescribeConfigsResource;
use leasehold_wire::kafka::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use leasehold_wire::kafka::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

/// Kafka's numbers of resource types.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// Kafka's number for a value that comes from a logger.
const OF_A_LOGGER: i8 = 6;

/// Kafka's numbers of kinds of values.
const STRING: i8 = 2;
const INT: i8 = 3;
const LIST: i8 = 7;

/// Kafka's number for where a value comes from.
fn source_code(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => 1,
        ConfigSource::Broker => 2,
        ConfigSource::Cluster => 3,
        ConfigSource::Static => 4,
        ConfigSource::Default => 5,
        ConfigSource::ClientMetrics => 7,
        ConfigSource::Group => 8,
    }
}

pub(super) fn answer(
    shared: &Shared,
    _: &Call,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let view = View {
        image: &shared.image(),
        config: &shared.config,
        loggers: &shared.loggers,
        me: shared.broker,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    DescribeConfigsResponse::default().with_results(
        request
            .resources
            .iter()
            .map(|resource| view.resource(resource))
            .collect(),
    )
}

/// Under which name, which value, from where.
type Level<'a> = (&'a str, &'a str, ConfigSource);

struct View<'a> {
    image: &'a Image,
    config: &'a BrokerConfig,
    loggers: &'a Loggers,
    me: BrokerId,
    synonyms: bool,
    documentation: bool,
}

impl View<'_> {
    fn resource(&self, asked: &DescribeConfigsResource) -> DescribeConfigsResult {
        let result = DescribeConfigsResult::default()
            .with_resource_type(asked.resource_type)
            .with_resource_name(asked.resource_name.clone());
        match self.rows(asked.resource_type, &asked.resource_name) {
            Err(outcome) => result
                .with_error_code(outcome.code)
                .with_error_message(opt_text(outcome.message)),
            Ok(mut rows) => {
                let keys = asked.configuration_keys.as_deref().unwrap_or_default();
                if !keys.is_empty() {
                    rows.retain(|row| keys.contains(&row.name));
                }
                result.with_configs(rows)
            }
        }
    }

    fn rows(&self, kind: i8, name: &str) -> Result<Vec<DescribeConfigsResourceResult>, Outcome> {
        match (kind, name) {
            (TOPIC, name) => match self.image.topic_by_name(name) {
                Some(topic) => Ok(TOPIC_KEYS
                    .iter()
                    .map(|key| self.topic_row(topic, key))
                    .collect()),
                None if is_legal_name(name) => Err(refused(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("there is no topic {name:?}"),
                )),
                None => Err(refused(
                    ErrorCode::InvalidTopicException,
                    format!("{name:?} is not a legal topic name"),
                )),
            },
            (BROKER, "") => Ok(self.cluster_rows()),
            (BROKER, name) if name == self.me.0.to_string() => Ok(self.broker_rows()),
            (BROKER_LOGGER, name) if name == self.me.0.to_string() => Ok(self.logger_rows()),
            (BROKER | BROKER_LOGGER, name) => Err(refused(
                ErrorCode::InvalidRequest,
                format!(
                    "this is broker {}; ask broker {name:?} itself about its configuration",
                    self.me
                ),
            )),
            (GROUP, "") => Err(refused(
                ErrorCode::InvalidRequest,
                "Group name must not be empty",
            )),
            (GROUP, name) => Ok(self.group_rows(name)),
            (CLIENT_METRICS, "") => Err(refused(
                ErrorCode::InvalidRequest,
                "Client metrics subscription name must not be empty",
            )),
            (CLIENT_METRICS, name) => Ok(self.metrics_rows(name)),
            (other, _) => Err(refused(
                ErrorCode::InvalidRequest,
                format!(
                    "resources of type {other} have no configuration here; topics (2), brokers (4), brokers' loggers (8), client metrics (16) and groups (32) have"
                ),
            )),
        }
    }

    fn topic_row(&self, topic: &Topic, key: &TopicKey) -> DescribeConfigsResourceResult {
        let own = topic.configs.get(key.name);
        let own = own.map(|value| (key.name, value.as_str(), ConfigSource::Topic));
        let name = key.broker_key.unwrap_or(key.name);
        let broker = self.image.broker_config(self.me, key.name);
        let broker = broker.map(|value| (name, value, ConfigSource::Broker));
        let levels: Vec<_> = own
            .into_iter()
            .chain(broker)
            .chain(self.defaults(key))
            .collect();
        self.row(key.name, &levels, key.kind.code(), key.doc)
    }

    /// What the key's value would be without the topic's own and this broker's: cluster, file, Kafka.
    fn defaults<'a>(&'a self, key: &'a TopicKey) -> impl Iterator<Item = Level<'a>> {
        let name = key.broker_key.unwrap_or(key.name);
        let cluster = self.image.cluster_configs.get(key.name).map(String::as_str);
        let file = self.image.static_configs.get(key.name).map(String::as_str);
        [
            (cluster, ConfigSource::Cluster),
            (file, ConfigSource::Static),
            (key.default, ConfigSource::Default),
        ]
        .into_iter()
        .filter_map(move |(value, source)| Some((name, value?, source)))
    }

    fn cluster_rows(&self) -> Vec<DescribeConfigsResourceResult> {
        let set =
            DynamicKey::all().filter(|key| self.image.cluster_configs.contains_key(key.kept_as()));
        set.map(|key| match key {
            DynamicKey::Topics(topic_key) => {
                let levels: Vec<_> = self.defaults(topic_key).collect();
                self.row(
                    key.described_as(),
                    &levels,
                    topic_key.kind.code(),
                    topic_key.doc,
                )
            }
            DynamicKey::Own(own) => self.broker_row(own, Some(key), false),
        })
        .collect()
    }

    /// Of any group, whether there is one or not.
    fn group_rows(&self, name: &str) -> Vec<DescribeConfigsResourceResult> {
        let own = self.image.group_configs.get(name);
        let rows = GROUP_KEYS.iter().map(|key| {
            let own = own.and_then(|values| values.get(key.name));
            let own = own.map(|value| (key.name, value.as_str(), ConfigSource::Group));
            let default = BROKER_KEYS.iter().find(|known| known.name == key.default);
            let default_text = default.map(BrokerKey::default_text);
            let file = self.config.get(key.default);
            let file = file.as_deref().filter(|file| Some(*file) != default_text);
            let file = file.map(|value| (key.default, value, ConfigSource::Static));
            let default = default_text.map(|value| (key.default, value, ConfigSource::Default));
            let levels: Vec<_> = own.into_iter().chain(file).chain(default).collect();
            self.row(key.name, &levels, INT, key.doc)
        });
        rows.collect()
    }

    /// Of any subscription; its defaults are nobody's, as in Kafka.
    fn metrics_rows(&self, name: &str) -> Vec<DescribeConfigsResourceResult> {
        let own = self.image.client_metrics.get(name);
        let rows = METRICS_KEYS.iter().map(|key| {
            let kind = if key.is_list { LIST } else { INT };
            match own.and_then(|values| values.get(key.name)) {
                Some(value) => {
                    let level = (key.name, value.as_str(), ConfigSource::ClientMetrics);
                    self.row(key.name, &[level], kind, key.doc)
                }
                None => self
                    .row(key.name, &[], kind, key.doc)
                    .with_value(Some(text(key.default))),
            }
        });
        rows.collect()
    }

    fn logger_rows(&self) -> Vec<DescribeConfigsResourceResult> {
        let rows = self.loggers.all().into_iter();
        rows.map(|(name, level)| {
            DescribeConfigsResourceResult::default()
                .with_name(text(name))
                .with_value(Some(text(level)))
                .with_config_source(OF_A_LOGGER)
        })
        .collect()
    }

    fn broker_rows(&self) -> Vec<DescribeConfigsResourceResult> {
        let rows = BROKER_KEYS.iter().map(|key| {
            let dynamic = DynamicKey::find(key.name).ok();
            self.broker_row(key, dynamic, true)
                .with_read_only(dynamic.is_none())
        });
        rows.chain(self.identity_rows()).collect()
    }

    /// A broker's key; `for_one` with what is set for this broker alone.
    fn broker_row(
        &self,
        key: &BrokerKey,
        dynamic: Option<DynamicKey>,
        for_one: bool,
    ) -> DescribeConfigsResourceResult {
        let kept = dynamic.map(DynamicKey::kept_as);
        let own = kept.filter(|_| for_one);
        let own = own.and_then(|kept| self.image.broker_config(self.me, kept));
        let cluster = kept.and_then(|kept| self.image.cluster_configs.get(kept));
        let file = self.config.get(key.name);
        let file = file.as_deref().filter(|value| *value != key.default_text());
        let levels = [
            (own, ConfigSource::Broker),
            (cluster.map(String::as_str), ConfigSource::Cluster),
            (file, ConfigSource::Static),
            (Some(key.default_text()), ConfigSource::Default),
        ];
        let levels: Vec<Level<'_>> = levels
            .into_iter()
            .filter_map(|(value, source)| Some((key.name, value?, source)))
            .collect();
        let kind = match key.kind {
            BrokerKind::Boolean => 1,
            BrokerKind::String => STRING,
            BrokerKind::Int => INT,
            BrokerKind::Long => 5,
            BrokerKind::Double => 6,
        };
        self.row(key.name, &levels, kind, key.doc)
    }

    /// Who this broker is: arguments of its process here, keys of its file in Kafka, where tools and
    /// clients look for them.
    fn identity_rows(&self) -> Vec<DescribeConfigsResourceResult> {
        let Some(broker) = self.image.broker(self.me) else {
            return Vec::new();
        };
        let id = self.me.0.to_string();
        let (host, port) = (&broker.client.host, broker.client.port);
        let mut listener = format!("PLAINTEXT://{host}:{port}");
        let further = broker.listeners.iter();
        for (name, at) in further.filter_map(|(name, at)| Some((name, at.as_ref()?))) {
            let name = name.as_str().to_uppercase();
            listener.push_str(&format!(",{name}://{}:{}", at.host, at.port));
        }
        let rows = [
            ("node.id", Some(id.as_str()), INT, "The id of this broker."),
            ("broker.id", Some(&id), INT, "The same, by its older name."),
            (
                "advertised.listeners",
                Some(&listener),
                LIST,
                "Where clients are told to find this broker.",
            ),
            (
                "broker.rack",
                broker.rack.as_deref(),
                STRING,
                "Where this broker is; replicas are spread over racks.",
            ),
        ];
        rows.into_iter()
            .map(|(name, value, kind, doc)| {
                let level = value.map(|value| (name, value, ConfigSource::Static));
                self.row(name, level.as_slice(), kind, doc)
                    .with_read_only(true)
            })
            .collect()
    }

    /// A row whose value is that of the first of its `levels`.
    fn row(
        &self,
        name: &str,
        levels: &[Level<'_>],
        kind: i8,
        doc: &str,
    ) -> DescribeConfigsResourceResult {
        let first = levels.first().map(|(_, value, source)| (*value, *source));
        let (value, source) = first.unzip();
        let mut row = DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(opt_text(value))
            .with_config_source(source_code(source.unwrap_or(ConfigSource::Default)))
            .with_config_type(kind);
        if self.synonyms {
            row.synonyms = levels
                .iter()
                .map(|(name, value, source)| {
                    DescribeConfigsSynonym::default()
                        .with_name(text(*name))
                        .with_value(Some(text(*value)))
                        .with_source(source_code(*source))
                })
                .collect();
        }
        row.documentation = self.documentation.then(|| text(doc));
        row
    }
}

/// The configuration of a topic that was just created with `own` values, for CreateTopics.
pub(super) fn created_configs(
    image: &Image,
    own: &[CreatableTopicConfig],
) -> Vec<CreatableTopicConfigs> {
    let own_value = |name: &str| {
        let config = own.iter().find(|config| config.name.as_str() == name)?;
        config
            .value
            .as_ref()
            .map(|value| (value.as_str(), ConfigSource::Topic))
    };
    TOPIC_KEYS
        .iter()
        .map(|key| {
            let found = own_value(key.name).or_else(|| image.default_config(key.name));
            let (value, source) =
                found.map_or((None, ConfigSource::Default), |(v, s)| (Some(v), s));
            CreatableTopicConfigs::default()
                .with_name(text(key.name))
                .with_value(opt_text(value))
                .with_config_source(source_code(source))
        })
        .collect()
}
