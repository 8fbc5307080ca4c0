//! What the head promises, on a store that misbehaves. Each rule of the design that the model checker
//! needed has a test here that fails when the rule is taken out.

use super::*;
use crate::features::{Level, METADATA_VERSION, Unsupported};
use crate::image::Image;
use crate::records::{ConfigResource, Record};
use crate::store::simulated::{SimulatedStore, WriteFault};
use crate::store::{ChunkBody, HeadPatch, Store};
use leasehold_types::{BrokerId, ClusterId, Incarnation, Seq};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SMALL: Limits = Limits {
    tail_bytes: 600,
    segments: 3,
    segment_bytes: 100_000,
    grace: Duration::from_secs(600),
    collect_every: Duration::from_secs(60),
};

async fn new_cluster() -> SimulatedStore {
    let store = SimulatedStore::new();
    genesis(&store, &ClusterId::random()).await.unwrap();
    store
}

async fn try_claim(store: &SimulatedStore, broker: i32) -> Result<HeadWriter, Failed> {
    let loaded = load(store).await.unwrap();
    let me = ControllerRef {
        broker: BrokerId(broker),
        incarnation: Incarnation(i64::from(broker) + 100),
        address: "127.0.0.1:1".into(),
    };
    let store: Arc<dyn Store> = Arc::new(store.clone());
    let claimed = HeadWriter::claim(store, loaded, me, SMALL, Arc::new(|| true)).await;
    claimed.map(|(writer, _)| writer)
}

async fn claim(store: &SimulatedStore, broker: i32) -> HeadWriter {
    try_claim(store, broker).await.unwrap()
}

fn set(key: &str, value: &str) -> Vec<Record> {
    vec![Record::Config {
        resource: ConfigResource::Cluster,
        key: key.into(),
        value: Some(value.into()),
    }]
}

async fn stored(store: &SimulatedStore) -> Arc<Image> {
    load(store).await.unwrap().image
}

/// The head with `key` set to `value`, whatever that is.
async fn tamper(store: &SimulatedStore, key: &str, value: String) {
    let head = store.read_head().await.unwrap().unwrap();
    let patch = HeadPatch {
        nonce: crate::store::random_nonce(),
        set: [(key.to_owned(), value)].into(),
        remove: Vec::new(),
    };
    let nonce = &head.data[keys::NONCE];
    store.patch_head(&head.uid, nonce, &patch).await.unwrap();
}

#[tokio::test]
async fn the_head_tells_its_level_and_one_that_is_not_known_is_read_no_further() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    assert_eq!(writer.head().metadata_version, None);
    let level = Record::FeatureLevel {
        name: METADATA_VERSION.to_owned(),
        level: Level::NEWEST,
    };
    writer.commit(vec![level]).await.unwrap();
    // It stays through rolls of the tail and snapshots.
    for n in 0..60 {
        writer.commit(set("a", &format!("{n:0100}"))).await.unwrap();
    }
    let loaded = load(&store).await.unwrap();
    assert!(loaded.head.snapshot.is_some());
    assert_eq!(loaded.head.metadata_version, Some(Level::NEWEST));
    assert_eq!(loaded.image.metadata_version, Some(Level::NEWEST));
    let newer = Level(Level::NEWEST.0 + 1);
    // Of the rest nothing could be read.
    tamper(&store, keys::CLAIMS, "{}".to_owned()).await;
    tamper(&store, keys::METADATA_VERSION, newer.to_string()).await;
    let unsupported = Unsupported {
        feature: METADATA_VERSION.to_owned(),
        level: newer,
    };
    match load(&store).await {
        Err(LoadError::Unsupported(found)) => assert_eq!(found, unsupported),
        other => panic!("{other:?}"),
    }
    let message = unsupported.to_string();
    assert!(message.contains("metadata.version 5") && message.contains("supports 1 to 4"));
}

#[tokio::test]
async fn a_kind_of_record_that_is_not_known_is_refused_by_name() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    let committed = writer.commit(set("a", "1")).await.unwrap();
    let key = keys::entry(committed.entry.seq);
    let text = writer.head().tail[&committed.entry.seq].text.clone();
    assert!(text.contains("{\"config\":"), "{text}");
    tamper(&store, &key, text.replace("{\"config\":", "{\"acl\":")).await;
    let error = load(&store).await.unwrap_err();
    assert!(matches!(error, LoadError::Broken { .. }));
    let message = error.to_string();
    assert!(message.contains("unknown variant `acl`"), "{message}");
    assert!(message.contains("newer release"), "{message}");
    // In a snapshot too.
    let image = Image::genesis(ClusterId::random());
    let text = load::snapshot_text(&image);
    assert!(load::parse_snapshot(&image.cluster_id, &text).is_ok());
    let text = text.replace("producer_ids", "acl");
    let error = load::parse_snapshot(&image.cluster_id, &text).unwrap_err();
    assert!(error.to_string().contains("unknown variant `acl`"));
    // In a broker's copy too, where a last entry that was cut short is left out.
    let entry = format::entry_text(&committed.entry).replace("config", "acl");
    let whole = copy::copy_text(&image) + &entry;
    let error = copy::parse_copy(&whole, None).unwrap_err();
    assert!(
        error.to_string().contains("unknown variant `acl`"),
        "{error}"
    );
    let known = copy::copy_text(&image) + &format::entry_text(&committed.entry);
    let (cut, _) = copy::parse_copy(&known[..known.len() - 5], None).unwrap();
    assert_eq!(cut, image);
}

#[tokio::test]
async fn a_claim_and_its_commits_are_one_head_write_each() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    for value in ["1", "2", "3"] {
        writer.commit(set("a", value)).await.unwrap();
    }
    assert_eq!(store.head_writes(), 4);
    let image = stored(&store).await;
    assert_eq!(image.position.seq, Seq(4));
    assert_eq!(*image, **writer.image());
    assert_eq!(
        writer.head().controller.as_ref().unwrap().broker,
        BrokerId(0)
    );
}

#[tokio::test]
async fn a_lost_reply_and_a_refused_second_copy_are_successes() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    for fault in [WriteFault::LostReply, WriteFault::DuplicateRefused] {
        store.inject(fault);
        let committed = writer.commit(set("a", "1")).await.unwrap();
        assert!(!committed.deposed, "{fault:?}");
    }
    assert_eq!(store.head_writes(), 3);
    assert_eq!(*stored(&store).await, **writer.image());
}

#[tokio::test]
async fn an_unmoved_head_gets_the_identical_request_again_and_takes_it_once() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    store.inject(WriteFault::LostRequest);
    store.inject(WriteFault::Late);
    writer.commit(set("a", "1")).await.unwrap();
    // The late copy comes after the one that was applied, and after a further write.
    assert_eq!(store.deliver_late(), 0);
    writer.commit(set("b", "1")).await.unwrap();
    assert_eq!(store.head_writes(), 3);
    assert_eq!(*stored(&store).await, **writer.image());
}

#[tokio::test]
async fn a_write_that_came_late_but_first_is_found_by_its_nonce() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    store.inject(WriteFault::Late);
    store.inject(WriteFault::Late);
    let late = store.clone();
    let deliver = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        late.deliver_late()
    });
    // The first copy is delivered by itself or refused beside its twin: one of them is in.
    writer.commit(set("a", "1")).await.unwrap();
    assert!(deliver.await.unwrap() <= 1);
    assert_eq!(store.head_writes(), 2);
}

#[tokio::test]
async fn a_deposed_controllers_write_is_refused_and_ends_its_term_for_good() {
    let store = new_cluster().await;
    let mut old = claim(&store, 0).await;
    let mut new = claim(&store, 1).await;
    let refused = old.commit(set("a", "old")).await;
    assert!(matches!(refused, Err(Failed::NotApplied(_))), "{refused:?}");
    assert_eq!(store.refused_writes(), 1);
    new.commit(set("a", "new")).await.unwrap();
    // It never rebases: not even a write that would now succeed is tried.
    let writes = store.head_writes();
    assert!(old.commit(set("a", "old")).await.is_err());
    assert_eq!((store.head_writes(), store.refused_writes()), (writes, 1));
    assert_eq!(stored(&store).await.cluster_configs["a"], "new");
}

#[tokio::test]
async fn an_applied_write_that_another_has_claimed_over_is_reported_as_applied() {
    let store = new_cluster().await;
    let mut old = claim(&store, 0).await;
    store.inject(WriteFault::LostReply);
    // While the old controller cannot read, the new one claims.
    let other = store.clone();
    store.set_reads_down(true);
    let taking_over = tokio::spawn(async move {
        while other.head_writes() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.set_reads_down(false);
        claim(&other, 1).await
    });
    let committed = old.commit(set("a", "1")).await;
    let new = taking_over.await.unwrap();
    // Which of the two reads first is open; what was reported must be true.
    assert_eq!(
        new.image().cluster_configs.get("a").map(String::as_str),
        Some("1")
    );
    assert!(committed.is_ok(), "{committed:?}");
}

#[tokio::test]
async fn what_is_not_known_by_the_deadline_is_unknown_and_never_sent_again() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    store.inject(WriteFault::Late);
    let begun = Instant::now();
    let cut = store.clone();
    store.set_reads_down(true);
    let unknown = writer.commit(set("a", "1")).await;
    assert!(matches!(unknown, Err(Failed::Unknown(_))), "{unknown:?}");
    assert!(begun.elapsed() < writer::WRITE_DEADLINE + Duration::from_millis(300));
    cut.set_reads_down(false);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.head_writes(), 1);
    // The copy on the way is fenced by the next claim.
    let next = claim(&store, 1).await;
    assert_eq!(store.deliver_late(), 0);
    assert!(!next.image().cluster_configs.contains_key("a"));
}

#[tokio::test]
async fn a_store_that_refuses_connections_means_surely_not_applied() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    store.set_down(true);
    let failed = writer.commit(set("a", "1")).await;
    assert!(matches!(failed, Err(Failed::NotApplied(_))), "{failed:?}");
    store.set_down(false);
    assert_eq!(store.head_writes(), 1);
}

#[tokio::test]
async fn a_holder_past_its_lease_deadline_sends_nothing() {
    let store = new_cluster().await;
    let loaded = load(&store).await.unwrap();
    let may_act = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&may_act);
    let me = ControllerRef {
        broker: BrokerId(0),
        incarnation: Incarnation(1),
        address: "127.0.0.1:1".into(),
    };
    let guard: writer::MayAct = Arc::new(move || asked.load(Ordering::SeqCst));
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let (mut writer, _) = HeadWriter::claim(shared, loaded, me, SMALL, guard)
        .await
        .unwrap();
    may_act.store(false, Ordering::SeqCst);
    let failed = writer.commit(set("a", "1")).await;
    assert!(matches!(failed, Err(Failed::NotApplied(_))), "{failed:?}");
    assert_eq!(store.head_writes(), 1);
}

#[tokio::test]
async fn racing_candidates_claim_each_epoch_at_most_once() {
    let store = new_cluster().await;
    let candidates = (0..4).map(|broker| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut epochs = Vec::new();
            for _ in 0..20 {
                if let Ok(mut writer) = try_claim(&store, broker).await {
                    epochs.push(writer.our_claim().epoch);
                    let _ = writer.commit(vec![Record::NoOp]).await;
                }
            }
            epochs
        })
    });
    let mut all = Vec::new();
    for candidate in candidates.collect::<Vec<_>>() {
        all.extend(candidate.await.unwrap());
    }
    let claimed = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), claimed, "an epoch was claimed twice");
    let image = stored(&store).await;
    assert_eq!(image.position.epoch, *all.last().unwrap());
    assert_eq!(image.position.seq.0, store.head_writes());
}

#[tokio::test]
async fn a_restored_or_recreated_head_takes_no_write_of_the_old_term() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    writer.commit(set("a", "1")).await.unwrap();
    store.restore(1);
    assert!(writer.commit(set("a", "2")).await.is_err());
    let mut writer = claim(&store, 0).await;
    store.recreate_head();
    assert!(writer.commit(set("a", "3")).await.is_err());
    assert!(!stored(&store).await.cluster_configs.contains_key("a"));
}

#[tokio::test]
async fn a_roll_a_snapshot_and_a_large_batch_are_one_write_each_and_read_back_the_same() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    let mut most_segments = 0;
    for round in 0..60 {
        let large = if round % 9 == 0 { 200_000 } else { 100 };
        let before = store.head_writes();
        writer
            .commit(set(&format!("k{}", round % 7), &"x".repeat(large)))
            .await
            .unwrap();
        assert_eq!(store.head_writes(), before + 1);
        most_segments = most_segments.max(writer.head().segments.len());
        assert_eq!(*stored(&store).await, **writer.image(), "round {round}");
    }
    assert!(writer.head().snapshot.is_some());
    assert!(most_segments <= SMALL.segments + 1);
    let head = store.read_head().await.unwrap().unwrap();
    let bytes: usize = head.data.values().map(String::len).sum();
    assert!(bytes < 8_000, "the head has {bytes} bytes");
}

#[tokio::test]
async fn a_reader_whose_chunk_is_gone_reads_the_head_again() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    for _ in 0..40 {
        writer.commit(set("k", &"x".repeat(100))).await.unwrap();
    }
    let named: Vec<String> = writer.head().chunk_names().map(str::to_owned).collect();
    for chunk in store.list_chunks().await.unwrap() {
        if !named.contains(&chunk.name) {
            store.delete_chunk(&chunk.name).await.unwrap();
        }
    }
    // A head of long ago names chunks that have been collected since.
    store.stale_head_read(25);
    assert_eq!(*stored(&store).await, **writer.image());
}

#[tokio::test]
async fn a_missing_or_changed_chunk_is_an_error_and_never_a_guess() {
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    for _ in 0..10 {
        writer.commit(set("k", &"x".repeat(100))).await.unwrap();
    }
    let name = writer.head().chunk_names().next().unwrap().to_owned();
    store.corrupt_chunk(&name, ChunkBody::Lines("{}".into()));
    assert!(matches!(load(&store).await, Err(LoadError::Chunk(_))));
    store.delete_chunk(&name).await.unwrap();
    assert!(matches!(load(&store).await, Err(LoadError::Missing { .. })));
}

#[tokio::test]
async fn chunks_are_given_up_only_by_writes_that_are_known_to_be_applied() {
    use crate::lease::BootInstant;
    let store = new_cluster().await;
    let mut writer = claim(&store, 0).await;
    while writer.head().segments.len() < SMALL.segments {
        writer.commit(set("k", &"x".repeat(300))).await.unwrap();
    }
    let much_later = || BootInstant::now() + Duration::from_secs(100_000);
    assert!(writer.collectable(much_later()).is_empty());
    // Every further write might be the snapshot that drops the segments, and its outcome stays open.
    store.set_reads_down(true);
    loop {
        store.inject(WriteFault::Late);
        if writer.commit(set("k", &"x".repeat(300))).await.is_err() {
            break;
        }
    }
    assert!(writer.collectable(much_later()).is_empty());
}

#[tokio::test]
async fn a_cluster_without_a_head_is_not_begun_by_loading_it() {
    let store = SimulatedStore::new();
    assert!(matches!(load(&store).await, Err(LoadError::NoHead(_))));
    assert!(store.read_head().await.unwrap().is_none());
}
