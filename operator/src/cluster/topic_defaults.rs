//! The part of `spec.config` that brokers follow while they run: the defaults that it gives to topics.
//!
//! Promises: a change of these restarts nobody; the controller is told, and all brokers learn of it with the
//! metadata. Whoever starts later reads the same in its file. What is no default of topics makes a new revision
//! of the pods, which roll.

use leasehold_metadata::broker_config::BrokerConfig;
use leasehold_metadata::configs;
use leasehold_metadata::dynamic::DynamicKey;
use leasehold_metadata::image::Image;
use std::collections::BTreeMap;

/// Whether a key of `spec.config` is a default of topics, such as `log.retention.ms`.
pub fn is_one(key: &str) -> bool {
    matches!(DynamicKey::find(key), Ok(DynamicKey::Topics(_)))
}

/// What the controller is to be told, by the names of the topics' keys; `None` if it is what it knows.
pub fn untold(image: &Image, wanted: &BrokerConfig) -> Option<BTreeMap<String, String>> {
    let wanted = configs::defaults_from(wanted);
    (*image.static_configs != wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_types::ClusterId;
    use std::sync::Arc;

    fn config(pairs: &[(&str, &str)]) -> BrokerConfig {
        let pairs = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        BrokerConfig::from_map(&pairs.collect()).unwrap()
    }

    #[test]
    fn the_controller_is_told_of_changed_and_of_removed_defaults_and_of_nothing_else() {
        let mut image = Image::genesis(ClusterId("c".into()));
        let some = config(&[("log.retention.ms", "1000"), ("num.partitions", "3")]);
        let told = untold(&image, &some).unwrap();
        let expected = BTreeMap::from([("retention.ms".to_owned(), "1000".to_owned())]);
        assert_eq!(told, expected);
        image.static_configs = Arc::new(told);
        assert_eq!(untold(&image, &some), None);
        let other = config(&[("log.retention.ms", "1000"), ("num.partitions", "9")]);
        assert_eq!(untold(&image, &other), None, "that is for the pods");
        assert_eq!(untold(&image, &config(&[])), Some(BTreeMap::new()));
    }

    #[test]
    fn what_a_broker_reads_at_its_start_is_no_default_of_topics() {
        for key in [
            "log.retention.ms",
            "min.insync.replicas",
            "compression.type",
        ] {
            assert!(is_one(key), "{key}");
        }
        for key in [
            "num.partitions",
            "max.connections",
            "log.dirs",
            "no.such.key",
        ] {
            assert!(!is_one(key), "{key}");
        }
    }
}
