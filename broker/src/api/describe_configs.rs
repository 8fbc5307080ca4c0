//! DescribeConfigs: what is configured, where it comes from, and what it would be otherwise.
//!
//! A topic has its own values, then the cluster's, then the brokers' files', then Kafka's defaults. A
//! broker's values come from its file and are read-only; only the defaults for topics can be set for
//! the whole cluster while it runs (the broker resource with an empty name). Nothing is sensitive.

use super::call::Call;
use super::context::Shared;
use super::convert::{opt_text, refused, text};
use super::metadata::is_legal_name;
use crate::config::BrokerConfig;
use leasehold_metadata::broker_config::{BROKER_KEYS, Kind as BrokerKind};
use leasehold_metadata::configs::{TOPIC_KEYS, TopicKey};
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

/// Kafka's number for where a value comes from.
fn source_code(source: ConfigSource) -> i8 {
    match source {
        ConfigSource::Topic => 1,
        ConfigSource::Cluster => 3,
        ConfigSource::Static => 4,
        ConfigSource::Default => 5,
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

struct View<'a> {
    image: &'a Image,
    config: &'a BrokerConfig,
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
            (BROKER, name) => Err(refused(
                ErrorCode::InvalidRequest,
                format!(
                    "this is broker {}; ask broker {name:?} itself about its configuration",
                    self.me
                ),
            )),
            (other, _) => Err(refused(
                ErrorCode::InvalidRequest,
                format!(
                    "resources of type {other} have no configuration here; topics (2) and brokers (4) have"
                ),
            )),
        }
    }

    fn topic_row(&self, topic: &Topic, key: &TopicKey) -> DescribeConfigsResourceResult {
        let found = self.image.topic_config_source(topic, key.name);
        let own = topic
            .configs
            .get(key.name)
            .map(|value| (value.as_str(), ConfigSource::Topic));
        let (value, source) = found.map_or((None, ConfigSource::Default), |(v, s)| (Some(v), s));
        let synonyms = own
            .into_iter()
            .map(|(value, source)| (key.name, value, source));
        let synonyms = synonyms.chain(self.defaults(key));
        self.row(key.name, value, source, key.kind.code(), key.doc, synonyms)
    }

    /// What the key's value would be without the topic's own: cluster, file, Kafka.
    fn defaults<'a>(
        &'a self,
        key: &'a TopicKey,
    ) -> impl Iterator<Item = (&'a str, &'a str, ConfigSource)> {
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
        let set = TOPIC_KEYS.iter().filter_map(|key| {
            let value = self.image.cluster_configs.get(key.name)?;
            let name = key.broker_key.unwrap_or(key.name);
            let source = ConfigSource::Cluster;
            Some(self.row(
                name,
                Some(value),
                source,
                key.kind.code(),
                key.doc,
                self.defaults(key),
            ))
        });
        set.collect()
    }

    fn broker_rows(&self) -> Vec<DescribeConfigsResourceResult> {
        let rows = BROKER_KEYS.iter().map(|key| {
            let topic_key = TOPIC_KEYS.iter().find(|t| t.broker_key == Some(key.name));
            let set = topic_key.and_then(|t| self.image.cluster_configs.get(t.name));
            let own = self.config.get(key.name);
            let file = own.as_deref().filter(|value| *value != key.default_text());
            let levels = [
                (set.map(String::as_str), ConfigSource::Cluster),
                (file, ConfigSource::Static),
                (Some(key.default_text()), ConfigSource::Default),
            ];
            let synonyms: Vec<_> = levels
                .into_iter()
                .filter_map(|(value, source)| Some((key.name, value?, source)))
                .collect();
            let kind = match key.kind {
                BrokerKind::Boolean => 1,
                BrokerKind::String => 2,
                BrokerKind::Int => 3,
                BrokerKind::Long => 5,
                BrokerKind::Double => 6,
            };
            let first = synonyms.first().copied();
            let (value, source) =
                first.map_or((None, ConfigSource::Default), |(_, v, s)| (Some(v), s));
            let row = self.row(
                key.name,
                value,
                source,
                kind,
                key.doc,
                synonyms.iter().copied(),
            );
            row.with_read_only(topic_key.is_none())
        });
        rows.collect()
    }

    fn row<'a>(
        &self,
        name: &str,
        value: Option<&str>,
        source: ConfigSource,
        kind: i8,
        doc: &str,
        synonyms: impl Iterator<Item = (&'a str, &'a str, ConfigSource)>,
    ) -> DescribeConfigsResourceResult {
        let mut row = DescribeConfigsResourceResult::default()
            .with_name(text(name))
            .with_value(opt_text(value))
            .with_config_source(source_code(source))
            .with_config_type(kind);
        if self.synonyms {
            row.synonyms = synonyms
                .map(|(name, value, source)| {
                    DescribeConfigsSynonym::default()
                        .with_name(text(name))
                        .with_value(Some(text(value)))
                        .with_source(source_code(source))
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
