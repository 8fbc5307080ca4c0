//! Configurations of what has but a name: groups, and subscriptions to what clients measure.
//!
//! They need not exist: a group may be configured before its first member comes. Nothing else of the metadata follows
//! from them; the group's coordinator reads them from its image.

use super::Controller;
use crate::client_metrics::{self, MetricsConfigError};
use crate::features::Level;
use crate::group_configs;
use crate::records::ConfigResource;
use crate::rpc::{ConfigChange, ConfigChanges, ConfigOp, Outcome, codes};
use std::collections::{BTreeMap, BTreeSet};

type Values = BTreeMap<String, String>;

/// A name or a value of more bytes is refused: all of them are in every broker's memory and in every snapshot.
const LONGEST: usize = 4_096;

/// What such configurations are called where the level in force does not permit them.
pub const NAMED: &str = "configurations of groups and of client metrics";

#[derive(Clone, Copy)]
pub(super) enum Sort {
    Group,
    ClientMetrics,
}

impl Controller {
    pub(super) fn alter_named(
        &mut self,
        sort: Sort,
        name: &str,
        changes: &ConfigChanges,
        validate_only: bool,
    ) -> Outcome {
        if let Err(refused) = self.permits(Level::NAMED, NAMED) {
            return refused;
        }
        let all = match sort {
            Sort::Group => &self.image.group_configs,
            Sort::ClientMetrics => &self.image.client_metrics,
        };
        let before = all.get(name).cloned().unwrap_or_default();
        let wanted = check_name(sort, name)
            .and_then(|()| changed(&before, changes))
            .and_then(|values| self.judge_named(sort, &values));
        match wanted {
            Err((code, message)) => Outcome::refused(code, message),
            Ok(_) if validate_only => Outcome::ok(),
            Ok(wanted) => {
                let name = name.to_owned();
                let resource = match sort {
                    Sort::Group => ConfigResource::Group(name),
                    Sort::ClientMetrics => ConfigResource::ClientMetrics(name),
                };
                self.replace_configs(&resource, &before, &wanted);
                Outcome::ok()
            }
        }
    }

    /// With Kafka's codes.
    fn judge_named(&self, sort: Sort, values: &Values) -> Result<Values, (i16, String)> {
        match sort {
            Sort::Group => group_configs::validate(values, &self.settings.groups)
                .map_err(|error| (codes::INVALID_CONFIG, error.to_string())),
            Sort::ClientMetrics => client_metrics::validate(values).map_err(|error| {
                let code = match error {
                    MetricsConfigError::Unknown(_) | MetricsConfigError::Interval(_) => {
                        codes::INVALID_REQUEST
                    }
                    MetricsConfigError::NoNumber(_) | MetricsConfigError::Pattern { .. } => {
                        codes::INVALID_CONFIG
                    }
                };
                (code, error.to_string())
            }),
        }
    }
}

fn check_name(sort: Sort, name: &str) -> Result<(), (i16, String)> {
    let message = match sort {
        _ if name.len() > LONGEST => format!("a name is of at most {LONGEST} bytes"),
        _ if !name.is_empty() => return Ok(()),
        Sort::Group => {
            "Default group resources are not allowed: name a group; defaults of all are the brokers' group.consumer.* keys".to_owned()
        }
        Sort::ClientMetrics => "Subscription name can't be empty".to_owned(),
    };
    Err((codes::INVALID_REQUEST, message))
}

/// The values after `changes`, not judged yet.
fn changed(before: &Values, changes: &ConfigChanges) -> Result<Values, (i16, String)> {
    let mut wanted = match changes.replace_all {
        true => Values::new(),
        false => before.clone(),
    };
    let mut named = BTreeSet::new();
    for ConfigChange { key, op, value } in &changes.changes {
        if !named.insert(key) {
            return Err((codes::INVALID_REQUEST, format!("{key} is named twice")));
        }
        match (op, value) {
            // What cannot be set can be deleted: it is not there.
            (ConfigOp::Delete, _) => drop(wanted.remove(key)),
            (ConfigOp::Set, Some(value)) if value.len() > LONGEST => {
                let message = format!("{key} is of at most {LONGEST} bytes");
                return Err((codes::INVALID_CONFIG, message));
            }
            (ConfigOp::Set, Some(value)) => drop(wanted.insert(key.clone(), value.clone())),
            (ConfigOp::Set, None) => {
                return Err((codes::INVALID_REQUEST, format!("{key} has no value")));
            }
            (ConfigOp::Append | ConfigOp::Subtract, _) => {
                let message = format!(
                    "{key} is set and deleted as a whole: nothing can be added to or taken from it"
                );
                return Err((codes::INVALID_CONFIG, message));
            }
        }
    }
    Ok(wanted)
}
