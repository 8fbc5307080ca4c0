//! What brokers ask each other in Kafka's own words, on the internal listener: a leader, whether its partition is
//! in a transaction, or to have it added (AddPartitionsToTxn); a transaction coordinator, to end one
//! (WriteTxnMarkers).

use super::{KafkaHandler, add_partitions_to_txn, write_txn_markers};
use crate::internal::BrokerApis;
use crate::server::Refusal;
use crate::txn::peers::{MARKERS_VERSION, VERIFY_VERSION};
use async_trait::async_trait;
use bytes::Bytes;
use leasehold_wire::kafka::messages::{AddPartitionsToTxnRequest, WriteTxnMarkersRequest};
use leasehold_wire::kafka::protocol::Request;
use leasehold_wire::{OutFrame, RequestHead, decode, encode_reply};

#[async_trait]
impl BrokerApis for KafkaHandler {
    async fn verify(&self, head: RequestHead, body: Bytes) -> Result<OutFrame, Refusal> {
        let request: AddPartitionsToTxnRequest = take(&head, body, VERIFY_VERSION)?;
        let coordinator = &self.shared.transactions.coordinator;
        let image = self.shared.image();
        let response = add_partitions_to_txn::each(coordinator, &image, request).await;
        give::<AddPartitionsToTxnRequest>(&head, &response)
    }

    async fn write_markers(&self, head: RequestHead, body: Bytes) -> Result<OutFrame, Refusal> {
        let request = take(&head, body, MARKERS_VERSION)?;
        let response =
            write_txn_markers::write(&self.shared.image(), &self.shared.replicas, request).await;
        give::<WriteTxnMarkersRequest>(&head, &response)
    }
}

fn take<R: Request>(head: &RequestHead, body: Bytes, version: i16) -> Result<R, Refusal> {
    if head.version != version {
        return Err(Refusal::new(format!(
            "brokers speak version {version} of key {}, not {}",
            head.key, head.version
        )));
    }
    decode(body, version).map_err(|error| {
        Refusal::new(format!(
            "a broker's request {} is malformed: {error}",
            head.key
        ))
    })
}

fn give<R: Request>(head: &RequestHead, response: &R::Response) -> Result<OutFrame, Refusal> {
    encode_reply(head.correlation_id, response, head.version)
        .map_err(|error| Refusal::new(error.to_string()))
}
