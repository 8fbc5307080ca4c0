//! Five brokers in three zones are restarted a zone at a time under load: two of a zone go together, no two
//! of different zones do, and nothing is lost.

use leasehold_tests::cluster::{Kube, PATIENCE, fresh, manifest};
use leasehold_tests::load::Load;
use leasehold_tests::pods::Witness;
use leasehold_tests::{readback, wire};
use std::collections::BTreeSet;

const NAMESPACE: &str = "racks";
const NAME: &str = "main";
const BROKERS: i32 = 5;

fn spec(more: &str) -> String {
    manifest(NAME, BROKERS) + more + "  rolling: {settleSeconds: 1, unit: Rack}\n"
}

#[test]
fn a_zone_at_a_time_the_controllers_last_and_nothing_is_lost() {
    let kube = Kube::connect(NAMESPACE, NAME);
    kube.apply(&spec(""));
    kube.wait_condition("Cluster", NAME, "Ready", "True");
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    (0..BROKERS).for_each(|broker| kube.wait_name(broker));
    kube.wait_zones(BROKERS);
    let zones = kube
        .block_on(wire::racks(&kube.bootstrap()))
        .expect("racks");
    let names: BTreeSet<_> = zones.values().collect();
    assert_eq!(names.len(), 3, "{zones:?}");
    let topic = fresh("racked");
    kube.ready_topic(&topic, 6);
    let load = Load::start(&kube.bootstrap(), &topic, 6, 300, &[]);
    load.wait_flowing(PATIENCE);

    let witness = Witness::start(&kube, BROKERS);
    let (mark, controller) = (witness.mark(), kube.controller().expect("a controller"));
    kube.apply(&spec("    num.partitions: 4\n"));
    kube.wait_condition("Cluster", NAME, "Rolling", "True");
    kube.wait_condition("Cluster", NAME, "Rolling", "False");
    let went = witness.restarted(mark);
    println!("restarted, with who was away then: {went:?}; zones {zones:?}");
    let mut order: Vec<i32> = went.iter().map(|(broker, _)| *broker).collect();
    assert_eq!(order.last(), Some(&controller), "the controller goes last");
    for (_, away) in &went {
        let zones: BTreeSet<_> = away.iter().map(|broker| &zones[broker]).collect();
        assert_eq!(zones.len(), 1, "{away:?}");
    }
    let together = went.iter().filter(|(_, away)| away.len() == 2).count();
    assert_eq!(together, 2, "the two zones of two brokers go as one");
    order.sort_unstable();
    assert_eq!(order, (0..BROKERS).collect::<Vec<_>>(), "each once");

    load.wait_flowing(PATIENCE);
    let history = load.stop();
    assert!(history.failed.is_empty(), "{:?}", history.failed);
    readback::check(&kube.bootstrap(), &topic, &history);
    println!("{} acknowledged records read back", history.acked_total());
    kube.remove_namespace();
}
