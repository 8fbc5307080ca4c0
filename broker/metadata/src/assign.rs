//! Where replicas go: evenly over brokers and racks, counting what exists.
