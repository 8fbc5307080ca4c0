//! When the controller last confirmed that this broker is up to date.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// For the proof of leadership: counted from when the poll was *sent*. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SessionHealth(Arc<Mutex<Option<Instant>>>);

impl SessionHealth {
    /// When the poll was sent whose answer brought this broker to the controller's committed seq.
    pub fn last_confirmed(&self) -> Option<Instant> {
        *self.0.lock()
    }

    /// A poll sent at `sent` brought this broker to the committed seq.
    pub fn confirm(&self, sent: Instant) {
        let mut last = self.0.lock();
        if last.is_none_or(|last| last < sent) {
            *last = Some(sent);
        }
    }
}
