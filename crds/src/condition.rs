//! Conditions in the standard shape, with transition times that move only when the status does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// An object's conditions while its next status is put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    list: Vec<Condition>,
}

impl Conditions {
    /// Starts from what the object carries now.
    pub fn from_existing(existing: &[Condition]) -> Self {
        Self {
            list: existing.to_vec(),
        }
    }

    /// Sets one condition. Its transition time stays unless the status changed.
    pub fn set(
        &mut self,
        kind: &str,
        status: bool,
        reason: &str,
        message: impl Into<String>,
        generation: Option<i64>,
        now: Time,
    ) {
        let status = if status { "True" } else { "False" };
        // The schema bounds messages; one that names a thousand pods must not make the write fail.
        let message: String = message.into().chars().take(2000).collect();
        let since = self
            .list
            .iter()
            .find(|c| c.type_ == kind && c.status == status)
            .map_or(now, |c| c.last_transition_time.clone());
        let condition = Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: since,
        };
        match self.list.iter_mut().find(|c| c.type_ == kind) {
            Some(old) => *old = condition,
            None => self.list.push(condition),
        }
    }

    /// Drops a condition that no longer applies.
    pub fn remove(&mut self, kind: &str) {
        self.list.retain(|c| c.type_ != kind);
    }

    /// The condition of this kind.
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        self.list.iter().find(|c| c.type_ == kind)
    }

    /// The finished list.
    pub fn into_vec(self) -> Vec<Condition> {
        self.list
    }
}

/// The schema of a condition; k8s-openapi's type has none of its own in this build.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[allow(dead_code)]
pub(crate) struct ConditionSchema {
    /// Which aspect of the object this is about.
    #[serde(rename = "type")]
    #[schemars(length(max = 64))]
    type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(max = 16))]
    status: String,
    /// Why, in one word.
    #[schemars(length(max = 128))]
    reason: String,
    /// Why, for people.
    #[schemars(length(max = 4096))]
    message: String,
    /// The generation of the spec that this is about.
    observed_generation: Option<i64>,
    /// When the status last changed.
    #[schemars(extend("format" = "date-time"))]
    last_transition_time: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Conditions::default();
        conditions.set("Ready", false, "Starting", "no broker yet", Some(1), at(1));
        conditions.set("Ready", false, "Starting", "one broker", Some(2), at(2));
        assert_eq!(conditions.get("Ready").unwrap().last_transition_time, at(1));
        assert_eq!(
            conditions.get("Ready").unwrap().observed_generation,
            Some(2)
        );
        conditions.set("Ready", true, "Ready", "", Some(2), at(3));
        assert_eq!(conditions.get("Ready").unwrap().last_transition_time, at(3));
    }
}
