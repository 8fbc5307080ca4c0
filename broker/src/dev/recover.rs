//! `leasehold-broker recover`: a head for a `dev` cluster from its brokers' copies of the metadata.
//!
//! Promises: nothing is written unless the cluster stands still and a copy can be chosen without guessing;
//! what was chosen, and what it is worth, is printed.

use super::layout::{LOGS, Layout, STORE};
use super::lock;
use crate::cli::RecoverArgs;
use crate::session::copy_path;
use anyhow::{Context as _, ensure};
use leasehold_metadata::head::copy::parse_copy;
use leasehold_metadata::head::recover as head;
use leasehold_metadata::image::{Image, Position};
use leasehold_metadata::store::Store;
use leasehold_metadata::store::directory::DirectoryStore;
use leasehold_types::BrokerId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Writes the head anew.
pub async fn recover(args: RecoverArgs) -> anyhow::Result<()> {
    let root = args
        .data
        .canonicalize()
        .with_context(|| format!("there is no cluster in {}", args.data.display()))?;
    let _lock = lock(&root)?;
    let copies = copies(&root)?;
    let chosen = head::choose(&copies, &BTreeSet::new(), args.from)?;
    let source = &copies[&chosen];
    let store = DirectoryStore::open(root.join(STORE))?;
    let over = head::OldHead::read(&store)
        .await
        .context("the head that stands cannot be read; move it away")?;
    if let Some(over) = &over {
        over.check_behind(chosen, source)?;
    }
    let mut seen: Vec<Position> = copies.values().map(|image| image.position).collect();
    seen.extend(over.as_ref().map(head::OldHead::position));
    let reason = format!("recover --from {chosen}");
    let recovered = head::plan(source, &seen, &reason).map_err(anyhow::Error::msg)?;
    head::write(&store, &recovered, over.as_ref()).await?;
    println!(
        "The head is broker {chosen}'s copy (controller epoch {}, seq {}, topics: {}); it goes on at controller epoch {}.",
        source.position.epoch,
        source.position.seq,
        source.topics.len(),
        recovered.image.position.epoch
    );
    Ok(())
}

/// Refuses to begin a new cluster where brokers of an old one left their data.
pub(super) async fn refuse_to_forget(
    layout: &Layout,
    store: &DirectoryStore,
) -> anyhow::Result<()> {
    if store.read_head().await?.is_some() {
        return Ok(());
    }
    for id in layout.ids() {
        let copy = copy_path(&layout.log_dir(id));
        ensure!(
            !copy.exists(),
            "there is no head in {}, but a copy of its metadata in {}: `leasehold-broker recover --data {}` makes a head from such copies; to begin anew without the data, remove the directory",
            layout.store_dir().display(),
            copy.display(),
            layout.root().display()
        );
    }
    Ok(())
}

fn copies(root: &Path) -> anyhow::Result<BTreeMap<BrokerId, Image>> {
    let mut copies: BTreeMap<BrokerId, Image> = BTreeMap::new();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix("broker-"));
        let Some(id) = id.and_then(|id| id.parse().ok()) else {
            continue;
        };
        let path = copy_path(&entry.path().join(LOGS));
        if !path.exists() {
            continue;
        }
        let what = || format!("cannot use {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(what)?;
        let ours = copies.values().next().map(|image| &image.cluster_id);
        let (image, _) = parse_copy(&text, ours).with_context(what)?;
        copies.insert(BrokerId(id), image);
    }
    Ok(copies)
}
