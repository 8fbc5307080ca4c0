//! From a `Cluster` to its objects: fetch → validate → build → apply → decide → status.
//!
//! Everything here except [`reconcile`], `round`, [`fetch`], [`apply`], [`racks`], `recover`, `restart`, `volumes::look`, `volumes::carry`,
//! `listeners::look`, `listeners::tell` and [`teardown`] is pure: it takes
//! objects and gives objects or decisions, and is tested without a client.

pub mod apply;
mod balance;
pub mod build;
pub mod facts;
pub mod fetch;
pub mod genesis;
pub mod listeners;
pub mod maintenance;
pub mod names;
pub mod overrides;
pub mod racks;
pub mod reconcile;
mod recover;
mod restart;
pub mod roll;
mod round;
pub mod scale;
pub mod status;
pub mod teardown;
mod tell;
mod topic_defaults;
pub mod validate;
pub mod volumes;
