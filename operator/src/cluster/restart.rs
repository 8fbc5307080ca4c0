//! Which pods still run an older image or configuration; pure.

/// A broker's pod, as far as a restart is concerned.
#[derive(Clone, Debug)]
pub struct PodRevision {
    pub name: String,
    pub ordinal: i32,
    /// What the pod was made from; `None` if it was made before pods were marked.
    pub revision: Option<String>,
    pub terminating: bool,
}

/// The names of the pods that need a restart, in the order of their ordinals. A pod that is going
/// comes back with today's specification.
pub fn outdated(pods: &[PodRevision], wanted: &str) -> Vec<String> {
    let mut found: Vec<_> = pods
        .iter()
        .filter(|pod| !pod.terminating && pod.revision.as_deref() != Some(wanted))
        .collect();
    found.sort_by_key(|pod| pod.ordinal);
    found.into_iter().map(|pod| pod.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(ordinal: i32, revision: Option<&str>, terminating: bool) -> PodRevision {
        PodRevision {
            name: format!("demo-broker-{ordinal}"),
            ordinal,
            revision: revision.map(str::to_owned),
            terminating,
        }
    }

    #[test]
    fn only_standing_pods_of_another_revision_are_named_in_order() {
        let pods = [
            pod(10, Some("old"), false),
            pod(2, None, false),
            pod(1, Some("new"), false),
            pod(0, Some("old"), true),
        ];
        assert_eq!(outdated(&pods, "new"), ["demo-broker-2", "demo-broker-10"]);
        assert!(outdated(&pods[2..], "new").is_empty());
    }
}
