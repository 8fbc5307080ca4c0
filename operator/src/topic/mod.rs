//! From a `Topic` to a topic: what it wishes, what the cluster has, what to ask for.

pub mod plan;
pub mod reconcile;
pub mod request;
pub mod status;
mod tell;
