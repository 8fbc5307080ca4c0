//! This broker's copy of the metadata on its own disk: its position, and what a recovery would start from.
//!
//! One file, `metadata/log`, in the form of [`leasehold_metadata::head::copy`]. Promises: what [`Durable::append`] and [`Durable::replace`] have returned for survives a power
//! loss; a last entry that was cut short (it was never acted on) is dropped at the next start; anything
//! else that does not fit is an error, not a guess.

use leasehold_metadata::features::Unsupported;
use leasehold_metadata::head::copy::{CopyError, copy_text, parse_copy};
use leasehold_metadata::head::format::entry_text;
use leasehold_metadata::image::Image;
use leasehold_metadata::records::Entry;
use leasehold_types::ClusterId;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Entries after the snapshot may grow to this, or to the snapshot's own size, before it is renewed.
const RENEW_AFTER: u64 = 1024 * 1024;

/// Why the copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} belongs to cluster {found}, this broker to {ours}: it has another cluster's volume"
    )]
    Foreign {
        path: PathBuf,
        found: ClusterId,
        ours: ClusterId,
    },
    #[error("{path}: {source}")]
    Unsupported { path: PathBuf, source: Unsupported },
    #[error(
        "{path} is damaged: {why}. Move it away to begin with a fresh copy, if the head of the cluster is sound"
    )]
    Damaged { path: PathBuf, why: String },
}

/// Where the copy of the broker of log directory `dir` is.
pub fn path_in(dir: &Path) -> PathBuf {
    dir.join("metadata").join("log")
}

/// The open copy.
#[derive(Debug)]
pub struct Durable {
    path: PathBuf,
    file: File,
    base: u64,
    appended: u64,
}

impl Durable {
    /// Opens the copy below `dir`. The image is `None` if there is no copy yet.
    pub fn open(dir: &Path, ours: &ClusterId) -> Result<(Self, Option<Image>), DurableError> {
        let folder = dir.join("metadata");
        let path = path_in(dir);
        let io = |source| DurableError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&folder).map_err(io)?;
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = create(&path, &Image::genesis(ours.clone())).map_err(io)?;
                let durable = Self {
                    path,
                    base: 0,
                    appended: 0,
                    file,
                };
                return Ok((durable, None));
            }
            Err(error) => return Err(io(error)),
        };
        let (image, good) = read(&path, &text, ours)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        if good < text.len() {
            // A power loss cut the last entry short. It was not synced, so nobody acted on it.
            file.set_len(good as u64).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        let durable = Self {
            path,
            file,
            base: 0,
            appended: good as u64,
        };
        let known = image.position.seq.0 > 0;
        Ok((durable, known.then_some(image)))
    }

    /// Adds entries; `image` is what they lead to. Durable when it returns.
    pub fn append(&mut self, entries: &[Entry], image: &Image) -> Result<(), DurableError> {
        if self.appended > self.base.max(RENEW_AFTER) {
            return self.replace(image);
        }
        let text: String = entries.iter().map(entry_text).collect();
        let written = self.file.write_all(text.as_bytes());
        written
            .and_then(|()| self.file.sync_data())
            .map_err(|source| self.io(source))?;
        self.appended += text.len() as u64;
        Ok(())
    }

    /// Begins the copy anew with `image`. Durable when it returns.
    pub fn replace(&mut self, image: &Image) -> Result<(), DurableError> {
        self.file = create(&self.path, image).map_err(|source| self.io(source))?;
        self.base = self.file.metadata().map_or(0, |m| m.len());
        self.appended = 0;
        Ok(())
    }

    fn io(&self, source: io::Error) -> DurableError {
        DurableError::Io {
            path: self.path.clone(),
            source,
        }
    }
}

/// Writes a new file beside the old one, and puts it in its place.
fn create(path: &Path, image: &Image) -> io::Result<File> {
    let text = copy_text(image);
    let temporary = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    drop(file);
    OpenOptions::new().append(true).open(path)
}

/// The image, and how many bytes of `text` it took.
fn read(path: &Path, text: &str, ours: &ClusterId) -> Result<(Image, usize), DurableError> {
    let path = path.to_owned();
    parse_copy(text, Some(ours)).map_err(|error| match error {
        CopyError::Foreign { found, ours } => DurableError::Foreign { path, found, ours },
        CopyError::Unsupported(source) => DurableError::Unsupported { path, source },
        CopyError::Damaged(why) => DurableError::Damaged { path, why },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::image::{Claim, ClaimId};
    use leasehold_metadata::records::Record;
    use leasehold_types::{BrokerId, ControllerEpoch, Incarnation, Seq};

    fn entries() -> Vec<Entry> {
        let claim = Claim {
            epoch: ControllerEpoch(1),
            claim_id: ClaimId(7),
            first_seq: Seq(1),
            broker: BrokerId(0),
            incarnation: Incarnation(5),
        };
        let entry = |seq, records| Entry {
            seq: Seq(seq),
            epoch: ControllerEpoch(1),
            nonce: format!("n{seq}"),
            records,
        };
        vec![
            entry(1, vec![Record::Claim(claim)]),
            entry(2, vec![Record::NoOp, Record::NoOp]),
        ]
    }

    fn image_of(cluster: &ClusterId, entries: &[Entry]) -> Image {
        let mut image = Image::genesis(cluster.clone());
        for entry in entries {
            image.apply(entry).unwrap();
        }
        image
    }

    #[test]
    fn the_position_survives_a_restart_and_a_cut_last_entry_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::random();
        let (mut durable, none) = Durable::open(dir.path(), &cluster).unwrap();
        assert!(none.is_none());
        let entries = entries();
        let image = image_of(&cluster, &entries);
        durable.append(&entries, &image).unwrap();
        let (_, again) = Durable::open(dir.path(), &cluster).unwrap();
        assert_eq!(again.as_ref(), Some(&image));
        let path = dir.path().join("metadata/log");
        let whole = fs::read(&path).unwrap();
        let second = entry_text(&entries[1]).len();
        for cut in 1..second {
            fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let (_, again) = Durable::open(dir.path(), &cluster).unwrap();
            assert_eq!(
                again.map(|i| i.position.seq),
                Some(Seq(1)),
                "{cut} bytes cut"
            );
        }
        // What is written after the repair is found again.
        let (mut durable, _) = Durable::open(dir.path(), &cluster).unwrap();
        durable.append(&entries[1..], &image).unwrap();
        let (_, again) = Durable::open(dir.path(), &cluster).unwrap();
        assert_eq!(again, Some(image));
    }

    #[test]
    fn what_a_newer_release_wrote_last_is_refused_and_not_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::random();
        let (mut durable, _) = Durable::open(dir.path(), &cluster).unwrap();
        let entries = entries();
        let image = image_of(&cluster, &entries);
        durable.append(&entries, &image).unwrap();
        let path = dir.path().join("metadata/log");
        let text = fs::read_to_string(&path).unwrap();
        let unknown = text.replace("\"no_op\"", "{\"acl\":{}}");
        assert_ne!(text, unknown);
        fs::write(&path, &unknown).unwrap();
        let refused = Durable::open(dir.path(), &cluster).unwrap_err();
        assert!(
            refused.to_string().contains("unknown variant `acl`"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), unknown);
        let newer = r#"{"feature_level":{"name":"metadata.version","level":99}}"#;
        fs::write(&path, text.replace("\"no_op\"", newer)).unwrap();
        let refused = Durable::open(dir.path(), &cluster).unwrap_err();
        assert!(
            matches!(refused, DurableError::Unsupported { .. }),
            "{refused}"
        );
        assert!(refused.to_string().contains("run a release that knows"));
    }

    #[test]
    fn a_snapshot_replaces_everything_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::random();
        let image = image_of(&cluster, &entries());
        let (mut durable, _) = Durable::open(dir.path(), &cluster).unwrap();
        durable.replace(&image).unwrap();
        let (_, again) = Durable::open(dir.path(), &cluster).unwrap();
        assert_eq!(again, Some(image));
    }

    #[test]
    fn another_clusters_copy_is_refused_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterId::random();
        let (mut durable, _) = Durable::open(dir.path(), &cluster).unwrap();
        let entries = entries();
        durable
            .append(&entries, &image_of(&cluster, &entries))
            .unwrap();
        let foreign = Durable::open(dir.path(), &ClusterId::random());
        assert!(matches!(foreign, Err(DurableError::Foreign { .. })));
        let path = dir.path().join("metadata/log");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("\"nonce\":\"n1\"", "\"nonce\":n1")).unwrap();
        let damaged = Durable::open(dir.path(), &cluster);
        assert!(matches!(damaged, Err(DurableError::Damaged { .. })));
    }
}
