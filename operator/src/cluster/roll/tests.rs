//! The table of decisions.

use super::super::facts::tests::{add_topic, image};
use super::*;
use leasehold_metadata::image::{Claim, ClaimId};
use leasehold_types::{BrokerId, ControllerEpoch, Incarnation, Seq};
use std::sync::Arc;

/// Pods in a row: `"0"` is of today and ready; `o` = old, `u` = not ready, `x` = does not start, `t` = terminating,
/// `a` = asked for, `y` = ready for a second only.
pub(super) fn pods(text: &str) -> Vec<PodFacts> {
    let one = |word: &str| {
        let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let has = |letter: char| word.contains(letter);
        let ready = !has('u') && !has('x');
        let seconds = if has('y') { 1 } else { 100 };
        PodFacts {
            name: format!("demo-broker-{digits}"),
            uid: format!("uid-{digits}"),
            ordinal: digits.parse().unwrap(),
            revision: Some(if has('o') { "o.r.c.t" } else { "n.r.c.t" }.to_owned()),
            asked: has('a'),
            terminating: has('t'),
            ready_for: ready.then(|| Duration::from_secs(seconds)),
            trouble: has('x').then(|| "ImagePullBackOff: no such image".to_owned()),
        }
    };
    text.split_whitespace().map(one).collect()
}

/// A healthy image whose controller is `controller`.
pub(super) fn led_by(controller: i32, brokers: &str) -> Image {
    let mut image = image(brokers);
    image.claims.push_back(Claim {
        epoch: ControllerEpoch(1),
        claim_id: ClaimId(1),
        first_seq: Seq(1),
        broker: BrokerId(controller),
        incarnation: Incarnation(7),
    });
    image
}

fn with_min(image: &mut Image, min: &str) {
    let configs = [("min.insync.replicas".to_owned(), min.to_owned())];
    image.cluster_configs = Arc::new(configs.into());
}

pub(super) const POLICY: Policy = Policy {
    settle: Duration::from_secs(10),
    may_interrupt: false,
    unit: RollingUnit::Broker,
};

fn facts<'a>(pods: &'a [PodFacts], image: &'a Image) -> Facts<'a> {
    Facts {
        pods,
        wanted: "n.r.c.t",
        template_is_current: true,
        brokers: 3,
        image: Some(image),
        under_way: true,
        policy: POLICY,
    }
}

fn show(roll: &Roll) -> String {
    match roll {
        Roll::Done => "done".to_owned(),
        Roll::Restart(restart) => format!("restart {}: {}", restart.uid, restart.cause),
        Roll::Waiting(what) => format!("wait for {what}"),
        Roll::Blocked(why) => format!("blocked: {why}"),
        Roll::Stuck(why) => format!("stuck: {why}"),
    }
}

fn told(pods_text: &str, image: &Image) -> String {
    show(&decide(&facts(&pods(pods_text), image)))
}

#[test]
fn the_table_of_rolling() {
    let mut whole = led_by(1, "0 1 2");
    add_topic(&mut whole, "a", &["012/012/0", "120/120/1"]);
    with_min(&mut whole, "2");
    let cases = [
        ("nothing is old", "0 1 2", "done"),
        (
            "the highest first",
            "0o 1o 2o",
            "restart uid-2: its image changed",
        ),
        (
            "then the others",
            "0o 1o 2",
            "restart uid-0: its image changed",
        ),
        (
            "the controller last",
            "0 1o 2",
            "restart uid-1: its image changed",
        ),
        (
            "one that was asked for",
            "0a 1 2",
            "restart uid-0: it was asked for",
        ),
        (
            "one is on its way out",
            "0o 1o 2t",
            "wait for demo-broker-2 to stop",
        ),
        (
            "one is not there yet",
            "0o 1o",
            "wait for the pod of broker 2",
        ),
        (
            "one is not ready yet",
            "0o 1o 2u",
            "wait for demo-broker-2 to be ready",
        ),
        (
            "one has just come",
            "0o 1o 2y",
            "wait for demo-broker-2 to have been ready for 10 s",
        ),
        (
            "the new one does not start",
            "0o 1o 2x",
            "stuck: demo-broker-2 does not start: ImagePullBackOff: no such image",
        ),
        (
            "an old one that does not start goes at once",
            "0o 1o 2ox",
            "restart uid-2: its image changed",
        ),
        (
            "also when another is away",
            "0t 1o 2ox",
            "restart uid-2: its image changed",
        ),
        (
            "the last one does not start",
            "0 1x 2",
            "stuck: demo-broker-1 does not start: ImagePullBackOff: no such image",
        ),
        (
            "the last one is on its way back",
            "0 1u 2",
            "wait for demo-broker-1 to be ready",
        ),
        ("those that leave are left alone", "0 1 2 3o", "done"),
    ];
    for (what, pods, expected) in cases {
        assert_eq!(told(pods, &whole), expected, "{what}");
    }
}

#[test]
fn a_roll_that_was_not_under_way_does_not_begin_by_waiting() {
    let image = led_by(0, "0 1 2f");
    let pods = pods("0 1 2u");
    let facts = Facts {
        under_way: false,
        ..facts(&pods, &image)
    };
    assert_eq!(decide(&facts), Roll::Done);
}

#[test]
fn nothing_goes_before_the_statefulset_and_the_metadata_are_known() {
    let image = led_by(0, "0 1 2");
    let pods = pods("0o 1o 2o");
    let early = Facts {
        template_is_current: false,
        ..facts(&pods, &image)
    };
    assert!(show(&decide(&early)).contains("StatefulSet"));
    let blind = Facts {
        image: None,
        ..facts(&pods, &image)
    };
    assert!(show(&decide(&blind)).contains("metadata"));
}

#[test]
fn the_next_waits_until_the_former_is_unfenced_and_in_every_isr() {
    let fenced = led_by(1, "0 1 2f");
    assert_eq!(
        told("0o 1o 2", &fenced),
        "wait for demo-broker-2 to join the cluster"
    );
    let mut behind = led_by(1, "0 1 2");
    add_topic(&mut behind, "a", &["012/012/0", "012/01/0"]);
    assert_eq!(
        told("0o 1o 2", &behind),
        "wait for broker 2 to be in sync again for 1 partition (such as a-1)"
    );
    // One that is only on its way to a new broker holds nobody up.
    let mut moving = led_by(1, "0 1 2");
    let id = add_topic(&mut moving, "a", &["012/01/0"]);
    let mut topic = (*moving.topics[&id]).clone();
    Arc::make_mut(&mut topic.partitions[0]).adding = vec![BrokerId(2)];
    moving.topics.insert(id, Arc::new(topic));
    assert!(told("0o 1o 2", &moving).starts_with("restart uid-0"));
}

#[test]
fn a_partition_that_needs_all_its_replicas_holds_its_brokers_unless_it_may_be_interrupted() {
    let mut image = led_by(1, "0 1 2");
    add_topic(&mut image, "single", &["2/2/2"]);
    // Another broker does not carry it, and goes.
    assert!(told("0o 1o 2o", &image).starts_with("restart uid-0"));
    let held = told("0 1o 2o", &image);
    assert!(
        held.starts_with("blocked: without broker 2, 1 partition (such as single-0)"),
        "{held}"
    );
    let pods = pods("0 1o 2o");
    let allowed = Facts {
        policy: Policy {
            may_interrupt: true,
            ..POLICY
        },
        ..facts(&pods, &image)
    };
    assert!(show(&decide(&allowed)).starts_with("restart uid-2"));
}

#[test]
fn a_replica_that_failed_is_mended_by_the_restart_of_its_own_broker_first() {
    let mut image = led_by(1, "0 1 2");
    let id = add_topic(&mut image, "a", &["012/12/1"]);
    let mut topic = (*image.topics[&id]).clone();
    Arc::make_mut(&mut topic.partitions[0]).offline = vec![BrokerId(0)];
    image.topics.insert(id, Arc::new(topic));
    assert!(told("0o 1o 2o", &image).starts_with("restart uid-0"));
    let held = told("0 1o 2o", &image);
    assert!(held.contains("1 of broker 0's replicas failed"), "{held}");
    assert!(told("0a 1o 2o", &image).starts_with("restart uid-0"));
}

#[test]
fn a_starting_pod_that_a_partition_counts_on_is_left_to_start() {
    // It is the last that has everything: replaced, its log would count as possibly incomplete.
    let mut image = led_by(1, "0f 1 2");
    add_topic(&mut image, "a", &["012/0/-"]);
    assert_eq!(
        told("0ou 1 2", &image),
        "wait for demo-broker-0 to be ready"
    );
    let mut image = led_by(1, "0f 1 2");
    add_topic(&mut image, "a", &["012/12/1"]);
    assert!(told("0ou 1 2", &image).starts_with("restart uid-0"));
}

/// Brokers 0 to 5 in racks a, b, c, a, b, c.
fn racked(controller: i32) -> Image {
    let mut image = led_by(controller, "0 1 2 3 4 5");
    for id in 0..6 {
        let mut broker = (*image.brokers[&BrokerId(id)]).clone();
        broker.rack = Some(["a", "b", "c"][usize::try_from(id % 3).unwrap()].to_owned());
        image.brokers.insert(BrokerId(id), Arc::new(broker));
    }
    with_min(&mut image, "2");
    image
}

fn told_by_rack(pods_text: &str, image: &Image) -> String {
    let pods = pods(pods_text);
    let facts = Facts {
        brokers: 6,
        policy: Policy {
            unit: RollingUnit::Rack,
            ..POLICY
        },
        ..facts(&pods, image)
    };
    let roll = decide(&facts);
    let joins = matches!(&roll, Roll::Restart(restart) if restart.joins);
    show(&roll) + if joins { ", too" } else { "" }
}

#[test]
fn brokers_of_a_rack_go_together_rack_after_rack_the_controllers_last() {
    let mut image = racked(5);
    add_topic(&mut image, "a", &["012/012/0", "345/345/3", "042/042/0"]);
    let cases = [
        ("0o 1o 2o 3o 4o 5o", "restart uid-3: its image changed"),
        ("0o 1o 2o 3t 4o 5o", "restart uid-0: its image changed, too"),
        ("0t 1o 2o 3u 4o 5o", "wait for demo-broker-0 to stop"),
        (
            "0y 1o 2o 3 4o 5o",
            "wait for demo-broker-0 to have been ready for 10 s",
        ),
        ("0 1o 2o 3 4o 5o", "restart uid-4: its image changed"),
        ("0 1o 2o 3 4u 5o", "restart uid-1: its image changed, too"),
        ("0 1 2o 3 4 5o", "restart uid-2: its image changed"),
        ("0 1 2t 3 4 5o", "restart uid-5: its image changed, too"),
        // One that starts is to be restarted yet, and comes before the controller.
        ("0 1 2ou 3 4 5o", "wait for demo-broker-2 to be ready"),
        (
            "0o 1o 2o 3x 4o 5o",
            "stuck: demo-broker-3 does not start: ImagePullBackOff: no such image",
        ),
    ];
    for (pods, expected) in cases {
        assert_eq!(told_by_rack(pods, &image), expected, "{pods}");
    }
    // Whoever is away elsewhere holds them all.
    assert_eq!(
        told_by_rack("0o 1u 2o 3o 4 5o", &image),
        "wait for demo-broker-1 to be ready"
    );
    // One that is away by itself is one of its rack all the same.
    assert_eq!(
        told_by_rack("0o 1u 2o 3o 4o 5o", &image),
        "restart uid-4: its image changed, too"
    );
}

#[test]
fn a_partition_with_two_replicas_in_a_rack_keeps_them_from_going_together() {
    let mut image = racked(5);
    // The metadata does not know yet that broker 3 stops.
    add_topic(&mut image, "a", &["031/031/0"]);
    assert!(told_by_rack("0o 1 2 3o 4 5", &image).starts_with("restart uid-3"));
    assert_eq!(
        told_by_rack("0o 1 2 3t 4 5", &image),
        "wait for others of broker 0's rack to be back: partitions need it"
    );
    assert_eq!(
        told_by_rack("0o 1 2 3 4 5", &image),
        "restart uid-0: its image changed"
    );
}

#[test]
fn brokers_without_a_rack_go_one_by_one() {
    let image = led_by(5, "0 1 2 3 4 5");
    assert_eq!(
        told_by_rack("0o 1o 2o 3o 4t 5o", &image),
        "wait for demo-broker-4 to stop"
    );
}
