//! How fast something goes, and how long to wait until it goes slowly enough. Pure.
//!
//! Kafka's ways: bytes and thread time are measured over the last samples of a window
//! (`quota.window.num`, `quota.window.size.seconds`); the wait is the time after which the measured
//! rate would be the limit. Mutations of the controller come out of a bucket of tokens (KIP-599).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over what is measured.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub samples: usize,
    pub sample: Duration,
}

impl Window {
    /// The time that all samples take.
    pub fn length(self) -> Duration {
        self.sample * u32::try_from(self.samples.max(1)).unwrap_or(u32::MAX)
    }
}

impl Window {
    /// The time over which a first burst is judged: all samples but the one that is being filled.
    pub fn measured(self) -> Duration {
        self.length().saturating_sub(self.sample).max(self.sample)
    }
}

/// A measured rate.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    samples: VecDeque<(Instant, f64)>,
}

impl Rate {
    /// `value` more at `now`.
    pub fn record(&mut self, window: Window, value: f64, now: Instant) {
        self.forget(window, now);
        match self.samples.back_mut() {
            Some((begun, sum)) if now.saturating_duration_since(*begun) < window.sample => {
                *sum += value;
            }
            _ => self.samples.push_back((now, value)),
        }
    }

    /// Takes back what was recorded just now.
    pub fn take_back(&mut self, value: f64) {
        if let Some((_, sum)) = self.samples.back_mut() {
            *sum = (*sum - value).max(0.0);
        }
    }

    /// How long to wait until the rate is `limit` per second; zero if it is not above it.
    pub fn wait(&mut self, window: Window, limit: f64, now: Instant) -> Duration {
        self.forget(window, now);
        let sum: f64 = self.samples.iter().map(|(_, sum)| sum).sum();
        let over = self.elapsed(window, now).as_secs_f64();
        let wait = sum / limit - over;
        match wait > 0.0 {
            // More than a day helps nobody, and overflows nothing.
            true => Duration::from_secs_f64(wait.min(86_400.0)),
            false => Duration::ZERO,
        }
    }

    /// Whether nothing of it counts any more.
    pub fn is_over(&mut self, window: Window, now: Instant) -> bool {
        self.forget(window, now);
        self.samples.is_empty()
    }

    /// The time over which the samples are spread: as if all but one were full at least, so that a first
    /// burst is judged over the window.
    fn elapsed(&self, window: Window, now: Instant) -> Duration {
        let full = window.measured();
        let oldest = self.samples.front().map(|(begun, _)| *begun);
        oldest.map_or(full, |oldest| {
            now.saturating_duration_since(oldest).max(full)
        })
    }

    fn forget(&mut self, window: Window, now: Instant) {
        let length = window.length();
        let gone = |sample: &(Instant, f64)| now.saturating_duration_since(sample.0) >= length;
        while self.samples.front().is_some_and(gone) {
            self.samples.pop_front();
        }
    }
}

/// A bucket of tokens, full at first.
#[derive(Clone, Debug)]
pub struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A bucket that has never been used.
    pub fn full(window: Window, limit: f64, now: Instant) -> Self {
        Self {
            tokens: limit * window.length().as_secs_f64(),
            filled_at: now,
        }
    }

    /// Takes `tokens`, unless the bucket is overdrawn: then tells when it will not be.
    pub fn take(
        &mut self,
        window: Window,
        limit: f64,
        tokens: f64,
        now: Instant,
    ) -> Result<(), Duration> {
        let wait = self.wait(window, limit, now);
        if !wait.is_zero() {
            return Err(wait);
        }
        self.tokens -= tokens;
        Ok(())
    }

    /// Takes `tokens` in any case.
    pub fn draw(&mut self, tokens: f64) {
        self.tokens -= tokens;
    }

    /// How long it stays overdrawn.
    pub fn wait(&mut self, window: Window, limit: f64, now: Instant) -> Duration {
        let grown = now.saturating_duration_since(self.filled_at).as_secs_f64() * limit;
        self.filled_at = now;
        self.tokens = (self.tokens + grown).min(limit * window.length().as_secs_f64());
        match self.tokens < 0.0 {
            true => Duration::from_secs_f64((-self.tokens / limit).min(86_400.0)),
            false => Duration::ZERO,
        }
    }

    /// Whether it was not used for so long that it must be full.
    pub fn is_over(&self, window: Window, now: Instant) -> bool {
        self.tokens >= 0.0 && now.saturating_duration_since(self.filled_at) > window.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Window = Window {
        samples: 11,
        sample: Duration::from_secs(1),
    };

    #[test]
    fn who_stays_below_the_limit_does_not_wait() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        for n in 0..100 {
            let now = start + Duration::from_millis(500 * n);
            rate.record(WINDOW, 500.0, now);
            assert_eq!(rate.wait(WINDOW, 1100.0, now), Duration::ZERO, "{n}");
        }
    }

    #[test]
    fn the_wait_brings_the_rate_down_to_the_limit() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        rate.record(WINDOW, 20_000.0, start);
        // 20,000 bytes at 1,000 per second take 20 s, of which the window counts 10.
        assert_eq!(rate.wait(WINDOW, 1000.0, start), Duration::from_secs(10));
        rate.take_back(15_000.0);
        assert_eq!(rate.wait(WINDOW, 1000.0, start), Duration::ZERO);
        assert!(!rate.is_over(WINDOW, start + Duration::from_secs(10)));
        assert!(rate.is_over(WINDOW, start + Duration::from_secs(11)));
    }

    #[test]
    fn who_obeys_gets_the_limit_in_the_long_run() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        let (mut now, mut sent) = (start, 0.0);
        while now < start + Duration::from_secs(600) {
            rate.record(WINDOW, 4_000.0, now);
            sent += 4_000.0;
            now += rate.wait(WINDOW, 1000.0, now) + Duration::from_millis(1);
        }
        let average = sent / (now - start).as_secs_f64();
        assert!((900.0..1_250.0).contains(&average), "{average}");
    }

    #[test]
    fn a_bucket_allows_a_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::full(WINDOW, 2.0, start);
        assert_eq!(
            bucket.take(WINDOW, 2.0, 30.0, start),
            Ok(()),
            "22 are there"
        );
        let wait = bucket.take(WINDOW, 2.0, 1.0, start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(4));
        assert_eq!(bucket.take(WINDOW, 2.0, 1.0, start + wait), Ok(()));
    }
}
