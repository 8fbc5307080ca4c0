//! What the image promises.
