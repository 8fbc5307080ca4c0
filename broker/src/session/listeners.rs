//! Whether the metadata knows which listeners this process has; pure.
//!
//! Why it may not: a controller of a release without listeners admitted the process, and passed over them. The
//! next controller may be of another release, so each is told once more.

use leasehold_metadata::image::{Image, Listeners};
use leasehold_types::{BrokerId, Incarnation};

/// Whether this process is registered without one of its listeners.
pub(super) fn untold(
    image: &Image,
    broker: BrokerId,
    incarnation: Incarnation,
    mine: &Listeners,
) -> bool {
    let known = image
        .broker(broker)
        .filter(|b| b.incarnation == incarnation);
    known.is_some_and(|known| mine.keys().any(|name| !known.listeners.contains_key(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::image::{Broker, Endpoint};
    use leasehold_types::{ClusterId, ListenerName, Seq};
    use std::sync::Arc;

    const ME: BrokerId = BrokerId(1);

    fn registered(incarnation: Incarnation, listeners: Listeners) -> Image {
        let endpoint = Endpoint {
            host: "127.0.0.1".into(),
            port: 1,
        };
        let me = Broker {
            features: Default::default(),
            id: ME,
            incarnation,
            client: endpoint.clone(),
            listeners,
            internal: endpoint,
            http: None,
            rack: None,
            version: String::new(),
            fenced: false,
            shutting_down: false,
            cordoned: false,
            registered_at: Seq(1),
            changed_at: Seq(1),
            directories: Vec::new(),
        };
        let mut image = Image::genesis(ClusterId("c".into()));
        image.brokers.insert(ME, Arc::new(me));
        image
    }

    #[test]
    fn a_registration_without_a_listener_of_this_process_is_noticed_and_no_other() {
        let (old, me) = (Incarnation(6), Incarnation(7));
        let public = ListenerName::parse("public").unwrap();
        let mine: Listeners = [(public, None)].into();
        let without = registered(me, Listeners::new());
        assert!(untold(&without, ME, me, &mine));
        assert!(!untold(&without, ME, me, &Listeners::new()), "it has none");
        assert!(!untold(&without, ME, old, &mine), "another process");
        assert!(!untold(&registered(me, mine.clone()), ME, me, &mine));
    }
}
