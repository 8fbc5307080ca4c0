//! The listeners for clients beside the main one: from the command line to the open port, and word of how each
//! is reached.
//!
//! A listener whose endpoint stands on the command line is complete. Of any other the process knows only the
//! port that it opens: how clients get there (a node's address, a load balancer's) is found by the operator,
//! told to the controller, and comes back with the metadata, which survives this process and reaches every
//! broker within milliseconds. So a new address restarts nobody, and is known at once after a restart. A file
//! in the pod, as for the rack, would come a minute late (that is how often a kubelet looks), and would be
//! gone with each pod.

use crate::server::Server;
use crate::session::find::parse_address;
use anyhow::bail;
use leasehold_metadata::image::{Endpoint, Image, Listeners};
use leasehold_types::{BrokerId, Incarnation, ListenerName};
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a listener is of no use to clients yet.
pub const NOT_ADDRESSED: &str = "it is not known how clients reach this broker through this listener: its answers leave this broker out until the controller is told";

/// One `--listener`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FurtherListener {
    pub name: ListenerName,
    /// `host:port` to listen on.
    pub listen: String,
    /// What clients are told; `None`: others will find out.
    pub advertise: Option<Endpoint>,
}

impl FromStr for FurtherListener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, places)) = text.split_once('=') else {
            return Err("a listener is NAME=LISTEN or NAME=LISTEN,HOST:PORT".to_owned());
        };
        let name = ListenerName::parse(name).ok_or_else(|| {
            format!(
                "{name:?} is no listener's name: at most {} lower-case letters, digits and '-', beginning with a letter",
                ListenerName::LONGEST
            )
        })?;
        let address = |text: &str| {
            let found = parse_address(text).filter(|endpoint| !endpoint.host.is_empty());
            found.ok_or_else(|| format!("{text:?} is not host:port"))
        };
        let (listen, advertise) = match places.split_once(',') {
            None => (places, None),
            Some((listen, advertise)) => (listen, Some(address(advertise)?)),
        };
        address(listen)?;
        Ok(Self {
            name,
            listen: listen.to_owned(),
            advertise,
        })
    }
}

/// An open listener.
pub struct Opened {
    pub name: ListenerName,
    pub address: SocketAddr,
}

/// What the registration tells of them.
pub fn offered(wanted: &[FurtherListener]) -> anyhow::Result<Listeners> {
    let mut listeners = Listeners::new();
    for FurtherListener {
        name, advertise, ..
    } in wanted
    {
        if listeners.insert(name.clone(), advertise.clone()).is_some() {
            bail!("--listener {name}=... is given twice");
        }
    }
    Ok(listeners)
}

/// Opens them all, beside the main one.
pub async fn open(clients: &Server, wanted: &[FurtherListener]) -> anyhow::Result<Vec<Opened>> {
    let mut opened = Vec::with_capacity(wanted.len());
    for listener in wanted {
        let name = listener.name.clone();
        let address = clients.open(&listener.listen, name.clone()).await?;
        tracing::info!(listener = %name, %address, "further listener for clients");
        opened.push(Opened { name, address });
    }
    Ok(opened)
}

/// Logs how this process is reached, whenever the metadata tells something new about that.
pub fn follow(mut image: watch::Receiver<Arc<Image>>, broker: BrokerId, incarnation: Incarnation) {
    tokio::spawn(async move {
        let mut before = Listeners::new();
        let mut first = true;
        loop {
            let me = image.borrow_and_update().broker(broker).cloned();
            if let Some(me) = me.filter(|me| me.incarnation == incarnation) {
                let known = |name| before.get(name).cloned().flatten();
                for (name, endpoint) in &me.listeners {
                    match endpoint {
                        Some(endpoint) if known(name).as_ref() != Some(endpoint) => {
                            tracing::info!(%broker, listener = %name, %endpoint, "clients of this listener reach this broker there");
                        }
                        None if first || known(name).is_some() => {
                            tracing::warn!(%broker, listener = %name, "{NOT_ADDRESSED}");
                        }
                        _ => {}
                    }
                }
                first = false;
                before = me.listeners.clone();
            }
            if image.changed().await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_a_name_a_place_and_perhaps_what_clients_are_told() {
        let read = |text: &str| text.parse::<FurtherListener>();
        let public = read("public=0.0.0.0:9094").unwrap();
        assert_eq!(public.name.as_str(), "public");
        assert_eq!(
            (public.listen.as_str(), public.advertise),
            ("0.0.0.0:9094", None)
        );
        let told = read("a=0.0.0.0:9094,kafka.example.org:31000").unwrap();
        assert_eq!(
            told.advertise.unwrap().to_string(),
            "kafka.example.org:31000"
        );
        for bad in [
            "public",
            "Public=0.0.0.0:1",
            "a=9094",
            "a=0.0.0.0:1,",
            "a=0.0.0.0:1,:5",
            "=:1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_name_is_given_twice() {
        let of = |texts: &[&str]| -> Vec<FurtherListener> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let two = offered(&of(&["a=127.0.0.1:1", "b=127.0.0.1:2,h:3"])).unwrap();
        assert_eq!(two.values().flatten().count(), 1);
        let error = offered(&of(&["a=127.0.0.1:1", "a=127.0.0.1:2"])).unwrap_err();
        assert!(error.to_string().contains("given twice"), "{error}");
    }
}
