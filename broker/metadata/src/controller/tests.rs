//! What the controller promises: scenes by rule, a random walk over all inputs, and a test of its speed.

mod balance;
mod bench;
mod directories;
mod elections;
mod features;
mod invariants;
mod isr;
mod moves;
mod named;
mod pace;
mod quotas;
mod registration;
mod sessions;
mod speed;
mod topics;
mod walk;
