//! Reads the broker's configuration file: a YAML map of Kafka's key names to values.
//!
//! Promises: every wrong key is reported at once, by name; nothing is silently ignored.

mod reference;

pub use reference::reference;

use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::path::Path;

pub use leasehold_metadata::broker_config::BrokerConfig;

/// Reads `path`; without a path gives Kafka's defaults.
pub fn load(path: Option<&Path>) -> anyhow::Result<BrokerConfig> {
    match path {
        None => Ok(BrokerConfig::default()),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the configuration {}", path.display()))?;
            parse(&text).with_context(|| format!("in the configuration {}", path.display()))
        }
    }
}

/// Parses the text of a configuration file.
pub fn parse(text: &str) -> anyhow::Result<BrokerConfig> {
    let values: Option<BTreeMap<String, serde_yaml::Value>> =
        serde_yaml::from_str(text).context("this is not a YAML map of keys to values")?;
    let mut map = BTreeMap::new();
    for (key, value) in values.unwrap_or_default() {
        let text = match value {
            serde_yaml::Value::String(text) => text,
            serde_yaml::Value::Bool(flag) => flag.to_string(),
            serde_yaml::Value::Number(number) => number.to_string(),
            other => bail!("{key}: {other:?} is not a plain value"),
        };
        map.insert(key, text);
    }
    BrokerConfig::from_map(&map).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", lines.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_kafka_keys_is_read_with_its_types() {
        let config = parse("num.partitions: 3\nauto.create.topics.enable: false\n").unwrap();
        assert_eq!(config.num_partitions, 3);
        assert!(!config.auto_create_topics_enable);
        assert_eq!(parse("").unwrap(), BrokerConfig::default());
    }

    #[test]
    fn a_misspelt_key_is_refused_by_name() {
        let error = parse("num.partition: 3").unwrap_err().to_string();
        assert!(error.contains("num.partition"), "{error}");
    }
}
