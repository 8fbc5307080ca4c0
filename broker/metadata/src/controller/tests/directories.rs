//! Several log directories on a broker: one fails while it runs, or is missing when it comes back.

use super::bench::*;
use crate::controller::*;
use crate::rpc::*;
use leasehold_types::*;

fn dir(n: u128) -> DirectoryId {
    DirectoryId(uuid::Uuid::from_u128(n))
}

fn report(n: u128, restart: RestartReport, partitions: &[(TopicId, i32)]) -> DirectoryReport {
    DirectoryReport {
        id: dir(n),
        restart,
        partitions: partitions.to_vec(),
    }
}

/// Registers with these directories and polls until unfenced.
fn join(bench: &mut Bench, id: i32, now: i64, directories: Vec<DirectoryReport>, unreadable: u32) {
    let mut registration = bench.registration(id, now, RestartReport::default());
    registration.restart = directories[0].restart.clone();
    (registration.directories, registration.unreadable) = (directories, unreadable);
    let to = bench.token();
    bench.step(Input::Register {
        to,
        registration: Box::new(registration),
    });
    assert!(matches!(bench.answer(), Response::Registered { .. }));
    bench.poll(id);
    assert!(bench.image.is_live(b(id)));
}

/// Three brokers, of which broker 0 has two directories; a topic of three partitions on all, led by 0.
/// Partition 0 lies in directory 1, partition 1 in directory 2, and partition 2 was never written to.
fn bench() -> (Bench, TopicId) {
    let mut bench = Bench::on(genesis(), settings());
    let fresh = RestartReport::default;
    let both = vec![report(1, fresh(), &[]), report(2, fresh(), &[])];
    join(&mut bench, 0, 100, both, 0);
    for id in [1, 2] {
        bench.join(id, 100 + i64::from(id), fresh());
    }
    let topic = bench.topic("t", &[&[0, 1, 2], &[0, 1, 2], &[0, 1, 2]], 2);
    (bench, topic)
}

/// Broker 0 dies, and comes back with these directories.
fn restart(bench: &mut Bench, directories: Vec<DirectoryReport>, unreadable: u32) {
    bench.evidence(0);
    join(bench, 0, 200, directories, unreadable);
}

fn fail(bench: &mut Bench, id: i32, failed: &[(TopicId, i32)]) {
    bench.poll_with(id, |poll| poll.state.offline = failed.to_vec());
}

/// Whether broker 0 counts as one that may have lost this partition: alone in the ISR, a loss shows.
fn lossy(directories: impl Fn(TopicId) -> Vec<DirectoryReport>) -> [bool; 3] {
    let (mut bench, topic) = bench();
    bench.config("t", "min.insync.replicas", Some("1"));
    for n in 0..3 {
        bench.propose(topic, n, &[0]);
    }
    restart(&mut bench, directories(topic), 0);
    [0, 1, 2].map(|n| bench.p(topic, n).lossy == ids(&[0]))
}

#[test]
fn a_log_that_failed_gives_up_its_leadership_and_the_broker_keeps_its_others() {
    let (mut bench, topic) = bench();
    let before = bench.p(topic, 1);
    fail(&mut bench, 0, &[(topic, 1)]);
    let p = bench.p(topic, 1);
    assert_eq!((p.leader, &p.isr), (Some(b(1)), &ids(&[1, 2])));
    assert_eq!(p.offline, ids(&[0]));
    assert_eq!(p.leader_epoch, before.leader_epoch.next());
    assert!(bench.image.is_live(b(0)));
    for n in [0, 2] {
        assert_eq!(bench.leader(topic, n), Some(0));
        assert_eq!(bench.p(topic, n).isr.len(), 3);
    }
    // Told again, as it is until the news has come round.
    fail(&mut bench, 0, &[(topic, 1)]);
    assert!(bench.records.is_empty());
    // A follower's failure leaves the leader where it is.
    fail(&mut bench, 2, &[(topic, 0)]);
    let p = bench.p(topic, 0);
    assert_eq!((p.leader, p.isr), (Some(b(0)), ids(&[0, 1])));
}

#[test]
fn a_log_that_failed_joins_no_isr_and_leads_on_no_wish_before_its_broker_registers_anew() {
    let (mut bench, topic) = bench();
    fail(&mut bench, 0, &[(topic, 1)]);
    let code = bench.propose(topic, 1, &[0, 1, 2]);
    assert_eq!(code, codes::INELIGIBLE_REPLICA);
    bench.pass(120_000, &[0, 1, 2]);
    assert_eq!(bench.leader(topic, 1), Some(1), "not the preferred one");
    // The others go: a broker that is there with a failed log is no candidate, clean or unclean.
    bench.config("t", "unclean.leader.election.enable", Some("true"));
    fail(&mut bench, 1, &[(topic, 1)]);
    fail(&mut bench, 2, &[(topic, 1)]);
    assert_eq!(bench.leader(topic, 1), None);
    let wish = |kind| AdminRequest::ElectLeaders {
        kind,
        partitions: Some(vec![("t".to_owned(), 1)]),
    };
    bench.admin(wish(ElectionKind::Unclean));
    bench.admin(wish(ElectionKind::Preferred));
    assert_eq!(bench.leader(topic, 1), None);
    assert_eq!(bench.p(topic, 1).isr, ids(&[2]), "the last member stays");
    // Back, it may have lost the end of that log; the others it kept.
    let boots = |n, at| report(n, intact(100, 200), &[at]);
    restart(
        &mut bench,
        vec![boots(1, (topic, 0)), boots(2, (topic, 1))],
        0,
    );
    let p = bench.p(topic, 1);
    assert_eq!((p.leader, p.offline), (Some(b(0)), ids(&[1, 2])));
    assert!(p.recovering, "an unclean election, as the topic allows");
}

#[test]
fn a_failed_log_is_judged_lossy_however_well_its_broker_comes_back() {
    let (mut bench, topic) = bench();
    bench.config("t", "min.insync.replicas", Some("1"));
    for n in 0..3 {
        bench.propose(topic, n, &[0]);
    }
    fail(&mut bench, 0, &[(topic, 1)]);
    let p = bench.p(topic, 1);
    assert_eq!(
        (p.leader, p.isr),
        (None, ids(&[0])),
        "no one else has it all"
    );
    let boots = |n, at| report(n, intact(100, 200), &[at]);
    restart(
        &mut bench,
        vec![boots(1, (topic, 0)), boots(2, (topic, 1))],
        0,
    );
    let p = bench.p(topic, 1);
    assert_eq!((p.isr, p.lossy, p.offline), (ids(&[]), ids(&[0]), ids(&[])));
    assert_eq!(bench.leader(topic, 0), Some(0));
}

#[test]
fn a_directory_that_is_missing_empty_or_another_loses_what_was_in_it_and_what_was_nowhere() {
    let kept = |n, at| report(n, intact(100, 200), &[at]);
    let one_lost = [false, true, true];
    assert_eq!(
        lossy(|t| vec![kept(1, (t, 0)), kept(2, (t, 1))]),
        [false; 3]
    );
    assert_eq!(lossy(|t| vec![kept(1, (t, 0))]), one_lost, "missing");
    let empty = report(3, RestartReport::default(), &[]);
    assert_eq!(lossy(|t| vec![kept(1, (t, 0)), empty.clone()]), one_lost);
    let older = |t| report(2, intact(50, 200), &[(t, 1)]);
    assert_eq!(lossy(|t| vec![kept(1, (t, 0)), older(t)]), one_lost, "old");
    let crashed = |t| report(2, super::bench::lossy(100, 200), &[(t, 1)]);
    assert_eq!(lossy(|t| vec![kept(1, (t, 0)), crashed(t)]), one_lost);
    let foreign = |t| report(4, intact(100, 200), &[(t, 1)]);
    assert_eq!(lossy(|t| vec![kept(1, (t, 0)), foreign(t)]), one_lost);
    assert_eq!(lossy(|t| vec![kept(2, (t, 1))]), [true, false, true]);
    // One more directory than before loses nothing; the order says nothing.
    let more = |t| vec![empty.clone(), kept(2, (t, 1)), kept(1, (t, 0))];
    assert_eq!(lossy(more), [false; 3]);
    // An old copy that came back is not what this broker had, whatever else it brings.
    let back = |t| {
        vec![
            kept(1, (t, 2)),
            kept(2, (t, 1)),
            report(3, intact(50, 200), &[(t, 0)]),
        ]
    };
    assert_eq!(lossy(back), [true, false, false]);
    let both = |t| vec![kept(1, (t, 0)), kept(2, (t, 0))];
    assert_eq!(lossy(both), [true, false, false], "in two directories");
    // Also once something is missing.
    let twice = |t| vec![kept(1, (t, 0)), report(3, intact(50, 200), &[(t, 0)])];
    assert_eq!(lossy(twice), [true; 3]);
}

#[test]
fn a_broker_whose_directories_were_never_told_had_one_and_is_judged_by_the_one_that_continues_it() {
    let mut bench = Bench::new(1);
    let topic = bench.topic("t", &[&[0]], 1);
    let fresh = report(2, RestartReport::default(), &[]);
    let old = report(1, intact(100, 200), &[(topic, 0)]);
    restart(&mut bench, vec![fresh, old], 0);
    assert_eq!(bench.leader(topic, 0), Some(0));
    assert!(!bench.p(topic, 0).recovering);
    let known = bench.image.broker(b(0)).unwrap().directories.clone();
    assert_eq!(known, [dir(2), dir(1)]);
    // From then on both count.
    bench.evidence(0);
    join(
        &mut bench,
        0,
        300,
        vec![report(2, intact(200, 300), &[])],
        0,
    );
    assert!(bench.p(topic, 0).recovering, "found nowhere, and alone");
}

#[test]
fn what_may_lie_in_a_directory_that_cannot_be_read_is_out_of_service_from_the_first_moment() {
    let (mut bench, topic) = bench();
    let kept = report(1, intact(100, 200), &[(topic, 0)]);
    restart(&mut bench, vec![kept], 1);
    let offline = [0, 1, 2].map(|n| bench.p(topic, n).is_offline(b(0)));
    assert_eq!(offline, [false, true, true]);
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), codes::NONE);
    let refused = bench.propose(topic, 1, &[0, 1, 2]);
    assert_eq!(refused, codes::INELIGIBLE_REPLICA);
    // Nothing changes by another restart, though it brings all that the last life had.
    bench.evidence(0);
    let still = report(1, intact(200, 250), &[(topic, 0)]);
    join(&mut bench, 0, 250, vec![still], 1);
    let offline = [0, 1, 2].map(|n| bench.p(topic, n).is_offline(b(0)));
    assert_eq!(offline, [false, true, true]);
    // The disk is given up: they are begun anew, and come back by replication.
    bench.evidence(0);
    let left = report(1, intact(250, 300), &[(topic, 0)]);
    join(&mut bench, 0, 300, vec![left], 0);
    let p = bench.p(topic, 1);
    assert_eq!((p.offline.len(), p.isr), (0, ids(&[1, 2])));
    assert_eq!(bench.propose(topic, 1, &[0, 1, 2]), codes::NONE);
}

#[test]
fn a_replica_that_is_taken_away_and_given_back_is_no_longer_out_of_service() {
    let (mut bench, topic) = bench();
    fail(&mut bench, 0, &[(topic, 1)]);
    bench.reassign("t", 1, Some(&[1, 2]));
    bench.propose(topic, 1, &[1, 2]);
    assert_eq!(bench.p(topic, 1).replicas, ids(&[1, 2]));
    bench.reassign("t", 1, Some(&[1, 2, 0]));
    assert!(bench.p(topic, 1).offline.is_empty());
    assert_eq!(bench.propose(topic, 1, &[0, 1, 2]), codes::NONE);
}

#[test]
fn what_was_found_is_in_service_though_it_may_have_lost_and_another_directory_cannot_be_read() {
    let (mut bench, topic) = bench();
    let crashed = report(1, super::bench::lossy(100, 200), &[(topic, 0)]);
    restart(&mut bench, vec![crashed], 1);
    let offline = [0, 1, 2].map(|n| bench.p(topic, n).is_offline(b(0)));
    assert_eq!(offline, [false, true, true]);
    assert_eq!(bench.p(topic, 0).isr, ids(&[1, 2]));
    assert_eq!(bench.propose(topic, 0, &[0, 1, 2]), codes::NONE);
}
