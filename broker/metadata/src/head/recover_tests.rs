use super::*;
use crate::head::{ControllerRef, HeadWriter};
use crate::head::{Limits, genesis, load};
use crate::image::{Endpoint, Standing};
use crate::records::RegisterBroker;
use crate::store::simulated::SimulatedStore;
use leasehold_types::{ClusterId, LeaderEpoch, ProducerId, TopicId};
use std::sync::Arc;

fn registered(broker: i32) -> Record {
    let at = |port| Endpoint {
        host: "h".into(),
        port,
    };
    Record::RegisterBroker(RegisterBroker {
        broker: BrokerId(broker),
        incarnation: Incarnation(7),
        client: at(1),
        internal: at(2),
        http: None,
        rack: None,
        version: String::new(),
        fenced: false,
        shutting_down: false,
        cordoned: false,
        registered_at: None,
        changed_at: None,
        directories: Vec::new(),
        listeners: Default::default(),
        features: crate::features::supported(),
    })
}

fn topic() -> Vec<Record> {
    let id = TopicId::random();
    let state = crate::image::Partition {
        replicas: vec![BrokerId(0), BrokerId(1)],
        isr: vec![BrokerId(0), BrokerId(1)],
        leader: Some(BrokerId(0)),
        ..crate::image::Partition::default()
    };
    let name = format!("t{id}");
    vec![
        Record::Topic {
            id,
            name,
            internal: false,
            configs: BTreeMap::new(),
        },
        Record::Partition {
            topic: id,
            partition: 0,
            state,
        },
    ]
}

async fn claim(store: &Arc<SimulatedStore>) -> HeadWriter {
    let controller = ControllerRef {
        broker: BrokerId(0),
        incarnation: Incarnation(7),
        address: "h:2".into(),
    };
    let loaded = load(&**store).await.unwrap();
    let may = Arc::new(|| true);
    let claimed = HeadWriter::claim(store.clone(), loaded, controller, Limits::default(), may);
    claimed.await.unwrap().0
}

async fn cluster() -> (Arc<SimulatedStore>, HeadWriter) {
    let store = Arc::new(SimulatedStore::new());
    genesis(&*store, &ClusterId::random()).await.unwrap();
    let mut writer = claim(&store).await;
    let mut records: Vec<Record> = (0..3).map(registered).collect();
    records.extend(topic());
    writer.commit(records).await.unwrap();
    (store, writer)
}

fn copies(of: &[(i32, &Image)]) -> BTreeMap<BrokerId, Image> {
    of.iter()
        .map(|(id, image)| (BrokerId(*id), (*image).clone()))
        .collect()
}

#[tokio::test]
async fn the_copy_that_all_others_lead_to_counts_and_nobody_may_be_missing() {
    let (_store, mut writer) = cluster().await;
    let old = (**writer.image()).clone();
    writer.commit(topic()).await.unwrap();
    let new = (**writer.image()).clone();
    let none = BTreeSet::new();
    let all = copies(&[(0, &old), (1, &new), (2, &old)]);
    assert_eq!(choose(&all, &none, Wish::Newest), Ok(BrokerId(1)));
    let some = copies(&[(0, &old), (2, &old)]);
    let refused = choose(&some, &none, Wish::Newest);
    assert_eq!(refused, Err(Refused::Missing(vec![1])));
    let four = [BrokerId(3)].into();
    let refused = choose(&all, &four, Wish::Newest);
    assert_eq!(refused, Err(Refused::Missing(vec![3])));
    // Named by people, an older one counts too.
    assert_eq!(
        choose(&some, &none, Wish::From(BrokerId(2))),
        Ok(BrokerId(2))
    );
    let refused = choose(&some, &none, Wish::From(BrokerId(1)));
    assert_eq!(refused, Err(Refused::NoSuchCopy(1)));
    assert_eq!(
        choose(&BTreeMap::new(), &none, Wish::Newest),
        Err(Refused::NoCopy)
    );
}

#[tokio::test]
async fn copies_of_two_lines_are_not_chosen_between_even_if_one_is_longer() {
    let (store, mut writer) = cluster().await;
    let before = load(&*store).await.unwrap();
    writer.commit(topic()).await.unwrap();
    let ours = (**writer.image()).clone();
    // The head is put back, and another line begins, with a higher epoch and seq.
    let mut theirs = (*before.image).clone();
    for epoch in 2..5 {
        let seq = theirs.position.seq.next();
        let claim = Claim {
            epoch: ControllerEpoch(epoch),
            claim_id: ClaimId::random(),
            first_seq: seq,
            broker: BrokerId(1),
            incarnation: Incarnation(7),
        };
        let entry = Entry {
            seq,
            epoch: claim.epoch,
            nonce: random_nonce(),
            records: vec![Record::Claim(claim)],
        };
        theirs.apply(&entry).unwrap();
    }
    let all = copies(&[(0, &ours), (1, &theirs), (2, &ours)]);
    let refused = choose(&all, &BTreeSet::new(), Wish::Newest);
    assert!(matches!(refused, Err(Refused::Forked(_))), "{refused:?}");
}

#[tokio::test]
async fn a_recovered_head_is_ahead_of_everything_and_can_be_claimed() {
    let (store, mut writer) = cluster().await;
    let restored = store.read_head().await.unwrap().unwrap();
    writer.commit(topic()).await.unwrap();
    let source = (**writer.image()).clone();
    let far = Position {
        epoch: ControllerEpoch(90),
        claim_id: ClaimId(1),
        seq: Seq(5_000),
    };
    let recovered = plan(&source, &[far], "a test").unwrap();
    assert!(recovered.image.position.epoch > far.epoch && recovered.image.position.seq > far.seq);
    for (old, new) in source.topics.values().zip(recovered.image.topics.values()) {
        let (old, new) = (&old.partitions[0], &new.partitions[0]);
        assert_eq!(new.leader_epoch, LeaderEpoch(old.leader_epoch.0 + JUMP));
        assert_eq!(new.partition_epoch.0, old.partition_epoch.0 + JUMP);
        assert_eq!((&new.isr, new.leader), (&old.isr, old.leader));
    }
    let ids = ProducerId(source.next_producer_id.0 + PRODUCER_ID_JUMP);
    assert_eq!(recovered.image.next_producer_id, ids);

    // Over a head that was put back to an older state.
    let back = SimulatedStore::new();
    for chunk in store.list_chunks().await.unwrap() {
        let body = store.read_chunk(&chunk.name).await.unwrap().unwrap();
        let (name, cluster, epoch) = (chunk.name, chunk.cluster, chunk.epoch);
        let chunk = Chunk {
            name,
            cluster,
            epoch,
            body,
        };
        back.create_chunk(&chunk).await.unwrap();
    }
    back.create_head(&restored.data).await.unwrap();
    let over = OldHead::read(&back).await.unwrap().unwrap();
    over.check_behind(BrokerId(0), &source).unwrap();
    write(&back, &recovered, Some(&over)).await.unwrap();
    let now = OldHead::read(&back).await.unwrap().unwrap();
    assert_eq!(now.image.as_deref(), Some(&recovered.image));
    // Not twice: the head that was judged is gone, and there is nothing left to recover.
    assert!(
        write(&back, &plan(&source, &[], "again").unwrap(), Some(&over))
            .await
            .is_err()
    );
    assert_eq!(
        now.check_behind(BrokerId(0), &source),
        Err(Refused::NotBehind(0))
    );
    let back = Arc::new(back);
    let mut writer = claim(&back).await;
    writer.commit(topic()).await.unwrap();

    // Over a head whose chunks are gone.
    for chunk in back.list_chunks().await.unwrap() {
        back.delete_chunk(&chunk.name).await.unwrap();
    }
    let torn = OldHead::read(&*back).await.unwrap().unwrap();
    assert!(torn.image.is_none());
    let again = plan(&source, &[torn.position()], "once more").unwrap();
    write(&*back, &again, Some(&torn)).await.unwrap();
    assert_eq!(*load(&*back).await.unwrap().image, again.image);

    // Where there is none at all.
    let empty = SimulatedStore::new();
    write(&empty, &recovered, None).await.unwrap();
    assert_eq!(*load(&empty).await.unwrap().image, recovered.image);
    assert!(write(&empty, &recovered, None).await.is_err());
}

#[tokio::test]
async fn every_broker_that_was_seen_takes_the_recovered_line_in_and_none_beyond_it() {
    let (_store, mut writer) = cluster().await;
    let old = (**writer.image()).clone();
    writer.commit(topic()).await.unwrap();
    let source = (**writer.image()).clone();
    let recovered = plan(&source, &[], "a test").unwrap();
    for position in [old.position, source.position] {
        assert_eq!(recovered.image.locate(&position), Standing::TooOld);
        assert!(position.seq < recovered.image.position.seq);
    }
    let unseen = Position {
        epoch: recovered.image.position.epoch.next(),
        ..source.position
    };
    assert_eq!(recovered.image.locate(&unseen), Standing::Newer);
}
