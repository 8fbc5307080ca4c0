//! Configurations of groups and of subscriptions to client metrics.

use super::bench::*;
use super::features::raise;
use crate::features::Level;
use crate::group_configs::{HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS};
use crate::image::Image;
use crate::rpc::*;
use std::collections::BTreeMap;

fn group() -> ConfigTarget {
    ConfigTarget::Group("g".to_owned())
}

fn metrics() -> ConfigTarget {
    ConfigTarget::ClientMetrics("m".to_owned())
}

fn set(key: &str, value: &str) -> ConfigChange {
    change(key, ConfigOp::Set, Some(value))
}

fn change(key: &str, op: ConfigOp, value: Option<&str>) -> ConfigChange {
    ConfigChange {
        key: key.to_owned(),
        op,
        value: value.map(str::to_owned),
    }
}

fn changes(target: ConfigTarget, changes: &[ConfigChange]) -> ConfigChanges {
    ConfigChanges {
        target,
        replace_all: false,
        changes: changes.to_vec(),
    }
}

fn ask(bench: &mut Bench, resource: ConfigChanges, validate_only: bool) -> Outcome {
    let request = AdminRequest::AlterConfigs {
        resources: vec![resource],
        validate_only,
    };
    match bench.admin(request) {
        AdminResponse::AlterConfigs(outcomes) => outcomes[0].1.clone(),
        other => panic!("{other:?}"),
    }
}

fn of_the_group(image: &Image) -> BTreeMap<String, String> {
    image.group_configs.get("g").cloned().unwrap_or_default()
}

#[test]
fn a_groups_configuration_outlives_the_controller_and_goes_with_its_last_value() {
    let mut bench = Bench::new(2);
    let both = [
        set(SESSION_TIMEOUT_MS, "50000"),
        set(HEARTBEAT_INTERVAL_MS, " 6000 "),
    ];
    assert!(ask(&mut bench, changes(group(), &both), true).is_ok());
    assert!(bench.image.group_configs.is_empty(), "only asked whether");
    assert!(ask(&mut bench, changes(group(), &both), false).is_ok());
    bench.take_over();
    let kept = [
        (SESSION_TIMEOUT_MS, "50000"),
        (HEARTBEAT_INTERVAL_MS, "6000"),
    ];
    let kept = kept.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(of_the_group(&bench.image), BTreeMap::from(kept));
    // Kafka's older way: what is not named goes.
    let mut only = changes(group(), &both[..1]);
    only.replace_all = true;
    assert!(ask(&mut bench, only, false).is_ok());
    assert_eq!(of_the_group(&bench.image).len(), 1);
    let gone = [
        change(SESSION_TIMEOUT_MS, ConfigOp::Delete, None),
        change("no.such.key", ConfigOp::Delete, None),
    ];
    assert!(ask(&mut bench, changes(group(), &gone), false).is_ok());
    assert!(bench.image.group_configs.is_empty());
}

#[test]
fn a_subscription_to_metrics_is_kept_in_one_form() {
    let mut bench = Bench::new(1);
    let values = [set("interval.ms", "500"), set("metrics", "a, b")];
    assert!(ask(&mut bench, changes(metrics(), &values), false).is_ok());
    let kept = &bench.image.client_metrics["m"];
    assert_eq!((&*kept["interval.ms"], &*kept["metrics"]), ("500", "a,b"));
}

#[test]
fn what_nobody_would_honour_is_refused_with_kafkas_code_and_changes_nothing() {
    let mut bench = Bench::new(1);
    let append = |key| change(key, ConfigOp::Append, Some("1"));
    let fine = set(SESSION_TIMEOUT_MS, "50000");
    let long = "x".repeat(5_000);
    let nameless = ConfigTarget::Group(String::new());
    let (config, request) = (codes::INVALID_CONFIG, codes::INVALID_REQUEST);
    for (target, refused, code) in [
        (group(), set(SESSION_TIMEOUT_MS, "1000"), config),
        (group(), set("share.auto.offset.reset", "earliest"), config),
        (group(), set("no.such.key", "1"), config),
        (group(), append(HEARTBEAT_INTERVAL_MS), config),
        (
            group(),
            change(HEARTBEAT_INTERVAL_MS, ConfigOp::Set, None),
            request,
        ),
        (nameless, set(HEARTBEAT_INTERVAL_MS, "6000"), request),
        (
            ConfigTarget::Group(long.clone()),
            set(HEARTBEAT_INTERVAL_MS, "6000"),
            request,
        ),
        (metrics(), set("interval.ms", "5"), request),
        (metrics(), set("interval.ms", "x"), config),
        (metrics(), set("match", "color=red"), config),
        (metrics(), set("metrics", &long), config),
        (metrics(), append("metrics"), config),
        (metrics(), set("no.such.key", "1"), request),
    ] {
        // All or none.
        let all = match &target {
            ConfigTarget::Group(_) if refused.key != fine.key => vec![fine.clone(), refused],
            _ => vec![refused],
        };
        let outcome = ask(&mut bench, changes(target, &all), false);
        assert_eq!(outcome.code, code, "{all:?}: {:?}", outcome.message);
        assert!(bench.image.group_configs.is_empty() && bench.image.client_metrics.is_empty());
    }
    let twice = [fine.clone(), fine];
    let outcome = ask(&mut bench, changes(group(), &twice), false);
    assert_eq!(outcome.code, codes::INVALID_REQUEST);
}

#[test]
fn they_wait_for_their_level_which_the_refusal_names() {
    let mut bench = Bench::at_the_first_level(2, settings());
    let wishes = [
        changes(group(), &[set(SESSION_TIMEOUT_MS, "50000")]),
        changes(metrics(), &[set("interval.ms", "500")]),
    ];
    for level in [None, Some(Level::RECORDED)] {
        if let Some(level) = level {
            assert!(raise(&mut bench, level).is_ok());
        }
        for wish in wishes.clone() {
            let refused = ask(&mut bench, wish, false);
            assert_eq!(refused.code, codes::UNSUPPORTED_VERSION);
            let message = refused.message.unwrap();
            let way = "kafka-features.sh upgrade --feature metadata.version=4";
            assert!(message.contains("need metadata.version 4"), "{message}");
            assert!(message.contains(way), "{message}");
        }
    }
    assert!(raise(&mut bench, Level::NEWEST).is_ok());
    for wish in wishes {
        assert!(ask(&mut bench, wish, false).is_ok());
    }
}
