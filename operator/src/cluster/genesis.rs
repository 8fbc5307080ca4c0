//! Whether a cluster is born, adopted, or must be left alone; pure.
//!
//! Promises: metadata is made only where nothing of a cluster exists. A head that vanished while
//! volumes or chunks remain is a loss to be mended by people: a new, empty head would make brokers
//! throw their data away.

use leasehold_crds::RECOVER_ANNOTATION;

/// What was found under a cluster's name.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The head: its cluster id, if it has one.
    pub head: Option<Option<String>>,
    /// Names of chunks.
    pub chunks: Vec<String>,
    /// Volume claims: name, and the cluster id they were made for.
    pub volumes: Vec<(String, Option<String>)>,
    /// The cluster id that this very Cluster object had before.
    pub known_id: Option<String>,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The cluster exists: it has this id.
    Adopt(String),
    /// Nothing exists: create the head.
    Create,
    /// Do nothing, and say why.
    Hold {
        reason: &'static str,
        message: String,
    },
}

/// Decides.
pub fn decide(cluster: &str, found: &Found) -> Verdict {
    let head_name = super::names::head(cluster);
    let hold = |reason, message| Verdict::Hold { reason, message };
    match &found.head {
        Some(None) => hold(
            "MalformedMetadata",
            format!(
                "ConfigMap {head_name} carries no cluster id: it is not a cluster's metadata. Restore it, or remove it if it is none of ours"
            ),
        ),
        Some(Some(id)) => {
            if let Some(known) = found.known_id.as_ref().filter(|known| *known != id) {
                return hold(
                    "ForeignMetadata",
                    format!(
                        "ConfigMap {head_name} belongs to cluster id {id}, this Cluster was {known}. Restore the metadata of {known}, or delete and re-apply the Cluster to adopt {id}"
                    ),
                );
            }
            let foreign = found
                .volumes
                .iter()
                .find(|(_, of)| of.as_ref().is_some_and(|of| of != id));
            match foreign {
                Some((name, of)) => hold(
                    "ForeignVolumes",
                    format!(
                        "volume claim {name} holds data of cluster id {}, but ConfigMap {head_name} belongs to {id}. Move one of the two away",
                        of.as_deref().unwrap_or_default()
                    ),
                ),
                None => Verdict::Adopt(id.clone()),
            }
        }
        None => missing_head(found, &head_name),
    }
}

fn missing_head(found: &Found, head_name: &str) -> Verdict {
    let what = if let Some(chunk) = found.chunks.first() {
        format!("chunks of its metadata such as ConfigMap {chunk}")
    } else if let Some((volume, _)) = found.volumes.first() {
        format!("volumes with its data such as claim {volume}")
    } else if let Some(id) = &found.known_id {
        format!("a status that names cluster id {id}")
    } else {
        return Verdict::Create;
    };
    Verdict::Hold {
        reason: "MetadataLost",
        message: format!(
            "ConfigMap {head_name} is gone, but there are {what}. Annotate the Cluster with {RECOVER_ANNOTATION}=newest to restore it from the brokers' copies; or, to begin anew without the data, delete the Cluster, its chunks and its volume claims"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_table_of_births() {
        let nothing = Found::default();
        let head = Found {
            head: Some(id("a")),
            ..Found::default()
        };
        let cases: Vec<(&str, Found, &str)> = vec![
            ("nothing exists", nothing.clone(), "create"),
            ("the head exists", head.clone(), "adopt a"),
            (
                "re-applied over its volumes",
                Found {
                    volumes: vec![("v".into(), id("a"))],
                    ..head.clone()
                },
                "adopt a",
            ),
            (
                "volumes from before they were marked",
                Found {
                    volumes: vec![("v".into(), None)],
                    ..head.clone()
                },
                "adopt a",
            ),
            (
                "the same cluster as ever",
                Found {
                    known_id: id("a"),
                    ..head.clone()
                },
                "adopt a",
            ),
            (
                "another cluster's head",
                Found {
                    known_id: id("b"),
                    ..head.clone()
                },
                "ForeignMetadata",
            ),
            (
                "another cluster's volume",
                Found {
                    volumes: vec![("v".into(), id("b"))],
                    ..head.clone()
                },
                "ForeignVolumes",
            ),
            (
                "a ConfigMap that is no head",
                Found {
                    head: Some(None),
                    ..nothing.clone()
                },
                "MalformedMetadata",
            ),
            (
                "volumes without a head",
                Found {
                    volumes: vec![("v".into(), id("a"))],
                    ..nothing.clone()
                },
                "MetadataLost",
            ),
            (
                "chunks without a head",
                Found {
                    chunks: vec!["c".into()],
                    ..nothing.clone()
                },
                "MetadataLost",
            ),
            (
                "the head of a living cluster vanished",
                Found {
                    known_id: id("a"),
                    ..nothing
                },
                "MetadataLost",
            ),
        ];
        for (what, found, expected) in cases {
            let got = match decide("demo", &found) {
                Verdict::Adopt(id) => format!("adopt {id}"),
                Verdict::Create => "create".to_owned(),
                Verdict::Hold { reason, .. } => reason.to_owned(),
            };
            assert_eq!(got, expected, "{what}");
        }
    }
}
