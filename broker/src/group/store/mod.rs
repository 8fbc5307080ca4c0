//! What lies in `__consumer_offsets`, in Apache Kafka's own record format: its tools can read the
//! topic, and a log that Kafka wrote can be loaded.
//!
//! [`records`] has keys and values; [`fields`] the primitives under them; [`loaded`] folds a log
//! into the state of the groups.

mod fields;
pub mod loaded;
pub mod records;

pub use fields::FieldError;
