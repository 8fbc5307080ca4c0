//! The transaction coordinator of one broker: the real one, over the real replicas; how clients reach it, and how brokers
//! reach each other about transactions.
//!
//! Tells the checker of every answer before anyone can hear it.

use super::mail::{Mail, Produced};
use super::replicas::entry;
use super::reply::{Reply, reply};
use super::{Broker, place};
use crate::check::{OffsetAsked, name_of};
use crate::core::STEP;
use crate::disk::Key;
use crate::txns::mail::Offset;
use crate::txns::mail::{Answer, Ask};
use async_trait::async_trait;
use bytes::Bytes;
use leasehold_broker::api::{
    ControllerCalls, ProducerIds, add_offsets, add_or_verify, commit_offsets_in_transaction,
    write_markers,
};
use leasehold_broker::config::BrokerConfig;
use leasehold_broker::coordinator::find::{Endpoint, ImageTopic, StateTopic};
use leasehold_broker::coordinator::write::Producer;
use leasehold_broker::group::types::{
    CommitPartition, CommitRequest, CommitTopic, FetchRequest, FetchResponse,
};
use leasehold_broker::replica::{
    Acks, ReplicaManager, TransactionClient, TransactionQuestion, VerifyTransaction,
};
use leasehold_broker::txn::peers::{CallFailed, Lines};
use leasehold_broker::txn::{FreshProducerIds, Transactions, Ways, start_in};
use leasehold_metadata::controller::TRANSACTIONS_TOPIC;
use leasehold_metadata::image::{Image, Position};
use leasehold_metadata::rpc::{Request, Response};
use leasehold_types::{BrokerId, LeaderEpoch, ProducerId};
use leasehold_wire::ErrorCode;
use leasehold_wire::kafka::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How often the coordinator looks for transactions that have run for too long.
const LOOK: i32 = 300;
/// How long a broker lets another take for markers, and for a question.
const MARKERS: Duration = Duration::from_millis(1_500);
const QUESTION: Duration = Duration::from_millis(900);
/// How long a producer lets the broker wait for the ISR.
const PRODUCE_LIMIT: Duration = Duration::from_millis(1_200);

/// Of which topic offsets are committed: of its first partition.
const SOURCE: &str = "t";

/// What a broker has of them.
pub(super) struct Txns {
    transactions: Transactions,
    ids: ProducerIds,
}

impl Broker {
    /// Starts the coordinator, once the replicas are started.
    pub(super) fn start_transactions(self: &Arc<Self>, replicas: Arc<ReplicaManager>) {
        if !self.core.lock().check.txns.here {
            return;
        }
        let image = self.group_image.subscribe();
        let topic = LookedAt {
            topic: ImageTopic::new(TRANSACTIONS_TOPIC, image.clone(), self.controller_calls()),
            image: image.clone(),
        };
        let ways = Ways {
            topic: Arc::new(topic),
            lines: Arc::new(Line(Arc::downgrade(self))),
        };
        let config = BrokerConfig {
            transaction_abort_timed_out_transaction_cleanup_interval_ms: LOOK,
            ..BrokerConfig::default()
        };
        let transactions = start_in(self.id, ways, image, replicas.clone(), &config);
        replicas.verify_with(Arc::new(Line(Arc::downgrade(self))));
        let ids = ProducerIds::default();
        // A process registers once.
        let _ = self.txns.set(Txns { transactions, ids });
    }

    /// Answers a client.
    pub(super) fn transact(self: &Arc<Self>, id: &'static str, ask: Ask, reply: Reply<Answer>) {
        if self.txns.get().is_none() {
            return;
        }
        let this = Arc::clone(self);
        let before = match &ask {
            Ask::Read(group) => Some(self.asked_for_offset(id, group)),
            _ => None,
        };
        tokio::spawn(async move {
            let Some(answer) = this.answer(id, ask.clone()).await else {
                return;
            };
            let after = match &ask {
                Ask::Read(group) => this.leads_now(group),
                _ => None,
            };
            let core = &mut *this.core.lock();
            // What is in a log by now was written before this answer.
            (0..core.nodes.len()).for_each(|node| core.look(node));
            match (&ask, &answer) {
                (Ask::Init(_), Answer::Goes(Ok(who))) => {
                    core.check.producer_given(id, (who.id.0, who.epoch));
                }
                (Ask::End(request, txn), Answer::Goes(Ok(who))) => {
                    core.check.txn_told(*txn, request.commit);
                    if request.bump {
                        core.check.producer_given(id, (who.id.0, who.epoch));
                    }
                }
                (Ask::Commit(offset), Answer::Committed(ErrorCode::None)) => {
                    core.check.txn_offset_acked(offset.txn);
                }
                (Ask::Read(group), Answer::Read(Ok(offset))) => {
                    if let Some(before) = &before {
                        core.check
                            .txn_offset_read(group, this.me, (before, after), *offset);
                    }
                }
                _ => {}
            }
            core.note(format!(
                "txn   {id}: {}: {}, says broker {}",
                brief(&ask),
                said(&answer),
                this.me
            ));
            core.answer_client(move || reply.send(answer));
        });
    }

    async fn answer(self: &Arc<Self>, id: &'static str, ask: Ask) -> Option<Answer> {
        let txns = self.txns.get()?;
        let coordinator = &txns.transactions.coordinator;
        let fresh = Fresh(self, &txns.ids);
        Some(match ask {
            Ask::Find => Answer::Find(coordinator.find(id).await),
            Ask::Init(request) => Answer::Goes(coordinator.init(request, &fresh).await),
            Ask::Add(request) => Answer::Added(coordinator.add(request).await),
            Ask::End(request, _) => Answer::Goes(coordinator.end(request, &fresh).await),
            Ask::FindGroup(group) => {
                let groups = self.groups.get()?;
                Answer::FindGroup(groups.find_coordinator(0, &group).await)
            }
            Ask::AddOffsets(offset) => {
                let coordinators = (self.groups.get()?, &**coordinator);
                let who = (id, offset.producer);
                Answer::Added(add_offsets(coordinators, who, &offset.group).await)
            }
            Ask::Commit(offset) => Answer::Committed(self.commit_offset(id, offset).await?),
            Ask::Read(group) => {
                let response = self.groups.get()?.fetch(FetchRequest {
                    group_id: group,
                    topics: Some(vec![(SOURCE.to_owned(), vec![0])]),
                    require_stable: true,
                    member_id: None,
                    member_epoch: -1,
                });
                Answer::Read(read(&response.await))
            }
        })
    }

    async fn commit_offset(self: &Arc<Self>, id: &str, offset: Offset) -> Option<ErrorCode> {
        let (groups, replicas) = (self.groups.get()?, self.replicas.get()?);
        let image = self.group_image.subscribe().borrow().clone();
        let client = match offset.second {
            true => TransactionClient::LetsAdd,
            false => TransactionClient::KnowsAbortable,
        };
        let partition = CommitPartition {
            partition: 0,
            offset: i64::try_from(offset.txn).ok()?,
            leader_epoch: -1,
            metadata: None,
        };
        let commit = CommitRequest {
            group_id: offset.group,
            generation: -1,
            retention_ms: -1,
            topics: vec![CommitTopic {
                name: SOURCE.to_owned(),
                partitions: vec![partition],
            }],
            ..CommitRequest::default()
        };
        let asked = (id, offset.producer, client);
        let here = (&**groups, &**replicas);
        let answers = commit_offsets_in_transaction(&image, here, asked, commit).await;
        let (_, partitions) = answers.first()?;
        partitions.first().map(|(_, error)| *error)
    }

    /// The leader epoch in which this broker leads a group's partition, if there is no newer one.
    fn leads_now(&self, group: &str) -> Option<LeaderEpoch> {
        let epoch = self.leads_group(group)?;
        let core = self.core.lock();
        let part = core.check.parts.get(&name_of(core.check.home(group)?))?;
        (part.leader_epoch == i64::from(epoch.0)).then_some(epoch)
    }

    fn asked_for_offset(&self, id: &'static str, group: &str) -> OffsetAsked {
        let leads = self.leads_now(group);
        self.core.lock().check.txn_offset_asked(id, leads)
    }

    /// Appends a batch of a transaction.
    pub(super) fn produce_in(
        self: &Arc<Self>,
        (id, client): (&'static str, TransactionClient),
        (key, records): (Key, Bytes),
        values: Vec<u64>,
        reply: Reply<Produced>,
    ) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        let mut entries = vec![entry(key, records)];
        let this = Arc::clone(self);
        tokio::spawn(async move {
            replicas.verify(id, client, &mut entries).await;
            let pending = replicas.append(Acks::All, PRODUCE_LIMIT, entries);
            let Some(result) = pending.await.pop() else {
                return;
            };
            let done = match result.error {
                ErrorCode::None => Ok(usize::try_from(result.base_offset.0).unwrap_or(0)),
                error => Err(error),
            };
            this.show(key);
            let core = &mut *this.core.lock();
            match done {
                Ok(base) => {
                    let log = core.nodes[this.me].disk.log(key);
                    let line = core.check.acked(key, this.me, (base, &values), log);
                    core.check.txn_acked(key, &values);
                    core.note(format!("{line}, of {id}"));
                }
                Err(error) => core.note(format!(
                    "txn   {id}: {values:x?} to {}-{}: {error}, says broker {}",
                    key.0, key.1, this.me
                )),
            }
            core.answer_client(move || reply.send(done));
        });
    }

    /// Markers of a coordinator.
    pub(super) fn markers(
        self: &Arc<Self>,
        from: usize,
        request: WriteTxnMarkersRequest,
        reply: Reply<WriteTxnMarkersResponse>,
    ) {
        let Some(replicas) = self.replicas.get().cloned() else {
            return;
        };
        if reply.is_closed() && !self.core.lock().late_markers {
            // In version 1 what comes so late ends the next transaction, as in Kafka.
            return;
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let image = this.image.borrow().clone();
            let response = write_markers(&image, &replicas, request).await;
            let mut core = this.core.lock();
            core.answer(this.me, from, move || reply.send(response));
        });
    }

    /// A leader's question, or its wish that partitions are added.
    pub(super) fn verify(
        self: &Arc<Self>,
        from: usize,
        request: AddPartitionsToTxnRequest,
        reply: Reply<AddPartitionsToTxnResponse>,
    ) {
        let this = Arc::clone(self);
        let ids = request.transactions.iter();
        let ids: Vec<String> = ids.map(|one| one.transactional_id.to_string()).collect();
        tokio::spawn(async move {
            let Some(txns) = this.txns.get() else {
                return;
            };
            let coordinator = &txns.transactions.coordinator;
            let image = this.group_image.subscribe().borrow().clone();
            let response = add_or_verify(coordinator, &image, request).await;
            let mut core = this.core.lock();
            let late = ids.iter().map(|id| core.answer_held_up(id)).max();
            core.answer_late(this.me, from, late.unwrap_or(0), move || {
                reply.send(response);
            });
        });
    }
}

/// What is read of a group's offsets.
fn read(response: &FetchResponse) -> Result<Option<i64>, ErrorCode> {
    let one = response.topics.first().and_then(|(_, all)| all.first());
    match (response.error, one) {
        (ErrorCode::None, Some(one)) if one.error.is_ok() => {
            Ok(Some(one.offset).filter(|offset| *offset >= 0))
        }
        (ErrorCode::None, Some(one)) => Err(one.error),
        (ErrorCode::None, None) => Err(ErrorCode::UnknownServerError),
        (error, _) => Err(error),
    }
}

/// A question in a few words.
fn brief(ask: &Ask) -> String {
    let of = |producer: &Producer| format!("{}/{}", producer.id.0, producer.epoch);
    match ask {
        Ask::Find => "find".to_owned(),
        Ask::Init(request) => format!("init of {:?}", request.expected.as_ref().map(of)),
        Ask::Add(request) => format!("add {:?} of {}", request.partitions, of(&request.producer)),
        Ask::End(request, txn) => {
            let (commit, who) = (request.commit, of(&request.producer));
            format!("end of {txn} ({commit}) of {who}")
        }
        Ask::FindGroup(group) => format!("find {group}"),
        Ask::AddOffsets(offset) => format!("add {} of {}", offset.group, of(&offset.producer)),
        Ask::Commit(offset) => format!("commit of {} of {}", offset.txn, of(&offset.producer)),
        Ask::Read(group) => format!("read {group}"),
    }
}

/// An answer in a few words.
fn said(answer: &Answer) -> String {
    match answer {
        Answer::Goes(Ok(who)) => format!("goes on as {}/{}", who.id.0, who.epoch),
        Answer::Read(Ok(offset)) => format!("{offset:?}"),
        other => other.error().to_string(),
    }
}

/// The ids of the controller's blocks.
struct Fresh<'a>(&'a Arc<Broker>, &'a ProducerIds);

#[async_trait]
impl FreshProducerIds for Fresh<'_> {
    async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let Self(broker, ids) = self;
        ids.next(&Calls(broker.controller_calls()), broker.id, broker.life)
            .await
    }
}

struct Calls(leasehold_broker::coordinator::find::AskController);

#[async_trait]
impl ControllerCalls for Calls {
    async fn call(&self, request: Request, deadline: Instant) -> Response {
        (self.0)(request, deadline).await
    }
}

/// The way to other brokers. It must not keep the broker alive, which keeps the coordinator.
struct Line(Weak<Broker>);

impl Line {
    async fn call<T: Send + 'static>(
        &self,
        to: BrokerId,
        limit: Duration,
        mail: impl FnOnce(usize, Reply<T>) -> Mail,
    ) -> Result<T, CallFailed> {
        let broker = self.0.upgrade().ok_or(CallFailed::Gone(to))?;
        let (way, answer) = reply();
        let me = broker.me;
        broker.core.lock().post(me, place(to), mail(me, way));
        drop(broker);
        match timeout(limit, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                sleep(Duration::from_millis(50)).await;
                Err(CallFailed::Gone(to))
            }
            Err(_) => Err(CallFailed::Gone(to)),
        }
    }
}

#[async_trait]
impl Lines for Line {
    async fn write_markers(
        &self,
        to: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, CallFailed> {
        let mail = |from, reply| Mail::Markers {
            from,
            request: Box::new(request),
            reply,
        };
        self.call(to, MARKERS, mail).await
    }

    async fn verify(
        &self,
        to: BrokerId,
        request: AddPartitionsToTxnRequest,
    ) -> Result<AddPartitionsToTxnResponse, CallFailed> {
        let mail = |from, reply| Mail::Verify {
            from,
            request: Box::new(request),
            reply,
        };
        self.call(to, QUESTION, mail).await
    }
}

/// The replicas' way to the verifier, which keeps them.
#[async_trait]
impl VerifyTransaction for Line {
    async fn verify(&self, question: TransactionQuestion) -> Vec<ErrorCode> {
        let count = question.partitions.len();
        let broker = self.0.upgrade();
        match broker.as_ref().and_then(|broker| broker.txns.get()) {
            Some(txns) => txns.transactions.verifier.verify(question).await,
            None => vec![ErrorCode::CoordinatorNotAvailable; count],
        }
    }
}

/// The topic of the image, where several may wait for a change: they look, so that the seed decides who is first.
struct LookedAt {
    topic: ImageTopic,
    image: watch::Receiver<Arc<Image>>,
}

impl LookedAt {
    fn position(&self) -> Position {
        self.image.borrow().position
    }
}

#[async_trait]
impl StateTopic for LookedAt {
    fn partitions(&self) -> Option<i32> {
        self.topic.partitions()
    }

    fn leader(&self, partition: i32) -> Option<Endpoint> {
        self.topic.leader(partition)
    }

    async fn create(&self) -> Result<(), ErrorCode> {
        self.topic.create().await
    }

    async fn changed(&self, limit: Duration) {
        let before = self.position();
        let until = tokio::time::Instant::now() + limit;
        while self.position() == before && tokio::time::Instant::now() < until {
            sleep(Duration::from_millis(STEP)).await;
        }
    }
}
