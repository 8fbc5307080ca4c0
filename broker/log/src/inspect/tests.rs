//! What an inspection sees of a sound directory, of a damaged one, and of one that it cannot judge.

use super::*;
use crate::batch::RecordBatchBuilder;
use crate::{LogConfig, LogDir, segment};
use leasehold_types::ProducerId;
use leasehold_types::TopicId;
use std::collections::BTreeMap;

fn owner() -> (ClusterId, BrokerId) {
    (ClusterId("c".into()), BrokerId(3))
}

/// Ten batches in a few segments, in two epochs; where the partition's folder is.
fn written(path: &Path, close: bool) -> PathBuf {
    let (cluster, broker) = owner();
    let dir = LogDir::open(path, &cluster, broker).unwrap();
    dir.begin(Incarnation(1)).unwrap();
    dir.confirm(Incarnation(1)).unwrap();
    let topic = TopicId::random();
    let config = LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 100,
        ..LogConfig::default()
    };
    let log = dir.open_partition(topic, 0, config).unwrap();
    for i in 0..10 {
        let epoch = LeaderEpoch(i / 5);
        log.begin_epoch(epoch).unwrap();
        let mut b = RecordBatchBuilder::new().producer(ProducerId(7), 0, i);
        b.push(1000, Some(b"key"), Some(&[i as u8; 30]));
        log.append_leader(&b.build(), epoch, 1000).unwrap();
    }
    dir.checkpoint_high_watermarks([((topic, 0), Offset(10))])
        .unwrap();
    if close {
        dir.close_clean().unwrap();
    }
    path.join(format!("{topic}-0"))
}

fn told(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    inspect(path, &mut |finding| all.push(format!("{finding:?}"))).unwrap();
    all
}

fn count(all: &[String], kind: &str) -> usize {
    all.iter().filter(|f| f.starts_with(kind)).count()
}

/// All names, contents and times.
fn picture(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let time = path.metadata().unwrap().modified().unwrap();
        match path.is_dir() {
            true => {
                all.extend(picture(&path));
                all.insert(path, (Vec::new(), time));
            }
            false => drop(all.insert(path.clone(), (std::fs::read(&path).unwrap(), time))),
        }
    }
    all
}

#[test]
fn all_that_was_written_is_told_and_nothing_changed_or_locked() {
    let home = tempfile::tempdir().unwrap();
    let folder = written(home.path(), true);
    let before = picture(home.path());
    let all = told(home.path());
    assert_eq!(picture(home.path()), before);
    assert_eq!(count(&all, "Damage"), 0, "{all:#?}");
    assert_eq!(count(&all, "Batch"), 10);
    assert_eq!(count(&all, "Epoch"), 2);
    assert_eq!(count(&all, "HighWatermark"), 1);
    assert!(count(&all, "Segment") > 2);
    assert_eq!(count(&all, "Index"), 2 * count(&all, "Segment"));
    assert!(all.iter().any(|f| f.contains("clean: true")));
    // Nor does a broker's lock keep it away, or lose anything by it.
    let (cluster, broker) = owner();
    let _held = LogDir::open(home.path(), &cluster, broker).unwrap();
    assert_eq!(count(&told(&folder), "Batch"), 10);
}

#[test]
fn what_a_killed_broker_leaves_is_no_damage() {
    let home = tempfile::tempdir().unwrap();
    written(home.path(), false);
    let all = told(home.path());
    assert_eq!(count(&all, "Damage"), 0, "{all:#?}");
    assert_eq!(count(&all, "Batch"), 10);
}

#[test]
fn a_damage_is_named_with_its_file_and_byte() {
    let home = tempfile::tempdir().unwrap();
    let folder = written(home.path(), true);
    let path = segment::file(&folder, Offset(0), segment::LOG);
    let mut content = std::fs::read(&path).unwrap();
    let second = BatchHeader::parse(&content).unwrap().total_len();
    content[second + 70] ^= 1;
    std::fs::write(&path, content).unwrap();
    let all = told(&folder);
    assert_eq!(count(&all, "Damage"), 1, "{all:#?}");
    let damage = all.iter().find(|f| f.starts_with("Damage")).unwrap();
    assert!(
        damage.contains(&format!("{path:?}, at: {second},")),
        "{damage}"
    );
    assert_eq!(count(&all, "Batch"), 10, "it goes on after it");
}

#[test]
fn what_is_no_log_directory_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    for path in [home.path().to_owned(), home.path().join("nowhere")] {
        let refused = inspect(&path, &mut |_| {}).unwrap_err().to_string();
        assert!(refused.contains(&path.display().to_string()), "{refused}");
    }
}

#[test]
fn what_a_move_to_another_directory_left_is_told_and_no_damage() {
    let home = tempfile::tempdir().unwrap();
    let folder = written(home.path(), true);
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let target = DirectoryId::random();
    std::fs::rename(&folder, home.path().join(format!("{name}.{target}.left"))).unwrap();
    std::fs::create_dir(home.path().join(format!("{name}.future"))).unwrap();
    let all = told(home.path());
    assert_eq!((count(&all, "Damage"), count(&all, "Batch")), (0, 0));
    let said = all.join("\n");
    assert!(
        said.contains(&format!("{name} lies in directory {target} now")),
        "{said}"
    );
    assert!(said.contains("on its way here"), "{said}");
}
