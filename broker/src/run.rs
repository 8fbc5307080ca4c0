//! Wires one broker together.
