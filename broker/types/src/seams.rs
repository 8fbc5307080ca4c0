//! Where the deterministic simulation takes hold of the product: its clock, its randomness, and a switch
//! that takes out one rule at a time, to show that the simulation notices.
//!
//! Promise: without the feature `simulation` (so in every release binary) all of this is the machine's own
//! clock and randomness, and [`taken_out`] is a constant `false` that leaves no trace in the code.

/// Whether the rule of this name is taken out. Each rule asks in one line, where it is applied.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn taken_out(_rule: &str) -> bool {
    false
}

/// 128 random bits.
#[cfg(not(feature = "simulation"))]
pub fn random_u128() -> u128 {
    rand::random()
}

#[cfg(feature = "simulation")]
pub use simulated::{random_u128, taken_out};

#[cfg(feature = "simulation")]
pub mod simulated {
    //! The switches of one thread: a simulation runs on one thread, and so do its processes.

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    thread_local! {
        static RULE: RefCell<Option<String>> = const { RefCell::new(None) };
        static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
        static CLOCK: Cell<Option<fn() -> Duration>> = const { Cell::new(None) };
    }

    /// Begins a run: `seed` feeds all randomness, `clock` tells the time since boot, `rule` is out.
    pub fn begin(seed: u64, clock: fn() -> Duration, rule: Option<&str>) {
        RULE.set(rule.map(str::to_owned));
        RANDOM.set(Some(StdRng::seed_from_u64(seed)));
        CLOCK.set(Some(clock));
    }

    /// Ends the run: everything is the machine's own again.
    pub fn end() {
        RULE.set(None);
        RANDOM.set(None);
        CLOCK.set(None);
    }

    /// See [`super::taken_out`].
    pub fn taken_out(rule: &str) -> bool {
        RULE.with_borrow(|out| out.as_deref() == Some(rule))
    }

    /// See [`super::random_u128`].
    pub fn random_u128() -> u128 {
        RANDOM.with_borrow_mut(|rng| match rng {
            Some(rng) => rng.random(),
            None => rand::random(),
        })
    }

    /// The simulated time since boot; `None` outside a run.
    pub fn since_boot() -> Option<Duration> {
        CLOCK.get().map(|clock| clock())
    }
}
