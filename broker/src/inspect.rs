//! `leasehold-broker log inspect DIR`: prints what is in a log directory, and what is damaged.
//!
//! One finding a line, as it comes, so that a large log needs no memory. The exit code says the outcome: 0
//! sound, 1 damaged, 2 nothing that could be inspected.

use leasehold_log::LogError;
use leasehold_log::batch::BatchHeader;
use leasehold_log::inspect::{Finding, inspect};
use std::io::{self, Write};
use std::path::Path;

/// All is as it was written.
pub const SOUND: u8 = 0;
/// Something is damaged, and was named.
pub const DAMAGED: u8 = 1;
/// It is no log directory, or cannot be read. Also what wrong arguments end with.
pub const UNUSABLE: u8 = 2;

#[derive(Default)]
struct Count {
    partitions: u64,
    segments: u64,
    batches: u64,
    damages: u64,
}

/// Inspects `path`, prints to `out`, and returns the exit code.
pub fn run(path: &Path, out: &mut impl Write) -> io::Result<u8> {
    let mut count = Count::default();
    let mut printed = Ok(());
    let done = inspect(path, &mut |finding| {
        if printed.is_ok() {
            printed = print(&finding, &mut count, out);
        }
    });
    printed?;
    match done {
        Ok(()) => {}
        Err(e @ LogError::Unreadable { .. }) => {
            writeln!(out, "{e}")?;
            return Ok(UNUSABLE);
        }
        Err(e) => {
            writeln!(out, "DAMAGE {e}")?;
            count.damages += 1;
        }
    }
    let Count {
        partitions,
        segments,
        batches,
        damages,
    } = count;
    let seen = format!("{partitions} partitions, {segments} segments, {batches} batches");
    Ok(match damages {
        0 => {
            writeln!(out, "sound: {seen}")?;
            SOUND
        }
        1 => {
            writeln!(out, "damaged in one place: {seen}")?;
            DAMAGED
        }
        n => {
            writeln!(out, "damaged in {n} places: {seen}")?;
            DAMAGED
        }
    })
}

fn print(finding: &Finding<'_>, count: &mut Count, out: &mut impl Write) -> io::Result<()> {
    match finding {
        Finding::Directory(path) => writeln!(out, "log directory {}", path.display()),
        Finding::Owner {
            cluster,
            broker,
            directory,
        } => {
            let which = directory.map_or_else(String::new, |id| format!(", directory {id}"));
            writeln!(out, "  meta: broker {broker} of cluster {cluster}{which}")
        }
        Finding::Run {
            confirmed,
            attempted,
        } => {
            match confirmed {
                None => writeln!(out, "  run: no confirmed life")?,
                Some(life) => writeln!(
                    out,
                    "  run: incarnation {}, boot {}, pod {}, {}",
                    life.incarnation,
                    life.boot_id,
                    or_none(&life.pod_uid),
                    match life.clean {
                        true => "closed in order",
                        false => "not closed in order",
                    }
                )?,
            }
            attempted
                .iter()
                .try_for_each(|i| writeln!(out, "  run: incarnation {i} was attempted since"))
        }
        Finding::HighWatermark { partition, offset } => {
            writeln!(out, "  high watermark of {partition}: {offset}")
        }
        Finding::Partition(path) => {
            count.partitions += 1;
            writeln!(out, "partition {}", path.display())
        }
        Finding::OffsetFile { name, offset } => writeln!(out, "  {name}: {offset}"),
        Finding::Epoch { epoch, start } => writeln!(out, "  epoch {epoch} from offset {start}"),
        Finding::Segment { path, size } => {
            count.segments += 1;
            writeln!(out, "  segment {}, {size} bytes", name(path))
        }
        Finding::Batch { at, header } => {
            count.batches += 1;
            batch(*at, header, out)
        }
        Finding::Marker { at, marker } => {
            let how = if marker.committed { "COMMIT" } else { "ABORT" };
            writeln!(
                out,
                "      marker at {at}: {how} of producer {} epoch {}, coordinator epoch {}",
                marker.producer_id, marker.producer_epoch, marker.coordinator_epoch
            )
        }
        Finding::AbortedTransaction { path, txn } => writeln!(
            out,
            "  index {}: producer {} aborted from offset {} to {}, last stable offset {}",
            name(path),
            txn.producer_id,
            txn.first_offset,
            txn.last_offset,
            txn.last_stable_offset
        ),
        Finding::Index { path, entries } => {
            writeln!(out, "  index {}, {entries} entries", name(path))
        }
        Finding::Producer { at, producer } => {
            let p = producer;
            write!(
                out,
                "  snapshot at {at}: producer {} epoch {}, last sequence {} at offset {}",
                p.producer_id, p.producer_epoch, p.last_sequence, p.last_offset
            )?;
            if p.coordinator_epoch >= 0 {
                write!(out, ", coordinator epoch {}", p.coordinator_epoch)?;
            }
            match p.open_since {
                Some(first) => writeln!(out, ", transaction open since offset {first}"),
                None => writeln!(out),
            }
        }
        Finding::Note { path, what } => writeln!(out, "  note {}: {what}", path.display()),
        Finding::Damage { path, at, what } => {
            count.damages += 1;
            writeln!(out, "DAMAGE {} at byte {at}: {what}", path.display())
        }
        other => writeln!(out, "  {other:?}"),
    }
}

fn batch(at: u64, h: &BatchHeader, out: &mut impl Write) -> io::Result<()> {
    let codec = match h.codec() {
        0 => "none",
        1 => "gzip",
        2 => "snappy",
        3 => "lz4",
        4 => "zstd",
        _ => "unknown",
    };
    write!(
        out,
        "    at {at}: offsets {} to {}, epoch {}, {} records, {} bytes, codec {codec}, times {} to {}",
        h.base_offset,
        h.last_offset(),
        h.leader_epoch,
        h.record_count,
        h.total_len(),
        h.base_timestamp,
        h.max_timestamp
    )?;
    if h.has_producer() {
        let (id, epoch, first) = (h.producer_id, h.producer_epoch, h.base_sequence);
        write!(out, ", producer {id} epoch {epoch} sequence {first}")?;
    }
    let flags = [
        (h.is_log_append_time(), "log append time"),
        (h.is_transactional(), "transactional"),
        (h.is_control(), "control"),
        (h.delete_horizon().is_some(), "delete horizon"),
    ];
    for (_, flag) in flags.iter().filter(|(set, _)| *set) {
        write!(out, ", {flag}")?;
    }
    writeln!(out)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn or_none(text: &str) -> &str {
    match text.is_empty() {
        true => "none",
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::batch::RecordBatchBuilder;
    use leasehold_log::{LeaderEpoch, LogConfig, LogDir, TopicId};
    use leasehold_types::{BrokerId, ClusterId, Incarnation};
    use std::path::PathBuf;

    /// A closed directory with one partition of one batch; where its segment is.
    fn closed(path: &Path) -> PathBuf {
        let dir = LogDir::open(path, &ClusterId("demo".into()), BrokerId(3)).unwrap();
        dir.begin(Incarnation(41)).unwrap();
        dir.confirm(Incarnation(41)).unwrap();
        let topic = TopicId::random();
        let log = dir.open_partition(topic, 0, LogConfig::default()).unwrap();
        log.begin_epoch(LeaderEpoch(2)).unwrap();
        let mut b = RecordBatchBuilder::new();
        b.push(1000, Some(b"key"), Some(b"value"));
        log.append_leader(&b.build(), LeaderEpoch(2), 1000).unwrap();
        dir.close_clean().unwrap();
        path.join(format!("{topic}-0/{:020}.log", 0))
    }

    fn printed(path: &Path) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(path, &mut out).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_sound_directory_is_printed_and_called_sound() {
        let home = tempfile::tempdir().unwrap();
        closed(home.path());
        let (code, text) = printed(home.path());
        assert_eq!(code, SOUND, "{text}");
        for line in [
            "meta: broker 3 of cluster demo",
            "run: incarnation 41, ",
            "closed in order",
            "recovery-point: 1\n",
            "epoch 2 from offset 0",
            "at 0: offsets 0 to 0, epoch 2, 1 records, 76 bytes, codec none, times 1000 to 1000\n",
            "sound: 1 partitions, 1 segments, 1 batches\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_damaged_one_is_told_by_the_exit_code_and_the_byte() {
        let home = tempfile::tempdir().unwrap();
        let segment = closed(home.path());
        let mut content = std::fs::read(&segment).unwrap();
        content[70] ^= 4;
        std::fs::write(&segment, content).unwrap();
        let (code, text) = printed(segment.parent().unwrap());
        assert_eq!(code, DAMAGED, "{text}");
        let line = format!(
            "DAMAGE {} at byte 0: the batch is damaged",
            segment.display()
        );
        assert!(text.contains(&line), "{text}");
        assert!(text.contains("damaged in one place: "), "{text}");
    }

    #[test]
    fn what_is_no_log_directory_and_wrong_arguments_end_with_two() {
        use clap::Parser as _;
        let home = tempfile::tempdir().unwrap();
        assert_eq!(printed(home.path()).0, UNUSABLE);
        assert_eq!(printed(&home.path().join("nowhere")).0, UNUSABLE);
        for wrong in [
            &["log"][..],
            &["log", "inspect"],
            &["log", "inspect", "a", "b"],
        ] {
            let all = ["leasehold-broker"].iter().chain(wrong);
            let refused = crate::cli::Cli::try_parse_from(all).unwrap_err();
            assert_eq!(refused.exit_code(), i32::from(UNUSABLE), "{wrong:?}");
        }
    }
}
