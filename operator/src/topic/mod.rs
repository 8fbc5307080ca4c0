//! From a `Topic` to a topic: what it wishes, what the cluster has, what to ask for.

mod delete;
pub mod drift;
pub mod found;
pub mod plan;
pub mod reconcile;
pub mod request;
pub mod rivals;
pub mod status;
mod tell;
