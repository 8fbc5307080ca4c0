//! What the connections of a listener promise, over loopback.
