//! Client quotas, as one broker enforces them: what each client took lately, against the image's limits.
//!
//! Everyone is the user `ANONYMOUS`. As in Kafka, each broker counts for itself; who is above a limit
//! gets its answer with `throttle_time_ms`, and is not read from for that long ([`crate::server`]).
//! Promise: memory stays bounded, whatever client ids come.

pub mod rate;

use leasehold_metadata::Image;
use leasehold_metadata::quotas::{self, QuotaEntity, QuotaLimit, Who};
use parking_lot::Mutex;
use rate::{Bucket, Rate, Window};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The user that everyone is.
pub const USER: &str = "ANONYMOUS";
/// Those who are counted apart at most; beyond, newcomers of a quota are counted together.
const MOST: usize = 20_000;

/// Who is counted together, and for what.
type Key = (&'static str, QuotaEntity);

/// What was taken lately.
pub struct Quotas {
    window: Window,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    rates: HashMap<Key, Rate>,
    buckets: HashMap<Key, Bucket>,
    sweep_at: usize,
}

impl Quotas {
    /// Nothing was taken yet.
    pub fn new(window: Window) -> Self {
        Self {
            window,
            taken: Mutex::default(),
        }
    }

    /// `amount` of `kind` was taken by `client_id`: how long it has to wait now.
    pub fn take(
        &self,
        image: &Image,
        kind: &'static str,
        client_id: &str,
        amount: f64,
    ) -> Duration {
        let Some((key, limit)) = holds(image, kind, client_id) else {
            return Duration::ZERO;
        };
        let now = Instant::now();
        let mut taken = self.taken.lock();
        let key = taken.place(self.window, key, now);
        let rate = taken.rates.entry(key).or_default();
        rate.record(self.window, amount, now);
        let wait = rate.wait(self.window, limit.get(), now);
        match kind {
            // Kafka bounds this one by one sample.
            quotas::REQUEST_PERCENTAGE => wait.min(self.window.sample),
            _ => wait,
        }
    }

    /// The most of `kind` that `client_id` may take at once: more would never be within its quota.
    pub fn at_once(&self, image: &Image, kind: &'static str, client_id: &str) -> Option<usize> {
        let (_, limit) = holds(image, kind, client_id)?;
        // A number beyond usize saturates.
        Some((limit.get() * self.window.measured().as_secs_f64()) as usize)
    }

    /// What was taken just now was not given after all.
    pub fn take_back(&self, image: &Image, kind: &'static str, client_id: &str, amount: f64) {
        if let Some((key, _)) = holds(image, kind, client_id)
            && let Some(rate) = self.taken.lock().rates.get_mut(&key)
        {
            rate.take_back(amount);
        }
    }

    /// `partitions` are to be created or deleted. `strict`: not at all while the quota is overdrawn.
    pub fn mutate(
        &self,
        image: &Image,
        client_id: &str,
        partitions: usize,
        strict: bool,
    ) -> Mutation {
        let kind = quotas::CONTROLLER_MUTATION_RATE;
        let Some((key, limit)) = holds(image, kind, client_id) else {
            return Mutation::default();
        };
        let now = Instant::now();
        let (window, limit) = (self.window, limit.get());
        let mut taken = self.taken.lock();
        let key = taken.place(window, key, now);
        let full = || Bucket::full(window, limit, now);
        let bucket = taken.buckets.entry(key).or_insert_with(full);
        let tokens = partitions as f64;
        match (strict, bucket.take(window, limit, tokens, now)) {
            (_, Ok(())) => Mutation {
                refused: false,
                wait: match strict {
                    true => Duration::ZERO,
                    false => bucket.wait(window, limit, now),
                },
            },
            (true, Err(wait)) => Mutation {
                refused: true,
                wait,
            },
            (false, Err(_)) => {
                bucket.draw(tokens);
                Mutation {
                    refused: false,
                    wait: bucket.wait(window, limit, now),
                }
            }
        }
    }
}

/// What a quota says to a mutation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mutation {
    pub refused: bool,
    pub wait: Duration,
}

impl Taken {
    /// Where `key` is counted. Now and then forgets who took nothing lately.
    fn place(&mut self, window: Window, key: Key, now: Instant) -> Key {
        if self.rates.contains_key(&key) || self.buckets.contains_key(&key) {
            return key;
        }
        let count = self.rates.len() + self.buckets.len();
        if count >= self.sweep_at {
            self.rates.retain(|_, rate| !rate.is_over(window, now));
            self.buckets
                .retain(|_, bucket| !bucket.is_over(window, now));
            self.sweep_at = 2 * (self.rates.len() + self.buckets.len()).max(64);
        }
        match self.rates.len() + self.buckets.len() < MOST {
            true => key,
            false => (key.0, QuotaEntity::default()),
        }
    }
}

/// The quota of `kind` that holds for `client_id`, and with whom it shares it.
fn holds(image: &Image, kind: &'static str, client_id: &str) -> Option<(Key, QuotaLimit)> {
    if image.client_quotas.is_empty() {
        return None;
    }
    let (entity, limit) = quotas::find(&image.client_quotas, USER, client_id, kind)?;
    // A quota of all users' is each user's own, and so with client ids.
    let sharing = QuotaEntity {
        user: entity.user.as_ref().map(|_| Who::Named(USER.to_owned())),
        client_id: entity
            .client_id
            .as_ref()
            .map(|_| Who::Named(client_id.to_owned())),
    };
    Some(((kind, sharing), limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_types::ClusterId;
    use quotas::{CONTROLLER_MUTATION_RATE, PRODUCER_BYTE_RATE, REQUEST_PERCENTAGE};
    use std::sync::Arc;

    fn quotas() -> Quotas {
        Quotas::new(Window {
            samples: 11,
            sample: Duration::from_secs(1),
        })
    }

    /// With a limit for all client ids (`None`), or for all together.
    fn image(kind: &str, limit: f64, each: bool) -> Image {
        let mut image = Image::genesis(ClusterId("c".into()));
        let entity = QuotaEntity {
            user: (!each).then_some(Who::Default),
            client_id: each.then_some(Who::Default),
        };
        let limit = QuotaLimit::new(kind, limit).unwrap();
        let limits = [(kind.to_owned(), limit)].into();
        image.client_quotas = Arc::new([(entity, limits)].into());
        image
    }

    #[test]
    fn a_default_for_client_ids_is_each_ones_own_and_one_for_users_is_shared() {
        for each in [true, false] {
            let image = image(PRODUCER_BYTE_RATE, 100.0, each);
            let quotas = quotas();
            let take = |client| quotas.take(&image, PRODUCER_BYTE_RATE, client, 900.0);
            assert_eq!(take("a"), Duration::ZERO);
            assert_eq!(take("b").is_zero(), each);
            quotas.take_back(&image, PRODUCER_BYTE_RATE, "b", 900.0);
            let none = quotas.take(&image, PRODUCER_BYTE_RATE, "b", 0.0);
            assert_eq!(none, Duration::ZERO);
        }
    }

    #[test]
    fn a_request_quota_never_makes_wait_longer_than_one_sample() {
        let image = image(REQUEST_PERCENTAGE, 1.0, true);
        let wait = quotas().take(&image, REQUEST_PERCENTAGE, "a", 5_000.0);
        assert_eq!(wait, Duration::from_secs(1));
    }

    #[test]
    fn mutations_beyond_the_burst_are_refused_or_delayed() {
        let image = image(CONTROLLER_MUTATION_RATE, 1.0, true);
        let quotas = quotas();
        let first = quotas.mutate(&image, "a", 20, true);
        assert_eq!(first, Mutation::default(), "a burst may overdraw");
        assert!(quotas.mutate(&image, "a", 1, true).refused);
        let lenient = quotas.mutate(&image, "a", 1, false);
        assert!(!lenient.refused && lenient.wait > Duration::from_secs(8));
        assert!(!quotas.mutate(&image, "b", 1, true).refused);
    }

    #[test]
    fn unknown_client_ids_do_not_pile_up() {
        let image = image(PRODUCER_BYTE_RATE, 100.0, true);
        let quotas = quotas();
        for n in 0..MOST + 100 {
            quotas.take(&image, PRODUCER_BYTE_RATE, &n.to_string(), 1.0);
        }
        assert!(quotas.taken.lock().rates.len() <= MOST + 1);
    }
}
