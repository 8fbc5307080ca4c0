//! A broker's disk: a folder on which the real log works, with every change of it watched; what outlives the
//! process, and what a crash of the machine takes away.
//!
//! Promise: [`Disk::look`] tells of every record that reached a log file, once, in the order of the writes,
//! and [`Disk::log`] is then what the files hold, both by the decoder of `batches.rs`.

use crate::batches::{Batch, Text, batches};
use leasehold_log::faults::{Change, Crash, Replay, Tree, Watched, lay_out};
use leasehold_metadata::image::Image;
use leasehold_types::{LeaderEpoch, TopicId};
use rand::rngs::StdRng;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A partition.
pub type Key = (TopicId, i32);

/// A record: the leader epoch that it was appended in, and its value.
pub type Entry = (LeaderEpoch, u64);

/// A record that reached a log file.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    pub key: Key,
    pub at: usize,
    pub entry: Entry,
    /// Its time, and the number of the codec that it is packed in.
    pub time: i64,
    pub codec: i16,
}

/// What the log files of a partition hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// Below it nothing counts, whether it is there or not.
    pub start: usize,
    /// What is at each offset; nothing is where compaction, or a deletion, took it away.
    pub records: Vec<Option<Entry>>,
}

/// The first file of a log went.
#[derive(Clone, Debug)]
pub struct Dropped {
    pub key: Key,
    /// Where the next one begins.
    pub next: usize,
    /// How many bytes are left.
    pub left: usize,
    /// What was in it, as far as it is known, and where.
    pub held: Vec<(usize, Entry)>,
}

impl Log {
    /// An empty log that begins there.
    fn at(start: usize) -> Self {
        Self {
            start,
            records: vec![None; start],
        }
    }

    pub fn end(&self) -> usize {
        self.records.len()
    }

    /// What it holds at `at`, unless that is below its start.
    pub fn get(&self, at: usize) -> Option<Entry> {
        let there = self.records.get(at).copied().flatten();
        there.filter(|_| at >= self.start)
    }

    fn push(&mut self, batch: &Batch) {
        self.records.resize(batch.end.max(self.end()), None);
        for (at, value) in &batch.records {
            if let Some(there) = self.records.get_mut(*at) {
                *there = Some((batch.epoch, *value));
            }
        }
    }
}

/// A disk.
pub struct Disk {
    root: PathBuf,
    /// The names of its log directories; one, or two, each of which may fail by itself.
    folders: &'static [&'static str],
    watched: Watched,
    /// What is durable, and what is not.
    replay: Replay,
    /// Where each log file is.
    files: BTreeMap<u64, PathBuf>,
    /// What the log files hold.
    logs: BTreeMap<Key, Log>,
    /// How long each of them is.
    sizes: BTreeMap<u64, usize>,
    /// Files that went since the last look.
    dropped: Vec<Dropped>,
    /// Records that are more than a number, as they were written.
    texts: Vec<Text>,
    /// Whose files changed otherwise than by an append.
    changed: BTreeSet<Key>,
    /// The broker's own copy of the metadata, which is simulated.
    pub image: Option<Image>,
    /// Identify the kernel's run and the pod.
    boot: u64,
    pod: u64,
    /// A copy of the volume that was made at some time, with the metadata on it.
    copy: Option<(Tree, Option<Image>)>,
    /// It lost something since its last registration was committed.
    pub damaged: bool,
    /// The next process gets this volume in place of its own: that of a broker of another cluster.
    swapped: Option<PathBuf>,
    /// A log directory fails, or failed since the last registration was committed.
    pub failing: bool,
    /// Which of them fail.
    broken: BTreeSet<usize>,
    /// It is nearly full.
    pub full: bool,
    /// It was empty when the head was another cluster's, and became that cluster's: it must be emptied.
    pub given_away: bool,
}

/// The partition whose folder this is.
fn key_of(folder: &Path) -> Option<Key> {
    let (topic, number) = folder.file_name()?.to_str()?.rsplit_once('-')?;
    Some((TopicId::parse(topic)?, number.parse().ok()?))
}

/// Log directories, of machines with one and of those with two.
const FOLDERS: [&str; 2] = ["data", "data-2"];

/// Where such a machine keeps what is no log.
const HOME: &str = "home";

/// The file that says where a log begins.
const LOG_START: &str = "log-start";

fn is_segment(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let digits = stem.is_some_and(|stem| stem.bytes().all(|byte| byte.is_ascii_digit()));
    digits && path.extension().is_some_and(|kind| kind == "log")
}

impl Disk {
    /// An empty disk at `root`, which need not exist yet.
    pub fn new(root: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Self {
            watched: Watched::new(root),
            replay: Replay::of(root),
            root: root.to_owned(),
            folders: &FOLDERS[..1],
            files: BTreeMap::new(),
            logs: BTreeMap::new(),
            sizes: BTreeMap::new(),
            dropped: Vec::new(),
            texts: Vec::new(),
            changed: BTreeSet::new(),
            image: None,
            boot: 0,
            pod: 0,
            copy: None,
            damaged: false,
            swapped: None,
            failing: false,
            broken: BTreeSet::new(),
            full: false,
            given_away: false,
        })
    }

    /// From the first process on it has two log directories.
    pub fn split(&mut self) {
        self.folders = &FOLDERS;
    }

    /// The next process gets another cluster's volume, which is at the place that this returns.
    pub fn swap(&mut self) -> PathBuf {
        let theirs = self.root.with_extension("theirs");
        self.swapped = Some(theirs.clone());
        theirs
    }

    /// The other cluster's volume, if this process got that.
    pub fn take_swapped(&mut self) -> Option<PathBuf> {
        self.swapped.take()
    }

    /// The log directories.
    pub fn log_dirs(&self) -> Vec<PathBuf> {
        let folders = self.folders.iter();
        folders.map(|name| self.root.join(name)).collect()
    }

    /// Where the broker keeps what is no log: the only log directory, or a place beside them, which never fails.
    pub fn home(&self) -> PathBuf {
        let name = match self.folders {
            [only] => only,
            _ => HOME,
        };
        self.root.join(name)
    }

    /// Every change in one of the log directories, which is the `nth` of them, fails from now on. Whether it did not
    /// before.
    pub fn break_folder(&mut self, nth: usize, errno: Errno) -> bool {
        let nth = nth % self.folders.len();
        let begins = self.broken.insert(nth);
        if begins {
            let folder = self.root.join(self.folders[nth]);
            self.watched.break_folder(&folder, errno);
            self.failing = true;
        }
        begins
    }

    /// Whether a log directory fails now.
    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    /// Nothing fails any more; what failed is as it was, or came back empty. No process may run.
    pub fn mend(&mut self, empty: bool, rng: &mut StdRng) -> std::io::Result<()> {
        self.watched.mend();
        let broken = std::mem::take(&mut self.broken);
        if !empty {
            return Ok(());
        }
        self.look();
        let mut left = self.replay.crash(Crash::Killed, rng);
        for nth in broken {
            let folder = Path::new(self.folders[nth]);
            left.retain(|path, _| !path.starts_with(folder));
        }
        self.put(&left)
    }

    /// The kernel's boot id and the pod's UID.
    pub fn machine(&self) -> (String, String) {
        (format!("boot-{}", self.boot), format!("pod-{}", self.pod))
    }

    /// What the log files of a partition hold.
    pub fn log(&self, key: Key) -> &Log {
        static NONE: Log = Log {
            start: 0,
            records: Vec::new(),
        };
        self.logs.get(&key).unwrap_or(&NONE)
    }

    /// Files that were the first of their logs, and went since this was last asked.
    pub fn take_dropped(&mut self) -> Vec<Dropped> {
        std::mem::take(&mut self.dropped)
    }

    /// Takes note of what changed since the last look.
    pub fn look(&mut self) -> Vec<Appended> {
        let mut appended = Vec::new();
        for change in self.watched.take_journal() {
            self.note(&change, &mut appended);
            self.replay.apply(&change);
        }
        for key in std::mem::take(&mut self.changed) {
            let log = read(&self.log_dirs(), key);
            self.logs.insert(key, log);
        }
        appended
    }

    /// Records that are more than a number, of those that were written since.
    pub fn take_texts(&mut self) -> Vec<Text> {
        std::mem::take(&mut self.texts)
    }

    fn note(&mut self, change: &Change, appended: &mut Vec<Appended>) {
        match change {
            Change::Create { path, inode } => {
                self.files.insert(*inode, path.clone());
                self.sizes.insert(*inode, 0);
                self.touched(path);
            }
            Change::Write { inode, at, bytes } => {
                let size = self.sizes.entry(*inode).or_default();
                *size = (*size).max(at + bytes.len());
                let Some(path) = self.files.get(inode).filter(|path| is_segment(path)) else {
                    return;
                };
                let Some(key) = path.parent().and_then(key_of) else {
                    return;
                };
                let log = self.logs.entry(key).or_default();
                for batch in batches(bytes) {
                    if batch.base < log.end() {
                        self.changed.insert(key);
                    }
                    let entries = batch.records.iter().zip(&batch.times);
                    appended.extend(entries.map(|((at, value), time)| Appended {
                        key,
                        at: *at,
                        entry: (batch.epoch, *value),
                        time: *time,
                        codec: batch.codec,
                    }));
                    log.push(&batch);
                    self.texts.extend(batch.texts);
                }
            }
            Change::SetLen { inode, len } => {
                self.sizes.insert(*inode, *len);
                if let Some(path) = self.files.get(inode).cloned() {
                    self.touched(&path);
                }
            }
            Change::Rename { from, to } => {
                if is_segment(from) && !is_segment(to) {
                    self.dropped(from);
                }
                // What was there goes.
                self.files.retain(|_, known| known != to);
                for path in self.files.values_mut() {
                    if let Ok(rest) = path.strip_prefix(from) {
                        *path = match rest.as_os_str().is_empty() {
                            true => to.clone(),
                            false => to.join(rest),
                        };
                    }
                }
                self.touched(from);
                self.touched(to);
            }
            Change::Remove { path } => {
                self.files.retain(|_, known| known != path);
                self.touched(path);
            }
            Change::RemoveFolder { path } => {
                self.files.retain(|_, known| !known.starts_with(path));
                self.touched(path);
            }
            Change::Sync { .. } | Change::SyncFolder { .. } | Change::CreateFolder { .. } => {}
        }
    }

    /// A log file goes.
    fn dropped(&mut self, path: &Path) {
        let here = self.files.iter();
        let here = here.filter(|(_, known)| is_segment(known) && known.parent() == path.parent());
        let others = here.filter(|(_, known)| *known != path);
        let (mut first, mut bytes) = (None::<&PathBuf>, 0);
        for (inode, known) in others {
            first = Some(first.map_or(known, |first| first.min(known)));
            bytes += self.sizes.get(inode).copied().unwrap_or(0);
        }
        let key = path.parent().and_then(key_of);
        if let (Some(key), Some(first)) = (key, first.filter(|first| first.as_path() > path)) {
            let (from, next) = (base_of(path), base_of(first));
            let log = self.log(key);
            let held = (from..next).filter_map(|at| Some((at, (*log.records.get(at)?)?)));
            let held = held.collect();
            self.dropped.push(Dropped {
                key,
                next,
                left: bytes,
                held,
            });
        }
    }

    /// A file, or a whole folder, is not what it was.
    fn touched(&mut self, path: &Path) {
        let in_it = is_segment(path) || path.file_name().is_some_and(|name| name == LOG_START);
        let folder = match in_it {
            true => path.parent(),
            false => Some(path),
        };
        self.changed.extend(folder.and_then(key_of));
    }

    /// The machine lost its power, and with it what was not durable; of that, what `crash` leaves.
    pub fn power_cut(&mut self, crash: Crash, rng: &mut StdRng) -> std::io::Result<()> {
        self.look();
        let left = self.replay.crash(crash, rng);
        self.boot += 1;
        self.put(&left)
    }

    /// The pod got a new, empty volume.
    pub fn wipe(&mut self) -> std::io::Result<()> {
        self.boot += 1;
        self.pod += 1;
        self.image = None;
        self.put(&Tree::new())
    }

    /// A copy of the volume is made, or, if there is one, the pod gets that in place of its volume. Whether it
    /// did.
    pub fn copy_or_put_back(&mut self, rng: &mut StdRng) -> std::io::Result<bool> {
        let Some((tree, image)) = self.copy.take() else {
            self.look();
            let tree = self.replay.crash(Crash::Killed, rng);
            self.copy = Some((tree, self.image.clone()));
            return Ok(false);
        };
        self.boot += 1;
        self.pod += 1;
        self.image = image;
        self.put(&tree)?;
        Ok(true)
    }

    /// Whether a copy of the volume was made.
    pub fn has_copy(&self) -> bool {
        self.copy.is_some()
    }

    fn put(&mut self, tree: &Tree) -> std::io::Result<()> {
        fs::remove_dir_all(&self.root)?;
        fs::create_dir_all(&self.root)?;
        lay_out(tree, &self.root);
        self.watched.take_journal();
        self.replay = Replay::of(&self.root);
        self.files.clear();
        self.sizes.clear();
        self.dropped.clear();
        self.logs.clear();
        self.damaged = true;
        let folders = self.log_dirs();
        for path in tree.keys().map(|path| self.root.join(path)) {
            if is_segment(&path) {
                let file = fs::metadata(&path)?;
                self.files.insert(file.ino(), path.clone());
                let size = usize::try_from(file.len()).unwrap_or(0);
                self.sizes.insert(file.ino(), size);
                let key = path.parent().and_then(key_of);
                self.logs.extend(key.map(|key| (key, read(&folders, key))));
            }
        }
        Ok(())
    }
}

/// What the log files of a partition hold, as far as they are whole and continue each other.
fn read(log_dirs: &[PathBuf], (topic, number): Key) -> Log {
    let name = format!("{topic}-{number}");
    let mut folders = log_dirs.iter().map(|folder| folder.join(&name));
    let Some(folder) = folders.find(|folder| folder.is_dir()) else {
        return Log::at(0);
    };
    let noted = fs::read_to_string(folder.join(LOG_START)).unwrap_or_default();
    let noted = noted.split(|c: char| !c.is_ascii_digit()).next();
    let noted = noted.and_then(|number| number.parse().ok()).unwrap_or(0);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut segments: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    segments.retain(|path| is_segment(path));
    segments.sort_unstable();
    // What a power cut brought back of what is noted as deleted.
    let back = segments.windows(2);
    let back = back.take_while(|two| base_of(&two[1]) <= noted).count();
    segments.drain(..back);
    let mut log = Log::at(segments.first().map_or(0, |path| base_of(path)));
    for path in segments {
        if base_of(&path) != log.end() {
            break;
        }
        for batch in batches(&fs::read(path).unwrap_or_default()) {
            if batch.base < log.end() {
                break;
            }
            log.push(&batch);
        }
    }
    log.start = noted.clamp(log.start, log.end());
    log
}

/// The offset in a log file's name.
fn base_of(path: &Path) -> usize {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    stem.and_then(|stem| stem.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_log::batch::RecordBatchBuilder;
    use leasehold_log::{LogConfig, LogDir, PartitionLog};
    use leasehold_types::{BrokerId, ClusterId, Incarnation};
    use rand::SeedableRng as _;
    use std::sync::Arc;

    const KEY: Key = (TopicId(uuid::Uuid::from_u128(7)), 3);

    fn entry(value: u64) -> Entry {
        (LeaderEpoch(0), value)
    }

    fn looked(disk: &mut Disk) -> Vec<(Key, usize, Entry)> {
        let all = disk.look().into_iter();
        all.map(|one| (one.key, one.at, one.entry)).collect()
    }

    fn held(disk: &Disk) -> Vec<u64> {
        let log = disk.log(KEY);
        let held = (0..log.end()).filter_map(|at| log.get(at));
        held.map(|(_, value)| value).collect()
    }

    fn open(disk: &Disk) -> Arc<PartitionLog> {
        let cluster = ClusterId("c".to_owned());
        let dir = LogDir::open(disk.home(), &cluster, BrokerId(0)).unwrap();
        dir.begin(Incarnation(1)).unwrap();
        dir.confirm(Incarnation(1)).unwrap();
        let log = dir.open_partition(KEY.0, KEY.1, LogConfig::default());
        log.unwrap()
    }

    fn append(log: &PartitionLog, value: u64) {
        let mut batch = RecordBatchBuilder::new();
        batch.push(1_000, None, Some(&value.to_be_bytes()));
        log.begin_epoch(LeaderEpoch(0)).unwrap();
        log.append_leader(&batch.build(), LeaderEpoch(0), 1_000)
            .unwrap();
    }

    #[test]
    fn each_record_is_told_once_and_a_loss_of_power_takes_what_was_not_flushed() {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let mut disk = Disk::new(folder.path()).unwrap();
        let log = open(&disk);
        append(&log, 5);
        log.flush().unwrap();
        append(&log, 6);
        assert_eq!(looked(&mut disk), [(KEY, 0, entry(5)), (KEY, 1, entry(6))]);
        assert_eq!(looked(&mut disk), []);
        assert_eq!(held(&disk), [5, 6]);
        drop(log);
        disk.power_cut(Crash::Lost, &mut rng).unwrap();
        assert_eq!(held(&disk), [5]);
        let log = open(&disk);
        append(&log, 7);
        assert_eq!(looked(&mut disk), [(KEY, 1, entry(7))]);
        assert_eq!(held(&disk), [5, 7]);
    }

    #[test]
    fn a_truncation_is_seen_and_a_copy_of_the_volume_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = StdRng::seed_from_u64(1);
        let mut disk = Disk::new(folder.path()).unwrap();
        let log = open(&disk);
        (5..8).for_each(|value| append(&log, value));
        assert!(!disk.copy_or_put_back(&mut rng).unwrap());
        log.truncate_to(leasehold_types::Offset(1)).unwrap();
        assert_eq!(looked(&mut disk), []);
        assert_eq!(held(&disk), [5]);
        drop(log);
        let before = disk.machine();
        assert!(disk.copy_or_put_back(&mut rng).unwrap());
        assert_eq!(held(&disk), [5, 6, 7]);
        assert_ne!(disk.machine(), before);
        assert!(disk.damaged);
    }

    #[test]
    fn a_log_begins_where_it_was_deleted_to_and_tells_of_files_that_went() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = Disk::new(folder.path()).unwrap();
        let log = open(&disk);
        let config = LogConfig {
            segment_bytes: 80,
            ..LogConfig::default()
        };
        log.set_config(config);
        (5..9).for_each(|value| append(&log, value));
        log.delete_records_before(leasehold_types::Offset(2))
            .unwrap();
        disk.look();
        assert_eq!(held(&disk), [7, 8]);
        assert_eq!((disk.log(KEY).start, disk.log(KEY).end()), (2, 4));
        let dropped = disk.take_dropped();
        assert_eq!(
            dropped.iter().map(|went| went.next).collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(dropped[0].left > dropped[1].left && dropped[1].left > 0);
        log.reset_to(leasehold_types::Offset(9)).unwrap();
        disk.look();
        assert_eq!((disk.log(KEY).start, disk.log(KEY).end()), (9, 9));
    }
}
