//! What the next start makes of a log after a crash, and after damage.

use super::*;

#[test]
fn a_begun_epoch_outlives_a_crash_without_any_append() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, [0]);
    log.begin_epoch(LeaderEpoch(9)).unwrap();
    let home = home.restart(log, false);
    assert_eq!(home.open(small()).last_epoch(), Some(LeaderEpoch(9)));
}

#[test]
fn recovery_cuts_at_the_first_bad_batch_wherever_it_is() {
    for damage in [0usize, 8, 16, 20, 60, 80, 300, 700] {
        let home = Home::new();
        let log = home.open(LogConfig::default());
        lead(&log, 0..10);
        let one = log.size() as usize / 10;
        let path = segment::file(&log.folder, Offset(0), segment::LOG);
        let home = home.restart(log, false);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[damage] ^= 0xff;
        std::fs::write(&path, &bytes).unwrap();
        let log = home.open(LogConfig::default());
        let whole = damage / one;
        assert_eq!(
            log.log_end_offset(),
            Offset(whole as i64 * 2),
            "byte {damage}"
        );
        assert_eq!(read_all(&log, 1000).len(), whole);
        assert_eq!(disk::len(&path).unwrap() as usize, whole * one);
    }
}

#[test]
fn recovery_deletes_the_segments_after_a_bad_batch() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    let third = log.snapshot().segments[2].clone();
    // As a crash before any background flush.
    std::fs::remove_file(log.file(RECOVERY_POINT)).unwrap_or_default();
    let home = home.restart(log, false);
    let path = home
        .dir
        .path()
        .join(format!("{}-0", home.topic))
        .join(RECOVERY_POINT);
    std::fs::remove_file(path).unwrap_or_default();
    let bytes = std::fs::read(third.path()).unwrap();
    std::fs::write(third.path(), &bytes[..bytes.len() - 5]).unwrap();
    let log = home.open(small());
    assert_eq!(files(&log, ".log").len(), 3);
    assert!(log.log_end_offset() > third.base());
    let count = read_all(&log, 1000).len() as i64;
    assert_eq!(log.log_end_offset(), Offset(count * 2));
}

#[test]
fn recovery_deletes_the_segments_after_a_missing_one() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    let third = log.snapshot().segments[2].clone();
    let home = home.restart(log, false);
    let folder = home.dir.path().join(format!("{}-0", home.topic));
    disk::remove(&folder.join(RECOVERY_POINT)).unwrap();
    disk::remove(third.path()).unwrap();
    let log = home.open(small());
    assert_eq!(log.log_end_offset(), third.base());
    assert_eq!(files(&log, ".log").len(), 2);
    assert_eq!(read_all(&log, 1000).len() as i64, third.base().0 / 2);
}

#[test]
fn a_cut_below_the_recovery_point_lowers_it_on_disk() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    log.flush_sealed();
    log.truncate_to(Offset(11)).unwrap();
    assert_eq!(
        read_offset(&log.file(RECOVERY_POINT)).unwrap(),
        Some(Offset(10))
    );
    // The same where recovery does the cutting.
    lead(&log, 0..30);
    log.flush_sealed();
    let first = segment::file(&log.folder, Offset(0), segment::LOG);
    let home = home.restart(log, true);
    std::fs::write(home.dir.path().join("run"), b"{}").unwrap();
    let home = {
        let path = home.dir.path().to_owned();
        let (topic, folder) = (home.topic, home._folder);
        drop(home.dir);
        Home::at(&path, topic).maybe_keeping(folder)
    };
    let active = disk::names(first.parent().unwrap()).unwrap();
    let active = active.iter().filter(|n| n.ends_with(".log")).max().unwrap();
    std::fs::write(first.with_file_name(active), b"").unwrap();
    let log = home.open(small());
    let point = read_offset(&log.file(RECOVERY_POINT)).unwrap();
    assert_eq!(point, Some(log.log_end_offset()));
}

#[test]
fn sealed_segments_are_flushed_in_the_background_and_not_read_again_by_recovery() {
    let home = Home::new();
    let log = home.open(small());
    lead(&log, 0..30);
    log.flush_sealed();
    let active = log.snapshot().segments.last().unwrap().base();
    assert_eq!(
        read_offset(&log.file(RECOVERY_POINT)).unwrap(),
        Some(active)
    );
    assert_eq!(files(&log, ".index").len(), log.segment_count() - 1);
    assert_eq!(files(&log, ".snapshot").len(), log.segment_count() - 1);
    assert_eq!(read_all(&log, 500).len(), 30);
    // Recovery trusts what was fsynced: damage there is not looked for.
    let first = segment::file(&log.folder, Offset(0), segment::LOG);
    let home = home.restart(log, false);
    let mut bytes = std::fs::read(&first).unwrap();
    bytes[HEADER_LEN] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    assert_eq!(home.open(small()).log_end_offset(), Offset(60));
}

#[test]
fn a_damaged_index_is_made_anew() {
    for damage in [&b""[..], b"xxxx", &[0xee; 16], &[0, 0, 0, 2, 0, 0, 0, 9]] {
        let home = Home::new();
        let log = home.open(small());
        lead(&log, 0..30);
        log.flush_sealed();
        for suffix in [segment::INDEX, segment::TIME_INDEX] {
            for base in log.snapshot().segments.iter().map(|s| s.base()) {
                let path = segment::file(&log.folder, base, suffix);
                match damage.is_empty() {
                    true => disk::remove(&path).unwrap(),
                    false => drop(disk::write(&path, damage).unwrap()),
                }
            }
        }
        for from in 0..60 {
            let bytes = log.read(Offset(from), 1, Offset(60), true).unwrap();
            let got = batches(bytes).next().unwrap().unwrap();
            assert_eq!(got.header.base_offset, Offset(from / 2 * 2));
        }
        let found = log.offset_for_timestamp(20, Offset(60)).unwrap();
        assert!(found.is_some_and(|f| f.timestamp >= 20));
    }
}
