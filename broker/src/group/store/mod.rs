//! What lies in `__consumer_offsets`, in Apache Kafka's own record format: its tools can read the
//! topic, and a log that Kafka wrote can be loaded.
//!
//! [`records`] has keys and values, [`consumer`] those of groups of the newer protocol; [`flexible`] the
//! primitives under those; [`loaded`] folds a log into the state of the groups.

pub mod consumer;
pub mod flexible;
pub mod loaded;
pub mod protocol;
pub mod records;

pub use crate::coordinator::fields::FieldError;
