//! What the disk may look like after a crash, from the journal of what was done to it.
//!
//! What a file holds is sure up to its last fsync, and what a folder holds up to its own. A process that
//! is killed loses nothing of the rest. A power cut keeps, of what was written to a file since, a part or
//! none or all, torn anywhere; and of what was renamed, created and removed in a folder since, a part, in
//! order (as a file system with a journal has it) or not (as none promises otherwise).

use bytes::Bytes;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// One thing that was done to the disk.
#[derive(Clone, Debug)]
pub enum Change {
    Create { path: PathBuf, inode: u64 },
    Write { inode: u64, at: usize, bytes: Bytes },
    SetLen { inode: u64, len: usize },
    Sync { inode: u64 },
    SyncFolder { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    CreateFolder { path: PathBuf },
    RemoveFolder { path: PathBuf },
}

/// How the process, or the machine, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process is killed: what it did is done.
    Killed,
    /// The power is cut, and all that was not fsynced is lost.
    Lost,
    /// The power is cut: of each folder's changes the first few are kept; of a file's, some.
    InOrder,
    /// The power is cut, and of all changes some are kept.
    OutOfOrder,
}

type Id = usize;
type Names = BTreeMap<String, Id>;

#[derive(Clone)]
enum Data {
    Write { at: usize, bytes: Bytes },
    SetLen(usize),
}

#[derive(Clone)]
enum Naming {
    Add(String, Id),
    Move(String, String, Id),
    Drop(String, Id),
}

#[derive(Clone, Default)]
struct Node {
    is_folder: bool,
    durable: Vec<u8>,
    cached: Vec<u8>,
    written: Vec<Data>,
    durable_names: Names,
    names: Names,
    named: Vec<Naming>,
}

/// The disk at one point of the journal.
#[derive(Clone)]
pub struct Replay {
    root: PathBuf,
    nodes: Vec<Node>,
    by_inode: HashMap<u64, Id>,
}

/// What is on the disk: each path below its root; `None` is a folder.
pub type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}

impl Data {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => put(content, *at, bytes),
            Self::SetLen(len) => content.resize(*len, 0),
        }
    }
}

impl Naming {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(name, id) => drop(names.insert(name.clone(), *id)),
            Self::Move(from, to, id) => {
                if names.get(from) == Some(id) {
                    names.remove(from);
                }
                names.insert(to.clone(), *id);
            }
            Self::Drop(name, id) => {
                if names.get(name) == Some(id) {
                    names.remove(name);
                }
            }
        }
    }
}

impl Replay {
    /// The disk as it is now, all of it durable.
    pub fn of(root: &Path) -> Self {
        let mut replay = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            by_inode: HashMap::new(),
        };
        replay.load(root);
        replay
    }

    fn load(&mut self, path: &Path) -> Id {
        let id = self.nodes.len();
        self.nodes.push(Node::default());
        let meta = fs::metadata(path).unwrap();
        self.by_inode.insert(meta.ino(), id);
        if !meta.is_dir() {
            let content = fs::read(path).unwrap();
            self.nodes[id].cached = content.clone();
            self.nodes[id].durable = content;
            return id;
        }
        self.nodes[id].is_folder = true;
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let child = self.load(&entry.path());
            let name = entry.file_name().into_string().unwrap();
            self.nodes[id].names.insert(name.clone(), child);
            self.nodes[id].durable_names.insert(name, child);
        }
        id
    }

    fn find(&self, path: &Path) -> Option<Id> {
        let below = path.strip_prefix(&self.root).unwrap();
        let mut id = 0;
        for name in below {
            id = *self.nodes[id].names.get(name.to_str().unwrap())?;
        }
        Some(id)
    }

    /// The folder that a path is in, and its name there.
    fn place(&self, path: &Path) -> (Id, String) {
        let folder = self.find(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        (folder, name.to_owned())
    }

    fn name(&mut self, folder: Id, naming: Naming) {
        let node = &mut self.nodes[folder];
        naming.apply(&mut node.names);
        node.named.push(naming);
    }

    fn write(&mut self, inode: u64, data: Data) {
        let node = &mut self.nodes[self.by_inode[&inode]];
        data.apply(&mut node.cached);
        node.written.push(data);
    }

    fn drop_all(&mut self, id: Id) {
        for (name, child) in self.nodes[id].names.clone() {
            self.drop_all(child);
            self.name(id, Naming::Drop(name, child));
        }
    }

    /// Takes note of the journal's next entry.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { path, inode } => {
                let known = self.by_inode.get(inode).copied();
                if known.is_some() && self.find(path) == known {
                    return self.write(*inode, Data::SetLen(0));
                }
                let id = self.nodes.len();
                self.nodes.push(Node::default());
                self.by_inode.insert(*inode, id);
                let (folder, name) = self.place(path);
                self.name(folder, Naming::Add(name, id));
            }
            Change::Write { inode, at, bytes } => {
                let (at, bytes) = (*at, bytes.clone());
                self.write(*inode, Data::Write { at, bytes });
            }
            Change::SetLen { inode, len } => self.write(*inode, Data::SetLen(*len)),
            Change::Sync { inode } => {
                let node = &mut self.nodes[self.by_inode[inode]];
                node.durable = node.cached.clone();
                node.written.clear();
            }
            Change::SyncFolder { path } => {
                let id = self.find(path).unwrap();
                let node = &mut self.nodes[id];
                node.durable_names = node.names.clone();
                node.named.clear();
            }
            Change::Rename { from, to } => {
                assert_eq!(from.parent(), to.parent(), "renamed into another folder");
                let id = self.find(from).unwrap();
                let ((folder, from), (_, to)) = (self.place(from), self.place(to));
                self.name(folder, Naming::Move(from, to, id));
            }
            Change::Remove { path } => {
                if let Some(id) = self.find(path) {
                    let (folder, name) = self.place(path);
                    self.name(folder, Naming::Drop(name, id));
                }
            }
            Change::CreateFolder { path } => {
                if self.find(path).is_none() {
                    let id = self.nodes.len();
                    self.nodes.push(Node {
                        is_folder: true,
                        ..Node::default()
                    });
                    let (folder, name) = self.place(path);
                    self.name(folder, Naming::Add(name, id));
                }
            }
            Change::RemoveFolder { path } => {
                if let Some(id) = self.find(path) {
                    self.drop_all(id);
                    let (folder, name) = self.place(path);
                    self.name(folder, Naming::Drop(name, id));
                }
            }
        }
    }

    /// What may be left after a crash now.
    pub fn crash(&self, crash: Crash, rng: &mut StdRng) -> Tree {
        let mut tree = Tree::new();
        self.leave(0, Path::new(""), crash, rng, &mut tree);
        tree
    }

    fn leave(&self, id: Id, path: &Path, crash: Crash, rng: &mut StdRng, tree: &mut Tree) {
        let node = &self.nodes[id];
        if !node.is_folder {
            tree.insert(path.to_owned(), Some(content(node, crash, rng)));
            return;
        }
        tree.insert(path.to_owned(), None);
        let mut names = node.durable_names.clone();
        let first = match crash {
            Crash::Killed => node.named.len(),
            Crash::Lost => 0,
            Crash::InOrder => rng.random_range(0..=node.named.len()),
            Crash::OutOfOrder => 0,
        };
        for (i, naming) in node.named.iter().enumerate() {
            if i < first || (crash == Crash::OutOfOrder && rng.random_bool(0.5)) {
                naming.apply(&mut names);
            }
        }
        for (name, child) in names {
            self.leave(child, &path.join(name), crash, rng, tree);
        }
    }
}

/// What may be left of a file.
fn content(node: &Node, crash: Crash, rng: &mut StdRng) -> Vec<u8> {
    let mut left = node.durable.clone();
    match crash {
        Crash::Killed => return node.cached.clone(),
        Crash::Lost => return left,
        Crash::InOrder | Crash::OutOfOrder => {}
    }
    match rng.random_range(0..6) {
        0 => return left,
        1 | 2 => return node.cached.clone(),
        // The first few writes, the last of them torn.
        3 | 4 => {
            let count = rng.random_range(0..=node.written.len());
            for (i, data) in node.written[..count].iter().enumerate() {
                match data {
                    Data::Write { at, bytes } if i + 1 == count => {
                        let torn = rng.random_range(0..=bytes.len());
                        put(&mut left, *at, &bytes[..torn]);
                    }
                    data => data.apply(&mut left),
                }
            }
        }
        // Whatever blocks the disk got round to.
        _ => {
            let block = *[32, 128, 512, 4096].choose(rng).unwrap();
            let kept = *[0.2, 0.5, 0.8].choose(rng).unwrap();
            for data in &node.written {
                match data {
                    Data::Write { at, bytes } => {
                        let end = at + bytes.len();
                        let mut from = *at;
                        while from < end {
                            let to = ((from / block + 1) * block).min(end);
                            if rng.random_bool(kept) {
                                put(&mut left, from, &bytes[from - at..to - at]);
                            }
                            from = to;
                        }
                    }
                    Data::SetLen(_) if rng.random_bool(kept) => data.apply(&mut left),
                    Data::SetLen(_) => {}
                }
            }
        }
    }
    left
}

/// What a folder of the machine holds.
#[cfg(test)]
pub fn tree_of(root: &Path) -> Tree {
    let replay = Replay::of(root);
    let mut tree = Tree::new();
    let mut unused = rand::SeedableRng::seed_from_u64(0);
    replay.leave(0, Path::new(""), Crash::Killed, &mut unused, &mut tree);
    tree
}

/// Makes a folder of the machine hold `tree`.
pub fn lay_out(tree: &Tree, root: &Path) {
    for (path, content) in tree {
        let path = root.join(path);
        match content {
            None => fs::create_dir_all(&path).unwrap(),
            Some(content) => fs::write(&path, content).unwrap(),
        }
    }
}
