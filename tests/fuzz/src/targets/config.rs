//! The broker's configuration file, and the configuration of topics.
//!
//! Input: a broker's YAML file; its lines are also taken as `key: value` of a topic. What is taken reads back
//! as the same.

use leasehold_metadata::configs;
use std::collections::BTreeMap;

/// See above.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(config) = leasehold_broker::config::parse(text) {
        let defaults = configs::defaults_from(&config);
        if let Err(error) = configs::validate_all(&defaults) {
            panic!("a default that no topic may have: {error}");
        }
    }
    for (key, value) in text.lines().filter_map(|line| line.split_once(": ")) {
        let Ok(known) = configs::validate(key, value) else {
            continue;
        };
        let kept = configs::normalize(known, value);
        if let Err(error) = configs::validate(key, &kept) {
            panic!("{key}={value:?} is kept as {kept:?}, which is refused: {error}");
        }
        assert_eq!(configs::normalize(known, &kept), kept, "of {key}={value:?}");
        let one = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(configs::validate_all(&one).is_ok());
    }
}
