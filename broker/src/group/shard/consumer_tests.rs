//! What a group of the newer protocol obeys, where it has a configuration of its own.

use super::tests::World;
use super::*;
use crate::group::types::ConsumerHeartbeatRequest;
use leasehold_metadata::group_configs::{HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS};
use std::collections::BTreeMap;

fn image(values: &[(&str, &str)]) -> Image {
    let mut image = Image::genesis(leasehold_types::ClusterId("c".into()));
    let values = values.iter();
    let values = values.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Arc::make_mut(&mut image.group_configs)
        .insert("g".to_owned(), values.collect::<BTreeMap<_, _>>());
    image
}

impl World {
    /// The member joins at epoch 0 and beats at any other; its new epoch, and the interval that it is told.
    fn beat(&mut self, epoch: i32) -> (i32, i32) {
        let joins = epoch == 0;
        let request = ConsumerHeartbeatRequest {
            api_version: 1,
            group_id: "g".to_owned(),
            member_id: "m".to_owned(),
            member_epoch: epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            topics: joins.then(|| ["t".to_owned()].into()),
            owned: joins.then(Default::default),
            ..ConsumerHeartbeatRequest::default()
        };
        let token = self.token();
        self.call(|shard, now, out| {
            shard.consumer_heartbeat(request, "fresh".into(), token, now, out);
        });
        self.store_all();
        match &self.replies[&token] {
            Reply::ConsumerHeartbeat(told) => (told.member_epoch, told.heartbeat_interval_ms),
            other => panic!("{other:?}"),
        }
    }

    fn configure(&mut self, values: &[(&str, &str)]) {
        let image = Arc::new(image(values));
        self.call(|shard, now, out| shard.topics_changed(image, now, out));
        self.store_all();
    }

    /// For how many seconds the member may be silent, to the second.
    fn silence(mut self) -> u64 {
        let members = |world: &Self| {
            let now = Now { mono: 0, wall: 0 };
            world.shard.consumer_describe("g", now).members.len()
        };
        assert_eq!(members(&self), 1);
        for second in 1..=100 {
            self.pass(1_000);
            self.store_all();
            if members(&self) == 0 {
                return second;
            }
        }
        panic!("it is still there");
    }
}

#[test]
fn the_next_heartbeat_tells_the_groups_own_interval() {
    let mut world = World::new();
    let (epoch, interval) = world.beat(0);
    assert_eq!(interval, 5_000);
    world.configure(&[(HEARTBEAT_INTERVAL_MS, "7000")]);
    assert_eq!(world.beat(epoch), (epoch, 7_000));
    // It was set where the brokers allowed more.
    world.configure(&[(HEARTBEAT_INTERVAL_MS, "70000")]);
    assert_eq!(world.beat(epoch), (epoch, 15_000));
    world.configure(&[]);
    assert_eq!(world.beat(epoch), (epoch, 5_000));
}

#[test]
fn a_member_may_be_silent_for_the_groups_own_session_timeout() {
    let mut world = World::new();
    world.beat(0);
    assert_eq!(world.silence(), 45);

    let mut world = World::new();
    let (epoch, _) = world.beat(0);
    world.configure(&[(SESSION_TIMEOUT_MS, "55000")]);
    world.beat(epoch);
    let loaded_anew = world.reload(image(&[(SESSION_TIMEOUT_MS, "60000")]));
    assert_eq!(world.silence(), 55);
    assert_eq!(loaded_anew.silence(), 60);
}
