//! The promises of a store as one suite, run against every store: the directory and the simulation
//! in unit tests, the Kubernetes API in the cluster tests.
//!
//! [`run`] wants a store with no objects in it, creates its own, and names the promise that was broken.

use super::{
    Chunk, ChunkBody, HeadPatch, LeaseError, LeaseRecord, NONCE, PatchError, Store, StoreError,
    random_nonce,
};
use leasehold_types::{ClusterId, ControllerEpoch};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Which promise was broken, and how.
#[derive(Debug, thiserror::Error)]
#[error("broken promise: {promise}: {how}")]
pub struct Broken {
    pub promise: &'static str,
    pub how: String,
}

macro_rules! check {
    ($condition:expr, $promise:literal, $($how:tt)*) => {
        if !$condition {
            return Err(Broken { promise: $promise, how: format!($($how)*) });
        }
    };
}

fn failed<E: std::fmt::Debug>(promise: &'static str) -> impl Fn(E) -> Broken {
    move |error| Broken {
        promise,
        how: format!("{error:?}"),
    }
}

/// A head with the given nonce and a number to count on.
pub fn first_head(nonce: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (NONCE.to_owned(), nonce.to_owned()),
        ("seq".to_owned(), "0".to_owned()),
    ])
}

fn change(nonce: &str, seq: u64) -> HeadPatch {
    HeadPatch {
        nonce: nonce.to_owned(),
        set: BTreeMap::from([("seq".to_owned(), seq.to_string())]),
        remove: Vec::new(),
    }
}

/// Checks every promise on an empty store.
pub async fn run(store: Arc<dyn Store>) -> Result<(), Broken> {
    head_is_written_only_on_condition(&*store).await?;
    a_duplicate_is_refused(&*store).await?;
    keys_come_and_go_in_one_write(&*store).await?;
    racing_writers_make_one_chain(&store).await?;
    chunks_are_immutable(&*store).await?;
    lease_is_written_only_on_condition(&*store).await?;
    a_lease_change_wakes_a_waiter(&store).await
}

async fn head_is_written_only_on_condition(store: &dyn Store) -> Result<(), Broken> {
    let none = store.read_head().await.map_err(failed("head: read"))?;
    check!(
        none.is_none(),
        "the suite begins with an empty store",
        "{none:?}"
    );
    let gone = store.patch_head("no-such-uid", "a", &change("b", 1)).await;
    check!(
        matches!(gone, Err(PatchError::Gone)),
        "a missing head is Gone, never created",
        "{gone:?}"
    );
    let head = store
        .create_head(&first_head("a"))
        .await
        .map_err(failed("head: create"))?;
    let again = store.create_head(&first_head("z")).await;
    check!(
        matches!(again, Err(StoreError::Exists { .. })),
        "a head is created once",
        "{again:?}"
    );
    for (uid, nonce) in [("another-uid", "a"), (head.uid.as_str(), "another-nonce")] {
        let refused = store.patch_head(uid, nonce, &change("b", 9)).await;
        check!(
            matches!(refused, Err(PatchError::Refused)),
            "a write whose uid or nonce does not hold is refused",
            "{refused:?}"
        );
    }
    store
        .patch_head(&head.uid, "a", &change("b", 1))
        .await
        .map_err(failed("a write whose condition holds is applied"))?;
    let now = store.read_head().await.map_err(failed("head: read"))?;
    let nonce = now.as_ref().and_then(|h| h.data.get(NONCE));
    check!(
        nonce.is_some_and(|n| n == "b"),
        "a read after a write shows it (quorum read)",
        "{now:?}"
    );
    Ok(())
}

async fn a_duplicate_is_refused(store: &dyn Store) -> Result<(), Broken> {
    let head = current(store).await?;
    store
        .patch_head(&head.0, &head.1, &change("c", 2))
        .await
        .map_err(failed("head: patch"))?;
    let twice = store.patch_head(&head.0, &head.1, &change("c", 2)).await;
    check!(
        matches!(twice, Err(PatchError::Refused)),
        "a second copy of an applied write is refused",
        "{twice:?}"
    );
    Ok(())
}

async fn keys_come_and_go_in_one_write(store: &dyn Store) -> Result<(), Broken> {
    let (uid, nonce) = current(store).await?;
    let mut first = change("d", 3);
    first.set.insert("entry.0-_a".to_owned(), "x".to_owned());
    store
        .patch_head(&uid, &nonce, &first)
        .await
        .map_err(failed("head: add a key"))?;
    let mut second = change("e", 4);
    second.remove.push("entry.0-_a".to_owned());
    second.set.insert("entry.1".to_owned(), "y\nz".to_owned());
    store
        .patch_head(&uid, "d", &second)
        .await
        .map_err(failed("head: remove a key"))?;
    let head = store.read_head().await.map_err(failed("head: read"))?;
    let data = head.map(|h| h.data).unwrap_or_default();
    check!(
        !data.contains_key("entry.0-_a")
            && data.get("entry.1").is_some_and(|v| v == "y\nz")
            && data.get("seq").is_some_and(|v| v == "4"),
        "one write sets and removes keys together",
        "{data:?}"
    );
    Ok(())
}

async fn racing_writers_make_one_chain(store: &Arc<dyn Store>) -> Result<(), Broken> {
    let before = seq(&**store).await?;
    let writers = (0..4).map(|_| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut applied = 0u64;
            for _ in 0..15 {
                let Ok((uid, nonce)) = current(&*store).await else {
                    continue;
                };
                let Ok(seq) = seq(&*store).await else {
                    continue;
                };
                let patch = change(&random_nonce(), seq + 1);
                if store.patch_head(&uid, &nonce, &patch).await.is_ok() {
                    applied += 1;
                }
            }
            applied
        })
    });
    let mut applied = 0;
    for writer in writers.collect::<Vec<_>>() {
        applied += writer.await.map_err(failed("racing writers"))?;
    }
    let after = seq(&**store).await?;
    check!(
        applied > 0 && after == before + applied,
        "of racing writers each applied write counts once",
        "{before} + {applied} applied is not {after}"
    );
    Ok(())
}

async fn chunks_are_immutable(store: &dyn Store) -> Result<(), Broken> {
    let name = format!("7-{}", random_nonce());
    let cluster = ClusterId::random();
    let text = Chunk {
        name: name.clone(),
        cluster: cluster.clone(),
        epoch: ControllerEpoch(7),
        body: ChunkBody::Lines("{\"a\":1}\n".into()),
    };
    let binary = Chunk {
        name: format!("8-{}", random_nonce()),
        cluster: cluster.clone(),
        epoch: ControllerEpoch(8),
        body: ChunkBody::Zstd(vec![0, 255, 10, 13]),
    };
    for chunk in [&text, &binary] {
        let missing = store.read_chunk(&chunk.name).await;
        check!(
            matches!(missing, Ok(None)),
            "a missing chunk is None",
            "{missing:?}"
        );
        store
            .create_chunk(chunk)
            .await
            .map_err(failed("chunk: create"))?;
        let read = store.read_chunk(&chunk.name).await;
        check!(
            read.as_ref().is_ok_and(|r| r.as_ref() == Some(&chunk.body)),
            "a chunk comes back byte for byte",
            "{read:?}"
        );
    }
    let other = Chunk {
        body: ChunkBody::Lines("other".into()),
        ..text.clone()
    };
    let again = store.create_chunk(&other).await;
    check!(
        matches!(again, Err(StoreError::Exists { .. })),
        "a chunk is created once",
        "{again:?}"
    );
    let listed = store.list_chunks().await.map_err(failed("chunk: list"))?;
    check!(
        listed.iter().any(|c| c.name == binary.name
            && c.epoch == ControllerEpoch(8)
            && c.cluster == cluster),
        "a listing tells each chunk's cluster and epoch",
        "{listed:?}"
    );
    for _ in 0..2 {
        store
            .delete_chunk(&name)
            .await
            .map_err(failed("a chunk may be deleted twice"))?;
    }
    let gone = store.read_chunk(&name).await;
    check!(
        matches!(gone, Ok(None)),
        "a deleted chunk is gone",
        "{gone:?}"
    );
    store
        .delete_chunk(&binary.name)
        .await
        .map_err(failed("chunk: delete"))
}

async fn lease_is_written_only_on_condition(store: &dyn Store) -> Result<(), Broken> {
    let none = store.read_lease().await.map_err(failed("lease: read"))?;
    check!(
        none.is_none(),
        "the suite begins without a Lease",
        "{none:?}"
    );
    let wanted = LeaseRecord {
        holder: Some("0/7".into()),
        address: Some("127.0.0.1:9091".into()),
        duration: Duration::from_secs(4),
        transitions: 1,
        taken_at_ms: 1_700_000_000_001,
        renewed_at_ms: 1_700_000_000_123,
        ..LeaseRecord::default()
    };
    let first = store
        .write_lease(None, &wanted)
        .await
        .map_err(failed("lease: create"))?;
    check!(
        first.holder == wanted.holder
            && first.address == wanted.address
            && first.duration == wanted.duration
            && first.transitions == 1
            && first.taken_at_ms == wanted.taken_at_ms
            && first.renewed_at_ms == wanted.renewed_at_ms,
        "a Lease comes back as it was written",
        "{first:?}"
    );
    let conflicts = [
        store.write_lease(None, &wanted).await,
        store
            .write_lease(Some((&first.uid, "999999999")), &wanted)
            .await,
        store
            .write_lease(
                Some(("00000000-0000-0000-0000-000000000000", &first.version)),
                &wanted,
            )
            .await,
    ];
    for refused in conflicts {
        check!(
            matches!(refused, Err(LeaseError::Conflict)),
            "a Lease write whose uid or version does not hold is a conflict",
            "{refused:?}"
        );
    }
    let mut released = first.clone();
    released.holder = None;
    released.address = None;
    let second = store
        .write_lease(Some((&first.uid, &first.version)), &released)
        .await
        .map_err(failed("lease: release"))?;
    check!(
        second.version != first.version && second.holder.is_none() && second.address.is_none(),
        "a written Lease has a new version",
        "{second:?}"
    );
    let late = store
        .write_lease(Some((&first.uid, &first.version)), &wanted)
        .await;
    check!(
        matches!(late, Err(LeaseError::Conflict)),
        "a late Lease write is a conflict",
        "{late:?}"
    );
    let read = store.read_lease().await.map_err(failed("lease: read"))?;
    check!(
        read.as_ref() == Some(&second),
        "a Lease read shows the last write",
        "{read:?} is not {second:?}"
    );
    Ok(())
}

async fn a_lease_change_wakes_a_waiter(store: &Arc<dyn Store>) -> Result<(), Broken> {
    let lease = store.read_lease().await.map_err(failed("lease: read"))?;
    let Some(lease) = lease else {
        return Err(Broken {
            promise: "a Lease stays",
            how: "it is gone".into(),
        });
    };
    let waiter = {
        let (store, version) = (Arc::clone(store), lease.version.clone());
        tokio::spawn(async move { store.lease_changed(Some(&version)).await })
    };
    let next = LeaseRecord {
        holder: Some("1/8".into()),
        ..lease.clone()
    };
    store
        .write_lease(Some((&lease.uid, &lease.version)), &next)
        .await
        .map_err(failed("lease: write"))?;
    let woken = tokio::time::timeout(Duration::from_secs(5), waiter).await;
    check!(
        matches!(woken, Ok(Ok(()))),
        "a change of the Lease wakes who waits for it",
        "{woken:?}"
    );
    Ok(())
}

async fn current(store: &dyn Store) -> Result<(String, String), Broken> {
    let promise = "a head stays";
    let head = store.read_head().await.map_err(failed(promise))?;
    let head = head.ok_or(Broken {
        promise,
        how: "it is gone".into(),
    })?;
    let nonce = head.data.get(NONCE).cloned().unwrap_or_default();
    Ok((head.uid, nonce))
}

async fn seq(store: &dyn Store) -> Result<u64, Broken> {
    let promise = "a head stays";
    let head = store.read_head().await.map_err(failed(promise))?;
    head.and_then(|h| h.data.get("seq")?.parse().ok())
        .ok_or(Broken {
            promise,
            how: "it has no seq".into(),
        })
}
