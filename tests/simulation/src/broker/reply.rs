//! The way back of an answer, which ends when whoever should give it has forgotten it or is gone.
//!
//! Promise: ways that end at the same time end in the order in which their questions arrived. A runtime drops its
//! tasks in an order that depends on numbers which all threads of this program share; so what is under way is kept
//! by the machine as well ([`Kept`]), and only that lets go of it.

use parking_lot::Mutex;
use std::any::Any;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A way back.
#[derive(Debug)]
pub struct Reply<T>(Arc<Mutex<Option<oneshot::Sender<T>>>>);

/// A way back, and where the answer comes out.
pub fn reply<T>() -> (Reply<T>, oneshot::Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (Reply(Arc::new(Mutex::new(Some(sender)))), receiver)
}

/// A way back to where nobody waits.
pub fn nobody<T>() -> Reply<T> {
    reply().0
}

impl<T: Send + 'static> Reply<T> {
    /// Answers; who gave up waiting is not there.
    pub fn send(self, answer: T) {
        if let Some(sender) = self.0.lock().take() {
            drop(sender.send(answer));
        }
    }

    /// Whether nobody waits any more.
    pub fn is_closed(&self) -> bool {
        self.0.lock().as_ref().is_none_or(|way| way.is_closed())
    }

    /// The machine's share in it.
    pub fn kept(&self) -> Kept {
        Kept(self.0.clone())
    }
}

/// What a machine keeps of a way back.
pub struct Kept(Arc<dyn Any + Send + Sync>);

impl Kept {
    /// Whether nobody else has it: it was answered, or forgotten.
    pub fn is_over(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot::error::TryRecvError;

    #[test]
    fn a_way_ends_only_when_the_machine_lets_go_of_it() {
        let (way, mut answer) = reply::<u8>();
        let kept = way.kept();
        assert!(!kept.is_over());
        drop(way);
        assert!(kept.is_over());
        assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
        drop(kept);
        assert_eq!(answer.try_recv(), Err(TryRecvError::Closed));
    }
}
