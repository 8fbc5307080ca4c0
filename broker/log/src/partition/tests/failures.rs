//! A log that goes offline: with a reason, and with all that was acknowledged.

use super::*;

#[test]
fn damage_met_by_a_read_takes_the_partition_offline_with_the_place() {
    let home = Home::new();
    let log = home.open(LogConfig::default());
    lead(&log, 0..10);
    let path = segment::file(&log.folder, Offset(0), segment::LOG);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[16] = 9;
    std::fs::write(&path, bytes).unwrap();
    let e = log.read(Offset(0), 100, Offset(20), true).unwrap_err();
    assert!(
        matches!(&e, ReadError::Storage(s) if s.reason.contains("byte 0")),
        "{e}"
    );
    assert_eq!(
        log.append_leader(&batch(0, 1), E0, 0)
            .unwrap_err()
            .kafka_code(),
        56
    );
    assert!(home.dir.close_clean().is_err());
}

#[test]
fn a_full_disk_takes_the_partition_offline_and_loses_nothing_acknowledged() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..3);
    let next = segment::file(&log.folder, Offset(6), segment::LOG);
    std::os::unix::fs::symlink("/dev/full", &next).unwrap();
    log.set_config(LogConfig {
        segment_bytes: 400,
        ..small()
    });
    let e = log.append_leader(&batch(0, 2), E0, 0).unwrap_err();
    assert_eq!(e.kafka_code(), 56);
    assert!(e.to_string().contains("No space left"), "{e}");
    assert!(log.offline().unwrap().reason.contains("No space left"));
    std::fs::remove_file(&next).unwrap();
    let home = home.restart(log, false);
    assert_eq!(read_all(&home.open(small()), 1000).len(), 3);
}
