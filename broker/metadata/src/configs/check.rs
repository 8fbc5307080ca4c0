//! Judging values.

use super::{ConfigError, Kind, NO_TOPIC_KEYS, Support, TOPIC_KEYS, TopicKey, find};
use crate::broker_config::BrokerConfig;
use std::collections::BTreeMap;

/// Whether topics may have `name=value`.
pub fn validate(name: &str, value: &str) -> Result<&'static TopicKey, ConfigError> {
    let key = find(name).ok_or_else(|| unknown(name))?;
    well_formed(key.kind, value).map_err(|reason| ConfigError::Invalid {
        key: key.name,
        value: value.to_owned(),
        reason,
    })?;
    match key.support {
        Support::DefaultOnly(reason) if key.default != Some(value.trim()) => {
            Err(ConfigError::Unsupported {
                key: key.name,
                value: value.to_owned(),
                reason,
            })
        }
        Support::Full | Support::DefaultOnly(_) => Ok(key),
    }
}

/// Why there is no topic key of that name.
pub fn unknown(name: &str) -> ConfigError {
    match NO_TOPIC_KEYS.iter().find(|(key, _)| *key == name) {
        Some((key, reason)) => ConfigError::Absent { key, reason },
        None => ConfigError::Unknown(name.to_owned()),
    }
}

/// Whether valid values may stand together; `value` gives what is in force for each key.
pub fn check_together<S: AsRef<str>>(value: impl Fn(&str) -> Option<S>) -> Result<(), ConfigError> {
    const MIN: &str = "min.compaction.lag.ms";
    const MAX: &str = "max.compaction.lag.ms";
    let lag = |key| value(key).and_then(|text| text.as_ref().trim().parse::<i64>().ok());
    match (lag(MIN), lag(MAX)) {
        (Some(min), Some(max)) if min > max => Err(ConfigError::Invalid {
            key: MIN,
            value: min.to_string(),
            reason: format!("It must not be above {MAX}, which is {max}"),
        }),
        _ => Ok(()),
    }
}

/// The form in which a valid value is kept, so that whoever reads it need not be lenient.
pub fn normalize(key: &TopicKey, value: &str) -> String {
    match key.kind {
        Kind::Boolean => value.trim().to_ascii_lowercase(),
        Kind::List(_) => {
            let parts: Vec<&str> = parts(value).collect();
            parts.join(",")
        }
        _ => value.trim().to_owned(),
    }
}

/// All of `configs`, normalized, if a topic may have them; the first error names its key.
pub fn validate_all(
    configs: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, ConfigError> {
    configs
        .iter()
        .map(|(name, value)| {
            let key = validate(name, value)?;
            Ok((name.clone(), normalize(key, value)))
        })
        .collect()
}

/// The topic keys whose default a broker's file changes, with those values.
pub fn defaults_from(config: &BrokerConfig) -> BTreeMap<String, String> {
    let kafkas = BrokerConfig::default();
    TOPIC_KEYS
        .iter()
        .filter_map(|key| {
            let value = config.get(key.broker_key?)?;
            let changed = kafkas.get(key.broker_key?).as_ref() != Some(&value);
            changed.then(|| (key.name.to_owned(), value))
        })
        .collect()
}

fn well_formed(kind: Kind, value: &str) -> Result<(), String> {
    let value = value.trim();
    match kind {
        Kind::Boolean => choice(&["true", "false"], &value.to_ascii_lowercase()),
        Kind::Int { min, max } | Kind::Long { min, max } => {
            let what = if matches!(kind, Kind::Int { .. }) {
                "a 32-bit integer"
            } else {
                "a 64-bit integer"
            };
            let number: i64 = value.parse().map_err(|_| format!("Not {what}"))?;
            if number < min {
                Err(format!("Value must be at least {min}"))
            } else if number > max {
                Err(format!("Value must be no more than {max}"))
            } else {
                Ok(())
            }
        }
        Kind::Double { min, max } => match value.parse::<f64>() {
            Ok(number) if number >= min && number <= max => Ok(()),
            _ => Err(format!("Value must be a number from {min} to {max}")),
        },
        Kind::Choice(values) => choice(values, value),
        Kind::GzipLevel => match value.parse() {
            Ok(-1 | 1..=9) => Ok(()),
            _ => Err("Value must be -1 or from 1 to 9".to_owned()),
        },
        // An empty list has no parts, and "a," has an empty one.
        Kind::List(values) => parts(value).try_for_each(|part| choice(values, part)),
        Kind::Replicas if value.trim() == "*" => Ok(()),
        Kind::Replicas => parts(value).try_for_each(pair),
    }
}

/// The parts of a list; none of an empty one.
fn parts(value: &str) -> impl Iterator<Item = &str> {
    let empty = value.trim().is_empty();
    value.split(',').map(str::trim).skip(usize::from(empty))
}

/// `partition:broker`.
fn pair(text: &str) -> Result<(), String> {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i32>().is_ok();
    match text.split_once(':') {
        Some((partition, broker)) if number(partition) && number(broker) => Ok(()),
        _ => Err(format!(
            "{text:?} is no pair of partition and broker, such as 0:1"
        )),
    }
}

fn choice(values: &[&str], value: &str) -> Result<(), String> {
    if values.contains(&value) {
        return Ok(());
    }
    Err(format!("Value must be one of {}", values.join(", ")))
}
