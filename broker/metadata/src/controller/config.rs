//! Configurations: of topics, of single brokers, and the defaults for all; of groups and client metrics see [`super::named`].
//!
//! What a change of `min.insync.replicas` or `unclean.leader.election.enable` means for ISR, ELR and leaders is
//! part of the same commit.

use super::named::Sort;
use super::topics::check_legal;
use super::{At, Controller};
use crate::configs;
use crate::dynamic::{DynamicError, DynamicKey};
use crate::features::Level;
use crate::image::Topic;
use crate::records::{ConfigResource, Record};
use crate::rpc::{ConfigChange, ConfigChanges, ConfigOp, ConfigTarget, Outcome, codes};
use leasehold_types::{BrokerId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

type Values = BTreeMap<String, String>;

impl Controller {
    /// Makes the defaults of this broker's file those of the cluster, unless they are the operator's to tell.
    pub(super) fn sync_static_configs(&mut self) {
        let ever = self.image.claims.iter();
        let is_first = ever.filter(|claim| claim.broker.0 >= 0).count() <= 1;
        if self.settings.defaults_are_told && !is_first {
            return;
        }
        let wanted = self.settings.topic_defaults.clone();
        self.replace_topic_defaults(&wanted);
    }

    /// What the brokers' files say of topics now, where their processes are not started anew for it.
    pub(super) fn set_topic_defaults(&mut self, told: &Values) -> Outcome {
        let mut wanted = Values::new();
        for (name, value) in told {
            let key = match DynamicKey::find(name) {
                Ok(key @ DynamicKey::Topics(_)) => key,
                _ => {
                    let message = format!("{name} is no default of topics");
                    return Outcome::refused(codes::INVALID_CONFIG, message);
                }
            };
            if let Err(error) = key.normalize(value) {
                return Outcome::refused(codes::INVALID_CONFIG, error.to_string());
            }
            // As it is told, as a file's values are: who tells it compares.
            wanted.insert(key.kept_as().to_owned(), value.clone());
        }
        self.replace_topic_defaults(&wanted);
        Outcome::ok()
    }

    fn replace_topic_defaults(&mut self, wanted: &Values) {
        let now = self.image.static_configs.clone();
        self.replace_configs(&ConfigResource::Static, &now, wanted);
    }

    pub(super) fn alter_configs(
        &mut self,
        changes: &ConfigChanges,
        validate_only: bool,
    ) -> Outcome {
        let whose = match &changes.target {
            ConfigTarget::Group(name) => {
                return self.alter_named(Sort::Group, name, changes, validate_only);
            }
            ConfigTarget::ClientMetrics(name) => {
                return self.alter_named(Sort::ClientMetrics, name, changes, validate_only);
            }
            ConfigTarget::Cluster => Ok(Whose::Cluster),
            ConfigTarget::Broker(id) => self.a_broker(*id),
            ConfigTarget::Topic(name) => self.a_topic(name),
        };
        let whose = match whose {
            Ok(whose) => whose,
            Err((code, message)) => return Outcome::refused(code, message),
        };
        if let Whose::Broker(_) = whose
            && let Err(refused) =
                self.permits(Level::ADMINISTERED, "configurations of single brokers")
        {
            return refused;
        }
        let before: Values = match &whose {
            Whose::Topic(topic) => topic.configs.clone(),
            Whose::Broker(id) => {
                let own = self.image.broker_configs.get(id);
                own.cloned().unwrap_or_default()
            }
            Whose::Cluster => (*self.image.cluster_configs).clone(),
        };
        let wanted = match self.wanted(&before, &whose, changes) {
            Ok(wanted) => wanted,
            Err((code, message)) => return Outcome::refused(code, message),
        };
        if !validate_only {
            let resource = match whose {
                Whose::Topic(topic) => ConfigResource::Topic(topic.id),
                Whose::Broker(id) => ConfigResource::Broker(id),
                Whose::Cluster => ConfigResource::Cluster,
            };
            self.replace_configs(&resource, &before, &wanted);
        }
        Outcome::ok()
    }

    fn a_broker(&self, id: BrokerId) -> Result<Whose, (i16, String)> {
        match self.image.broker(id) {
            Some(_) => Ok(Whose::Broker(id)),
            None => {
                let message = format!("broker {id} is not registered");
                Err((codes::BROKER_ID_NOT_REGISTERED, message))
            }
        }
    }

    fn a_topic(&self, name: &str) -> Result<Whose, (i16, String)> {
        match self.image.topic_by_name(name) {
            Some(topic) => Ok(Whose::Topic(topic.clone())),
            None => {
                check_legal(name)?;
                let message = format!("topic {name} does not exist");
                Err((codes::UNKNOWN_TOPIC_OR_PARTITION, message))
            }
        }
    }

    /// The values after `changes`, each of them checked.
    fn wanted(
        &self,
        before: &Values,
        whose: &Whose,
        changes: &ConfigChanges,
    ) -> Result<Values, (i16, String)> {
        let mut wanted = if changes.replace_all {
            Values::new()
        } else {
            before.clone()
        };
        let mut named = BTreeSet::new();
        for change in &changes.changes {
            let key = whose.find(&change.key)?;
            let name = key.kept_as();
            if !named.insert(name) {
                return Err((
                    codes::INVALID_REQUEST,
                    format!("{} is named twice", change.key),
                ));
            }
            let present = match (wanted.get(name), whose) {
                (Some(value), _) => Some(value.as_str()),
                (None, Whose::Topic(topic)) => self.image.topic_config(topic, name),
                (None, _) => self.image.default_config(name).map(|(value, _)| value),
            };
            match altered(key, change, present)? {
                Some(value) => {
                    let value = key.normalize(&value).map_err(|e| whose.refused(&e))?;
                    wanted.insert(name.to_owned(), value);
                }
                None => drop(wanted.remove(name)),
            }
        }
        let in_force = |key: &str| match (wanted.get(key), whose) {
            (Some(value), _) => Some(value.as_str()),
            (None, Whose::Cluster) => self.image.static_config(key),
            (None, _) => self.image.default_config(key).map(|(value, _)| value),
        };
        configs::check_together(in_force).map_err(|error| whose.refused(&error.into()))?;
        Ok(wanted)
    }

    pub(super) fn replace_configs(
        &mut self,
        resource: &ConfigResource,
        before: &Values,
        wanted: &Values,
    ) {
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
            // None of these has those.
            ConfigResource::Broker(_)
            | ConfigResource::Group(_)
            | ConfigResource::ClientMetrics(_) => Vec::new(),
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

/// What is configured.
enum Whose {
    Topic(Arc<Topic>),
    Broker(BrokerId),
    Cluster,
}

impl Whose {
    /// The key of that name, if it can be set here. A topic's has one name, a broker's two, as in Kafka.
    fn find(&self, name: &str) -> Result<DynamicKey, (i16, String)> {
        let found = match self {
            Self::Topic(_) => match configs::find(name) {
                Some(key) => Ok(DynamicKey::Topics(key)),
                None => Err(configs::unknown(name).into()),
            },
            Self::Broker(_) => {
                DynamicKey::find(name).and_then(|key| key.check_for_one().map(|()| key))
            }
            Self::Cluster => DynamicKey::find(name),
        };
        found.map_err(|error| self.refused(&error))
    }

    /// Kafka has a code of its own for what is wrong with a topic's values, and none for a broker's (KAFKA-13609).
    fn refused(&self, error: &DynamicError) -> (i16, String) {
        let code = match (self, error) {
            (Self::Topic(_), _) | (_, DynamicError::ForAll(_)) => codes::INVALID_CONFIG,
            _ => codes::INVALID_REQUEST,
        };
        (code, error.to_string())
    }
}

/// The value of `key` after `change`; `None` if it is to be removed.
fn altered(
    key: DynamicKey,
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
    if !key.is_list() {
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
