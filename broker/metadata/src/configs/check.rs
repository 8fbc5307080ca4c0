//! Judging values.

use super::{ConfigError, Kind, Support, TOPIC_KEYS, TopicKey, find};
use crate::broker_config::BrokerConfig;
use std::collections::BTreeMap;

/// Whether topics may have `name=value`.
pub fn validate(name: &str, value: &str) -> Result<&'static TopicKey, ConfigError> {
    let key = find(name).ok_or_else(|| ConfigError::Unknown(name.to_owned()))?;
    well_formed(key.kind, value).map_err(|reason| ConfigError::Invalid {
        key: key.name,
        value: value.to_owned(),
        reason,
    })?;
    let (allowed, reason) = match key.support {
        Support::Full => return Ok(key),
        Support::Only(values, reason) => (values.contains(&value.trim()), reason),
        Support::DefaultOnly(reason) => (key.default == Some(value.trim()), reason),
    };
    if allowed {
        return Ok(key);
    }
    Err(ConfigError::Unsupported {
        key: key.name,
        value: value.to_owned(),
        reason,
    })
}

/// The form in which a valid value is kept, so that whoever reads it need not be lenient.
pub fn normalize(key: &TopicKey, value: &str) -> String {
    match key.kind {
        Kind::Boolean => value.trim().to_ascii_lowercase(),
        Kind::List(_) => {
            let parts: Vec<&str> = value.split(',').map(str::trim).collect();
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
        Kind::List(values) => value
            .split(',')
            .try_for_each(|part| choice(values, part.trim())),
        Kind::Replicas => Ok(()),
    }
}

fn choice(values: &[&str], value: &str) -> Result<(), String> {
    if values.contains(&value) {
        return Ok(());
    }
    Err(format!("Value must be one of {}", values.join(", ")))
}
