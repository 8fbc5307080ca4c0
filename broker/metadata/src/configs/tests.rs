//! What topic configurations promise.

use super::*;
use crate::broker_config::BrokerConfig;
use std::collections::BTreeSet;

#[test]
fn every_default_is_valid_and_supported() {
    for key in TOPIC_KEYS {
        let default = key.default.expect(key.name);
        assert!(
            validate(key.name, default).is_ok(),
            "{}={default}",
            key.name
        );
    }
}

#[test]
fn names_are_unique_and_in_order() {
    let names: Vec<_> = TOPIC_KEYS.iter().map(|k| k.name).collect();
    let sorted: Vec<_> = names
        .iter()
        .copied()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(names, sorted);
}

#[test]
fn defaults_are_those_of_the_broker_keys() {
    let broker = BrokerConfig::default();
    for key in TOPIC_KEYS {
        if let Some(name) = key.broker_key {
            assert_eq!(
                broker.get(name).as_deref(),
                key.default,
                "{name} and {}",
                key.name
            );
        }
    }
}

#[test]
fn what_a_broker_file_changes_becomes_the_default() {
    let mut config = BrokerConfig::default();
    config.set("min.insync.replicas", "2").unwrap();
    config.set("log.segment.bytes", "2097152").unwrap();
    let defaults = defaults_from(&config);
    assert_eq!(defaults.len(), 2);
    assert_eq!(defaults[MIN_INSYNC_REPLICAS], "2");
    assert_eq!(defaults["segment.bytes"], "2097152");
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = validate("retention.hours", "1").unwrap_err();
    assert!(error.to_string().contains("retention.hours"));
}

#[test]
fn a_value_out_of_range_is_refused() {
    for (key, value) in [
        ("retention.ms", "-2"),
        ("retention.ms", "soon"),
        ("min.insync.replicas", "0"),
        ("max.message.bytes", "4294967296"),
        ("cleanup.policy", "burn"),
        ("unclean.leader.election.enable", "maybe"),
        ("min.cleanable.dirty.ratio", "NaN"),
        ("compression.type", "rar"),
        ("compression.gzip.level", "0"),
        ("compression.zstd.level", "23"),
        ("cleanup.policy", "delete,"),
    ] {
        let error = validate(key, value).unwrap_err();
        assert!(
            matches!(error, ConfigError::Invalid { .. }),
            "{key}={value}: {error}"
        );
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn what_is_absent_is_refused_with_the_reason() {
    for (key, value) in [
        ("compression.lz4.level", "12"),
        ("remote.storage.enable", "true"),
        ("local.retention.ms", "5"),
    ] {
        let error = validate(key, value).unwrap_err();
        assert!(
            matches!(error, ConfigError::Unsupported { .. }),
            "{key}={value}: {error}"
        );
        assert!(
            error.to_string().contains(&format!("{key}={value}")),
            "{error}"
        );
    }
}

#[test]
fn names_of_other_releases_are_refused_with_the_way_out() {
    for (name, reason) in NO_TOPIC_KEYS {
        let error = validate(name, "1").unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(reason), "{error}");
    }
}

#[test]
fn a_minimal_lag_above_the_maximal_one_is_refused() {
    let values = |min, max| {
        move |key: &str| match key {
            "min.compaction.lag.ms" => Some(min),
            "max.compaction.lag.ms" => Some(max),
            _ => None,
        }
    };
    assert!(check_together(values("5", "5")).is_ok());
    let error = check_together(values("6", "5")).unwrap_err().to_string();
    assert!(error.contains("min.compaction.lag.ms"), "{error}");
}

#[test]
fn compaction_is_supported_alone_and_beside_deletion_in_either_order() {
    for policy in ["compact", "delete", "compact,delete", "delete,compact", ""] {
        assert!(validate("cleanup.policy", policy).is_ok(), "{policy}");
    }
    for (key, value) in [
        ("delete.retention.ms", "0"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("min.compaction.lag.ms", "60000"),
        ("max.compaction.lag.ms", "120000"),
    ] {
        assert!(validate(key, value).is_ok(), "{key}");
    }
}

#[test]
fn values_are_kept_in_one_form() {
    let kept = |name: &str, value: &str| normalize(validate(name, value).unwrap(), value);
    assert_eq!(kept(MIN_INSYNC_REPLICAS, " 2 "), "2");
    assert_eq!(kept(UNCLEAN_LEADER_ELECTION_ENABLE, "TRUE"), "true");
    assert_eq!(kept("cleanup.policy", " delete"), "delete");
    assert_eq!(kept("cleanup.policy", "compact, delete"), "compact,delete");
    assert_eq!(kept("cleanup.policy", " "), "");
}
