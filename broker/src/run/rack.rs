//! The broker's rack, from a file that someone else may write late: on Kubernetes the operator
//! annotates the pod, and the kubelet copies the annotation into a downward-API file.
//!
//! Never waits: a broker starts with what is known, and a change is published when it appears.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// The kubelet renews downward-API files about once a minute; nothing announces it to a pod.
const LOOK: Duration = Duration::from_secs(2);

/// Follows the file. Without one the rack stays unknown.
pub fn watch(file: Option<PathBuf>) -> watch::Receiver<Option<String>> {
    let Some(file) = file else {
        return watch::channel(None).1;
    };
    let (sender, receiver) = watch::channel(read(&file));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let path = file.clone();
            let rack = tokio::task::spawn_blocking(move || read(&path))
                .await
                .unwrap_or_default();
            if sender.is_closed() {
                return;
            }
            sender.send_if_modified(|known| {
                // A file that became empty says nothing new: the last known rack stays.
                let news = rack.is_some() && *known != rack;
                if news {
                    *known = rack;
                }
                news
            });
        }
    });
    receiver
}

fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let rack = text.trim();
    (!rack.is_empty()).then(|| rack.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rack_that_appears_late_is_noticed_and_never_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("rack");
        let mut rack = watch(Some(file.clone()));
        assert_eq!(*rack.borrow(), None);
        std::fs::write(&file, "zone-a\n").unwrap();
        rack.wait_for(|rack| rack.as_deref() == Some("zone-a"))
            .await
            .unwrap();
        std::fs::write(&file, "").unwrap();
        assert!(
            tokio::time::timeout(LOOK * 3, rack.changed())
                .await
                .is_err()
        );
    }
}
