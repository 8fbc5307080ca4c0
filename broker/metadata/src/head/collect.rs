//! Which chunks may be deleted: pure bookkeeping; the writer does the deleting.
//!
//! The rules, each of which the model checker needed: only a controller whose own claim is committed
//! collects; of other writers' chunks only those of a lower epoch that the head does not name; of its own
//! only those that a head write *known to be applied* has stopped naming; none sooner than
//! a grace time after it was last seen named, so that a reader of an older head still finds them.

use crate::lease::BootInstant;
use crate::store::ChunkInfo;
use leasehold_types::seams::taken_out;
use leasehold_types::{ClusterId, ControllerEpoch};
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Chunks that nothing names any more, and since when.
#[derive(Debug, Default)]
pub struct Collection {
    unnamed: BTreeMap<String, BootInstant>,
}

impl Collection {
    /// Takes in a listing made after our claim of `epoch` was known to be committed. `named` is what the
    /// committed head names.
    pub fn listed(
        &mut self,
        listing: &[ChunkInfo],
        cluster: &ClusterId,
        epoch: ControllerEpoch,
        named: &HashSet<&str>,
        now: BootInstant,
    ) {
        for chunk in listing {
            let ours = chunk.cluster == *cluster || taken_out("foreign-chunks-are-kept");
            let ours_to_judge = ours && chunk.epoch < epoch;
            if ours_to_judge && !named.contains(chunk.name.as_str()) {
                self.unnamed.entry(chunk.name.clone()).or_insert(now);
            }
        }
    }

    /// A head write that is known to be applied has stopped naming these.
    pub fn dropped(&mut self, names: impl IntoIterator<Item = String>, now: BootInstant) {
        for name in names {
            self.unnamed.entry(name).or_insert(now);
        }
    }

    /// Takes out the chunks that nothing names since `grace` or longer, at most `limit`.
    pub fn due(&mut self, now: BootInstant, grace: Duration, limit: usize) -> Vec<String> {
        let due: Vec<String> = self
            .unnamed
            .iter()
            .filter(|(_, since)| now.since(**since) >= grace)
            .map(|(name, _)| name.clone())
            .take(limit)
            .collect();
        for name in &due {
            self.unnamed.remove(name);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn at(seconds: u64) -> BootInstant {
        BootInstant::after_boot(Duration::from_secs(seconds))
    }

    fn info(name: &str, cluster: &str, epoch: i64) -> ChunkInfo {
        ChunkInfo {
            name: name.into(),
            cluster: ClusterId(cluster.into()),
            epoch: ControllerEpoch(epoch),
        }
    }

    #[test]
    fn only_unnamed_chunks_of_a_lower_epoch_and_the_same_cluster_are_collected() {
        let mut collection = Collection::default();
        let listing = [
            info("old", "c", 4),
            info("named", "c", 4),
            info("mine-not-yet-named", "c", 5),
            info("of-a-successor", "c", 6),
            info("foreign", "d", 1),
        ];
        let named = HashSet::from(["named"]);
        let cluster = ClusterId("c".into());
        collection.listed(&listing, &cluster, ControllerEpoch(5), &named, at(0));
        assert_eq!(
            collection.due(at(10_000), GRACE, 10),
            vec!["old".to_owned()]
        );
        assert!(collection.due(at(10_000), GRACE, 10).is_empty());
    }

    #[test]
    fn a_chunk_outlives_its_last_reference_by_the_grace_time() {
        let mut collection = Collection::default();
        collection.dropped(["mine".to_owned()], at(100));
        collection.dropped(["mine".to_owned()], at(300));
        assert!(collection.due(at(699), GRACE, 10).is_empty());
        assert_eq!(collection.due(at(700), GRACE, 10), vec!["mine".to_owned()]);
    }
}
