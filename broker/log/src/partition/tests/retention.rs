//! What retention and DeleteRecords take away, and what they leave.

use super::*;

#[test]
fn retention_by_time_keeps_what_is_young_or_not_yet_committed() {
    let home = Home::new();
    let log = home.open(LogConfig {
        retention_ms: 1000,
        ..small()
    });
    lead(&log, (0..30).map(|i| i * 100));
    let bases: Vec<_> = log.snapshot().segments.iter().map(|s| s.base()).collect();
    assert_eq!(log.apply_retention(900, Offset(60)).unwrap(), []);
    assert_eq!(log.apply_retention(99_000, Offset(0)).unwrap(), []);
    assert_eq!(log.apply_retention(99_000, bases[2]).unwrap(), bases[..2]);
    assert_eq!(log.log_start_offset(), bases[2]);
    assert_eq!(
        log.apply_retention(99_000, Offset(59)).unwrap(),
        bases[2..bases.len() - 1]
    );
    // All of it too old, and committed: an empty segment takes over.
    assert_eq!(
        log.apply_retention(99_000, Offset(60)).unwrap(),
        bases[bases.len() - 1..]
    );
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(60), Offset(60))
    );
    assert_eq!(log.last_epoch(), Some(E0));
    assert_eq!(log.apply_retention(99_000, Offset(60)).unwrap(), []);
    lead(&log, [99_000]);
    let home = home.restart(log, false);
    let log = home.open(small());
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(60), Offset(62))
    );
    assert_eq!(files(&log, ".deleted").len(), 0);
}

#[test]
fn retention_by_size_leaves_at_least_that_much() {
    let home = Home::new();
    let log = home.open(LogConfig {
        retention_bytes: 2000,
        ..small()
    });
    lead(&log, 0..40);
    let deleted = log.apply_retention(0, Offset(80)).unwrap();
    assert!(!deleted.is_empty());
    assert!(log.size() >= 2000 && log.size() < 3000, "{}", log.size());
    assert_eq!(
        read_all(&log, 500).last().unwrap().header.next_offset(),
        Offset(80)
    );
}

#[test]
fn deleted_records_stay_deleted() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    assert!(log.delete_records_before(Offset(61)).is_err());
    assert_eq!(log.delete_records_before(Offset(33)).unwrap(), Offset(33));
    assert_eq!(log.delete_records_before(Offset(5)).unwrap(), Offset(33));
    assert!(log.snapshot().segments[0].base() > Offset(0));
    let below = log.read(Offset(32), 1, Offset(60), true);
    assert!(matches!(below, Err(ReadError::OutOfRange { .. })));
    assert!(
        !log.read(Offset(33), 1, Offset(60), true)
            .unwrap()
            .is_empty()
    );
    let home = home.restart(log, false);
    let log = home.open(small());
    assert_eq!(log.log_start_offset(), Offset(33));
    let home = home.restart(log, true);
    assert_eq!(home.open(small()).log_start_offset(), Offset(33));
}
