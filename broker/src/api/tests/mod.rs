//! What the APIs answer, over real connections to a handler with a real log, and an image and a
//! controller made by hand.

mod admin;
mod data;
mod delete_records;
mod features;
mod fuzz;
mod groups;
mod image_only;
mod listeners;
mod log_dirs;
mod named_configs;
mod quotas;
pub(super) mod stage;
mod transactional_ids;
mod transactions;
