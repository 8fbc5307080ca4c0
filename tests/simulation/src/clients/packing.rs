//! In what records are packed, and whose times they have, in some of the runs: producers with codecs, topics with a
//! codec of their own, and topics whose leaders give the times.

use crate::codecs::NAMES;
use crate::core::Core;
use rand::Rng as _;

/// What is done in a run.
#[derive(Default)]
pub(super) struct Packing {
    /// The codec of the first producer; the next has the next one.
    first: Option<i16>,
    /// The `compression.type` of some topics.
    topics: Option<usize>,
    /// Their leaders give the times.
    stamps: bool,
}

impl Packing {
    /// What is done in one run, if there may be `any` of it.
    pub fn draw(core: &mut Core, any: bool) -> Self {
        let (first, topic) = (core.rng.random_range(0..5), core.rng.random_range(0..5));
        Self {
            first: (core.chance(500) && any).then_some(first),
            topics: (core.chance(400) && any).then_some(topic),
            stamps: core.chance(300) && any,
        }
    }

    /// The codec of the producer before which there were so many.
    pub fn codec(&self, before: u32) -> i16 {
        let turn = i16::try_from(before % 5).unwrap_or(0);
        self.first.map_or(0, |first| (first + turn) % 5)
    }

    /// What a topic of that name is created with, on top of all else.
    pub fn configs(&self, name: &str) -> Vec<(&'static str, String)> {
        let mut configs = Vec::new();
        let packed = self.topics.filter(|_| ["t", "v"].contains(&name));
        configs.extend(packed.map(|codec| ("compression.type", NAMES[codec].to_owned())));
        if self.stamps && ["t", "u"].contains(&name) {
            configs.push(("message.timestamp.type", "LogAppendTime".to_owned()));
        }
        configs
    }
}
