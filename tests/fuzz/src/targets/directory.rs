//! A log directory with files of any content: inspected as `log inspect` does it, and opened.
//!
//! Input: an archive; what belongs to a partition lies in one. A flag of 1 puts checksums right, 2 leaves the
//! directory's `meta` a sound one. Opening fails only for a file that it names, and no file makes it panic.

use crate::archive::{Archive, Kind};
use leasehold_log::{LogConfig, LogDir, LogError, TopicId};
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use uuid::Uuid;

const TOPIC: TopicId = TopicId(Uuid::from_u128(1));

/// See above.
pub(crate) fn run(data: &[u8]) {
    let mut archive = Archive::decode(data);
    if archive.flags & 1 != 0 {
        archive.mend();
    }
    let root = tempfile::tempdir().expect("a temporary directory");
    let cluster = ClusterId("c".into());
    if archive.flags & 2 != 0 {
        archive.files.retain(|file| file.kind != Kind::Meta);
        drop(LogDir::open(root.path(), &cluster, BrokerId(1)).expect("an empty directory"));
    }
    let folder = root.path().join(format!("{TOPIC}-0"));
    std::fs::create_dir(&folder).expect("a folder");
    archive
        .write(&folder, |file| !file.is_of_directory())
        .expect("files");
    archive
        .write(root.path(), |file| file.is_of_directory())
        .expect("files");

    let mut printed = Vec::new();
    let code = leasehold_broker::inspect::run(root.path(), &mut printed).expect("a Vec takes all");
    let text = String::from_utf8(printed).expect("what is printed is text");
    let damaged = text.lines().any(|line| line.starts_with("DAMAGE"));
    assert_eq!(
        damaged,
        code == leasehold_broker::inspect::DAMAGED,
        "{text}"
    );

    let dir = match LogDir::open(root.path(), &cluster, BrokerId(1)) {
        Ok(dir) => dir,
        Err(LogError::Unreadable { .. } | LogError::Foreign { .. }) => return,
        Err(error) => panic!("neither open nor refused by name: {error}"),
    };
    let _ = dir.high_watermark_checkpoints();
    let clean = dir.was_clean();
    let report = dir.begin(Incarnation(9)).expect("run is written");
    assert_eq!(report.attempted.last(), Some(&Incarnation(9)));
    assert!(
        !clean || report.confirmed.is_some(),
        "clean, and nobody was there"
    );
    dir.confirm(Incarnation(9)).expect("run is written");
    match dir.open_partition(TOPIC, 0, LogConfig::default()) {
        Ok(_) | Err(LogError::Unreadable { .. }) => {}
        Err(error) => panic!("neither open nor refused by name: {error}"),
    }
}
