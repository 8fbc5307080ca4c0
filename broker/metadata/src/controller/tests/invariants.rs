//! The invariants of architecture and replication that images show.

use crate::image::Image;

/// What holds in every image, and from one to the next.
pub fn check(before: &Image, after: &Image) {
    for topic in after.topics.values() {
        for (number, p) in (0..).zip(&topic.partitions) {
            let name = format!("{}-{number}: {p:?}", topic.name);
            let min = after.effective_min_isr(topic, p);
            assert!(
                p.isr.iter().chain(&p.elr).all(|b| p.replicas.contains(b)),
                "I6 ISR and ELR are replicas {name}"
            );
            assert!(
                p.is_reassigning() || !(p.balancing || p.draining),
                "only what moves is moved for a reason {name}"
            );
            assert!(
                p.lossy.iter().all(|b| !p.isr.contains(b)),
                "who is in sync has made up for its loss {name}"
            );
            assert!(
                p.elr.iter().all(|b| !p.isr.contains(b)),
                "ISR and ELR are disjoint {name}"
            );
            assert!(
                p.isr.len() < min || p.elr.is_empty(),
                "no ELR at the minimum {name}"
            );
            match p.leader {
                Some(leader) => {
                    assert!(
                        p.isr.contains(&leader),
                        "I6 the leader is in the ISR {name}"
                    );
                    assert!(
                        after.serves(p, leader),
                        "I6 the leader is unfenced, and its log in service {name}"
                    );
                    assert!(
                        p.isr.iter().all(|&b| after.serves(p, b)),
                        "no member that is out of service while there is a leader {name}"
                    );
                }
                None => {
                    let candidate = p.isr.iter().chain(&p.elr).any(|&b| after.may_lead(p, b));
                    assert!(!candidate, "I15 a clean candidate leads {name}");
                }
            }
            let Some(old) = before.partition(&topic.id, number) else {
                continue;
            };
            // In one step a replica may be taken away and given back: that raises the leader epoch.
            let kept = p.leader_epoch == old.leader_epoch;
            for broker in old
                .offline
                .iter()
                .filter(|b| p.replicas.contains(b) && kept)
            {
                let life = |image: &Image| image.broker(*broker).map(|b| b.incarnation);
                assert!(
                    p.is_offline(*broker) || life(before) != life(after),
                    "a log that failed is out of service until its broker registers anew {name}"
                );
            }
            let (le, pe) = (
                p.leader_epoch >= old.leader_epoch,
                p.partition_epoch >= old.partition_epoch,
            );
            assert!(le && pe, "no epoch falls {name}");
            let raised = p.leader_epoch > old.leader_epoch;
            assert!(
                **p == **old || p.partition_epoch > old.partition_epoch,
                "I5 a change raises the partition epoch {name}"
            );
            assert!(
                p.leader == old.leader || raised,
                "I5 a new leader raises the leader epoch {name}"
            );
            let gone = old.replicas.iter().any(|b| !p.replicas.contains(b));
            assert!(
                !gone || raised,
                "a replica taken away raises the leader epoch {name}"
            );
            if let Some(leader) = old.leader {
                let incarnation = |image: &Image| image.broker(leader).map(|b| b.incarnation);
                assert!(
                    incarnation(before) == incarnation(after) || raised,
                    "I5 a new incarnation raises the leader epoch {name}"
                );
            }
        }
    }
}
