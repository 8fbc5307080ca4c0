//! Asking the product's controller: `step()` on an image, by a controller that has just taken over there.

use super::product::Product;
use super::state::NONE;
use crate::pool::fingerprint;
use crate::search::attempt;
use leasehold_metadata::controller::{
    Controller, Effect, Event, Input, Millis, Output, ReplyTo, Settings,
};
use leasehold_metadata::features::{self, Level, METADATA_VERSION};
use leasehold_metadata::image::{Claim, ClaimId, Endpoint, Image, Partition};
use leasehold_metadata::records::{Entry, Record, RegisterBroker};
use leasehold_metadata::rpc::{
    AdminRequest, AlterPartition, BrokerState, ConfirmedRun, ElectionKind, IsrProposal, Poll,
    Registration, Response, RestartReport,
};
use leasehold_types::{
    BrokerId, ClusterId, ControllerEpoch, Incarnation, LeaderEpoch, PartitionEpoch, Seq, TopicId,
};
use std::collections::BTreeMap;

/// A question to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// The broker's connection is gone (or only seems to be).
    Fence(u8),
    /// The broker, in this life, is heard again, and has applied this image.
    Poll {
        broker: u8,
        life: u8,
        image: u32,
    },
    Register(Start),
    /// An administrator wants the preferred leader.
    Prefer,
    /// An ISR request arrives.
    Alter(u32),
}

/// What a process that begins tells of its `run` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    pub broker: u8,
    pub life: u8,
    pub confirmed: u8,
    pub confirmed_boot: u8,
    pub attempted: u8,
    pub boot: u8,
}

/// What the controller decided: the image that is committed then (perhaps the same), and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// [`NONE`] if a promise was broken on the way.
    pub image: u32,
    pub answer: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Nothing,
    Registered,
    /// The verdict on an ISR request, as an error code.
    Verdict(i16),
    Refused,
    /// It would not fit the image, and was dropped.
    Misfit,
    Panicked,
}

/// What must be known of an image often: sets are a bit per broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    pub seq: u64,
    pub leader: Option<u8>,
    pub leader_epoch: u8,
    pub partition_epoch: u8,
    pub isr: u8,
    pub elr: u8,
    /// Left ISR or ELR because they may have lost data.
    pub lossy: u8,
    pub replicas: u8,
    pub recovering: bool,
    pub unfenced: u8,
    pub lives: [u8; 3],
    /// What each broker must have applied before it is unfenced.
    pub changed_at: [u64; 3],
}

/// The one topic.
pub fn topic() -> TopicId {
    TopicId(uuid::Uuid::from_u128(1))
}

pub fn broker(n: u8) -> BrokerId {
    BrokerId(i32::from(n))
}

pub fn life(n: u8) -> Incarnation {
    Incarnation(i64::from(n))
}

/// A number of the product's, which is small here.
pub fn small(n: impl TryInto<u8>) -> u8 {
    n.try_into().unwrap_or(u8::MAX)
}

fn bits(of: &[BrokerId]) -> u8 {
    of.iter().fold(0, |bits, id| bits | 1 << id.0)
}

fn endpoint() -> Endpoint {
    Endpoint {
        host: String::new(),
        port: 1,
    }
}

fn facts(image: &Image) -> ImageFacts {
    let none = Partition::default();
    let p = image.partition(&topic(), 0).map_or(&none, |p| &**p);
    let mut facts = ImageFacts {
        seq: image.position.seq.0,
        leader: p.leader.map(|id| small(id.0)),
        leader_epoch: small(p.leader_epoch.0),
        partition_epoch: small(p.partition_epoch.0),
        isr: bits(&p.isr),
        elr: bits(&p.elr),
        lossy: bits(&p.lossy),
        replicas: bits(&p.replicas),
        recovering: p.recovering,
        unfenced: 0,
        lives: [0; 3],
        changed_at: [0; 3],
    };
    for (id, known) in &image.brokers {
        let at = usize::from(small(id.0));
        facts.unfenced |= u8::from(!known.fenced) << id.0;
        facts.lives[at] = small(known.incarnation.0);
        facts.changed_at[at] = known.changed_at.0;
    }
    facts
}

impl Product {
    /// The image at the beginning: everyone is unfenced, somebody leads in epoch 1.
    pub fn first_image(&mut self) -> u32 {
        let ids: Vec<_> = (0..small(self.bounds.brokers)).map(broker).collect();
        let mut records = vec![Record::Claim(Claim {
            epoch: ControllerEpoch(1),
            claim_id: ClaimId(1),
            first_seq: Seq(1),
            broker: broker(0),
            incarnation: life(1),
        })];
        records.push(Record::FeatureLevel {
            name: METADATA_VERSION.to_owned(),
            level: Level::NEWEST,
        });
        records.extend(ids.iter().map(|id| {
            Record::RegisterBroker(RegisterBroker {
                broker: *id,
                incarnation: life(1),
                client: endpoint(),
                internal: endpoint(),
                http: None,
                rack: None,
                version: String::new(),
                fenced: false,
                shutting_down: false,
                cordoned: false,
                registered_at: None,
                changed_at: None,
                directories: Vec::new(),
                listeners: Default::default(),
                features: features::supported(),
            })
        }));
        let apart = self.bounds.apart;
        let in_sync = |id: &BrokerId| apart == 0 || *id != broker(apart);
        let min = self.bounds.min.to_string();
        records.push(Record::Topic {
            id: topic(),
            name: "t".to_owned(),
            internal: false,
            configs: BTreeMap::from([("min.insync.replicas".to_owned(), min)]),
        });
        records.push(Record::Partition {
            topic: topic(),
            partition: 0,
            state: Partition {
                replicas: ids.clone(),
                isr: ids.into_iter().filter(in_sync).collect(),
                leader: Some(broker(u8::from(self.bounds.moves > 0))),
                leader_epoch: LeaderEpoch(1),
                partition_epoch: PartitionEpoch(1),
                ..Partition::default()
            },
        });
        let image = Image::genesis(ClusterId("model".to_owned()));
        let image = commit(&image, records).expect("the first entry fits");
        self.image(image)
    }

    fn image(&mut self, image: Image) -> u32 {
        let text = serde_json::to_string(&(&image.position, image.to_records()));
        let id = fingerprint(text.unwrap_or_default().as_str());
        self.images.id(id, image, facts)
    }

    /// What the controller decides on `image`.
    pub fn decide(&mut self, image: u32, ask: Ask) -> Decision {
        if let Some(known) = self.decisions.get(&(image, ask)) {
            return *known;
        }
        let decision = self.ask(image, ask);
        self.decisions.insert((image, ask), decision);
        decision
    }

    fn ask(&mut self, at: u32, ask: Ask) -> Decision {
        let image = self.images.value(at).clone();
        let input = self.input(&image, ask);
        let settings = Settings {
            auto_leader_rebalance: false,
            topic_defaults: BTreeMap::new(),
            ..Settings::default()
        };
        let stepped = attempt(|| {
            let mut controller = Controller::new(image.clone(), settings, Millis(0));
            let output = controller.step(input, Millis(0));
            let next = (!output.records.is_empty()).then(|| commit(&image, output.records.clone()));
            (answer(&output), next)
        });
        let broken = |answer| Decision {
            image: NONE,
            answer,
        };
        match stepped {
            None => broken(Answer::Panicked),
            Some((Answer::Misfit, _) | (_, Some(None))) => broken(Answer::Misfit),
            Some((answer, None)) => Decision { image: at, answer },
            Some((answer, Some(Some(next)))) => Decision {
                image: self.image(next),
                answer,
            },
        }
    }

    fn input(&self, image: &Image, ask: Ask) -> Input {
        let to = ReplyTo(0);
        match ask {
            Ask::Fence(id) => Input::SessionEvidence {
                broker: broker(id),
                incarnation: image.broker(broker(id)).map_or(life(0), |b| b.incarnation),
                evidence: String::new(),
            },
            Ask::Poll {
                broker: id,
                life: n,
                image,
            } => Input::Poll {
                to,
                poll: Poll {
                    broker: broker(id),
                    incarnation: life(n),
                    position: Some(self.images.value(image).position),
                    state: BrokerState::default(),
                },
            },
            Ask::Prefer => Input::Admin {
                to,
                request: AdminRequest::ElectLeaders {
                    kind: ElectionKind::Preferred,
                    partitions: Some(vec![("t".to_owned(), 0)]),
                },
                deadline: Millis(1),
            },
            Ask::Register(start) => Input::Register {
                to,
                registration: Box::new(registration(start)),
            },
            Ask::Alter(request) => {
                let sent = self.requests.value(request);
                Input::AlterPartition {
                    to,
                    request: AlterPartition {
                        broker: broker(sent.from),
                        incarnation: life(sent.life),
                        proposals: vec![IsrProposal {
                            topic: topic(),
                            partition: 0,
                            leader_epoch: sent.request.leader_epoch,
                            partition_epoch: sent.request.partition_epoch,
                            isr: sent.request.isr.clone(),
                        }],
                    },
                }
            }
        }
    }
}

fn registration(start: Start) -> Registration {
    let lives = (0..8).filter(|n| start.attempted & 1 << n != 0);
    Registration {
        broker: broker(start.broker),
        incarnation: life(start.life),
        client: endpoint(),
        internal: endpoint(),
        http: None,
        rack: None,
        version: String::new(),
        restart: RestartReport {
            confirmed: Some(ConfirmedRun {
                incarnation: life(start.confirmed),
                boot_id: format!("boot-{}", start.confirmed_boot),
                pod_uid: "pod".to_owned(),
                clean: false,
            }),
            attempted: lives.map(life).collect(),
            boot_id: format!("boot-{}", start.boot),
            pod_uid: "pod".to_owned(),
        },
        directories: Vec::new(),
        listeners: Default::default(),
        unreadable: 0,
        features: features::supported(),
    }
}

/// The image once these records are committed, applied as a broker applies them.
fn commit(image: &Image, records: Vec<Record>) -> Option<Image> {
    let claimed = records.iter().find_map(|record| match record {
        Record::Claim(claim) => Some(claim.epoch),
        _ => None,
    });
    let entry = Entry {
        seq: image.position.seq.next(),
        epoch: claimed.unwrap_or(image.position.epoch),
        nonce: String::new(),
        records,
    };
    let mut next = image.clone();
    next.apply(&entry).ok().map(|()| next)
}

fn answer(output: &Output) -> Answer {
    let mut answer = Answer::Nothing;
    for effect in &output.effects {
        match effect {
            Effect::Event(Event::Warning { message }) if message.contains("does not fit") => {
                return Answer::Misfit;
            }
            Effect::Reply { response, .. } => {
                answer = match response {
                    Response::Registered { .. } => Answer::Registered,
                    Response::AlterPartition(verdicts) => {
                        verdicts.first().map_or(Answer::Refused, |verdict| {
                            Answer::Verdict(verdict.outcome.code)
                        })
                    }
                    _ => Answer::Refused,
                };
            }
            _ => {}
        }
    }
    answer
}
