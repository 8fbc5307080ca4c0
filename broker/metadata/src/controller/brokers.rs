//! Registration: one commit that admits a process with everything that follows from its restart.

use super::restart::{self, Verdict};
use super::{At, Controller, Event, ReplyTo, Session};
use crate::features::{Level, METADATA_VERSION};
use crate::image::{Broker, Listeners};
use crate::records::{Record, RegisterBroker};
use crate::rpc::{BrokerEndpoints, Outcome, Registration, Response, codes};
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, DirectoryId, Incarnation, ListenerName, ProducerId};
use std::collections::BTreeMap;

impl Controller {
    pub(super) fn register(&mut self, to: ReplyTo, r: Registration) {
        if let Err(message) = self.check_support(&r) {
            return self.refuse(to, codes::UNSUPPORTED_VERSION, message);
        }
        let known = self.image.broker(r.broker).cloned();
        match &known {
            Some(known) if known.incarnation == r.incarnation => {
                return self.register_again(to, known, &r);
            }
            Some(known) if self.is_held(known, &r) => {
                let message = format!(
                    "broker id {} is in use by a live process (incarnation {}): try again when its session has ended",
                    r.broker, known.incarnation
                );
                return self.refuse(to, codes::DUPLICATE_BROKER_REGISTRATION, message);
            }
            _ => {}
        }
        let verdict = Verdict::of(known.as_deref(), &r);
        let intact = verdict.intact;
        let listeners = listeners(known.as_deref(), &r);
        let directories = match self.image.metadata_level() >= Level::ADMINISTERED {
            true => ids(&r),
            // Brokers of this level have one each, and its `run` file says which one it is.
            false => Vec::new(),
        };
        self.emit(Record::RegisterBroker(RegisterBroker {
            broker: r.broker,
            incarnation: r.incarnation,
            client: r.client,
            internal: r.internal,
            http: r.http,
            rack: r
                .rack
                .or_else(|| known.as_ref().and_then(|k| k.rack.clone())),
            version: r.version,
            // Until it has applied this very registration.
            fenced: !taken_out("registered-fenced"),
            shutting_down: false,
            cordoned: known.as_ref().is_some_and(|k| k.cordoned),
            registered_at: None,
            changed_at: None,
            directories,
            listeners,
            features: r.features,
        }));
        self.event(Event::Registered {
            broker: r.broker,
            incarnation: r.incarnation,
            intact,
        });
        if known.is_none() {
            self.balance_is_due(&format!("broker {} is new", r.broker));
        }
        // Whatever the old incarnation led has no leader now, or another: an epoch of its own.
        let hosted: Vec<At> = self.index.hosted(r.broker).collect();
        let why = format!(
            "broker {} restarted {}",
            r.broker,
            if intact {
                "intact"
            } else {
                "and may have lost data"
            }
        );
        for at in hosted {
            self.change(at, &why, |edit| {
                // A log that failed under the former incarnation has not told what of it is on the disk.
                let was_offline = edit.recall(r.broker);
                if was_offline || verdict.loses(at) {
                    edit.lose(r.broker);
                }
                if verdict.is_out_of_reach(at, was_offline) {
                    edit.retire(r.broker);
                }
                edit.drop_fenced();
                edit.elect();
            });
        }
        self.gone.remove(&r.broker);
        let session = Session::begun(r.incarnation, self.committed, self.clock.run(), true);
        self.sessions.insert(r.broker, session);
        self.reply(
            to,
            Response::Registered {
                incarnation: r.incarnation,
                at: self.next_seq,
            },
        );
    }

    /// The same process once more: a no-op, unless it learnt its rack or address only now.
    fn register_again(&mut self, to: ReplyTo, known: &Broker, r: &Registration) {
        let rack = r.rack.clone().or_else(|| known.rack.clone());
        let listeners = listeners(Some(known), r);
        let same = known.client == r.client
            && known.internal == r.internal
            && known.http == r.http
            && known.version == r.version
            && known.rack == rack
            && known.features == r.features
            && known.listeners == listeners;
        if !same {
            self.emit(Record::RegisterBroker(RegisterBroker {
                broker: r.broker,
                incarnation: r.incarnation,
                client: r.client.clone(),
                internal: r.internal.clone(),
                http: r.http.clone(),
                rack,
                version: r.version.clone(),
                fenced: known.fenced,
                shutting_down: known.shutting_down,
                cordoned: known.cordoned,
                registered_at: Some(known.registered_at),
                changed_at: Some(known.changed_at),
                directories: known.directories.clone(),
                listeners,
                features: r.features.clone(),
            }));
        }
        self.reply(
            to,
            Response::Registered {
                incarnation: r.incarnation,
                at: known.registered_at,
            },
        );
    }

    /// Whether another process holds the id. A session that only an earlier controller saw does not
    /// stand against its own successor, a process on the same log directory.
    fn is_held(&self, known: &Broker, r: &Registration) -> bool {
        match self.sessions.get(&r.broker) {
            Some(session) => session.seen || !restart::succeeds(known.incarnation, r),
            None => false,
        }
    }

    pub(super) fn allocate_producer_ids(
        &mut self,
        to: ReplyTo,
        broker: BrokerId,
        incarnation: Incarnation,
    ) {
        if self
            .image
            .broker(broker)
            .is_none_or(|b| b.incarnation != incarnation)
        {
            let message = format!("broker {broker} is not registered as incarnation {incarnation}");
            return self.refuse(to, codes::STALE_BROKER_EPOCH, message);
        }
        let first = self.image.next_producer_id;
        let count = self.settings.producer_id_block.max(1);
        let next = ProducerId(first.0.saturating_add(count));
        self.emit(Record::ProducerIds { next });
        self.reply(to, Response::ProducerIds { first, count });
    }

    /// Takes in how clients reach a broker through its further listeners. It disturbs nothing else: no epoch, no
    /// session, no other broker.
    pub(super) fn set_endpoints(&mut self, told: BrokerEndpoints) -> Outcome {
        let BrokerEndpoints { broker, listeners } = told;
        let Some(known) = self.image.broker(broker) else {
            let message = format!("broker {broker} is not registered");
            return Outcome::refused(codes::BROKER_ID_NOT_REGISTERED, message);
        };
        let (incarnation, has) = (known.incarnation, known.listeners.clone());
        let strange = listeners.keys().find(|name| !has.contains_key(*name));
        if let Some(name) = strange {
            let message = format!(
                "broker {broker} does not listen as {name}: it has not been restarted since that was added"
            );
            return Outcome::refused(codes::INVALID_REQUEST, message);
        }
        let news: Listeners = listeners
            .into_iter()
            .filter(|(name, endpoint)| has.get(name) != Some(endpoint))
            .collect();
        if !news.is_empty() {
            self.event(Event::Endpoints {
                broker,
                listeners: news.clone(),
            });
            self.change_broker(broker, incarnation, |change| change.listeners = news);
        }
        Outcome::ok()
    }

    pub(super) fn unregister(&mut self, broker: BrokerId) -> Outcome {
        let Some(known) = self.image.broker(broker) else {
            let message = format!("broker {broker} is not registered");
            return Outcome::refused(codes::BROKER_ID_NOT_REGISTERED, message);
        };
        if !known.fenced {
            let message = format!("broker {broker} is alive: stop it first");
            return Outcome::refused(codes::INVALID_REQUEST, message);
        }
        let replicas = self.index.replicas(broker);
        if replicas > 0 {
            let message =
                format!("broker {broker} still holds {replicas} replicas: drain it first");
            return Outcome::refused(codes::INVALID_REQUEST, message);
        }
        self.emit(Record::UnregisterBroker { broker });
        self.sessions.remove(&broker);
        self.lost.remove(&broker);
        self.event(Event::Unregistered { broker });
        self.balance_is_due(&format!("broker {broker} is gone"));
        Outcome::ok()
    }

    /// What tells of single replicas cannot be written at this level: the broker is out as a whole, until it registers
    /// anew or the level is raised.
    fn fence_for_failed_logs(&mut self, broker: BrokerId, failed: &[At]) {
        if failed.is_empty() || !self.image.is_live(broker) {
            return;
        }
        let reason = format!(
            "{} of its logs failed, and at {METADATA_VERSION} {} that is told of whole brokers only",
            failed.len(),
            self.image.metadata_level()
        );
        self.fence(&BTreeMap::from([(broker, reason)]));
    }

    /// Logs of a broker that goes on with others failed: its replicas there are out of service until it
    /// registers anew, as those of a fenced broker are. What it told of before is told in vain.
    pub(super) fn replicas_failed(&mut self, broker: BrokerId, failed: &[At]) {
        if self.image.metadata_level() < Level::ADMINISTERED {
            return self.fence_for_failed_logs(broker, failed);
        }
        for &at in failed {
            let why = format!("its log on broker {broker} failed");
            let news = self
                .image
                .partition(&at.0, at.1)
                .is_some_and(|p| p.replicas.contains(&broker) && !p.is_offline(broker));
            if news {
                self.change(at, &why, |edit| {
                    edit.retire(broker);
                    edit.drop_fenced();
                    edit.elect();
                });
                self.drain_wanted = true;
            }
        }
    }
}

/// The listeners of this process. What it cannot know itself stays as it was told last: it is wrong for a moment at
/// most, and a broker that restarts is not left out for as long as nobody tells it again.
fn listeners(known: Option<&Broker>, r: &Registration) -> Listeners {
    let of = |name: &ListenerName| known?.listeners.get(name)?.clone();
    let mut listeners = r.listeners.clone();
    for (name, endpoint) in &mut listeners {
        *endpoint = endpoint.take().or_else(|| of(name));
    }
    listeners
}

/// The directories that this process may write to.
fn ids(r: &Registration) -> Vec<DirectoryId> {
    r.directories.iter().map(|directory| directory.id).collect()
}
