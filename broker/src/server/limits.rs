//! What one listener allows its peers.

use std::time::Duration;

/// Limits of a listener. The defaults are Kafka's where Kafka has them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Name of the listener, for log lines.
    pub name: &'static str,
    /// `max.connections`, at the start.
    pub max_connections: usize,
    /// `connections.max.idle.ms`.
    pub max_idle: Duration,
    /// `socket.request.max.bytes`.
    pub max_frame: usize,
    /// The same for all but Produce: only records come in such amounts, and what is no record takes
    /// several times its bytes once it is decoded.
    pub max_plain_frame: usize,
    /// Requests of one connection between their frame and their reply's last byte.
    pub max_in_flight: usize,
    /// Memory for frames above 16 KiB, of all connections together. Of frames longer than a quarter of
    /// it, one at a time is let in besides.
    pub request_memory: usize,
    /// A frame that has begun may take this long, plus the time its bytes take at `min_rate`.
    pub frame_grace: Duration,
    /// As `frame_grace`, for a peer that does not read its replies.
    pub reply_grace: Duration,
    /// Bytes per second below which a peer is too slow.
    pub min_rate: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            name: "client",
            max_connections: usize::MAX,
            max_idle: Duration::from_secs(600),
            max_frame: 100 << 20,
            max_plain_frame: 16 << 20,
            max_in_flight: 64,
            request_memory: 32 << 20,
            frame_grace: Duration::from_secs(10),
            reply_grace: Duration::from_secs(30),
            min_rate: 4 * 1024,
        }
    }
}

impl Limits {
    /// How long `bytes` may take.
    pub(super) fn allowance(&self, grace: Duration, bytes: usize) -> Duration {
        grace + Duration::from_secs_f64(bytes as f64 / self.min_rate.max(1) as f64)
    }
}
