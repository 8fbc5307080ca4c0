//! Fetch, for clients and for followers.
//!
//! A client that may read from followers is served by [`super::nearest`]'s rules.
//!
//! Promises: a client reads to the high watermark, one that wants committed records only to the last stable offset
//! (and hears which transactions were aborted), a follower to the log's end; a follower's position
//! counts only in the incarnation and leader epoch of the image, and only where its log agrees with
//! ours; bytes leave only if the leadership under which they were read still stands afterwards (a
//! truncation in between would splice two histories); nothing polls.

use super::io::blocking;
use super::leader::Refusal;
use super::manager::ReplicaManager;
use super::nearest::{Reader, following};
use super::offsets::end_of_epoch;
use super::partition::{Partition, is_offline};
use super::state::{Change, Replica};
use super::types::*;
use super::wait::Waiter;
use bytes::{Bytes, BytesMut};
use leasehold_log::{AbortedTxn, CommittedRead, PartitionLog, ReadError};
use leasehold_types::seams::{self, taken_out};
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;
use tokio::time::{Instant, timeout_at};

/// One entry on its way to a result.
struct Part {
    entry: FetchEntry,
    partition: Option<Arc<Partition>>,
    /// What can be said without reading records.
    result: FetchResult,
    settled: bool,
    /// The follower has records that were deleted here: it shall hear of it now, not after its wait.
    begins_later: bool,
    /// It goes to a replica that the controller moves here, of which there is a limit.
    moves: bool,
    /// It goes to a follower that its topic wants held back here.
    throttled: bool,
    /// So much was sent to such replicas lately that this one has to wait until then.
    held_until: Option<Instant>,
    /// The high watermark is another than the follower knows, which wants to hear of it early.
    has_new_mark: bool,
    /// The leader epoch under which `chunks` were read.
    epoch: LeaderEpoch,
    /// Set if they were read as a follower: [`Partition::uncut`] before.
    uncut: Option<u64>,
    limit: Offset,
    chunks: Vec<Bytes>,
    aborted: Vec<AbortedTxn>,
    next: Offset,
    bytes: usize,
}

impl Part {
    fn new(entry: FetchEntry) -> Self {
        let result = FetchResult::failed(entry.topic, entry.partition, ErrorCode::None);
        Self {
            partition: None,
            result,
            settled: false,
            begins_later: false,
            moves: false,
            throttled: false,
            held_until: None,
            has_new_mark: false,
            epoch: LeaderEpoch::NONE,
            uncut: None,
            limit: Offset(-1),
            chunks: Vec::new(),
            aborted: Vec::new(),
            next: entry.fetch_offset,
            bytes: 0,
            entry,
        }
    }

    fn fail(&mut self, error: ErrorCode, current_leader: Option<LeaderHint>) {
        self.result = FetchResult {
            current_leader,
            ..FetchResult::failed(self.entry.topic, self.entry.partition, error)
        };
        self.chunks.clear();
        self.aborted.clear();
        self.settled = true;
    }

    fn readable(&self) -> bool {
        !self.settled && self.limit > self.next && self.bytes < self.entry.max_bytes.max(1)
    }

    fn finish(mut self) -> FetchResult {
        if !self.settled {
            self.result.records = match self.chunks.len() {
                0 => Bytes::new(),
                1 => self.chunks.swap_remove(0),
                _ => {
                    let mut whole = BytesMut::with_capacity(self.bytes);
                    for chunk in &self.chunks {
                        whole.extend_from_slice(chunk);
                    }
                    whole.freeze()
                }
            };
            self.result.aborted = self.aborted;
        }
        self.result
    }
}

impl ReplicaManager {
    /// Answers when `min_bytes` can be returned, when any entry has an error, or after `max_wait`.
    /// Results in the order of `entries`.
    pub async fn fetch(&self, params: FetchParams, entries: Vec<FetchEntry>) -> Vec<FetchResult> {
        self.fetch_for(Reader::default(), params, entries).await
    }

    /// The same for a reader of whom more is known.
    pub async fn fetch_for(
        &self,
        reader: Reader,
        params: FetchParams,
        entries: Vec<FetchEntry>,
    ) -> Vec<FetchResult> {
        let deadline = Instant::now() + params.max_wait;
        let mut parts: Vec<Part> = entries.into_iter().map(Part::new).collect();
        for part in &mut parts {
            match self.find((part.entry.topic, part.entry.partition)) {
                Ok(partition) => {
                    if params.replica.is_some() {
                        self.count_follower(&params, part, &partition);
                    }
                    part.partition = Some(partition);
                }
                Err(refused) => part.fail(refused.error, refused.current_leader),
            }
        }
        let count = parts.len();
        // Twice: for the log's growth, and for the high watermark.
        let waiter = Waiter::new(2 * count);
        let mut last_look = false;
        loop {
            for (index, part) in parts.iter_mut().enumerate() {
                let Some(partition) = &part.partition else {
                    continue;
                };
                let for_mark = reader.known(partition.key()).is_some();
                // Arm first, look second: a change in between leaves a wake-up behind.
                let changed = match params.replica {
                    Some(_) if for_mark => {
                        let grown = partition.grown.arm(&waiter, index);
                        partition.committed.arm(&waiter, count + index) | grown
                    }
                    Some(_) => partition.grown.arm(&waiter, index),
                    None => partition.committed.arm(&waiter, index),
                };
                if changed || last_look || part.held_until.is_some() {
                    self.look(&reader, &params, part);
                }
            }
            read(&params, &mut parts).await;
            let bytes: usize = parts.iter().map(|part| part.bytes).sum();
            let enough = bytes >= params.min_bytes || bytes >= params.max_bytes;
            let news = |part: &Part| part.settled || part.begins_later || part.has_new_mark;
            if last_look || enough || parts.iter().any(news) {
                break;
            }
            let held = parts.iter().filter_map(|part| part.held_until).min();
            let until = held.map_or(deadline, |held| held.min(deadline));
            // At the end of the wait the leadership is judged once more: an empty answer says that
            // there was nothing.
            last_look = timeout_at(until, waiter.woken()).await.is_err() && until == deadline;
        }
        let bytes_of = |counts: fn(&Part) -> bool| -> usize {
            let parts = parts.iter().filter(|part| counts(part));
            parts.map(|part| part.bytes).sum()
        };
        self.throttles.moves.sent(bytes_of(|part| part.moves));
        self.throttles.leader.sent(bytes_of(|part| part.throttled));
        let results: Vec<_> = parts.into_iter().map(Part::finish).collect();
        let bytes: usize = results.iter().map(|result| result.records.len()).sum();
        if params.replica.is_some() {
            self.counters().replication_bytes_out.add(bytes as u64);
        } else {
            self.counters().bytes_out.add(bytes as u64);
        }
        results
    }

    /// Takes note of how far a follower has come; once per fetch, at its arrival.
    fn count_follower(&self, params: &FetchParams, part: &mut Part, partition: &Arc<Partition>) {
        let Some((id, incarnation)) = params.replica else {
            return;
        };
        let epoch = part.entry.current_leader_epoch.unwrap_or(LeaderEpoch::NONE);
        let Some(log) = partition.log() else {
            part.fail(ErrorCode::NotLeaderOrFollower, partition.hint());
            return;
        };
        let mut outcome = Ok(());
        let mut wants_in = false;
        let mut begins_elsewhere = false;
        partition.change(|state| {
            outcome = admit(state, id, incarnation, epoch);
            if outcome.is_err() {
                // Someone knows of a newer leader: do not serve on, whatever our image still says.
                let newer = state.view().is_some_and(|view| epoch > view.leader_epoch);
                return if newer {
                    state.heard(epoch)
                } else {
                    Change::default()
                };
            }
            if let Err(stop) = agrees(&log, &part.entry) {
                stop.settle(part, &log, state.high_watermark());
                return Change::default();
            }
            let change = state.with_leader(epoch, |leader| {
                leader.fetched(id, incarnation, part.entry.fetch_offset, seams::now())
            });
            if let (Some(leader), Some(start)) = (state.leader_mut(), part.entry.log_start_offset) {
                begins_elsewhere = leader.begins_at(id, start);
            }
            wants_in = state
                .leader()
                .is_some_and(|leader| leader.proposal().is_none() && !leader.view().in_sync(id));
            change
        });
        if let Err(error) = outcome {
            part.fail(error, partition.hint());
        }
        if begins_elsewhere {
            partition.starts.wake();
        }
        if wants_in {
            self.consider_isr(partition);
        }
    }

    /// What can be read now, or why not.
    fn look(&self, reader: &Reader, params: &FetchParams, part: &mut Part) {
        let Some(partition) = part.partition.clone().filter(|_| !part.settled) else {
            return;
        };
        let Some(log) = partition.log() else {
            part.fail(ErrorCode::NotLeaderOrFollower, partition.hint());
            return;
        };
        let near = reader.may_follow() && partition.look_leader(|_| ()).is_none();
        // Before the look at what may be read: see `Part::took`.
        let before = part.uncut;
        part.uncut = if near { partition.uncut() } else { None };
        let cut_since = part.uncut != before;
        let stands = match near {
            true => part.uncut.is_some() && self.hears_its_leader(&partition),
            false => params.replica.is_some() || self.proof().holds(&partition),
        };
        if !stands && !partition.look(is_offline) {
            part.fail(ErrorCode::NotLeaderOrFollower, partition.hint());
            return;
        }
        let wanted = part.entry.current_leader_epoch;
        let (mut moves, mut throttled) = (false, false);
        let leader = partition.look(|state| match (state.leader(), params.replica) {
            (leader, Some((id, incarnation))) => {
                let epoch = wanted.unwrap_or(LeaderEpoch::NONE);
                admit(state, id, incarnation, epoch)?;
                // Once it is in sync it is like any other: the partition waits for it.
                if let Some(view) = leader.map(|leader| leader.view())
                    && !view.in_sync(id)
                {
                    moves = view.moves;
                    throttled = view.throttled_leaders.has(self.id());
                }
                Ok((epoch, state.high_watermark(), state.log_end()))
            }
            (None, None) if is_offline(state) => Err(ErrorCode::KafkaStorageError),
            (None, None) => match following(state).filter(|_| near) {
                Some((_, epoch, mark, end)) => {
                    known_epoch(wanted, epoch).map(|()| (epoch, mark, end))
                }
                None => Err(ErrorCode::NotLeaderOrFollower),
            },
            (Some(leader), None) if !near => known_epoch(wanted, leader.epoch())
                .map(|()| (leader.epoch(), leader.high_watermark(), leader.log_end())),
            // Elected since: with the next look.
            (Some(_), None) => Err(ErrorCode::NotLeaderOrFollower),
        });
        let (epoch, high_watermark, log_end) = match leader {
            Ok(state) => state,
            Err(error) => return part.fail(error, partition.hint()),
        };
        if !part.chunks.is_empty() && (part.epoch != epoch || cut_since) {
            return part.fail(ErrorCode::NotLeaderOrFollower, partition.hint());
        }
        part.epoch = epoch;
        if params.replica.is_none()
            && let Err(stop) = agrees(&log, &part.entry)
        {
            return stop.settle(part, &log, high_watermark);
        }
        let last_stable = log.last_stable_offset(high_watermark);
        part.limit = match params.replica {
            None if params.read_committed
                && !taken_out("readers-of-committed-records-stop-at-what-is-open") =>
            {
                last_stable
            }
            None if !taken_out("readers-stop-at-the-high-watermark") => high_watermark,
            _ => log_end,
        };
        (part.moves, part.throttled) = (moves, throttled);
        part.held_until = None;
        self.hold(part);
        part.result.high_watermark = high_watermark;
        part.result.last_stable_offset = last_stable;
        part.result.log_start_offset = log.log_start_offset();
        if let Reader::Near { rack } = reader
            && !near
            && part.chunks.is_empty()
            && let Some(closest) =
                self.closest(&partition, rack.as_deref(), part.entry.fetch_offset)
        {
            part.result.preferred_replica = Some(closest);
            part.settled = true;
            return;
        }
        // One that is held back is too far behind to care.
        part.has_new_mark = part.held_until.is_none()
            && reader
                .known(partition.key())
                .is_some_and(|known| known < high_watermark);
        let theirs = part.entry.log_start_offset;
        part.begins_later = theirs.is_some_and(|start| start < part.result.log_start_offset);
    }
}

impl ReplicaManager {
    /// Lets a follower that is not in sync wait while those like it were sent more than a limit.
    fn hold(&self, part: &mut Part) {
        let now = seams::now();
        let moves = part.moves.then(|| self.throttles.moves.wait(now));
        let throttled = part.throttled.then(|| self.throttles.leader.wait(now));
        for (wait, most) in [moves, throttled].into_iter().flatten().flatten() {
            part.entry.max_bytes = part.entry.max_bytes.min(most);
            if !wait.is_zero() {
                let until = Instant::now() + wait;
                part.held_until = part.held_until.max(Some(until));
                part.limit = part.next;
            }
        }
    }
}

/// Whether a client believes in the present leader epoch, if it told.
fn known_epoch(wanted: Option<LeaderEpoch>, present: LeaderEpoch) -> Result<(), ErrorCode> {
    match wanted {
        Some(wanted) if wanted < present => Err(ErrorCode::FencedLeaderEpoch),
        Some(wanted) if wanted > present => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// Whether a follower's fetch counts, in Kafka's words.
fn admit<T>(
    state: &Replica<T>,
    id: BrokerId,
    incarnation: Incarnation,
    epoch: LeaderEpoch,
) -> Result<(), ErrorCode> {
    match state.leader() {
        Some(leader) => Ok(leader.admit(id, incarnation, epoch)?),
        None if is_offline(state) => Err(ErrorCode::KafkaStorageError),
        None => Err(ErrorCode::NotLeaderOrFollower),
    }
}

impl From<Refusal> for ErrorCode {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fenced => Self::FencedLeaderEpoch,
            Refusal::Deposed => Self::UnknownLeaderEpoch,
            Refusal::WrongIncarnation => Self::StaleBrokerEpoch,
        }
    }
}

/// Why a position is not one of this log.
enum Stop {
    OutOfRange,
    Diverges(LeaderEpoch, Offset),
}

impl Stop {
    fn settle(self, part: &mut Part, log: &PartitionLog, high_watermark: Offset) {
        match self {
            Self::OutOfRange => part.fail(ErrorCode::OffsetOutOfRange, None),
            Self::Diverges(epoch, end) => {
                part.result.diverging_epoch = Some((epoch, end));
                part.settled = true;
            }
        }
        part.result.high_watermark = high_watermark;
        part.result.last_stable_offset = log.last_stable_offset(high_watermark);
        part.result.log_start_offset = log.log_start_offset();
    }
}

/// Whether the fetcher's log, as far as it told, is a prefix of ours.
fn agrees(log: &PartitionLog, entry: &FetchEntry) -> Result<(), Stop> {
    if entry.fetch_offset < log.log_start_offset() {
        return Err(Stop::OutOfRange);
    }
    if let Some(last) = entry.last_fetched_epoch
        && !taken_out("logs-are-compared")
    {
        let Some((epoch, end)) = end_of_epoch(log, last) else {
            return Err(Stop::OutOfRange);
        };
        if epoch < last || end < entry.fetch_offset {
            return Err(Stop::Diverges(epoch, end));
        }
    }
    if entry.fetch_offset > log.log_end_offset() {
        return Err(Stop::OutOfRange);
    }
    Ok(())
}

struct Read {
    index: usize,
    log: Arc<PartitionLog>,
    from: Offset,
    limit: Offset,
    max: usize,
    so_far: usize,
}

impl Read {
    fn run(
        &self,
        max: usize,
        at_least_one: bool,
        committed: bool,
    ) -> Result<CommittedRead, ReadError> {
        let (from, limit) = (self.from, self.limit);
        if committed {
            return self.log.read_committed(from, max, limit, at_least_one);
        }
        let batches = self.log.read(from, max, limit, at_least_one)?;
        Ok(CommittedRead {
            batches,
            aborted: Vec::new(),
        })
    }
}

/// Reads what the parts allow, on a blocking thread, within the fetch's budget.
async fn read(params: &FetchParams, parts: &mut [Part]) {
    let reads: Vec<Read> = parts
        .iter()
        .enumerate()
        .filter(|(_, part)| part.readable())
        .filter_map(|(index, part)| {
            Some(Read {
                index,
                log: part.partition.as_ref()?.log()?.clone(),
                from: part.next,
                limit: part.limit,
                max: part.entry.max_bytes.saturating_sub(part.bytes),
                so_far: part.bytes,
            })
        })
        .collect();
    if reads.is_empty() {
        return;
    }
    let mut total: usize = parts.iter().map(|part| part.bytes).sum();
    let max_bytes = params.max_bytes;
    let committed = params.read_committed && params.replica.is_none();
    let work = move || {
        let mut done = Vec::with_capacity(reads.len());
        for read in reads {
            // The first batch of a fetch comes whole, whatever its size: a reader must get on.
            let first = total == 0;
            let left = max_bytes.saturating_sub(total);
            if left == 0 && !first {
                break;
            }
            let max = read.max.min(left);
            let result = read.run(max, first && read.so_far == 0, committed);
            if let Ok(found) = &result {
                total += found.batches.len();
            }
            done.push((read.index, result));
        }
        done
    };
    let Ok(done) = blocking(work).await else {
        return;
    };
    for (index, result) in done {
        parts[index].took(result);
    }
}

impl Part {
    fn took(&mut self, result: Result<CommittedRead, ReadError>) {
        let Some(partition) = self.partition.clone() else {
            return;
        };
        // Roles change before logs do: the same leadership now means that nothing was cut meanwhile.
        let stands = match self.uncut {
            None => partition.look_leader(|leader| leader.epoch()) == Some(self.epoch),
            // A follower's log may be cut while it follows the same leader.
            Some(uncut) => {
                partition.look(following).map(|found| found.1) == Some(self.epoch)
                    && partition.uncut() == Some(uncut)
            }
        };
        if !stands {
            self.fail(ErrorCode::NotLeaderOrFollower, partition.hint());
            return;
        }
        match result {
            Ok(found) if found.batches.is_empty() => {}
            Ok(found) => {
                let bytes = found.batches;
                // One that an earlier chunk had part in is known already.
                let new = |txn: &AbortedTxn| !self.aborted.contains(txn);
                let new: Vec<_> = found.aborted.into_iter().filter(new).collect();
                if !taken_out("aborted-transactions-are-told") {
                    self.aborted.extend(new);
                }
                self.bytes += bytes.len();
                self.next = end_of_batches(&bytes).unwrap_or(self.limit);
                self.chunks.push(bytes);
            }
            Err(ReadError::OutOfRange { .. }) => self.fail(ErrorCode::OffsetOutOfRange, None),
            // It moved to another directory while it was read.
            Err(ReadError::Storage(_)) if !partition.notice_failure() => {
                self.fail(ErrorCode::NotLeaderOrFollower, partition.hint());
            }
            Err(error) => {
                tracing::error!(topic = %partition.topic(), partition = partition.key().1, %error, "cannot read the log");
                partition.notice_failure();
                self.fail(ErrorCode::from_code(error.kafka_code()), None);
            }
        }
    }
}

/// The offset after the last of these whole batches.
pub fn end_of_batches(mut bytes: &[u8]) -> Option<Offset> {
    const HEADER: usize = 61;
    let mut end = None;
    while bytes.len() >= HEADER {
        let base = i64::from_be_bytes(bytes[0..8].try_into().ok()?);
        let length = i32::from_be_bytes(bytes[8..12].try_into().ok()?);
        let delta = i32::from_be_bytes(bytes[23..27].try_into().ok()?);
        end = Some(Offset(base + i64::from(delta) + 1));
        bytes = bytes.get(12 + usize::try_from(length).ok()?..)?;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::super::harness::*;
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_read_under_a_leadership_that_ended_are_not_sent() {
        let cluster = Cluster::start(1, 1).await;
        cluster.leader(0).await;
        let manager = cluster.broker(0);
        let mut part = Part::new(fetch_entry(0));
        part.partition = Some(manager.find(KEY).unwrap());
        part.epoch = LeaderEpoch(0);
        cluster.controller.elect(BrokerId(0));
        eventually("it leads in the next epoch", || {
            let state = manager.leads(KEY.0, KEY.1)?;
            (state.epoch == LeaderEpoch(1)).then_some(())
        })
        .await;
        part.took(Ok(CommittedRead {
            batches: batch("read before"),
            aborted: Vec::new(),
        }));
        let result = part.finish();
        assert_eq!(result.error, ErrorCode::NotLeaderOrFollower);
        assert!(result.records.is_empty());
    }
}
