//! Cutting the end off, and starting anew.

use super::*;

#[test]
fn truncation_leaves_what_is_before_it_and_forgets_epochs_without_records() {
    for cut in [0, 1, 2, 30, 31, 57, 58, 59, 60] {
        let home = Home::new();
        let log = home.open(small());
        lead(&log, 0..30);
        log.begin_epoch(LeaderEpoch(2)).unwrap();
        let end = log.truncate_to(Offset(cut)).unwrap();
        assert_eq!(end, Offset(cut / 2 * 2), "whole batches");
        assert_eq!(log.log_end_offset(), end);
        let epoch = (end > Offset(0)).then_some(E0);
        assert_eq!(log.last_epoch(), epoch);
        assert_eq!(read_all(&log, 400).len() as i64, cut / 2);
        log.begin_epoch(LeaderEpoch(5)).unwrap();
        log.append_leader(&batch(99, 1), LeaderEpoch(5), 99)
            .unwrap();
        let home = home.restart(log, cut % 2 == 0);
        let log = home.open(small());
        assert_eq!(log.log_end_offset(), Offset(end.0 + 1));
        assert_eq!(log.epoch_start(LeaderEpoch(5)), Some(end));
        assert_eq!(read_all(&log, 400).len() as i64, cut / 2 + 1);
    }
}

#[test]
fn a_reset_log_starts_where_it_was_told_even_after_a_crash() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    log.reset_to(Offset(1000)).unwrap();
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(1000), Offset(1000))
    );
    assert_eq!((log.last_epoch(), log.size()), (None, 0));
    let home = home.restart(log, false);
    let log = home.open(small());
    assert_eq!(
        (log.log_start_offset(), log.log_end_offset()),
        (Offset(1000), Offset(1000))
    );
    log.begin_epoch(LeaderEpoch(1)).unwrap();
    let info = log.append_leader(&batch(0, 1), LeaderEpoch(1), 0).unwrap();
    assert_eq!(info.base_offset, Offset(1000));
}

#[test]
fn what_takes_the_place_of_deleted_records_is_not_deleted_with_them() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, [0]);
    log.delete_records_before(Offset(1)).unwrap();
    assert_eq!(log.truncate_to(Offset(1)).unwrap(), Offset(0));
    lead(&log, [0]);
    assert_eq!(log.log_start_offset(), Offset(0));
    let home = home.restart(log, true);
    assert_eq!(home.open(small()).log_start_offset(), Offset(0));
}
