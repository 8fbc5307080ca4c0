//! Hands out producer ids from blocks that the controller grants to this broker.
//!
//! Promise: no id is handed out twice in the life of the cluster; a block that was granted and not
//! used up when the broker stops is lost, which costs nothing.

use super::context::{ControllerCalls, Shared};
use crate::txn::FreshProducerIds;
use async_trait::async_trait;
use leasehold_metadata::rpc::{Request, Response};
use leasehold_types::{BrokerId, Incarnation, ProducerId, seams};
use leasehold_wire::ErrorCode;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long a producer waits for a new block.
const PATIENCE: Duration = Duration::from_secs(2);

/// The block in use.
#[derive(Debug, Default)]
pub struct ProducerIds {
    /// Next id and the end of the block. Async, so that one call to the controller serves all who wait.
    block: Mutex<(i64, i64)>,
}

impl ProducerIds {
    /// One that nobody has; from `controller`, if the block is used up.
    pub async fn next(
        &self,
        controller: &dyn ControllerCalls,
        broker: BrokerId,
        incarnation: Incarnation,
    ) -> Result<ProducerId, ErrorCode> {
        let mut block = self.block.lock().await;
        if block.0 >= block.1 {
            let request = Request::AllocateProducerIds {
                broker,
                incarnation,
            };
            *block = match controller.call(request, seams::now() + PATIENCE).await {
                Response::ProducerIds { first, count } if count > 0 => {
                    (first.0, first.0.saturating_add(count))
                }
                // Clients try again on this one; there is no controller right now.
                _ => return Err(ErrorCode::CoordinatorLoadInProgress),
            };
        }
        let id = block.0;
        block.0 += 1;
        Ok(ProducerId(id))
    }
}

/// The ids, with whom to ask for more.
pub(super) struct Fresh<'a>(pub &'a Shared);

#[async_trait]
impl FreshProducerIds for Fresh<'_> {
    async fn next(&self) -> Result<ProducerId, ErrorCode> {
        let Self(shared) = self;
        let ids = &shared.producer_ids;
        ids.next(&*shared.controller, shared.broker, shared.incarnation)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Instant;

    struct Blocks(AtomicI64);

    #[async_trait::async_trait]
    impl ControllerCalls for Blocks {
        async fn call(&self, _: Request, _: Instant) -> Response {
            let first = self.0.fetch_add(2, Ordering::Relaxed);
            if first >= 4 {
                return Response::NotController { hint: None };
            }
            Response::ProducerIds {
                first: ProducerId(first),
                count: 2,
            }
        }
    }

    #[tokio::test]
    async fn ids_come_from_blocks_and_never_twice() {
        let (ids, controller) = (ProducerIds::default(), Blocks(AtomicI64::new(0)));
        let mut seen = Vec::new();
        while let Ok(id) = ids.next(&controller, BrokerId(1), Incarnation(1)).await {
            seen.push(id.0);
        }
        assert_eq!(seen, [0, 1, 2, 3]);
    }
}
