//! Keeps strangers from filling the log: a bounded number of lines per second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lines per second that hostile peers can cause on one listener.
const LINES_PER_SECOND: u32 = 20;

/// Decides whether a line caused by a peer may be written.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    window: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl Quiet {
    /// `Some(n)` if a line may be written now, `n` being how many were kept back before it.
    pub(super) fn allow(&self, now: Instant) -> Option<u64> {
        let Ok(mut window) = self.window.lock() else {
            return None;
        };
        let current = window.get_or_insert(Window {
            began: now,
            lines: 0,
            suppressed: 0,
        });
        if now.duration_since(current.began) >= Duration::from_secs(1) {
            current.began = now;
            current.lines = 0;
        }
        if current.lines >= LINES_PER_SECOND {
            current.suppressed += 1;
            return None;
        }
        current.lines += 1;
        Some(std::mem::take(&mut current.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let quiet = Quiet::default();
        let start = Instant::now();
        let allowed = (0..100).filter(|_| quiet.allow(start).is_some()).count();
        assert_eq!(allowed, LINES_PER_SECOND as usize);
        assert_eq!(quiet.allow(start + Duration::from_secs(1)), Some(80));
        assert_eq!(quiet.allow(start + Duration::from_secs(1)), Some(0));
    }
}
