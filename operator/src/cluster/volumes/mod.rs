//! Whether each broker has its volume, as large as it is wished for, and what to do where not; pure.
//!
//! Promises: a claim only ever grows; the StatefulSet is made anew, its pods left alone, only once every claim was
//! accepted at the new size and nobody joins or leaves; a claim is given up only where `storage.onLoss: Replace`
//! says so, its volume is gone for good, and no partition has its last replica in sync on it.

mod carry;
mod look;
mod quantity;

pub use carry::{VolumeError, settle};
pub use look::{ClaimFacts, claims};

use super::names;
use leasehold_crds::LossPolicy;
use leasehold_metadata::image::Image;
use leasehold_types::BrokerId;

/// All that the decision rests on.
pub struct Facts<'a> {
    pub namespace: &'a str,
    pub cluster: &'a str,
    pub claims: &'a [ClaimFacts],
    /// Brokers that are wished for: the claims of others are left as they are.
    pub brokers: i32,
    /// `spec.storage.size`; `None` where storage goes with the pod.
    pub wanted: Option<&'a str>,
    /// The size in the StatefulSet's claim template; `None` if there is no StatefulSet.
    pub template: Option<&'a str>,
    pub on_loss: LossPolicy,
    /// `None` while the metadata could not be read.
    pub image: Option<&'a Image>,
    /// Nobody joins or leaves.
    pub steady: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Claims to ask more for, by name.
    pub grow: Vec<String>,
    /// The StatefulSet is to be made anew, for the sake of the claims of brokers to come.
    pub renew: bool,
    /// A claim to give up, with its broker's pod.
    pub replace: Option<ClaimFacts>,
    pub storage: Storage,
}

/// The `StorageReady` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    Ready,
    Growing(String),
    /// Kubernetes does not let a claim grow.
    Refused(String),
    Lost(String),
    Replacing(String),
}

/// Decides.
pub fn decide(facts: &Facts<'_>) -> Decision {
    let mine = facts.claims.iter().filter(|c| c.ordinal < facts.brokers);
    let mine: Vec<&ClaimFacts> = mine.collect();
    let wanted = facts.wanted.and_then(quantity::bytes);
    let below = |size: &Option<String>| {
        let size = size.as_deref().and_then(quantity::bytes);
        wanted.is_some_and(|wanted| size.is_none_or(|size| size < wanted))
    };
    let grow: Vec<String> = mine
        .iter()
        .filter(|claim| below(&claim.asked) && claim.lost.is_none())
        .map(|claim| claim.name.clone())
        .collect();
    let differs = facts.template.and_then(quantity::bytes) != wanted;
    let renew = facts.wanted.is_some()
        && facts.template.is_some()
        && differs
        && grow.is_empty()
        && facts.steady;
    let growing: Vec<&str> = mine
        .iter()
        .filter(|claim| below(&claim.has) && claim.lost.is_none() && claim.bound)
        .map(|claim| claim.name.as_str())
        .collect();
    let mut storage = match growing.is_empty() {
        true => Storage::Ready,
        false => Storage::Growing(format!(
            "waiting for {} to have {}",
            growing.join(", "),
            facts.wanted.unwrap_or_default()
        )),
    };
    let lost = mine.into_iter().find(|claim| claim.lost.is_some());
    let mut replace = None;
    if let Some(claim) = lost {
        let needed = needed(facts.image, BrokerId(claim.ordinal));
        storage = match (facts.on_loss, needed) {
            // What it still has open is a replica more, as long as it runs.
            (LossPolicy::Replace, None) if !claim.in_use => {
                replace = Some(claim.clone());
                Storage::Replacing(format!("{}: {}", claim.name, why(claim)))
            }
            (policy, needed) => Storage::Lost(held(facts, claim, policy, needed.as_deref())),
        };
    }
    Decision {
        grow,
        renew,
        replace,
        storage,
    }
}

/// Why brokers with so many volumes cannot be made over what is there: a volume that none of them would mount may have
/// the only copies of what lies on it. Claims of another cluster's are held elsewhere.
pub fn unmounted(claims: &[ClaimFacts], volumes: i32) -> Option<String> {
    let beyond = claims.iter().filter(|claim| claim.volume >= volumes);
    let last = beyond.max_by_key(|claim| claim.volume)?;
    Some(format!(
        "spec.storage.volumes is {volumes}, but there is the claim {}, whose records nobody would serve: set it to {}, or delete the claims that are not needed any more",
        last.name,
        last.volume + 1
    ))
}

fn why(claim: &ClaimFacts) -> &str {
    claim.lost.as_deref().unwrap_or_default()
}

/// What to tell of a claim that is kept although its volume is gone.
fn held(facts: &Facts<'_>, claim: &ClaimFacts, policy: LossPolicy, needed: Option<&str>) -> String {
    let namespace = facts.namespace;
    let pod = names::pod(facts.cluster, claim.ordinal);
    let (name, why) = (&claim.name, why(claim));
    let caution = needed.map_or_else(String::new, |needed| format!(" {needed}."));
    let instead = match policy {
        LossPolicy::Hold => " (storage.onLoss: Replace would do so by itself)",
        LossPolicy::Replace if claim.in_use => " (done by itself once it does not serve any more)",
        LossPolicy::Replace => "",
    };
    format!(
        "the volume of {name} is gone: {why}.{caution} If it does not come back, let the broker begin with an empty one: kubectl -n {namespace} delete pvc {name} --wait=false && kubectl -n {namespace} delete pod {pod}{instead}"
    )
}

/// Why what is on a broker's volume cannot be spared; `None` if all of it is in sync elsewhere.
fn needed(image: Option<&Image>, broker: BrokerId) -> Option<String> {
    let Some(image) = image else {
        return Some("The cluster's metadata is not known".to_owned());
    };
    let partitions = image.topics.values().flat_map(|topic| {
        let numbered = topic.partitions.iter().enumerate();
        numbered.map(move |(number, partition)| (topic, number, partition))
    });
    let last = |isr: &[BrokerId]| isr == [broker];
    let mut only = partitions.filter(|(_, _, partition)| last(&partition.isr));
    let (topic, number, _) = only.next()?;
    let more = match only.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "It has the last replica in sync of {}-{number}{more}, which would be lost",
        topic.name
    ))
}

#[cfg(test)]
mod tests;
