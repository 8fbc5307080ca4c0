//! What the controller promises: scenes by rule, a random walk over all inputs, and a test of its speed.

mod bench;
mod elections;
mod invariants;
mod isr;
mod moves;
mod registration;
mod sessions;
mod speed;
mod topics;
mod walk;
