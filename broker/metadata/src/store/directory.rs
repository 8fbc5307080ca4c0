//! The store of `leasehold-broker dev`: files in one directory of one machine.
//!
//! `head.json` and `lease.json` are replaced by atomic rename under an exclusive flock, after fsync;
//! `chunks/` holds one file per chunk. Promises: a killed writer leaves the old or the new content,
//! and its lock dies with it; a waiter is woken by inotify, not by polling. The lock is held for a
//! write only; a writer that is *stopped* inside it makes others report failure until it continues.

use super::{
    CALL_TIMEOUT, Chunk, ChunkBody, ChunkInfo, HeadObject, HeadPatch, LeaseError, LeaseRecord,
    NONCE, PatchError, Store, StoreError, random_nonce,
};
use async_trait::async_trait;
use leasehold_types::{ClusterId, ControllerEpoch};
use rustix::fs::{FlockOperation, flock, inotify};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::unix::pipe;

#[derive(Serialize, Deserialize)]
struct HeadFile {
    uid: String,
    data: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct LeaseFile {
    uid: String,
    version: u64,
    holder: Option<String>,
    address: Option<String>,
    duration_ms: u64,
    transitions: u32,
    #[serde(default)]
    taken_at_ms: i64,
    renewed_at_ms: i64,
}

/// A store in a directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    dir: PathBuf,
}

impl DirectoryStore {
    /// Opens the store, creating its folders if need be. Does not create a head.
    pub fn open(dir: impl Into<PathBuf>) -> io::Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(dir.join("chunks"))?;
        Ok(Self { dir })
    }

    fn head_path(&self) -> PathBuf {
        self.dir.join("head.json")
    }

    fn lease_path(&self) -> PathBuf {
        self.dir.join("lease.json")
    }

    /// Runs file work off the async workers, bounded in time.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Self) -> T + Send + 'static,
    ) -> Result<T, String> {
        let store = self.clone();
        let task = tokio::task::spawn_blocking(move || work(store));
        match tokio::time::timeout(CALL_TIMEOUT, task).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(format!("the file work ended abnormally: {error}")),
            Err(_) => Err(format!(
                "no answer from the directory within {CALL_TIMEOUT:?}"
            )),
        }
    }

    /// The lock that every writer holds. Gives up rather than queue behind a stopped writer for ever.
    fn lock(&self) -> io::Result<File> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.dir.join("lock"))?;
        let deadline = Instant::now() + CALL_TIMEOUT / 2;
        // flock has no timed form: try, and between tries leave the processor to the holder, whose
        // section lasts one fsync.
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_micros(300));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn read_file<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Option<T>, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreachable(what, error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| StoreError::Malformed {
            what: format!("{what} in {}", path.display()),
            why: error.to_string(),
        })
}

fn unreachable(what: &str, why: impl ToString) -> StoreError {
    StoreError::Unreachable {
        what: what.to_owned(),
        why: why.to_string(),
    }
}

/// Writes a whole file so that after a crash either the old or the new content is there.
/// `Ok(false)`: written, but the folder's fsync failed, so it may not survive a power loss.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    Ok(File::open(folder).and_then(|f| f.sync_all()).is_ok())
}

fn patch(
    store: &DirectoryStore,
    uid: &str,
    nonce: &str,
    patch: &HeadPatch,
) -> Result<(), PatchError> {
    let not_sent = |error: &dyn std::fmt::Display| PatchError::NotSent(error.to_string());
    let _lock = store.lock().map_err(|e| not_sent(&e))?;
    let mut head: HeadFile = read_file(&store.head_path(), "reading the head")
        .map_err(|e| not_sent(&e))?
        .ok_or(PatchError::Gone)?;
    if head.uid != uid || head.data.get(NONCE).is_none_or(|n| n != nonce) {
        return Err(PatchError::Refused);
    }
    for key in &patch.remove {
        if head.data.remove(key).is_none() {
            return Err(PatchError::Refused);
        }
    }
    head.data
        .extend(patch.set.iter().map(|(k, v)| (k.clone(), v.clone())));
    head.data.insert(NONCE.to_owned(), patch.nonce.clone());
    let bytes = serde_json::to_vec_pretty(&head).map_err(|e| not_sent(&e))?;
    match replace(&store.head_path(), &bytes) {
        Ok(true) => Ok(()),
        Ok(false) => Err(PatchError::InDoubt("the folder could not be synced".into())),
        Err(error) => Err(PatchError::InDoubt(error.to_string())),
    }
}

fn write_lease(
    store: &DirectoryStore,
    expected: Option<(String, String)>,
    record: &LeaseRecord,
) -> Result<LeaseRecord, LeaseError> {
    let not_sent = |error: &dyn std::fmt::Display| LeaseError::NotSent(error.to_string());
    let _lock = store.lock().map_err(|e| not_sent(&e))?;
    let now: Option<LeaseFile> =
        read_file(&store.lease_path(), "reading the Lease").map_err(|e| not_sent(&e))?;
    let (uid, version) = match (&now, &expected) {
        (None, None) => (random_nonce(), 1),
        (Some(now), Some((uid, version)))
            if now.uid == *uid && now.version.to_string() == *version =>
        {
            (now.uid.clone(), now.version + 1)
        }
        _ => return Err(LeaseError::Conflict),
    };
    let file = LeaseFile {
        uid,
        version,
        holder: record.holder.clone(),
        address: record.address.clone(),
        duration_ms: u64::try_from(record.duration.as_millis()).unwrap_or(u64::MAX),
        transitions: record.transitions,
        taken_at_ms: record.taken_at_ms,
        renewed_at_ms: record.renewed_at_ms,
    };
    let bytes = serde_json::to_vec_pretty(&file).map_err(|e| not_sent(&e))?;
    replace(&store.lease_path(), &bytes).map_err(|e| LeaseError::InDoubt(e.to_string()))?;
    Ok(lease_record(file))
}

fn lease_record(file: LeaseFile) -> LeaseRecord {
    LeaseRecord {
        uid: file.uid,
        version: file.version.to_string(),
        holder: file.holder,
        address: file.address,
        duration: Duration::from_millis(file.duration_ms),
        transitions: file.transitions,
        taken_at_ms: file.taken_at_ms,
        renewed_at_ms: file.renewed_at_ms,
    }
}

/// `<name>.<epoch>.<cluster id>.jsonl` or `.zst`.
fn parse_chunk_file(file: &str) -> Option<(ChunkInfo, bool)> {
    let (rest, extension) = file.rsplit_once('.')?;
    let compressed = match extension {
        "jsonl" => false,
        "zst" => true,
        _ => return None,
    };
    let (rest, cluster) = rest.rsplit_once('.')?;
    let (name, epoch) = rest.rsplit_once('.')?;
    let info = ChunkInfo {
        name: name.to_owned(),
        cluster: ClusterId(cluster.to_owned()),
        epoch: ControllerEpoch(epoch.parse().ok()?),
    };
    Some((info, compressed))
}

fn chunk_files(store: &DirectoryStore) -> Result<Vec<(PathBuf, ChunkInfo, bool)>, StoreError> {
    let what = "listing the chunks";
    let mut found = Vec::new();
    for entry in fs::read_dir(store.dir.join("chunks")).map_err(|e| unreachable(what, e))? {
        let entry = entry.map_err(|e| unreachable(what, e))?;
        if let Some((info, compressed)) = entry.file_name().to_str().and_then(parse_chunk_file) {
            found.push((entry.path(), info, compressed));
        }
    }
    Ok(found)
}

fn create_chunk(store: &DirectoryStore, chunk: &Chunk) -> Result<(), StoreError> {
    let what = format!("creating chunk {}", chunk.name);
    let (bytes, extension) = match &chunk.body {
        ChunkBody::Lines(text) => (text.as_bytes(), "jsonl"),
        ChunkBody::Zstd(bytes) => (bytes.as_slice(), "zst"),
    };
    let _lock = store.lock().map_err(|e| unreachable(&what, e))?;
    if chunk_files(store)?
        .iter()
        .any(|(_, i, _)| i.name == chunk.name)
    {
        return Err(StoreError::Exists { what });
    }
    let file = format!(
        "{}.{}.{}.{extension}",
        chunk.name, chunk.epoch, chunk.cluster
    );
    match replace(&store.dir.join("chunks").join(file), bytes) {
        Ok(true) => Ok(()),
        Ok(false) => Err(unreachable(&what, "the folder could not be synced")),
        Err(error) => Err(unreachable(&what, error)),
    }
}

fn read_chunk(store: &DirectoryStore, name: &str) -> Result<Option<ChunkBody>, StoreError> {
    let what = format!("reading chunk {name}");
    for (path, info, compressed) in chunk_files(store)? {
        if info.name != name {
            continue;
        }
        return match fs::read(&path) {
            Ok(bytes) if compressed => Ok(Some(ChunkBody::Zstd(bytes))),
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(ChunkBody::Lines(text))),
                Err(error) => Err(StoreError::Malformed {
                    what,
                    why: error.to_string(),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreachable(&what, error)),
        };
    }
    Ok(None)
}

fn delete_chunk(store: &DirectoryStore, name: &str) -> Result<(), StoreError> {
    for (path, info, _) in chunk_files(store)? {
        if info.name == name {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unreachable(&format!("deleting chunk {name}"), error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Store for DirectoryStore {
    fn describe(&self) -> String {
        format!("directory {}", self.dir.display())
    }

    async fn read_head(&self) -> Result<Option<HeadObject>, StoreError> {
        let what = "reading the head";
        let file: Option<HeadFile> = self
            .run(move |s| read_file(&s.head_path(), what))
            .await
            .map_err(|e| unreachable(what, e))??;
        Ok(file.map(|HeadFile { uid, data }| HeadObject { uid, data }))
    }

    async fn create_head(&self, data: &BTreeMap<String, String>) -> Result<HeadObject, StoreError> {
        let what = "creating the head";
        let file = HeadFile {
            uid: random_nonce(),
            data: data.clone(),
        };
        self.run(move |s| {
            let _lock = s.lock().map_err(|e| unreachable(what, e))?;
            if s.head_path().exists() {
                return Err(StoreError::Exists { what: what.into() });
            }
            let bytes = serde_json::to_vec_pretty(&file).map_err(|e| unreachable(what, e))?;
            replace(&s.head_path(), &bytes).map_err(|e| unreachable(what, e))?;
            Ok(HeadObject {
                uid: file.uid,
                data: file.data,
            })
        })
        .await
        .map_err(|e| unreachable(what, e))?
    }

    async fn patch_head(
        &self,
        uid: &str,
        nonce: &str,
        change: &HeadPatch,
    ) -> Result<(), PatchError> {
        let (uid, nonce, change) = (uid.to_owned(), nonce.to_owned(), change.clone());
        self.run(move |s| patch(&s, &uid, &nonce, &change))
            .await
            .unwrap_or_else(|error| Err(PatchError::InDoubt(error)))
    }

    async fn create_chunk(&self, chunk: &Chunk) -> Result<(), StoreError> {
        let chunk = chunk.clone();
        self.run(move |s| create_chunk(&s, &chunk))
            .await
            .unwrap_or_else(|e| Err(unreachable("creating a chunk", e)))
    }

    async fn read_chunk(&self, name: &str) -> Result<Option<ChunkBody>, StoreError> {
        let name = name.to_owned();
        self.run(move |s| read_chunk(&s, &name))
            .await
            .unwrap_or_else(|e| Err(unreachable("reading a chunk", e)))
    }

    async fn list_chunks(&self) -> Result<Vec<ChunkInfo>, StoreError> {
        self.run(|s| Ok(chunk_files(&s)?.into_iter().map(|(_, i, _)| i).collect()))
            .await
            .unwrap_or_else(|e| Err(unreachable("listing the chunks", e)))
    }

    async fn delete_chunk(&self, name: &str) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.run(move |s| delete_chunk(&s, &name))
            .await
            .unwrap_or_else(|e| Err(unreachable("deleting a chunk", e)))
    }

    async fn read_lease(&self) -> Result<Option<LeaseRecord>, StoreError> {
        let what = "reading the Lease";
        let file: Option<LeaseFile> = self
            .run(move |s| read_file(&s.lease_path(), what))
            .await
            .map_err(|e| unreachable(what, e))??;
        Ok(file.map(lease_record))
    }

    async fn write_lease(
        &self,
        expected: Option<(&str, &str)>,
        record: &LeaseRecord,
    ) -> Result<LeaseRecord, LeaseError> {
        let expected = expected.map(|(uid, version)| (uid.to_owned(), version.to_owned()));
        let record = record.clone();
        self.run(move |s| write_lease(&s, expected, &record))
            .await
            .unwrap_or_else(|error| Err(LeaseError::InDoubt(error)))
    }

    async fn lease_changed(&self, known: Option<&str>) {
        use inotify::{CreateFlags, WatchFlags};
        // An inotify descriptor reads like a pipe, which is all that tokio's type needs.
        let watch = || -> io::Result<pipe::Receiver> {
            let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            let wanted = WatchFlags::MOVED_TO | WatchFlags::DELETE;
            inotify::add_watch(&fd, &self.dir, wanted)?;
            pipe::Receiver::from_owned_fd_unchecked(fd)
        };
        let Ok(watch) = watch() else {
            // No inotify here (a limit, or an odd file system): fall back to a look now and then.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        };
        let mut events = [0; 1024];
        loop {
            // Watched first, read second: a change between the two wakes us.
            match self.read_lease().await {
                Ok(lease) if lease.as_ref().map(|l| l.version.as_str()) == known => {}
                Ok(_) => return,
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return;
                }
            }
            if watch.readable().await.is_err() {
                return;
            }
            while watch.try_read(&mut events).is_ok_and(|n| n > 0) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;
    use std::sync::Arc;

    fn fresh() -> (tempfile::TempDir, DirectoryStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(dir.path()).unwrap();
        (dir, store)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_directory_keeps_every_promise_of_a_store() {
        let (_dir, store) = fresh();
        suite::run(Arc::new(store)).await.unwrap();
    }

    #[tokio::test]
    async fn a_lock_that_is_never_given_back_means_not_sent_rather_than_waiting() {
        let (_dir, store) = fresh();
        let head = store.create_head(&suite::first_head("n0")).await.unwrap();
        let _held = store.lock().unwrap();
        let change = HeadPatch {
            nonce: "n1".into(),
            ..HeadPatch::default()
        };
        let refused = store.patch_head(&head.uid, "n0", &change).await;
        assert!(
            matches!(refused, Err(PatchError::NotSent(_))),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_waiter_is_woken_by_the_change_itself() {
        let (_dir, store) = fresh();
        let first = store
            .write_lease(None, &LeaseRecord::default())
            .await
            .unwrap();
        let waiter = {
            let (store, version) = (store.clone(), first.version.clone());
            tokio::spawn(async move { store.lease_changed(Some(&version)).await })
        };
        store
            .write_lease(Some((&first.uid, &first.version)), &first)
            .await
            .unwrap();
        tokio::time::timeout(Duration::from_secs(5), waiter)
            .await
            .unwrap()
            .unwrap();
    }
}
