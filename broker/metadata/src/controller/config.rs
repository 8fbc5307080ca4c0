//! Configurations: of topics, and the defaults for all.
//!
//! What a change of `min.insync.replicas` or `unclean.leader.election.enable` means for ISR, ELR and leaders is
//! part of the same commit.

use super::{At, Controller};
use crate::configs::{self, Kind, TopicKey};
use crate::image::Topic;
use crate::records::{ConfigResource, Record};
use crate::rpc::{ConfigChange, ConfigChanges, ConfigOp, ConfigTarget, Outcome, codes};
use leasehold_types::TopicId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Values = BTreeMap<String, String>;

impl Controller {
    /// Makes the defaults of this broker's file those of the cluster.
    pub(super) fn sync_static_configs(&mut self) {
        let (now, wanted) = (
            self.image.static_configs.clone(),
            self.settings.topic_defaults.clone(),
        );
        self.replace_configs(&ConfigResource::Static, &now, &wanted);
    }

    pub(super) fn alter_configs(
        &mut self,
        changes: &ConfigChanges,
        validate_only: bool,
    ) -> Outcome {
        let found = match &changes.target {
            ConfigTarget::Cluster => None,
            ConfigTarget::Topic(name) => match self.image.topic_by_name(name).cloned() {
                Some(topic) => Some(topic),
                None => {
                    let message = format!("topic {name} does not exist");
                    return Outcome::refused(codes::UNKNOWN_TOPIC_OR_PARTITION, message);
                }
            },
        };
        let before: Values = match &found {
            Some(topic) => topic.configs.clone(),
            None => (*self.image.cluster_configs).clone(),
        };
        let wanted = match self.wanted(&before, found.as_deref(), changes) {
            Ok(wanted) => wanted,
            Err((code, message)) => return Outcome::refused(code, message),
        };
        if !validate_only {
            let resource = found.map_or(ConfigResource::Cluster, |t| ConfigResource::Topic(t.id));
            self.replace_configs(&resource, &before, &wanted);
        }
        Outcome::ok()
    }

    /// The values after `changes`, each of them checked.
    fn wanted(
        &self,
        before: &Values,
        topic: Option<&Topic>,
        changes: &ConfigChanges,
    ) -> Result<Values, (i16, String)> {
        let mut wanted = if changes.replace_all {
            Values::new()
        } else {
            before.clone()
        };
        let mut named = BTreeSet::new();
        for change in &changes.changes {
            let key = find(&change.key, topic.is_none()).ok_or_else(|| {
                (
                    codes::INVALID_CONFIG,
                    configs::unknown(&change.key).to_string(),
                )
            })?;
            if !named.insert(key.name) {
                return Err((
                    codes::INVALID_REQUEST,
                    format!("{} is named twice", change.key),
                ));
            }
            let present = match (wanted.get(key.name), topic) {
                (Some(value), _) => Some(value.as_str()),
                (None, Some(topic)) => self.image.topic_config(topic, key.name),
                (None, None) => self.image.default_config(key.name).map(|(value, _)| value),
            };
            match altered(key, change, present)? {
                Some(value) => {
                    configs::validate(key.name, &value)
                        .map_err(|error| (codes::INVALID_CONFIG, error.to_string()))?;
                    wanted.insert(key.name.to_owned(), configs::normalize(key, &value));
                }
                None => drop(wanted.remove(key.name)),
            }
        }
        let in_force = |key: &str| match (wanted.get(key), topic) {
            (Some(value), _) => Some(value.as_str()),
            (None, Some(_)) => self.image.default_config(key).map(|(value, _)| value),
            (None, None) => self.image.static_config(key),
        };
        configs::check_together(in_force)
            .map_err(|error| (codes::INVALID_CONFIG, error.to_string()))?;
        Ok(wanted)
    }

    fn replace_configs(&mut self, resource: &ConfigResource, before: &Values, wanted: &Values) {
        let keys: BTreeSet<&String> = before.keys().chain(wanted.keys()).collect();
        let mut touches_leaders = false;
        for key in keys {
            if before.get(key) == wanted.get(key) {
                continue;
            }
            touches_leaders |= key == configs::MIN_INSYNC_REPLICAS
                || key == configs::UNCLEAN_LEADER_ELECTION_ENABLE;
            self.emit(Record::Config {
                resource: resource.clone(),
                key: key.clone(),
                value: wanted.get(key).cloned(),
            });
        }
        if !touches_leaders {
            return;
        }
        let affected: Vec<Arc<Topic>> = match resource {
            ConfigResource::Topic(id) => self.image.topic(id).into_iter().cloned().collect(),
            ConfigResource::Cluster | ConfigResource::Static => {
                self.image.topics.values().cloned().collect()
            }
        };
        let ids: Vec<(TopicId, usize)> = affected
            .iter()
            .map(|t| (t.id, t.partitions.len()))
            .collect();
        drop(affected);
        for (id, partitions) in ids {
            for number in (0..).take(partitions) {
                let at: At = (id, number);
                self.change(at, "its configuration changed", |edit| edit.elect());
            }
        }
    }
}

/// A topic key; as a default for all topics also under its broker key's name, as Kafka has it.
fn find(name: &str, as_default: bool) -> Option<&'static TopicKey> {
    let by_broker_key = || {
        configs::TOPIC_KEYS
            .iter()
            .find(|key| key.broker_key == Some(name))
    };
    configs::find(name).or_else(|| if as_default { by_broker_key() } else { None })
}

/// The value of `key` after `change`; `None` if it is to be removed.
fn altered(
    key: &TopicKey,
    change: &ConfigChange,
    present: Option<&str>,
) -> Result<Option<String>, (i16, String)> {
    let value = match (&change.op, &change.value) {
        (ConfigOp::Delete, _) => return Ok(None),
        (_, Some(value)) => value.clone(),
        (_, None) => {
            return Err((
                codes::INVALID_CONFIG,
                format!("{} has no value", change.key),
            ));
        }
    };
    if change.op == ConfigOp::Set {
        return Ok(Some(value));
    }
    if !matches!(key.kind, Kind::List(_) | Kind::Replicas) {
        let message = format!(
            "{} is no list: nothing can be added to or taken from it",
            change.key
        );
        return Err((codes::INVALID_CONFIG, message));
    }
    let split = |text: &str| -> Vec<String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let mut parts = split(present.unwrap_or(""));
    let operand = split(&value);
    if change.op == ConfigOp::Append {
        for part in operand {
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
    } else {
        parts.retain(|part| !operand.contains(part));
    }
    Ok(Some(parts.join(",")))
}
