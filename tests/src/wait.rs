//! Waiting for a condition: never a fixed sleep, and a failure tells what was seen last.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long between the first looks at a condition that nothing announces.
const STEP: Duration = Duration::from_millis(20);
/// How long between the later ones at most: who looks often at an API server keeps a processor busy, and
/// what is measured meanwhile is not what it would be.
const LONGEST_STEP: Duration = Duration::from_millis(250);
/// Until then it is this part of what has passed, so that how long something took is as exact.
const PART: u32 = 20;

/// Asks `probe` until it gives `Ok`, at most `limit`. Panics with `what` and the last `Err`.
pub fn until<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if start.elapsed() > limit => {
                panic!("waited {limit:?} for {what}; last seen: {seen:?}")
            }
            Err(_) => std::thread::sleep((start.elapsed() / PART).clamp(STEP, LONGEST_STEP)),
        }
    }
}
