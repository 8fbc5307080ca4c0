//! What makes logs lose old records, in some of the runs: topics with retention, with compaction, with both; and
//! someone who asks for records to be deleted.

use super::{any_partition, leader};
use crate::broker::mail::Mail;
use crate::core::Core;
use rand::Rng as _;

/// What is done in a run.
#[derive(Default)]
pub(super) struct Trimming {
    /// The `retention.bytes` of some topics; and records are deleted.
    deletes: Option<u32>,
    /// The `retention.ms` of some topics.
    ages: Option<u32>,
    /// The `delete.retention.ms` of some topics that are compacted.
    compacts: Option<u32>,
}

impl Trimming {
    /// What is done in one run, if there may be `any` of it.
    pub fn draw(core: &mut Core, any: bool) -> Self {
        let least = if core.chance(200) { 0 } else { 300 };
        let deletes = core.chance(300) && any;
        let compacts = core.chance(300) && any;
        let forgets = core.chance(500);
        let (bytes, ms) = (
            core.rng.random_range(0..1_500),
            core.rng.random_range(0..2_000),
        );
        let age = core.rng.random_range(500..6_000);
        Self {
            ages: (core.chance(300) && any).then_some(age),
            deletes: deletes.then_some(bytes.min(5 * least).max(least)),
            compacts: compacts.then_some(if forgets { ms } else { 86_400_000 }),
        }
    }

    /// What a topic of that name is created with, on top of all else.
    pub fn configs(&self, name: &str) -> Vec<(&'static str, String)> {
        let mut configs = Vec::new();
        let mut policies = Vec::new();
        if let Some(bytes) = self.deletes.filter(|_| ["t", "u"].contains(&name)) {
            configs.push(("retention.bytes", bytes.to_string()));
            policies.push("delete");
        }
        if let Some(ms) = self.ages.filter(|_| ["t", "w"].contains(&name)) {
            configs.push(("retention.ms", ms.to_string()));
        }
        if let Some(ms) = self.compacts.filter(|_| ["u", "v"].contains(&name)) {
            configs.push(("delete.retention.ms", ms.to_string()));
            configs.push(("min.cleanable.dirty.ratio", "0".to_owned()));
            policies.push("compact");
        }
        if !policies.is_empty() {
            configs.push(("cleanup.policy", policies.join(",")));
        }
        configs
    }

    /// Now and then someone asks for records to go.
    pub fn delete(&self, core: &mut Core) {
        if self.deletes.is_none() || !core.chance(60) {
            return;
        }
        let Some(key) = any_partition(core).filter(|key| !core.check.is_internal(*key)) else {
            return;
        };
        let committed = core.check.data.get(&key);
        let committed = committed.map_or(0, |data| data.committed.len());
        let committed = i64::try_from(committed).unwrap_or(0);
        let before = match core.rng.random_range(0..10) {
            0 => -1,
            1 => committed + [1, 2, 4, 1_000][core.rng.random_range(0..4)],
            2 => committed,
            // The last that its producer wrote stays.
            _ => core.rng.random_range(0..=(committed - 8).max(0)),
        };
        let to = leader(core, key);
        core.note(format!(
            "wish  {}-{} without what is below {before}",
            key.0, key.1
        ));
        core.post_from(u64::MAX - 2, to, Mail::Delete { key, before });
    }
}
