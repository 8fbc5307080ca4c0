use super::*;
use crate::batch::RecordBatchBuilder;
use leasehold_types::LeaderEpoch;
use std::sync::mpsc;
use std::time::Duration;

const BROKER: BrokerId = BrokerId(3);

fn cluster() -> ClusterId {
    ClusterId("c1".into())
}

fn open(path: &Path) -> Arc<LogDir> {
    LogDir::open(path, &cluster(), BROKER).unwrap()
}

fn open_confirmed(path: &Path, incarnation: i64) -> Arc<LogDir> {
    let dir = open(path);
    dir.begin(Incarnation(incarnation)).unwrap();
    dir.confirm(Incarnation(incarnation)).unwrap();
    dir
}

fn append(log: &PartitionLog, value: &[u8]) -> Result<crate::AppendInfo, crate::AppendError> {
    let epoch = log.last_epoch().unwrap_or(LeaderEpoch(0));
    log.begin_epoch(epoch)?;
    let mut batch = RecordBatchBuilder::new();
    batch.push(1000, None, Some(value));
    log.append_leader(&batch.build(), epoch, 1000)
}

/// Collects what is logged.
#[derive(Clone)]
struct Lines(mpsc::Sender<String>);

impl tracing::field::Visit for Lines {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = self.0.send(format!("{field}={value:?}"));
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_second_opener_waits_says_so_and_goes_on_once_the_first_and_its_logs_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let first = open_confirmed(folder.path(), 1);
    let log = first
        .open_partition(TopicId::random(), 0, LogConfig::default())
        .unwrap();
    let path = folder.path().to_owned();
    let (lines, said) = mpsc::channel();
    let (opened, is_open) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        tracing::subscriber::with_default(Lines(lines), || open(&path));
        let _ = opened.send(());
    });
    let line = said
        .iter()
        .find(|line| line.contains("another process holds the log directory"));
    assert!(line.is_some());
    drop(first);
    append(&log, b"still ours").unwrap();
    assert!(is_open.try_recv().is_err());
    drop(log);
    is_open.recv_timeout(Duration::from_secs(30)).unwrap();
    waiter.join().unwrap();
}

#[test]
fn a_directory_of_another_broker_or_cluster_is_refused_with_both_names() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    for (cluster, broker) in [("c1", 4), ("c2", 3)] {
        let error = LogDir::open(folder.path(), &ClusterId(cluster.into()), BrokerId(broker))
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("3 of cluster c1"), "{error}");
        assert!(error.contains(&format!("{broker} of cluster {cluster}")));
    }
    std::fs::write(folder.path().join("meta"), b"{").unwrap();
    let unreadable = LogDir::open(folder.path(), &cluster(), BROKER);
    assert!(matches!(unreadable, Err(LogError::Unreadable { .. })));
}

#[test]
fn partitions_without_their_meta_file_are_not_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let dir = open_confirmed(folder.path(), 1);
    let log = dir
        .open_partition(TopicId::random(), 0, LogConfig::default())
        .unwrap();
    append(&log, b"x").unwrap();
    drop((dir, log));
    std::fs::remove_file(folder.path().join("meta")).unwrap();
    assert!(LogDir::open(folder.path(), &cluster(), BROKER).is_err());
}

#[test]
fn nothing_is_written_before_the_registration_is_confirmed_nor_after_the_clean_marker() {
    let folder = tempfile::tempdir().unwrap();
    let topic = TopicId::random();
    let dir = open(folder.path());
    let log = dir.open_partition(topic, 0, LogConfig::default()).unwrap();
    dir.begin(Incarnation(1)).unwrap();
    let refused = |e: LogError| assert!(matches!(e, LogError::NotConfirmed(_)), "{e}");
    refused(log.begin_epoch(LeaderEpoch(0)).unwrap_err());
    refused(log.truncate_to(Offset(0)).unwrap_err());
    refused(log.reset_to(Offset(5)).unwrap_err());
    assert!(dir.partitions().unwrap().is_empty());
    dir.confirm(Incarnation(1)).unwrap();
    append(&log, b"x").unwrap();
    dir.close_clean().unwrap();
    assert!(append(&log, b"y").is_err());
    let other = dir.open_partition(topic, 1, LogConfig::default()).unwrap();
    refused(other.begin_epoch(LeaderEpoch(0)).unwrap_err());
}

#[test]
fn a_folder_appears_with_the_first_append_and_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = open_confirmed(folder.path(), 1);
    // Topic ids may hold the dash that stands before the partition.
    let topics: Vec<_> = (0..50).map(|_| TopicId::random()).collect();
    for (i, &topic) in topics.iter().enumerate() {
        let log = dir
            .open_partition(topic, i as i32, LogConfig::default())
            .unwrap();
        log.begin_epoch(LeaderEpoch(0)).unwrap();
        assert!(!dir.partitions().unwrap().contains(&(topic, i as i32)));
        append(&log, b"x").unwrap();
        assert!(dir.partitions().unwrap().contains(&(topic, i as i32)));
    }
    assert_eq!(dir.partitions().unwrap().len(), 50);
}

#[test]
fn a_clean_close_is_known_to_the_next_start_and_a_crash_too() {
    let folder = tempfile::tempdir().unwrap();
    let topic = TopicId::random();
    for (incarnation, clean) in [(1, true), (2, false), (3, true)] {
        let dir = open_confirmed(folder.path(), incarnation);
        let log = dir.open_partition(topic, 0, LogConfig::default()).unwrap();
        assert_eq!(log.log_end_offset(), Offset(incarnation - 1));
        append(&log, b"x").unwrap();
        if clean {
            dir.close_clean().unwrap();
        }
        drop((dir, log));
        let dir = open(folder.path());
        assert_eq!(dir.was_clean(), clean);
        let report = dir.begin(Incarnation(99)).unwrap();
        let confirmed = report.confirmed.unwrap();
        assert_eq!(confirmed.incarnation, Incarnation(incarnation));
        assert_eq!(confirmed.clean, clean);
        assert_eq!(confirmed.boot_id, report.boot_id);
    }
}

#[test]
fn a_deleted_partition_is_gone_for_its_holders_and_begins_empty_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = open_confirmed(folder.path(), 1);
    let topic = TopicId::random();
    let log = dir.open_partition(topic, 7, LogConfig::default()).unwrap();
    append(&log, b"x").unwrap();
    dir.delete_partition(topic, 7).unwrap();
    assert!(append(&log, b"y").is_err());
    assert!(log.read(Offset(0), 100, Offset(1), true).is_err());
    assert!(dir.partitions().unwrap().is_empty());
    let again = dir.open_partition(topic, 7, LogConfig::default()).unwrap();
    assert_eq!(again.log_end_offset(), Offset(0));
    assert_eq!(again.last_epoch(), None);
    append(&again, b"z").unwrap();
    dir.close_clean().unwrap();
}

#[test]
fn high_watermarks_are_read_back_and_a_damaged_file_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let dir = open(folder.path());
    assert!(dir.high_watermark_checkpoints().is_empty());
    let marks: HashMap<_, _> = (0..20)
        .map(|i| ((TopicId::random(), i), Offset(i64::from(i) * 10)))
        .collect();
    dir.checkpoint_high_watermarks(marks.clone()).unwrap();
    assert_eq!(dir.high_watermark_checkpoints(), marks);
    std::fs::write(folder.path().join("high-watermarks"), b"\xff\xff").unwrap();
    assert!(dir.high_watermark_checkpoints().is_empty());
}
