//! What a follower does with its leader's answer, on the partition's lane.

use super::counters::Counters;
use super::partition::Partition;
use super::state::Role;
use super::types::{FetchEntry, FetchResult};
use leasehold_log::{AppendError, LogError, PartitionLog};
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, LeaderEpoch, Offset};
use leasehold_wire::ErrorCode;
use std::sync::Arc;

/// Whether to go on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    Well,
    /// Pause a little before asking for this partition again.
    Badly,
}

/// Brings one answer to the log, if the role in which it was asked for still holds.
pub fn follow(
    partition: &Arc<Partition>,
    leader: BrokerId,
    asked: &FetchEntry,
    answer: FetchResult,
    counters: &Counters,
) -> Followed {
    let Some(log) = partition.log() else {
        return Followed::Badly;
    };
    let still = partition.look(|state| {
        matches!(state.role(), Role::Following { leader: Some(followed), epoch }
            if *followed == leader && Some(*epoch) == asked.current_leader_epoch)
    });
    if !still || log.log_end_offset() != asked.fetch_offset {
        return Followed::Badly;
    }
    let done = match answer.error {
        ErrorCode::None => match answer.diverging_epoch {
            Some((epoch, end)) => truncate(partition, &log, asked, epoch, end, counters),
            None => append(partition, &log, &answer, counters),
        },
        ErrorCode::OffsetOutOfRange => start_over(partition, &log, asked, &answer),
        error => {
            tracing::debug!(topic = %partition.topic(), partition = partition.key().1, leader = leader.0,
                %error, "the leader refuses to be followed");
            return Followed::Badly;
        }
    };
    match done {
        Ok(followed) => followed,
        Err(error) => {
            partition.fail(error);
            Followed::Badly
        }
    }
}

/// Cuts where the leader's log parts from ours: at the end, in either log, of the largest epoch that
/// both have. The next fetch tells whether that was enough; it is, after one cut per missed epoch.
fn truncate(
    partition: &Partition,
    log: &PartitionLog,
    asked: &FetchEntry,
    epoch: LeaderEpoch,
    leader_end: Offset,
    counters: &Counters,
) -> Result<Followed, String> {
    let own_end = match log.end_offset_for_epoch(epoch) {
        Some((_, end)) => end,
        // All that we have is of epochs which the leader does not have.
        None => log.log_start_offset(),
    };
    let cut = own_end.min(leader_end);
    let high_watermark = partition.look(|state| state.high_watermark());
    if cut < high_watermark {
        tracing::error!(topic = %partition.topic(), partition = partition.key().1,
            cut = cut.0, high_watermark = high_watermark.0,
            "the leader lacks records that were committed: an unclean election lost them");
    }
    let end = partition.cutting(|| {
        let end = log.truncate_to(cut).map_err(|error| error.to_string())?;
        partition.adjust(|state| state.truncated(end));
        Ok::<_, String>(end)
    })?;
    counters.truncations.add(1);
    tracing::info!(topic = %partition.topic(), partition = partition.key().1,
        from = asked.fetch_offset.0, to = end.0, epoch = epoch.0,
        "cut the log where the leader's parts from it");
    Ok(Followed::Well)
}

fn append(
    partition: &Partition,
    log: &PartitionLog,
    answer: &FetchResult,
    counters: &Counters,
) -> Result<Followed, String> {
    if !answer.records.is_empty() {
        match log.append_follower(&answer.records) {
            Ok(_) => counters
                .replication_bytes_in
                .add(answer.records.len() as u64),
            Err(AppendError::Storage(error)) if log.offline().is_some() => {
                return Err(error.to_string());
            }
            Err(error) => {
                // Damaged on the way, or not what continues our log: ask again.
                tracing::warn!(topic = %partition.topic(), partition = partition.key().1, %error,
                    "the leader's records cannot be appended");
                return Ok(Followed::Badly);
            }
        }
    }
    let end = log.log_end_offset();
    let high_watermark = answer.high_watermark.min(end);
    let moved = partition.adjust(|state| {
        let before = state.high_watermark();
        state.followed(end, answer.high_watermark);
        state.high_watermark() > before
    });
    // What has ended below it need not be remembered.
    let _ = log.last_stable_offset(high_watermark);
    if moved {
        // Consumers may read here, too.
        partition.committed.wake();
    }
    let later = answer.log_start_offset > log.log_start_offset();
    if later && answer.log_start_offset <= high_watermark && !taken_out("deletions-are-followed") {
        // The leader deleted records that we hold committed: so do we.
        match log.delete_records_before(answer.log_start_offset) {
            Ok(_) | Err(LogError::OutOfRange { .. }) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Followed::Well)
}

/// Our log has no point in common with the leader's range: begin again where the leader's begins.
fn start_over(
    partition: &Partition,
    log: &PartitionLog,
    asked: &FetchEntry,
    answer: &FetchResult,
) -> Result<Followed, String> {
    let start = answer.log_start_offset;
    let empty = log.log_start_offset() >= asked.fetch_offset;
    if start < Offset(0) || (start <= asked.fetch_offset && !empty) {
        // Nothing that the leader's start would explain: do not throw records away for it.
        tracing::error!(topic = %partition.topic(), partition = partition.key().1,
            log_end = asked.fetch_offset.0, leader_log_start = start.0,
            "the leader finds this replica's log out of range; keeping it");
        return Ok(Followed::Badly);
    }
    tracing::warn!(topic = %partition.topic(), partition = partition.key().1,
        log_end = asked.fetch_offset.0, leader_log_start = start.0,
        "this replica's log lies outside of its leader's; starting over at the leader's start");
    partition.cutting(|| {
        log.reset_to(start).map_err(|error| error.to_string())?;
        partition.adjust(|state| state.reset(start));
        Ok::<_, String>(())
    })?;
    Ok(Followed::Well)
}
