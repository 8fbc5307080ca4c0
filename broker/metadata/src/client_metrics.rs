//! Kafka's keys for subscriptions to what clients measure (KIP-714): types, defaults, documentation.
//!
//! Promises: a subscription that is kept is one that Kafka would keep. Nothing is collected by it: as in a Kafka
//! without a plugin that receives them, no client is asked for its metrics.

use std::collections::BTreeMap;

/// How often a client is to push.
pub const INTERVAL_MS: &str = "interval.ms";
/// Which clients are meant.
pub const MATCH: &str = "match";
/// Prefixes of the metrics' names.
pub const METRICS: &str = "metrics";

/// The shortest and the longest interval, in milliseconds.
const INTERVALS: std::ops::RangeInclusive<i32> = 100..=3_600_000;

/// What a client can be told by.
const SELECTORS: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// A key as it is documented and described to clients.
#[derive(Clone, Copy, Debug)]
pub struct MetricsKey {
    pub name: &'static str,
    pub default: &'static str,
    /// Or else it is a 32-bit integer.
    pub is_list: bool,
    pub doc: &'static str,
}

/// All of them.
pub const METRICS_KEYS: &[MetricsKey] = &[
    MetricsKey {
        name: INTERVAL_MS,
        default: "300000",
        is_list: false,
        doc: "How often a client is to push its metrics, in milliseconds.",
    },
    MetricsKey {
        name: MATCH,
        default: "",
        is_list: true,
        doc: "Which clients are meant, as selector=pattern with commas between; all, if there is none.",
    },
    MetricsKey {
        name: METRICS,
        default: "",
        is_list: true,
        doc: "Prefixes of the names of the metrics that are wanted; * for all.",
    },
];

/// Why a subscription was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricsConfigError {
    #[error("Unknown client metrics configuration: {0}")]
    Unknown(String),
    #[error("Invalid value {0:?} for configuration {INTERVAL_MS}: Not a number of type INT")]
    NoNumber(String),
    #[error(
        "Invalid value {0} for {INTERVAL_MS}, interval must be between {min} and {max} (1 hour)",
        min = INTERVALS.start(), max = INTERVALS.end()
    )]
    Interval(i32),
    #[error(
        "Illegal client matching pattern: {pattern}; it is SELECTOR=PATTERN, with a selector of {selectors}",
        selectors = SELECTORS.join(", ")
    )]
    Pattern { pattern: String },
}

/// The key of that name.
pub fn find(name: &str) -> Result<&'static MetricsKey, MetricsConfigError> {
    let found = METRICS_KEYS.iter().find(|key| key.name == name);
    found.ok_or_else(|| MetricsConfigError::Unknown(name.to_owned()))
}

/// Whether `values` are a subscription; as they are kept then.
pub fn validate(
    values: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, MetricsConfigError> {
    let judged = values.iter().map(|(name, value)| {
        let key = find(name)?;
        if !key.is_list {
            return Ok((name.clone(), interval(value)?.to_string()));
        }
        let parts = parts(value);
        if key.name == MATCH {
            parts.iter().try_for_each(|part| selector(part))?;
        }
        Ok((name.clone(), parts.join(",")))
    });
    judged.collect()
}

/// The patterns of a `match`, each of which is a regular expression.
pub fn patterns(value: &str) -> Vec<&str> {
    let sides = parts(value).into_iter().map(|part| part.split_once('='));
    sides.flatten().map(|(_, pattern)| pattern.trim()).collect()
}

fn interval(value: &str) -> Result<i32, MetricsConfigError> {
    let number = value.trim().parse();
    let number = number.map_err(|_| MetricsConfigError::NoNumber(value.to_owned()))?;
    match INTERVALS.contains(&number) {
        true => Ok(number),
        false => Err(MetricsConfigError::Interval(number)),
    }
}

/// Each once, as in Kafka's lists.
fn parts(value: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    for part in value.split(',').map(str::trim) {
        if !value.trim().is_empty() && !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

fn selector(part: &str) -> Result<(), MetricsConfigError> {
    let sides: Vec<&str> = part.split('=').map(str::trim).collect();
    match sides.as_slice() {
        [selector, pattern] if SELECTORS.contains(selector) && !pattern.is_empty() => Ok(()),
        _ => Err(MetricsConfigError::Pattern {
            pattern: part.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(key: &str, value: &str) -> Result<String, MetricsConfigError> {
        let values = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        validate(&values).map(|kept| kept[key].clone())
    }

    #[test]
    fn what_is_kept_is_a_subscription_in_one_form() {
        for (key, value, kept) in [
            (INTERVAL_MS, " 500 ", "500"),
            (INTERVAL_MS, "100", "100"),
            (INTERVAL_MS, "3600000", "3600000"),
            (METRICS, "a, b,a", "a,b"),
            (METRICS, "*", "*"),
            (METRICS, "", ""),
            (
                MATCH,
                "client_id = a , client_software_name=b.*",
                "client_id = a,client_software_name=b.*",
            ),
        ] {
            assert_eq!(judge(key, value).as_deref(), Ok(kept));
        }
        assert_eq!(
            patterns("client_id = a.*, client_source_port=9"),
            ["a.*", "9"]
        );
    }

    #[test]
    fn what_is_no_subscription_is_refused_with_the_reason() {
        for (key, value, why) in [
            (INTERVAL_MS, "99", "between 100 and 3600000"),
            (INTERVAL_MS, "3600001", "between 100 and 3600000"),
            (INTERVAL_MS, "x", "Not a number"),
            (MATCH, "client_id", "pattern: client_id;"),
            (MATCH, "client_id=a=b", "pattern: client_id=a=b;"),
            (MATCH, "client_id=a,", "pattern: ;"),
            (MATCH, "color=red", "selector of client_instance_id,"),
            ("no.such.key", "1", "configuration: no.such.key"),
        ] {
            let error = judge(key, value).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
