//! Fuzz targets: every decoder of bytes from outside, and recovery of a log from bytes of any kind.
//!
//! A target is a function that takes bytes and panics where a promise is broken. `tests/fuzz/run` runs
//! them under libFuzzer, guided by coverage; `tests/corpus.rs` replays the corpus as an ordinary test.
//! Promise: in both, a run that allocates more than its target's bound fails like a panic does, as all
//! memory of the process is counted.

mod archive;
mod stage;
mod targets;

pub use archive::{Archive, File, Kind};
pub use stage::image;

use cap::Cap;
use std::alloc::System;
use std::sync::Once;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// One function under test.
pub struct Target {
    /// As the corpus folder is named.
    pub name: &'static str,
    /// Longer inputs are not tried: what they could reach, shorter ones reach sooner.
    pub max_len: usize,
    /// What one input may have allocated at the same time, in bytes.
    memory: usize,
    run: fn(&[u8]),
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const fn target(name: &'static str, max_len: usize, memory: usize, run: fn(&[u8])) -> Target {
    Target {
        name,
        max_len,
        memory,
        run,
    }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("frames", 64 * KIB, 4 * MIB, targets::frames::run),
    target("requests", 8 * KIB, 16 * MIB, targets::requests::run),
    target("handler", 4 * KIB, 64 * MIB, targets::handler::run),
    target("internal", 8 * KIB, 16 * MIB, targets::internal::run),
    // What unpacks to 64 MiB is allowed, with what holds it on the way.
    target("append", 8 * KIB, 320 * MIB, targets::append::run),
    target("recovery", 8 * KIB, 8 * MIB, targets::recovery::run),
    target("directory", 4 * KIB, 8 * MIB, targets::directory::run),
    target("metadata", 8 * KIB, 16 * MIB, targets::metadata::run),
    target("groups", 4 * KIB, 8 * MIB, targets::groups::run),
    target("config", 2 * KIB, 8 * MIB, targets::config::run),
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Runs `target` on `data`; panics, or aborts for want of memory, where a promise is broken.
pub fn run(target: &Target, data: &[u8]) {
    static LIFT_FOR_PANICS: Once = Once::new();
    LIFT_FOR_PANICS.call_once(|| {
        // Naming the place of a panic takes memory of its own.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let _ = MEMORY.set_limit(usize::MAX);
            before(info);
        }));
    });
    let limit = MEMORY.allocated().saturating_add(target.memory);
    // Fails only if more was allocated meanwhile, by another thread; then there is no limit this time.
    let _ = MEMORY.set_limit(limit);
    (target.run)(data);
    let _ = MEMORY.set_limit(usize::MAX);
}
