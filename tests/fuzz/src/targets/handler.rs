//! Every request of the client listener, decoded and answered by the real handler of a broker: what decodes
//! and makes no sense is answered or refused, and that it is a defect is never the reason.
//!
//! Input: a frame without its length. The broker is the one of `stage.rs`; it is built anew after a while, so
//! that what was stored does not grow for ever.

use crate::stage::Stage;
use bytes::Bytes;
use leasehold_broker::server::{Handler, Refusal, Reply};
use std::cell::RefCell;
use std::time::Duration;

/// Requests that one broker gets.
const LIFE: u32 = 2_000;
/// How long an answer is waited for; the clock moves only where nothing else does.
const PATIENCE: Duration = Duration::from_millis(100);

thread_local! {
    static STAGE: RefCell<Option<(Stage, u32)>> = const { RefCell::new(None) };
}

/// See above.
pub(crate) fn run(data: &[u8]) {
    STAGE.with_borrow_mut(|slot| {
        let (stage, left) = slot.get_or_insert_with(|| (Stage::up(), LIFE));
        let frame = Bytes::copy_from_slice(data);
        let (handler, context) = (&stage.handler, &stage.connection);
        stage.runtime.block_on(async {
            match handler.handle(context, frame).await {
                Err(refusal) => judge(&refusal),
                Ok(Reply::Exclusive(reply) | Reply::Pipelined(reply)) => {
                    if let Ok(Err(refusal)) = tokio::time::timeout(PATIENCE, reply).await {
                        judge(&refusal);
                    }
                }
                Ok(Reply::Ready(_) | Reply::Nothing) => {}
            }
        });
        *left -= 1;
        if *left == 0 {
            *slot = None;
        }
    });
}

fn judge(refusal: &Refusal) {
    assert!(!refusal.0.contains("defect"), "{refusal}");
}
