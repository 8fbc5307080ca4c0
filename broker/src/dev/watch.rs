//! Watches the metadata of a `dev` cluster: an image for every head that stood long enough to be read.

use anyhow::Context as _;
use leasehold_metadata::head;
use leasehold_metadata::image::Image;
use leasehold_metadata::store::Store;
use leasehold_metadata::store::directory::DirectoryStore;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::path::Path;
use std::sync::Arc;
use tokio::net::unix::pipe;

/// Reads the image again whenever the store's folder changes. Woken by inotify, never by a timer.
pub struct Watch {
    store: DirectoryStore,
    folder: pipe::Receiver,
    nonce: Option<String>,
}

impl Watch {
    /// Watches the store in `dir`, which must exist.
    pub fn new(store: DirectoryStore, dir: &Path) -> anyhow::Result<Self> {
        let folder = (|| {
            let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            inotify::add_watch(&fd, dir, WatchFlags::MOVED_TO)?;
            // An inotify descriptor reads like a pipe, which is all that tokio's type needs.
            pipe::Receiver::from_owned_fd_unchecked(fd)
        })()
        .with_context(|| format!("cannot watch {}", dir.display()))?;
        Ok(Self {
            store,
            folder,
            nonce: None,
        })
    }

    /// The next image that differs from the last one. Safe to cancel.
    pub async fn next(&mut self) -> anyhow::Result<Arc<Image>> {
        let mut events = [0; 4096];
        loop {
            // Read after the watch was set: a change in between wakes the next wait.
            let head = self.store.read_head().await?;
            let nonce = head.and_then(|head| head.data.get("nonce").cloned());
            if nonce.is_some() && nonce != self.nonce {
                let loaded = head::load(&self.store).await?;
                self.nonce = nonce;
                return Ok(loaded.image);
            }
            self.folder.readable().await?;
            while self
                .folder
                .try_read(&mut events)
                .is_ok_and(|count| count > 0)
            {}
        }
    }
}
