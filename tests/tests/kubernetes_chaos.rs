//! Every kind of fault strikes a cluster under load once.

use leasehold_tests::chaos;
use std::time::Duration;

#[test]
fn whatever_strikes_nothing_acknowledged_is_lost_and_the_cluster_heals() {
    chaos::run(Duration::ZERO, rand::random(), "");
}
