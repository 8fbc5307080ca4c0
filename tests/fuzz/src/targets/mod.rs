//! One file per target.

pub(crate) mod append;
pub(crate) mod config;
pub(crate) mod directory;
pub(crate) mod frames;
pub(crate) mod groups;
pub(crate) mod handler;
pub(crate) mod internal;
pub(crate) mod metadata;
pub(crate) mod recovery;
pub(crate) mod requests;
