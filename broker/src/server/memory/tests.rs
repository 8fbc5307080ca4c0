//! What the lanes promise to ordinary frames, to giants, and to those who wait.

use super::*;
use bytes::Bytes;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_full_lane_makes_wait_until_room_is_given_back() {
    let memory = Memory::new(100_000);
    let (mut first, mut other) = (memory.claim(), memory.claim());
    first.grow_to(50_000, 0).await.unwrap();
    other.grow_to(40_000, 0).await.unwrap();
    let mut second = memory.claim();
    {
        let waiting = second.grow_to(30_000, 0);
        tokio::pin!(waiting);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        waiting.await.unwrap();
    }
    assert_eq!(memory.used(), 70_000);
    drop((second, other));
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn small_frames_go_on_while_the_large_lane_is_full() {
    let memory = Memory::new(20_000);
    let mut large = memory.claim();
    large.grow_to(20_000, 0).await.unwrap();
    let mut small = memory.claim();
    small.grow_to(4_096, 4_096).await.unwrap();
    let mut refused = memory.claim();
    let waits = tokio::time::timeout(Duration::from_millis(50), refused.grow_to(17_000, 0)).await;
    assert!(waits.is_err(), "{waits:?}");
}

#[tokio::test]
async fn a_bound_frame_counts_until_its_last_slice_is_gone() {
    let memory = Memory::new(100_000);
    let mut claim = memory.claim();
    claim.grow_to(50_000, 0).await.unwrap();
    let mut frame = bound(Bytes::from(vec![7; 50_000]), claim);
    let slice = frame.split_to(10);
    drop(frame);
    assert_eq!(memory.used(), 50_000);
    drop(slice);
    assert_eq!(memory.used(), 0);
}

async fn must_wait(growing: impl Future<Output = Result<(), NoRoom>>) {
    let waits = tokio::time::timeout(Duration::from_millis(50), growing).await;
    assert!(waits.is_err(), "{waits:?}");
}

#[tokio::test]
async fn one_giant_at_a_time_fits_beside_the_others() {
    let memory = Memory::new(100_000);
    let (mut first, mut second) = (memory.claim(), memory.claim());
    first.grow_to(5_000_000, 5_000_000).await.unwrap();
    second.grow_to(20_000, 20_000).await.unwrap();
    assert_eq!(memory.used(), 5_020_000);
    // A part of the lane is left beside the giant, and no more.
    let mut third = memory.claim();
    must_wait(third.grow_to(20_000, 20_000)).await;
    drop(second);
    let mut second = memory.claim();
    second.grow_to(20_000, 60_000).await.unwrap();
    must_wait(second.grow_to(30_000, 60_000)).await;
    let whole = first.split(5_000_000);
    drop(first);
    drop(whole);
    second.grow_to(60_000, 60_000).await.unwrap();
    drop(second);
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn a_giant_waits_for_others_to_leave_it_room() {
    let memory = Memory::new(100_000);
    let (mut other, mut giant) = (memory.claim(), memory.claim());
    other.grow_to(50_000, 20_000).await.unwrap();
    giant.grow_to(40_000, 5_000_000).await.unwrap();
    must_wait(giant.grow_to(90_000, 5_000_000)).await;
    other.shrink_to(25_000);
    giant.grow_to(90_000, 5_000_000).await.unwrap();
    giant.grow_to(5_000_000, 5_000_000).await.unwrap();
}

#[tokio::test]
async fn a_giant_that_others_wait_for_must_keep_up_its_pace() {
    let memory = Memory::new(8 << 20);
    let (mut slow, mut next) = (memory.claim(), memory.claim());
    slow.grow_to(2 << 20, 90 << 20).await.unwrap();
    let entry = memory.begin_unfinished(1);
    memory.progress_of_giant(&entry, 2 << 20);
    let start = Instant::now();
    let evicted = async {
        let mut steps = tokio::time::interval(Duration::from_millis(20));
        loop {
            tokio::select! {
                () = entry.evicted.notified() => return,
                // It drips, so that it is never silent.
                _ = steps.tick() => memory.progress_of_giant(&entry, 2 << 20),
            }
        }
    };
    tokio::select! {
        grown = next.grow_to(2 << 20, 90 << 20) => panic!("the place is taken: {grown:?}"),
        () = evicted => {}
    }
    // Two megabytes arrived: they count for two seconds, after the first one.
    let took = start.elapsed();
    assert!(took > Duration::from_millis(2_500), "{took:?}");
    drop(slow);
    next.grow_to(2 << 20, 90 << 20).await.unwrap();
}

#[tokio::test]
async fn the_largest_stalled_sender_is_told_to_go() {
    let memory = Memory::new(60_000);
    let (mut a, mut b) = (memory.claim(), memory.claim());
    a.grow_to(20_000, 0).await.unwrap();
    b.grow_to(40_000, 0).await.unwrap();
    let (small, big) = (memory.begin_unfinished(1), memory.begin_unfinished(2));
    memory.progress(&small, 20_000);
    memory.progress(&big, 40_000);
    tokio::time::sleep(STALLED + Duration::from_millis(50)).await;
    let mut c = memory.claim();
    tokio::select! {
        grown = c.grow_to(30_000, 0) => panic!("there is no room yet: {grown:?}"),
        () = small.evicted.notified() => panic!("the smaller one was chosen"),
        () = big.evicted.notified() => {}
    }
    drop(b);
    c.grow_to(30_000, 0).await.unwrap();
}
