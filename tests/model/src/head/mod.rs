//! The head: candidates that claim it and commit through it, by the product's own `HeadWriter`, with requests
//! that come late, lose their answers, or are sent twice.
//!
//! A candidate is a function of what it was told: it runs from its beginning, on a clock that stands still, and is
//! told the same things in the same order, once for each list of things that it can be told ([`writer`]). The Lease
//! is left out: every candidate may claim at any time, which is the worst that clocks can do.

mod moves;
mod writer;

use crate::pool::{Map, Pool, fingerprint};
use crate::search::{Model, Step};
use leasehold_metadata::head::Head;
use leasehold_metadata::head::format::initial;
use leasehold_metadata::store::{HeadObject, HeadPatch, NONCE};
use leasehold_types::ClusterId;
use leasehold_types::seams::simulated::{self, World};
use writer::{Chunks, Life, Told};

pub const CANDIDATES: usize = 2;
const COPIES: usize = 3;
const SAID: usize = 8;
/// No head, patch or life.
const NONE: u32 = u32::MAX;

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Processes that each candidate has, one after the other.
    pub lives: u8,
    /// Copies of head writes sent in all.
    pub sends: u8,
    /// Answers that never come while there would be time to ask again.
    pub doubts: u8,
    /// Records committed after claims.
    pub records: u8,
    /// A tail of more bytes is rolled into a chunk.
    pub tail_bytes: usize,
}

/// A head write on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sent {
    patch: u32,
    from: u8,
    life: u8,
    /// Its sender waits for this very answer still.
    awaited: bool,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    head: u32,
    /// Each candidate's process and all that it was told: a number; [`NONE`] before the first.
    lives: [u32; CANDIDATES],
    begun: [u8; CANDIDATES],
    net: [Sent; COPIES],
    /// The head writes that were applied, by their numbers, in their order.
    chain: u32,
    /// What was reported: a head write's number and whether it is said to be applied.
    said: [(u32, bool); SAID],
    sends: u8,
    doubts: u8,
    records: u8,
    broken: u8,
}

/// A head write.
#[derive(Clone)]
struct Patch {
    uid: String,
    tested: String,
    patch: HeadPatch,
}

/// The small world.
pub struct Heads {
    bounds: Bounds,
    without: Option<String>,
    heads: Pool<HeadObject, Option<Head>>,
    patches: Pool<Patch, ()>,
    lives: Pool<Life, writer::Wants>,
    chains: Pool<Vec<u32>, ()>,
    /// What a life is once it was told one thing more.
    told: Map<(u32, Told), u32>,
    chunks: Chunks,
}

impl Heads {
    pub fn new(bounds: Bounds, without: Option<&str>) -> Self {
        Self {
            bounds,
            without: without.map(str::to_owned),
            heads: Pool::default(),
            patches: Pool::default(),
            lives: Pool::default(),
            chains: Pool::default(),
            told: Map::default(),
            chunks: Chunks::default(),
        }
    }

    /// Lives of candidates that were run, heads, and head writes.
    pub fn asked(&self) -> [usize; 3] {
        [self.lives.len(), self.heads.len(), self.patches.len()]
    }

    fn head(&mut self, object: HeadObject) -> u32 {
        let id = fingerprint(&(&object.uid, &object.data));
        self.heads.id(id, object, |object| Head::parse(object).ok())
    }

    fn patch(&mut self, patch: Patch) -> u32 {
        let id = fingerprint(&(
            &patch.tested,
            &patch.patch.nonce,
            &patch.patch.set,
            &patch.patch.remove,
        ));
        self.patches.id(id, patch, |_| ())
    }

    fn chain(&mut self, chain: Vec<u32>) -> u32 {
        let id = fingerprint(&chain);
        self.chains.id(id, chain, |_| ())
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        simulated::end();
    }
}

impl Model for Heads {
    type State = State;

    fn first(&mut self) -> State {
        simulated::begin(0, World::STILL, self.without.as_deref());
        let mut data = initial(&ClusterId("model".to_owned()));
        data.insert(NONCE.to_owned(), "0".repeat(32));
        let uid = "head".to_owned();
        let head = self.head(HeadObject { uid, data });
        let nothing = Sent {
            patch: NONE,
            from: 0,
            life: 0,
            awaited: false,
        };
        State {
            head,
            lives: [NONE; CANDIDATES],
            begun: [0; CANDIDATES],
            net: [nothing; COPIES],
            chain: self.chain(Vec::new()),
            said: [(NONE, false); SAID],
            sends: 0,
            doubts: 0,
            records: 0,
            broken: 0,
        }
    }

    fn next(&mut self, state: &State, out: &mut Vec<(Step, State)>) {
        self.moves(state, out);
    }

    fn broken(&self, state: &State) -> Option<String> {
        self.check(state)
    }

    fn show(&self, state: &State) -> String {
        self.describe(state)
    }
}
