//! Registration: one commit that admits a process with everything that follows from its restart.

use super::{At, Controller, Event, ReplyTo, Session};
use crate::image::Broker;
use crate::records::{Record, RegisterBroker};
use crate::rpc::{Outcome, Registration, Response, RestartReport, codes};
use leasehold_types::seams::taken_out;
use leasehold_types::{BrokerId, Incarnation, ProducerId};

/// Whether a broker that was last registered as `registered` kept everything it ever confirmed. Anything
/// that is not surely so is a loss: a report without a confirmed run, of another log directory, or of
/// a kernel or pod that ended without a clean stop.
pub(super) fn is_intact(registered: Incarnation, report: &RestartReport) -> bool {
    if taken_out("restart-is-judged") {
        return true;
    }
    let Some(confirmed) = &report.confirmed else {
        return false;
    };
    let same_memory = confirmed.boot_id == report.boot_id
        && confirmed.pod_uid == report.pod_uid
        && !report.boot_id.is_empty();
    continues(registered, report)
        && (confirmed.clean || same_memory || taken_out("kernel-and-pod-are-compared"))
}

/// Whether the report is from the log directory that `registered` used.
fn continues(registered: Incarnation, report: &RestartReport) -> bool {
    let confirmed = report.confirmed.as_ref().map(|run| run.incarnation);
    confirmed == Some(registered) || report.attempted.contains(&registered)
}

impl Controller {
    pub(super) fn register(&mut self, to: ReplyTo, r: Registration) {
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
        let intact = known
            .as_ref()
            .is_none_or(|k| is_intact(k.incarnation, &r.restart));
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
        }));
        self.event(Event::Registered {
            broker: r.broker,
            incarnation: r.incarnation,
            intact,
        });
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
                if !intact {
                    edit.lose(r.broker);
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
        let same = known.client == r.client
            && known.internal == r.internal
            && known.http == r.http
            && known.version == r.version
            && known.rack == rack;
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
            Some(session) => session.seen || !continues(known.incarnation, &r.restart),
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
        Outcome::ok()
    }
}
