//! What is set for this broker while it runs, and concerns neither topics nor the cleaner.

use crate::config::BrokerConfig;
use crate::server::Server;
use leasehold_metadata::Image;
use leasehold_metadata::dynamic::MAX_CONNECTIONS;
use leasehold_types::BrokerId;
use std::sync::Arc;
use tokio::sync::watch;

/// Keeps the listener for clients at what the image says, as long as both are there.
pub(super) fn follow(
    mut image: watch::Receiver<Arc<Image>>,
    broker: BrokerId,
    config: Arc<BrokerConfig>,
    clients: &Arc<Server>,
) {
    let clients = Arc::downgrade(clients);
    let mut before = config.max_connections;
    tokio::spawn(async move {
        loop {
            let now = max_connections(&image.borrow_and_update(), broker, &config);
            let Some(clients) = clients.upgrade() else {
                return;
            };
            if now != before {
                tracing::info!(%broker, before, now, "{MAX_CONNECTIONS} changed");
                clients.set_max_connections(super::bytes(now));
                before = now;
            }
            drop(clients);
            if image.changed().await.is_err() {
                return;
            }
        }
    });
}

/// What is set for the broker, else for all, else in its file. Values were validated before they were committed;
/// one that cannot be read counts as none.
fn max_connections(image: &Image, broker: BrokerId, config: &BrokerConfig) -> i32 {
    let set = image.dynamic_config(broker, MAX_CONNECTIONS);
    set.and_then(|value| value.parse().ok())
        .unwrap_or(config.max_connections)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_types::ClusterId;

    #[test]
    fn the_brokers_own_bound_comes_before_that_of_all_and_that_before_the_file() {
        let mut image = Image::genesis(ClusterId("c".into()));
        let config = BrokerConfig {
            max_connections: 5,
            ..BrokerConfig::default()
        };
        let of = |image: &Image| max_connections(image, BrokerId(1), &config);
        assert_eq!(of(&image), 5);
        image.cluster_configs = Arc::new([(MAX_CONNECTIONS.into(), "6".into())].into());
        assert_eq!(of(&image), 6);
        let own = [(MAX_CONNECTIONS.into(), "7".into())].into();
        image.broker_configs = Arc::new([(BrokerId(1), own)].into());
        assert_eq!(of(&image), 7);
        assert_eq!(max_connections(&image, BrokerId(2), &config), 6);
    }
}
