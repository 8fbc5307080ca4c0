//! Where the deterministic simulation takes hold of the product: its clocks, its randomness, the order of its
//! maps, its threads, and a switch that takes out one rule at a time, to show that the simulation notices.
//!
//! Promise: without the feature `simulation` (so in every release binary) all of this is the machine's own,
//! and [`taken_out`] and [`one_thread`] are a constant `false` that leaves no trace in the code. With the
//! feature, but outside of a run, all but the order of maps is the machine's own as well.

use std::time::{SystemTime, UNIX_EPOCH};

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

/// Now, on the clock that timers go by.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Milliseconds since 1970.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub fn wall_ms() -> i64 {
    machine_wall_ms()
}

fn machine_wall_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_millis().try_into().unwrap_or(i64::MAX))
}

/// Whether all must happen on the thread that asks.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub const fn one_thread() -> bool {
    false
}

/// How maps are hashed: in the simulation in the same way in each run, as the order of a map may decide what
/// is done first.
#[cfg(not(feature = "simulation"))]
pub type Hashing = std::hash::RandomState;

/// See above.
#[cfg(feature = "simulation")]
pub type Hashing = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// A map for code that runs in the simulation.
pub type HashMap<K, V> = std::collections::HashMap<K, V, Hashing>;

/// A set for code that runs in the simulation.
pub type HashSet<K> = std::collections::HashSet<K, Hashing>;

#[cfg(feature = "simulation")]
pub use simulated::{now, one_thread, random_u128, taken_out, wall_ms};

#[cfg(feature = "simulation")]
pub mod simulated {
    //! The switches of one thread: a simulation runs on one thread, and so do its processes.

    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};
    use std::cell::{Cell, RefCell};
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// What a thread of the product would do.
    pub type Job = Box<dyn FnOnce() + Send>;

    /// What the process that is running now takes from the simulation.
    #[derive(Clone, Copy)]
    pub struct World {
        pub since_boot: fn() -> Duration,
        pub now: fn() -> Instant,
        pub wall_ms: fn() -> i64,
        /// The kernel's boot id and the pod's UID.
        pub machine: fn() -> (String, String),
        /// Has a job done soon, in place of a thread in the background.
        pub background: fn(Job),
        /// The free bytes of the disk that a path is on.
        pub free_bytes: fn(&Path) -> u64,
    }

    impl World {
        /// One in which the time since boot stands still, for those who look at decisions only.
        pub const STILL: Self = Self {
            since_boot: || Duration::ZERO,
            now: Instant::now,
            wall_ms: || 0,
            machine: Default::default,
            background: |job| job(),
            free_bytes: |_| u64::MAX,
        };
    }

    thread_local! {
        static RULE: RefCell<Option<String>> = const { RefCell::new(None) };
        static RANDOM: RefCell<Option<StdRng>> = const { RefCell::new(None) };
        static WORLD: Cell<Option<World>> = const { Cell::new(None) };
    }

    /// Begins a run: `seed` feeds all randomness, `world` tells the rest, `rule` is out.
    pub fn begin(seed: u64, world: World, rule: Option<&str>) {
        RULE.set(rule.map(str::to_owned));
        RANDOM.set(Some(StdRng::seed_from_u64(seed)));
        WORLD.set(Some(world));
    }

    /// Ends the run: everything is the machine's own again.
    pub fn end() {
        RULE.set(None);
        RANDOM.set(None);
        WORLD.set(None);
    }

    /// The run that this thread is in.
    pub fn world() -> Option<World> {
        WORLD.get()
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

    /// Up to `most`, drawn from the seed.
    pub fn up_to(most: u64) -> u64 {
        RANDOM.with_borrow_mut(|rng| match rng {
            Some(rng) => rng.random_range(0..=most),
            None => 0,
        })
    }

    /// See [`super::now`].
    pub fn now() -> Instant {
        world().map_or_else(Instant::now, |world| (world.now)())
    }

    /// See [`super::wall_ms`].
    pub fn wall_ms() -> i64 {
        world().map_or_else(super::machine_wall_ms, |world| (world.wall_ms)())
    }

    /// See [`super::one_thread`].
    pub fn one_thread() -> bool {
        world().is_some()
    }

    /// The simulated time since boot; `None` outside a run.
    pub fn since_boot() -> Option<Duration> {
        world().map(|world| (world.since_boot)())
    }
}
