//! How a process begins: it waits for the head, which tells whose cluster this is, and opens its volume for that.
//!
//! Checks I12: a volume of one cluster is not opened for another, whichever of the two is in the wrong place.

use super::{cluster_id, foreign_cluster};
use crate::core::Shared;
use leasehold_log::{DirectoryStart, LogDirs, LogError};
use leasehold_metadata::features;
use leasehold_metadata::head::keys::CLUSTER_ID;
use leasehold_metadata::image::Endpoint;
use leasehold_metadata::rpc::{ConfirmedRun, DirectoryReport, Registration, RestartReport};
use leasehold_metadata::store::Store;
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The log directories, what they bring to the registration, and how many cannot be read.
pub(super) type Opened = (Arc<LogDirs>, Vec<DirectoryReport>, u32);

/// Incarnations of the other cluster's brokers begin here.
pub const FOREIGNERS: i64 = 1_000_000;

/// The cluster id that the head tells, once there is a head.
pub(super) async fn await_head(store: &dyn Store) -> ClusterId {
    loop {
        if let Ok(Some(head)) = store.read_head().await
            && let Some(id) = head.data.get(CLUSTER_ID)
        {
            return ClusterId(id.clone());
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Opens the volume that is there for the cluster that the head tells of, and notes on it that this process is
/// about to register. Or says why the process must end.
pub(super) fn open(
    core: &Shared,
    (me, id, life): (usize, BrokerId, Incarnation),
    cluster: &ClusterId,
) -> Result<Opened, String> {
    let (home, own, swapped, broken) = {
        let disk = &mut core.lock().nodes[me].disk;
        let swapped = disk.take_swapped();
        (disk.home(), disk.log_dirs(), swapped, disk.is_broken())
    };
    let (path, all) = match swapped.clone() {
        Some(theirs) => (theirs.clone(), vec![theirs]),
        None => (home, own),
    };
    let empty = !path.join("meta").exists();
    let opened = directories(&path, &all, cluster, id, life);
    let at_home = (*cluster == cluster_id()) && swapped.is_none();
    match opened {
        Ok(opened) if at_home => Ok(opened),
        Ok(_) if swapped.is_some() && *cluster == foreign_cluster() => {
            Err("it is another cluster's in every respect".to_owned())
        }
        Ok(_) if empty => {
            core.lock().nodes[me].disk.given_away = true;
            Err("the head is another cluster's, and now its empty volume is".to_owned())
        }
        Ok(_) => {
            let line = format!("I12 broker {me} opened a volume for {cluster}, which is not its");
            core.lock().check.broke(line);
            Err("it should have ended before".to_owned())
        }
        Err(error) if empty && swapped.is_none() && *cluster == foreign_cluster() => {
            // A part of it may be the other cluster's by now.
            core.lock().nodes[me].disk.given_away = true;
            Err(error.to_string())
        }
        Err(error) if at_home && !broken => {
            let line = format!("S2 broker {me} cannot open its disk: {error}");
            core.lock().check.broke(line);
            Err(error.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn directories(
    home: &Path,
    paths: &[PathBuf],
    cluster: &ClusterId,
    id: BrokerId,
    life: Incarnation,
) -> Result<Opened, LogError> {
    let log_dirs = LogDirs::open(home, paths, cluster, id)?;
    let (found, unreadable) = log_dirs.begin(life)?;
    let found = found.into_iter().map(report_of).collect();
    Ok((log_dirs, found, unreadable))
}

fn report_of(start: DirectoryStart) -> DirectoryReport {
    DirectoryReport {
        id: start.id,
        restart: RestartReport {
            confirmed: start.restart.confirmed.map(|life| ConfirmedRun {
                incarnation: life.incarnation,
                boot_id: life.boot_id,
                pod_uid: life.pod_uid,
                clean: life.clean,
            }),
            attempted: start.restart.attempted,
            boot_id: start.restart.boot_id,
            pod_uid: start.restart.pod_uid,
        },
        partitions: start.partitions,
    }
}

/// What a process of broker `me` registers with.
pub(crate) fn registration(
    me: usize,
    incarnation: Incarnation,
    directories: &[DirectoryReport],
) -> Registration {
    let endpoint = Endpoint {
        host: format!("broker-{me}"),
        port: 1,
    };
    Registration {
        broker: BrokerId(i32::try_from(me).unwrap_or(-1)),
        incarnation,
        client: endpoint.clone(),
        internal: endpoint,
        http: None,
        rack: None,
        version: String::new(),
        restart: directories
            .first()
            .map_or_else(Default::default, |first| first.restart.clone()),
        directories: directories.to_vec(),
        unreadable: 0,
        listeners: Default::default(),
        features: features::supported(),
    }
}
