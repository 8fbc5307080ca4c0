//! Whether a leader is there, asked once for everyone who wants to know at the same time.
//!
//! Promise: whoever asks gets an answer to a question that was put after he asked: what a leader said a
//! moment before it died is worth nothing to a client that has just lost it. However many ask, a leader is
//! asked by this broker at most once in [`SPACING`].

use leasehold_types::{BrokerId, Incarnation};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Between the beginnings of two questions to one leader.
const SPACING: Duration = Duration::from_millis(1);

/// When the last question began, behind the queue of those who want to know.
type Turn = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// The questions under way.
#[derive(Default)]
pub(super) struct Verified(Mutex<HashMap<BrokerId, (Incarnation, Turn)>>);

impl Verified {
    /// Puts `question` to this process, or waits for somebody else's that began later than this call.
    pub(super) async fn ask(
        &self,
        leader: BrokerId,
        incarnation: Incarnation,
        question: impl Future<Output = ()>,
    ) {
        let asked = Instant::now();
        let turn = self.turn(leader, incarnation);
        let mut last = turn.lock().await;
        if let Some(began) = *last {
            if began >= asked {
                return;
            }
            sleep_until(began + SPACING).await;
        }
        let began = Instant::now();
        question.await;
        // Not before: a caller that went away took its question with it.
        *last = Some(began);
    }

    fn turn(&self, leader: BrokerId, incarnation: Incarnation) -> Turn {
        let mut turns = self.0.lock();
        let (of, turn) = turns
            .entry(leader)
            .or_insert_with(|| (incarnation, Turn::default()));
        if *of != incarnation {
            (*of, *turn) = (incarnation, Turn::default());
        }
        turn.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use tokio::time::sleep;

    const LEADER: (BrokerId, Incarnation) = (BrokerId(1), Incarnation(7));

    #[tokio::test(start_paused = true)]
    async fn everyone_gets_an_answer_to_a_question_put_after_he_asked() {
        let verified = Verified::default();
        let alive = Mutex::new(true);
        let ask = |seen: &'static str| {
            let (verified, alive) = (&verified, &alive);
            async move {
                let said = Mutex::new(None);
                let question = async {
                    *said.lock() = Some(*alive.lock());
                    sleep(Duration::from_millis(3)).await;
                };
                verified.ask(LEADER.0, LEADER.1, question).await;
                (seen, said.into_inner())
            }
        };
        let dies = async {
            sleep(Duration::from_millis(1)).await;
            *alive.lock() = false;
            // Three who lost it: the question under way was put while it lived.
            futures::join!(ask("second"), ask("third"), ask("fourth"))
        };
        let (first, (second, third, fourth)) = futures::join!(ask("first"), dies);
        assert_eq!(first, ("first", Some(true)));
        assert_eq!(second, ("second", Some(false)), "asked anew");
        assert_eq!((third.1, fourth.1), (None, None), "share its answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_asked_once_a_millisecond_at_most() {
        let verified = Verified::default();
        let questions = AtomicUsize::new(0);
        let begun = Instant::now();
        let a_moment = Duration::from_micros(10);
        for _ in 0..50 {
            tokio::time::advance(a_moment).await;
            let question = async {
                questions.fetch_add(1, Relaxed);
            };
            verified.ask(LEADER.0, LEADER.1, question).await;
        }
        assert_eq!(questions.load(Relaxed), 50);
        assert!(begun.elapsed() >= SPACING * 49, "{:?}", begun.elapsed());
        // Another process is another matter.
        let others = Instant::now();
        let question = async {
            questions.fetch_add(1, Relaxed);
        };
        verified.ask(LEADER.0, Incarnation(8), question).await;
        assert_eq!(others.elapsed(), Duration::ZERO);
    }
}
