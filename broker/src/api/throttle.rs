//! What quotas do to a request: its `throttle_time_ms`, and the silence after its reply.
//!
//! A request gathers the waits that quotas ask of it; when its reply is encoded, the longest of them is
//! written into it and its connection is not read from for that long. Thread time is counted where a
//! quota limits it: the polls of the request's own futures.

use super::context::Shared;
use leasehold_metadata::quotas::REQUEST_PERCENTAGE;
use leasehold_wire::StrBytes;
use leasehold_wire::kafka::messages::*;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A reply that can say for how long its client is throttled.
pub(super) trait Throttled: Clone {
    /// The first version that says it; `None`: none does.
    const SINCE: Option<i16>;

    fn say(&mut self, ms: i32);
}

macro_rules! throttled {
    ($($reply:ident $since:literal),* $(,)?) => {
        $(impl Throttled for $reply {
            const SINCE: Option<i16> = Some($since);

            fn say(&mut self, ms: i32) {
                self.throttle_time_ms = ms;
            }
        })*
    };
}

throttled! {
    AddOffsetsToTxnResponse 0, AddPartitionsToTxnResponse 0, AlterClientQuotasResponse 0,
    AlterConfigsResponse 0, AlterPartitionReassignmentsResponse 0, AlterReplicaLogDirsResponse 1,
    ApiVersionsResponse 1, ConsumerGroupDescribeResponse 0, ConsumerGroupHeartbeatResponse 0,
    CreatePartitionsResponse 0, CreateTopicsResponse 2, DeleteGroupsResponse 0,
    DeleteRecordsResponse 0, DeleteTopicsResponse 1, DescribeClientQuotasResponse 0,
    DescribeClusterResponse 0, DescribeConfigsResponse 1, DescribeGroupsResponse 1,
    DescribeLogDirsResponse 1, DescribeProducersResponse 0, DescribeTopicPartitionsResponse 0,
    DescribeTransactionsResponse 0, ElectLeadersResponse 0, EndTxnResponse 0, FetchResponse 4,
    FindCoordinatorResponse 1, HeartbeatResponse 1, IncrementalAlterConfigsResponse 0,
    InitProducerIdResponse 0, JoinGroupResponse 2, LeaveGroupResponse 1,
    ListConfigResourcesResponse 0, ListGroupsResponse 1, ListOffsetsResponse 2,
    ListPartitionReassignmentsResponse 0, ListTransactionsResponse 0, MetadataResponse 3,
    OffsetCommitResponse 3, OffsetDeleteResponse 0, OffsetFetchResponse 3,
    OffsetForLeaderEpochResponse 2, ProduceResponse 3, SyncGroupResponse 1,
    TxnOffsetCommitResponse 0, UnregisterBrokerResponse 0, UpdateFeaturesResponse 0,
}

impl Throttled for WriteTxnMarkersResponse {
    const SINCE: Option<i16> = None;

    fn say(&mut self, _: i32) {}
}

/// One request's account.
pub(super) struct Throttle {
    shared: Arc<Shared>,
    client_id: Option<StrBytes>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The longest wait that was asked for so far.
    wait: Duration,
    /// Thread time of polls that are done.
    spent: Duration,
    polled_since: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(shared: &Arc<Shared>, client_id: Option<StrBytes>) -> Self {
        Self {
            shared: shared.clone(),
            client_id,
            state: Mutex::default(),
        }
    }

    fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }

    /// `amount` of `kind` is taken. Gives the wait for it.
    pub(super) fn take(&self, kind: &'static str, amount: f64) -> Duration {
        let image = self.shared.image();
        let wait = self
            .shared
            .quotas
            .take(&image, kind, self.client_id(), amount);
        self.wait(wait);
        wait
    }

    /// The most of `kind` that may be taken at once.
    pub(super) fn at_once(&self, kind: &'static str) -> usize {
        let image = self.shared.image();
        let most = self.shared.quotas.at_once(&image, kind, self.client_id());
        most.unwrap_or(usize::MAX)
    }

    /// It is not given after all; the wait stays.
    pub(super) fn take_back(&self, kind: &'static str, amount: f64) {
        let image = self.shared.image();
        self.shared
            .quotas
            .take_back(&image, kind, self.client_id(), amount);
    }

    /// Whether `partitions` may be created or deleted now.
    pub(super) fn may_mutate(&self, partitions: usize, strict: bool) -> bool {
        let image = self.shared.image();
        let said = self
            .shared
            .quotas
            .mutate(&image, self.client_id(), partitions, strict);
        self.wait(said.wait);
        !said.refused
    }

    fn wait(&self, wait: Duration) {
        let mut state = self.state.lock();
        state.wait = state.wait.max(wait);
    }

    /// The reply is ready: how long its client has to wait, by all quotas.
    pub(super) fn settle(&self) -> Duration {
        let spent = {
            let state = self.state.lock();
            let present = state
                .polled_since
                .map_or(Duration::ZERO, |since| since.elapsed());
            state.spent + present
        };
        // In percent of a thread's second.
        self.take(REQUEST_PERCENTAGE, spent.as_secs_f64() * 100.0);
        self.state.lock().wait
    }

    fn begin_poll(&self) {
        self.state.lock().polled_since = Some(Instant::now());
    }

    fn end_poll(&self) {
        let mut state = self.state.lock();
        if let Some(since) = state.polled_since.take() {
            state.spent += since.elapsed();
        }
    }
}

/// A future whose polls count as its request's thread time.
pub(super) struct Counted<F: ?Sized> {
    pub(super) inner: Pin<Box<F>>,
    pub(super) throttle: Arc<Throttle>,
}

impl<F: Future + ?Sized> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.throttle.begin_poll();
        let polled = self.inner.as_mut().poll(cx);
        self.throttle.end_poll();
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_wire::encode_reply;
    use leasehold_wire::kafka::protocol::{Encodable, HeaderVersion};
    use leasehold_wire::versions::SERVED;

    fn encodes<R: Throttled + Default + Encodable + HeaderVersion>(key: ApiKey) {
        let Some(served) = SERVED.iter().find(|served| served.key == key) else {
            return;
        };
        for version in served.min..=served.max {
            let mut reply = R::default();
            if R::SINCE.is_some_and(|since| version >= since) {
                reply.say(7);
            }
            encode_reply(1, &reply, version).unwrap_or_else(|e| panic!("{key:?} {version}: {e}"));
        }
    }

    #[test]
    fn a_throttle_time_is_said_only_in_versions_that_have_it() {
        encodes::<MetadataResponse>(ApiKey::Metadata);
        encodes::<FetchResponse>(ApiKey::Fetch);
        encodes::<ProduceResponse>(ApiKey::Produce);
        encodes::<ListOffsetsResponse>(ApiKey::ListOffsets);
        encodes::<OffsetCommitResponse>(ApiKey::OffsetCommit);
        encodes::<OffsetFetchResponse>(ApiKey::OffsetFetch);
        encodes::<FindCoordinatorResponse>(ApiKey::FindCoordinator);
        encodes::<JoinGroupResponse>(ApiKey::JoinGroup);
        encodes::<HeartbeatResponse>(ApiKey::Heartbeat);
        encodes::<LeaveGroupResponse>(ApiKey::LeaveGroup);
        encodes::<SyncGroupResponse>(ApiKey::SyncGroup);
        encodes::<DescribeGroupsResponse>(ApiKey::DescribeGroups);
        encodes::<ListGroupsResponse>(ApiKey::ListGroups);
        encodes::<ApiVersionsResponse>(ApiKey::ApiVersions);
        encodes::<CreateTopicsResponse>(ApiKey::CreateTopics);
        encodes::<DeleteTopicsResponse>(ApiKey::DeleteTopics);
        encodes::<DescribeConfigsResponse>(ApiKey::DescribeConfigs);
        encodes::<DescribeLogDirsResponse>(ApiKey::DescribeLogDirs);
        encodes::<OffsetForLeaderEpochResponse>(ApiKey::OffsetForLeaderEpoch);
    }
}
