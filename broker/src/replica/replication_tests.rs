//! Three replica managers and a scripted controller: what the cluster promises, over real logs.

use super::harness::*;
use super::*;
use leasehold_log::batch::RecordBatchBuilder;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch, Offset, ProducerId};
use leasehold_wire::ErrorCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const B0: BrokerId = BrokerId(0);
const B1: BrokerId = BrokerId(1);
const LONG: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_all_is_answered_once_every_replica_has_the_record() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    for n in 0..20 {
        let offset = produce_ok(&cluster.broker(0), Acks::All, &format!("v{n}")).await;
        assert_eq!(offset, n);
        for follower in [1, 2] {
            assert!(
                cluster.log_end(follower) > n,
                "follower {follower} lacks {n}"
            );
        }
    }
    assert_eq!(cluster.same_logs(&[0, 1, 2]).await.len(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_keep_the_order_of_the_calls() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    let pending: Vec<_> = (0..200)
        .map(|n| append(&manager, Acks::All, &n.to_string()))
        .collect();
    for (n, answer) in pending.into_iter().enumerate() {
        assert_eq!(answer.await[0].base_offset, Offset(n as i64));
    }
}

/// One record of an idempotent producer.
fn sequenced(sequence: i32) -> ProduceEntry {
    let mut builder = RecordBatchBuilder::new().producer(ProducerId(7), 0, sequence);
    builder.push(1, None, Some(sequence.to_string().as_bytes()));
    ProduceEntry {
        records: builder.build(),
        ..entry("")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_sent_ahead_to_a_broker_that_is_about_to_lead_stay_in_order() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    let send = async |broker, sequence| {
        let manager = cluster.broker(broker);
        let pending = manager.append(Acks::All, LONG, vec![sequenced(sequence)]);
        pending.await.remove(0).error
    };
    assert_eq!(send(0, 0).await, ErrorCode::None);
    // Sent ahead: the first comes before this broker leads, the others after.
    assert_eq!(send(1, 1).await, ErrorCode::NotLeaderOrFollower);
    cluster.controller.elect(B1);
    cluster.leader(1).await;
    assert_eq!(send(1, 2).await, ErrorCode::NotLeaderOrFollower);
    for sequence in [1, 2, 3] {
        assert_eq!(send(1, sequence).await, ErrorCode::None);
    }
    // A gap of the producer's own making is still told.
    assert_eq!(send(1, 5).await, ErrorCode::OutOfOrderSequenceNumber);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_a_member_of_the_isr_lacks_is_neither_acknowledged_nor_shown() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "first").await;
    cluster.cut(2);
    let manager = cluster.broker(0);
    let late = manager.append(Acks::All, Duration::from_millis(300), vec![entry("second")]);
    assert_eq!(late.await[0].error, ErrorCode::RequestTimedOut);
    let seen = fetch(&manager, 0, LONG).await;
    assert_eq!(values(seen.records), [(0, "first".to_owned())]);
    cluster.mend(2);
    let seen = fetch(&manager, 1, LONG).await;
    assert_eq!(values(seen.records), [(0, "second".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_leaves_the_isr_and_joins_again() {
    let cluster = Cluster::start_with(3, 2, |settings| {
        settings.replica_lag_time_max = Duration::from_millis(200);
    })
    .await;
    cluster.leader(0).await;
    cluster.cut(2);
    // Waits for the shrink, then is committed by the two that are left.
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    assert_eq!(cluster.controller.partition().isr, [B0, B1]);
    cluster.mend(2);
    eventually("broker 2 is back in the ISR", || {
        (cluster.controller.partition().isr.len() == 3).then_some(())
    })
    .await;
    cluster.same_logs(&[0, 1, 2]).await;
    let manager = cluster.broker(0);
    eventually("the leader counted one shrink and one expansion", || {
        let counters = manager.counters();
        ((counters.isr_shrinks.get(), counters.isr_expands.get()) == (1, 1)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_whose_answers_get_lost_is_repeated_until_it_is_committed() {
    let cluster = Cluster::start_with(2, 1, |settings| {
        settings.replica_lag_time_max = Duration::from_millis(100);
    })
    .await;
    cluster.leader(0).await;
    cluster.controller.answers.store(false, Ordering::SeqCst);
    cluster.cut(1);
    let manager = cluster.broker(0);
    let waits = manager.append(Acks::All, Duration::from_millis(500), vec![entry("a")]);
    assert_eq!(waits.await[0].error, ErrorCode::RequestTimedOut);
    cluster.controller.answers.store(true, Ordering::SeqCst);
    produce_ok(&manager, Acks::All, "b").await;
    assert_eq!(cluster.controller.partition().isr, [B0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_all_is_refused_up_front_without_enough_in_sync_replicas() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    cluster.controller.isolate(B0);
    let manager = cluster.broker(0);
    eventually("the leader knows", || {
        (manager.status().under_min_isr == 1).then_some(())
    })
    .await;
    let end = cluster.log_end(0);
    let refused = produce(&manager, Acks::All, "a").await;
    assert_eq!(refused.error, ErrorCode::NotEnoughReplicas);
    assert_eq!(cluster.log_end(0), end, "nothing was appended");
    assert_eq!(
        produce(&manager, Acks::Leader, "b").await.error,
        ErrorCode::None
    );
    assert_eq!(
        cluster.high_watermark(0),
        0,
        "and nothing becomes committed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_isr_that_becomes_too_small_after_the_append_is_said_so() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    cluster.cut(1);
    cluster.cut(2);
    let manager = cluster.broker(0);
    let waits = manager.append(Acks::All, Duration::from_secs(2), vec![entry("a")]);
    eventually("it is appended", || (cluster.log_end(0) == 1).then_some(())).await;
    cluster.controller.isolate(B0);
    assert_eq!(
        waits.await[0].error,
        ErrorCode::NotEnoughReplicasAfterAppend
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_leader_fails_waiting_acknowledgements_and_names_the_new_leader() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    cluster.cut(1);
    let manager = cluster.broker(0);
    let waits = append(&manager, Acks::All, "a");
    eventually("it is appended", || (cluster.log_end(0) == 1).then_some(())).await;
    cluster.controller.elect(BrokerId(2));
    let failed = waits.await.remove(0);
    assert_eq!(failed.error, ErrorCode::NotLeaderOrFollower);
    let hint = failed.current_leader.unwrap();
    assert_eq!(
        (hint.leader, hint.epoch),
        (Some(BrokerId(2)), LeaderEpoch(1))
    );
    let refused = produce(&manager, Acks::Leader, "b").await;
    assert_eq!(refused.error, ErrorCode::NotLeaderOrFollower);
    assert_eq!(refused.current_leader, Some(hint));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_cuts_what_only_it_had() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "common").await;
    cluster.cut(0);
    for value in ["lost 1", "lost 2", "lost 3"] {
        // The leader does not know yet that nobody follows it.
        let result = produce(&cluster.broker(0), Acks::Leader, value).await;
        assert_eq!(result.error, ErrorCode::None);
    }
    cluster.controller.fail_over(B0, B1);
    cluster.leader(1).await;
    produce_ok(&cluster.broker(1), Acks::All, "kept").await;
    cluster.mend(0);
    let log = cluster.same_logs(&[0, 1, 2]).await;
    assert_eq!(log, [(0, "common".to_owned()), (1, "kept".to_owned())]);
    eventually("broker 0 is back in the ISR", || {
        (cluster.controller.partition().isr.len() == 3).then_some(())
    })
    .await;
    assert!(cluster.broker(0).counters().truncations.get() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn divergence_over_several_missed_epochs_is_mended() {
    let cluster = Cluster::start(3, 1).await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "common").await;
    // Broker 0 appends alone in epoch 0, broker 1 alone in epoch 1, and broker 2 leads on in epoch 2.
    cluster.cut(0);
    produce(&cluster.broker(0), Acks::Leader, "only on 0, a").await;
    produce(&cluster.broker(0), Acks::Leader, "only on 0, b").await;
    cluster.controller.fail_over(B0, B1);
    cluster.leader(1).await;
    cluster.cut(1);
    produce(&cluster.broker(1), Acks::Leader, "only on 1").await;
    cluster.controller.fail_over(B1, BrokerId(2));
    cluster.leader(2).await;
    produce_ok(&cluster.broker(2), Acks::All, "kept 1").await;
    produce_ok(&cluster.broker(2), Acks::All, "kept 2").await;
    cluster.mend(0);
    cluster.mend(1);
    let log = cluster.same_logs(&[0, 1, 2]).await;
    let texts: Vec<_> = log
        .iter()
        .map(|(epoch, value)| (*epoch, value.as_str()))
        .collect();
    assert_eq!(texts, [(0, "common"), (2, "kept 1"), (2, "kept 2")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_comes_back_with_its_log_and_follows() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    for n in 0..10 {
        produce_ok(&cluster.broker(0), Acks::All, &format!("a{n}")).await;
    }
    cluster.kill(B0).await;
    cluster.controller.fail_over(B0, B1);
    cluster.leader(1).await;
    for n in 0..10 {
        produce_ok(&cluster.broker(1), Acks::All, &format!("b{n}")).await;
    }
    cluster.boot(B0, Incarnation(2)).await;
    let log = cluster.same_logs(&[0, 1, 2]).await;
    assert_eq!(log.len(), 20);
    eventually("broker 0 is back in the ISR", || {
        (cluster.controller.partition().isr.len() == 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_killed_and_registers_again_leads_in_a_new_epoch_with_all_records() {
    let cluster = Cluster::start(3, 2).await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "before").await;
    cluster.kill(B0).await;
    cluster.boot(B0, Incarnation(2)).await;
    let state = cluster.leader(0).await;
    assert_eq!(
        (state.epoch, state.epoch_start),
        (LeaderEpoch(1), Offset(1))
    );
    produce_ok(&cluster.broker(0), Acks::All, "after").await;
    let log = cluster.same_logs(&[0, 1, 2]).await;
    assert_eq!(log, [(0, "before".to_owned()), (1, "after".to_owned())]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_many_changes_of_leader() {
    let cluster = Cluster::start(3, 2).await;
    let mut acked = Vec::new();
    let mut value = 0;
    for round in 0..30 {
        let leader = round % 3;
        let state = cluster.leader(leader).await;
        let manager = cluster.broker(leader);
        value += 1;
        let offset = produce_ok(&manager, Acks::All, &value.to_string()).await;
        acked.push((value, Offset(offset)));
        let pending: Vec<_> = (0..10)
            .map(|_| {
                value += 1;
                (value, append(&manager, Acks::All, &value.to_string()))
            })
            .collect();
        // Some are in the log by now, some on their way, some acknowledged.
        tokio::time::sleep(Duration::from_micros(300 * (round as u64 % 7))).await;
        cluster.controller.elect(BrokerId((leader + 1) % 3));
        for (value, answer) in pending {
            let answer = answer.await.remove(0);
            if answer.error == ErrorCode::None {
                acked.push((value, answer.base_offset));
            } else {
                assert_eq!(answer.error, ErrorCode::NotLeaderOrFollower);
            }
        }
        assert_eq!(state.epoch, LeaderEpoch(round));
    }
    let log = cluster.same_logs(&[0, 1, 2]).await;
    for (value, offset) in acked {
        assert_eq!(log[usize::try_from(offset.0).unwrap()].1, value.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_everyone_stops_serving_reads_and_acks_1() {
    let cluster = Cluster::start_with(3, 2, |settings| {
        settings.session_timeout = Duration::from_millis(300);
        settings.fetch_wait_max = Duration::from_millis(50);
    })
    .await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    let manager = cluster.broker(0);
    // Without a controller the followers' fetches prove the leadership on.
    cluster.confirm(0, false);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(
            fetch(&manager, 0, Duration::ZERO).await.error,
            ErrorCode::None
        );
    }
    // With one member of the ISR missing as well, nothing proves it.
    cluster.cut(2);
    eventually("reads are refused", || {
        let probe = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(fetch(&manager, 0, Duration::ZERO))
        });
        (probe.error == ErrorCode::NotLeaderOrFollower).then_some(())
    })
    .await;
    let refused = produce(&manager, Acks::Leader, "b").await;
    assert_eq!(refused.error, ErrorCode::NotLeaderOrFollower);
    cluster.confirm(0, true);
    assert_eq!(
        fetch(&manager, 0, Duration::ZERO).await.error,
        ErrorCode::None
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_without_our_own_registration_is_not_acted_on() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    let manager = cluster.broker(0);
    // Another process takes the id: this one serves nothing any more, and begins no new epoch.
    cluster.controller.commit(|image| {
        let mut broker = (**image.broker(B0).unwrap()).clone();
        broker.incarnation = Incarnation(99);
        image.brokers.insert(B0, std::sync::Arc::new(broker));
    });
    cluster.controller.elect(B0);
    eventually("it stops", || {
        manager.leads(KEY.0, KEY.1).is_none().then_some(())
    })
    .await;
    let refused = produce(&manager, Acks::All, "b").await;
    assert_eq!(refused.error, ErrorCode::NotLeaderOrFollower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_no_longer_assigned_is_deleted_and_nothing_else() {
    let cluster = Cluster::start(3, 1).await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    let folder = |id: i32| cluster.broker(id).disks().dirs().partitions().unwrap();
    cluster.controller.change(KEY, |partition| {
        partition.replicas = vec![B0, B1];
        partition.isr = vec![B0, B1];
        partition.leader_epoch = partition.leader_epoch.next();
    });
    eventually("the folder is gone", || folder(2).is_empty().then_some(())).await;
    assert_eq!((folder(0).len(), folder(1).len()), (1, 1));
    cluster.controller.commit(|image| {
        image.topics.remove(&TOPIC);
        image.names.remove("t");
    });
    eventually("all folders are gone", || {
        (folder(0).is_empty() && folder(1).is_empty()).then_some(())
    })
    .await;
    let refused = produce(&cluster.broker(0), Acks::All, "b").await;
    assert_eq!(refused.error, ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_hear_every_change_of_leadership_in_order() {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    let mut changes = cluster.broker(0).subscribe();
    for round in 1..4 {
        cluster.controller.elect(B1);
        cluster.leader(1).await;
        cluster.controller.elect(B0);
        eventually("broker 0 leads on", || {
            let state = cluster.broker(0).leads(KEY.0, KEY.1)?;
            (state.epoch == LeaderEpoch(2 * round)).then_some(())
        })
        .await;
    }
    let mut heard = Vec::new();
    while let Ok(change) = changes.try_recv() {
        heard.push(change.leads.map(|epoch| epoch.0));
    }
    assert_eq!(
        heard,
        [Some(0), None, Some(2), None, Some(4), None, Some(6)]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_close_keeps_high_watermark_and_log() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    for n in 0..5 {
        produce_ok(&cluster.broker(0), Acks::All, &n.to_string()).await;
    }
    cluster.broker(0).close().await.unwrap();
    cluster.kill(B0).await;
    let began = Instant::now();
    cluster.boot(B0, Incarnation(2)).await;
    let state = cluster.leader(0).await;
    assert_eq!(
        (state.high_watermark, state.log_end),
        (Offset(5), Offset(5))
    );
    assert!(began.elapsed() < LONG);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_found_at_the_start_that_belong_to_no_replica_are_deleted_after_a_while() {
    let cluster = Cluster::start_with(1, 1, |settings| {
        settings.stray_delay = Duration::from_millis(1500);
    })
    .await;
    cluster.leader(0).await;
    produce_ok(&cluster.broker(0), Acks::All, "a").await;
    cluster.kill(B0).await;
    // A replica that was assigned to this broker in another life.
    let stray = leasehold_types::TopicId(uuid::Uuid::from_u128(0xdead));
    cluster
        .boot_with(B0, Incarnation(2), move |log_dirs| {
            let (log, _) = log_dirs
                .open_partition(stray, 3, Default::default())
                .unwrap();
            log.begin_epoch(LeaderEpoch(0)).unwrap();
            log.append_leader(&batch("old"), LeaderEpoch(0), produce::now_ms())
                .unwrap();
        })
        .await;
    let manager = cluster.broker(0);
    let folders = || manager.disks().dirs().partitions().unwrap();
    cluster.leader(0).await;
    assert!(folders().contains(&(stray, 3)), "not at once");
    eventually("the stray folder is gone", || {
        (folders() == [KEY]).then_some(())
    })
    .await;
    assert_eq!(cluster.values(0).len(), 1);
}

/// The folder of the one partition of broker 0.
fn folder(cluster: &Cluster) -> std::path::PathBuf {
    let root = cluster.paths(0).remove(0);
    root.join(format!("{}-{}", KEY.0, KEY.1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_io_error_in_the_only_log_directory_is_told_as_the_end_of_the_broker() {
    let cluster = Cluster::start(1, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    produce_ok(&manager, Acks::All, "first").await;
    let failure = manager.storage_failure();
    tokio::pin!(failure);
    let none = tokio::time::timeout(Duration::from_millis(50), &mut failure).await;
    assert!(none.is_err(), "{none:?}");
    // The next epoch cannot be written where there is no folder any more.
    std::fs::remove_dir_all(folder(&cluster)).unwrap();
    cluster.controller.elect(B0);
    let told = tokio::time::timeout(LONG, failure).await.unwrap();
    assert!(told.contains("no log directory is left"), "{told}");
    // Whoever asks late hears it too.
    assert_eq!(manager.storage_failure().await, told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_of_a_replica_that_was_taken_away_fails_without_consequence() {
    let cluster = Cluster::start(2, 1).await;
    cluster.leader(0).await;
    let manager = cluster.broker(0);
    produce_ok(&manager, Acks::All, "first").await;
    let partition = manager.find(KEY).unwrap();
    cluster.controller.change(KEY, |partition| {
        partition.replicas = vec![B1];
        partition.isr = vec![B1];
        partition.leader = Some(B1);
        partition.leader_epoch = partition.leader_epoch.next();
    });
    eventually("the replica's removal", || manager.find(KEY).err()).await;
    partition.fail("the log was deleted".to_owned());
    assert!(manager.untold_failures().is_empty());
}
