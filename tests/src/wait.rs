//! Waiting for a condition: never a fixed sleep, and a failure tells what was seen last.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long between two looks at a condition that nothing announces.
const STEP: Duration = Duration::from_millis(20);

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
            Err(_) => std::thread::sleep(STEP),
        }
    }
}
