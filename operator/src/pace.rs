//! Hints at a pace: what changes many times a second is looked at now and then.
//!
//! Promises: what has not been heard of for a while is passed on at once; however often it is heard of
//! again, it is passed on once in a period; and the last time is never lost.

use futures::{Stream, StreamExt as _, stream};
use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::Instant;

/// What was passed on less than a period ago, and whether it was heard of since.
struct Recent {
    free_at: Instant,
    again: bool,
}

struct Paced<K> {
    incoming: Pin<Box<dyn Stream<Item = K> + Send>>,
    period: Duration,
    recent: HashMap<K, Recent>,
}

/// Each of `incoming` at most once in `period`. Ends with `incoming`.
pub fn paced<K>(
    incoming: impl Stream<Item = K> + Send + 'static,
    period: Duration,
) -> impl Stream<Item = K> + Send
where
    K: Eq + Hash + Clone + Send + 'static,
{
    let paced = Paced {
        incoming: Box::pin(incoming),
        period,
        recent: HashMap::new(),
    };
    stream::unfold(paced, |mut paced| async {
        let next = paced.next().await?;
        Some((next, paced))
    })
}

impl<K: Eq + Hash + Clone> Paced<K> {
    async fn next(&mut self) -> Option<K> {
        loop {
            let free = self.recent.iter().min_by_key(|(_, recent)| recent.free_at);
            let free = free.map(|(key, recent)| (key.clone(), recent.free_at));
            let freed = async {
                match free {
                    Some((key, at)) => {
                        tokio::time::sleep_until(at).await;
                        key
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                key = self.incoming.next() => {
                    let key = key?;
                    match self.recent.get_mut(&key) {
                        Some(recent) => recent.again = true,
                        None => return Some(self.pass(key)),
                    }
                }
                key = freed => {
                    if self.recent.remove(&key).is_some_and(|recent| recent.again) {
                        return Some(self.pass(key));
                    }
                }
            }
        }
    }

    fn pass(&mut self, key: K) -> K {
        let recent = Recent {
            free_at: Instant::now() + self.period,
            again: false,
        };
        self.recent.insert(key.clone(), recent);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::mpsc::unbounded;

    const PERIOD: Duration = Duration::from_millis(500);

    #[tokio::test(start_paused = true)]
    async fn what_is_told_often_passes_once_in_a_period_and_the_last_is_not_lost() {
        let (tell, told) = unbounded();
        let mut passed = Box::pin(paced(told, PERIOD));
        let begun = Instant::now();
        let teller = tokio::spawn(async move {
            for _ in 0..20 {
                tell.unbounded_send("a").unwrap();
                tokio::time::sleep(Duration::from_millis(45)).await;
            }
            tell
        });
        let mut times = Vec::new();
        for _ in 0..3 {
            passed.next().await;
            times.push(begun.elapsed().as_millis());
        }
        // The last was told after 855 ms.
        assert_eq!((times[0], times.len()), (0, 3), "{times:?}");
        assert!((500..510).contains(&times[1]), "{times:?}");
        assert!((1_000..1_010).contains(&times[2]), "{times:?}");
        let tell = teller.await.unwrap();
        tokio::time::sleep(PERIOD * 3).await;
        assert!(futures::poll!(passed.next()).is_pending(), "nothing more");
        tell.unbounded_send("a").unwrap();
        let quiet = Instant::now();
        passed.next().await;
        assert!(quiet.elapsed() < PERIOD, "at once after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn one_does_not_wait_for_the_other() {
        let (tell, told) = unbounded();
        let mut passed = Box::pin(paced(told, PERIOD));
        for key in ["a", "a", "b"] {
            tell.unbounded_send(key).unwrap();
        }
        let begun = Instant::now();
        let first = [passed.next().await, passed.next().await];
        assert_eq!(first, [Some("a"), Some("b")]);
        assert!(begun.elapsed() < PERIOD);
        drop(tell);
        assert_eq!(passed.next().await, None);
    }
}
