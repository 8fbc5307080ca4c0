//! What the APIs answer, over a real connection and an image made by hand.
