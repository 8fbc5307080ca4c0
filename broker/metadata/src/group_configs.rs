//! Kafka's keys for single groups: types, bounds, documentation, and what of them is honoured.
//!
//! Promises: every group key of Apache Kafka 4.3 is known here; a value is either within the brokers' bounds and
//! honoured by the group's coordinator, or refused with a message that names the key and the reason.

use crate::broker_config::BrokerConfig;
use std::collections::BTreeMap;

/// How long a member of the newer protocol may be silent.
pub const SESSION_TIMEOUT_MS: &str = "consumer.session.timeout.ms";
/// How often members of the newer protocol are to heartbeat.
pub const HEARTBEAT_INTERVAL_MS: &str = "consumer.heartbeat.interval.ms";

/// A group key as it is documented and described to clients. All are 32-bit integers.
#[derive(Clone, Copy, Debug)]
pub struct GroupKey {
    pub name: &'static str,
    /// The broker keys of its default, its smallest and its largest value.
    pub default: &'static str,
    pub min: &'static str,
    pub max: &'static str,
    pub doc: &'static str,
}

/// What a group may be given.
pub const GROUP_KEYS: &[GroupKey] = &[
    GroupKey {
        name: HEARTBEAT_INTERVAL_MS,
        default: "group.consumer.heartbeat.interval.ms",
        min: "group.consumer.min.heartbeat.interval.ms",
        max: "group.consumer.max.heartbeat.interval.ms",
        doc: "How often members of the group, if it uses the newer protocol, are to heartbeat, in milliseconds.",
    },
    GroupKey {
        name: SESSION_TIMEOUT_MS,
        default: "group.consumer.session.timeout.ms",
        min: "group.consumer.min.session.timeout.ms",
        max: "group.consumer.max.session.timeout.ms",
        doc: "How long a member of the group, if it uses the newer protocol, may be silent, in milliseconds.",
    },
];

const NO_SHARE: &str = "this release has no share groups";
const NO_STREAMS: &str = "this release has no groups of Kafka Streams' own protocol";

/// Kafka's other group keys, and why there are none such here.
pub const NO_GROUP_KEYS: &[(&str, &str)] = &[
    (
        "consumer.assignment.interval.ms",
        "a new target is assigned at once",
    ),
    (
        "consumer.assignor.offload.enable",
        "assignors run where the group is kept",
    ),
    ("share.assignment.interval.ms", NO_SHARE),
    ("share.assignor.offload.enable", NO_SHARE),
    ("share.auto.offset.reset", NO_SHARE),
    ("share.delivery.count.limit", NO_SHARE),
    ("share.heartbeat.interval.ms", NO_SHARE),
    ("share.isolation.level", NO_SHARE),
    ("share.partition.max.record.locks", NO_SHARE),
    ("share.record.lock.duration.ms", NO_SHARE),
    ("share.renew.acknowledge.enable", NO_SHARE),
    ("share.session.timeout.ms", NO_SHARE),
    ("streams.assignment.interval.ms", NO_STREAMS),
    ("streams.assignor.offload.enable", NO_STREAMS),
    ("streams.heartbeat.interval.ms", NO_STREAMS),
    ("streams.initial.rebalance.delay.ms", NO_STREAMS),
    ("streams.num.standby.replicas", NO_STREAMS),
    ("streams.session.timeout.ms", NO_STREAMS),
];

/// What a group has by default, and between which bounds it may have something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub default: i32,
    pub min: i32,
    pub max: i32,
}

impl Limits {
    /// What is in force where `own` is set: a value that was set within other bounds counts as the nearest that is
    /// within these.
    pub fn in_force(self, own: Option<&str>) -> i32 {
        let own: Option<i32> = own.and_then(|text| text.parse().ok());
        // Unlike `clamp` it bears bounds that cross.
        own.map_or(self.default, |own| own.max(self.min).min(self.max))
    }
}

/// The same for all keys, from a broker's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupDefaults {
    pub session_timeout_ms: Limits,
    pub heartbeat_interval_ms: Limits,
}

impl GroupDefaults {
    pub fn from_config(config: &BrokerConfig) -> Self {
        Self {
            session_timeout_ms: Limits {
                default: config.group_consumer_session_timeout_ms,
                min: config.group_consumer_min_session_timeout_ms,
                max: config.group_consumer_max_session_timeout_ms,
            },
            heartbeat_interval_ms: Limits {
                default: config.group_consumer_heartbeat_interval_ms,
                min: config.group_consumer_min_heartbeat_interval_ms,
                max: config.group_consumer_max_heartbeat_interval_ms,
            },
        }
    }

    fn of(&self, key: &GroupKey) -> Limits {
        match key.name {
            SESSION_TIMEOUT_MS => self.session_timeout_ms,
            _ => self.heartbeat_interval_ms,
        }
    }
}

/// Why a group's configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupConfigError {
    #[error("Unknown group config name: {0}")]
    Unknown(String),
    #[error("{key} is not supported: {reason}")]
    Absent {
        key: &'static str,
        reason: &'static str,
    },
    #[error("Invalid value {value:?} for configuration {key}: {reason}")]
    Invalid {
        key: &'static str,
        value: String,
        reason: &'static str,
    },
    #[error("{key} must be greater than or equal to {bound}, which is {at}")]
    Below {
        key: &'static str,
        bound: &'static str,
        at: i32,
    },
    #[error("{key} must be less than or equal to {bound}, which is {at}")]
    Above {
        key: &'static str,
        bound: &'static str,
        at: i32,
    },
    #[error(
        "{SESSION_TIMEOUT_MS} must be greater than {HEARTBEAT_INTERVAL_MS}, and they would be {session} and {heartbeat}"
    )]
    Together { session: i32, heartbeat: i32 },
}

/// The key of that name, if a group may have it.
pub fn find(name: &str) -> Result<&'static GroupKey, GroupConfigError> {
    if let Some(key) = GROUP_KEYS.iter().find(|key| key.name == name) {
        return Ok(key);
    }
    match NO_GROUP_KEYS.iter().find(|(key, _)| *key == name) {
        Some((key, reason)) => Err(GroupConfigError::Absent { key, reason }),
        None => Err(GroupConfigError::Unknown(name.to_owned())),
    }
}

/// Whether a group may have all of `values` together; as they are kept then.
pub fn validate(
    values: &BTreeMap<String, String>,
    defaults: &GroupDefaults,
) -> Result<BTreeMap<String, String>, GroupConfigError> {
    let mut kept = BTreeMap::new();
    for (name, value) in values {
        let key = find(name)?;
        let number = number(key, value, defaults.of(key))?;
        kept.insert(name.clone(), number.to_string());
    }
    let in_force = |limits: Limits, name| limits.in_force(kept.get(name).map(String::as_str));
    let session = in_force(defaults.session_timeout_ms, SESSION_TIMEOUT_MS);
    let heartbeat = in_force(defaults.heartbeat_interval_ms, HEARTBEAT_INTERVAL_MS);
    if !kept.is_empty() && session <= heartbeat {
        return Err(GroupConfigError::Together { session, heartbeat });
    }
    Ok(kept)
}

fn number(key: &GroupKey, value: &str, limits: Limits) -> Result<i32, GroupConfigError> {
    let invalid = |reason| GroupConfigError::Invalid {
        key: key.name,
        value: value.to_owned(),
        reason,
    };
    let number: i32 = value
        .trim()
        .parse()
        .map_err(|_| invalid("Not a number of type INT"))?;
    if number < 1 {
        return Err(invalid("Value must be at least 1"));
    }
    let (key, Limits { min, max, .. }) = (key, limits);
    match number {
        _ if number < min => Err(GroupConfigError::Below {
            key: key.name,
            bound: key.min,
            at: min,
        }),
        _ if number > max => Err(GroupConfigError::Above {
            key: key.name,
            bound: key.max,
            at: max,
        }),
        _ => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker_config::BROKER_KEYS;

    fn defaults(change: impl FnOnce(&mut BrokerConfig)) -> GroupDefaults {
        let mut config = BrokerConfig::default();
        change(&mut config);
        GroupDefaults::from_config(&config)
    }

    fn judge(
        values: &[(&str, &str)],
        defaults: &GroupDefaults,
    ) -> Result<BTreeMap<String, String>, GroupConfigError> {
        let values = values.iter();
        let values = values.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        validate(&values.collect(), defaults)
    }

    #[test]
    fn a_value_outside_the_brokers_bounds_is_refused_with_the_bound() {
        let kafkas = defaults(|_| {});
        for (key, value, why) in [
            (
                SESSION_TIMEOUT_MS,
                "44999",
                "equal to group.consumer.min.session.timeout.ms, which is 45000",
            ),
            (
                SESSION_TIMEOUT_MS,
                "60001",
                "equal to group.consumer.max.session.timeout.ms, which is 60000",
            ),
            (
                HEARTBEAT_INTERVAL_MS,
                "4999",
                "equal to group.consumer.min.heartbeat.interval.ms, which is 5000",
            ),
            (
                HEARTBEAT_INTERVAL_MS,
                "15001",
                "equal to group.consumer.max.heartbeat.interval.ms, which is 15000",
            ),
            (SESSION_TIMEOUT_MS, "x", "Not a number"),
            (SESSION_TIMEOUT_MS, "", "Not a number"),
            (SESSION_TIMEOUT_MS, "0", "at least 1"),
            ("share.auto.offset.reset", "earliest", "no share groups"),
            ("streams.num.standby.replicas", "1", "Kafka Streams"),
            ("consumer.assignment.interval.ms", "1000", "at once"),
            ("no.such.key", "1", "Unknown group config name: no.such.key"),
        ] {
            let error = judge(&[(key, value)], &kafkas).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(key), "{error}");
        }
        let kept = judge(
            &[
                (SESSION_TIMEOUT_MS, " 50000 "),
                (HEARTBEAT_INTERVAL_MS, "5000"),
            ],
            &kafkas,
        );
        assert_eq!(kept.unwrap()[SESSION_TIMEOUT_MS], "50000");
    }

    #[test]
    fn a_session_must_outlast_the_interval_that_is_in_force_with_it() {
        let close = defaults(|config| {
            config.group_consumer_min_session_timeout_ms = 1_000;
            config.group_consumer_min_heartbeat_interval_ms = 1_000;
        });
        let refused = judge(&[(SESSION_TIMEOUT_MS, "5000")], &close).unwrap_err();
        let expected = GroupConfigError::Together {
            session: 5_000,
            heartbeat: 5_000,
        };
        assert_eq!(refused, expected);
        let both = [
            (SESSION_TIMEOUT_MS, "5000"),
            (HEARTBEAT_INTERVAL_MS, "4999"),
        ];
        assert!(judge(&both, &close).is_ok());
    }

    #[test]
    fn what_was_set_within_other_bounds_counts_as_the_nearest_within_these() {
        let limits = Limits {
            default: 3,
            min: 10,
            max: 20,
        };
        let cases = [
            (None, 3),
            (Some("15"), 15),
            (Some("5"), 10),
            (Some("30"), 20),
            (Some("x"), 3),
        ];
        for (own, expected) in cases {
            assert_eq!(limits.in_force(own), expected, "{own:?}");
        }
        let crossed = Limits {
            default: 3,
            min: 20,
            max: 10,
        };
        assert_eq!(crossed.in_force(Some("15")), 10);
    }

    #[test]
    fn every_key_has_its_broker_keys() {
        for key in GROUP_KEYS {
            for name in [key.default, key.min, key.max] {
                assert!(BROKER_KEYS.iter().any(|known| known.name == name), "{name}");
            }
        }
    }
}
