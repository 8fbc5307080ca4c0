//! Where the product is asked: each question once, its answer kept.
//!
//! The product's decisions are functions of a state and a question, so the answer to (number of the image or
//! replica, question) is looked up before it is computed. Whatever panics there is a broken promise.

use super::controller::{Ask, Decision, ImageFacts};
use super::replica::{Call, Outcome, ReplicaFacts, Request};
use super::state::Bounds;
use crate::pool::{Map, Pool};
use leasehold_broker::replica::state::Replica;
use leasehold_metadata::image::Image;
use leasehold_types::seams::simulated::{self, World};
use std::time::{Duration, Instant};

/// The product, and what it said so far.
pub struct Product {
    pub(super) bounds: Bounds,
    /// The moment at which everything happens, and a moment at which all that waits for time is due.
    pub(super) now: Instant,
    pub(super) later: Instant,
    pub(super) images: Pool<Image, ImageFacts>,
    pub(super) replicas: Pool<Replica<u8>, ReplicaFacts>,
    pub(super) requests: Pool<Request, ()>,
    pub(super) decisions: Map<(u32, Ask), Decision>,
    pub(super) outcomes: Map<(u32, u8, Call), Outcome>,
}

impl Product {
    /// From here on, and on this thread, the rule of that name is out.
    pub fn new(bounds: Bounds, without: Option<&str>) -> Self {
        simulated::begin(0, World::STILL, without);
        let now = Instant::now();
        Self {
            bounds,
            now,
            later: now + Duration::from_secs(3_600),
            images: Pool::default(),
            replicas: Pool::default(),
            requests: Pool::default(),
            decisions: Map::default(),
            outcomes: Map::default(),
        }
    }

    /// Questions, images, replicas.
    pub fn asked(&self) -> [usize; 3] {
        let questions = self.decisions.len() + self.outcomes.len();
        [questions, self.images.len(), self.replicas.len()]
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        simulated::end();
    }
}
