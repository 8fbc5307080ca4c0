//! One partition: its replicas on two or three brokers, the committed metadata as a list of versions that each
//! broker follows at its own pace, ISR proposals and fetches that come late, crashes, and losses of power.
//!
//! A broker may be on arbitrarily old metadata; a fence may be a false alarm; a request may arrive after its
//! sender gave it up, died, or was replaced. Time does not pass: whatever waits for time may happen at any
//! moment. Every decision of the controller is made by one that has just taken over and knows nothing but the
//! image, which is the worst that changing controllers can do.
//!
//! [`moves`], [`fetches`] and [`lives`] are what can happen, [`check`] what must hold, [`product`] where the product is
//! asked ([`controller`], [`replica`]).

mod check;
mod controller;
mod fetches;
mod lives;
mod moves;
mod product;
mod replica;
mod show;
mod state;

pub use state::{Bounds, State};

use crate::search::{Model, Step};
use product::Product;

/// The small world, with the rule of that name taken out of the product, if any.
pub struct Partition {
    bounds: Bounds,
    product: Product,
}

impl Partition {
    pub fn new(bounds: Bounds, without: Option<&str>) -> Self {
        Self {
            bounds,
            product: Product::new(bounds, without),
        }
    }

    /// Different questions that the product was asked, and different images and replicas that it made of them.
    pub fn asked(&self) -> [usize; 3] {
        self.product.asked()
    }
}

impl Model for Partition {
    type State = State;

    fn first(&mut self) -> State {
        self.begin()
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
