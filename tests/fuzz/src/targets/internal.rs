//! What brokers send each other: frames of the internal listener, and the answers to them.
//!
//! Input: `[what] [bytes]`; `what` chooses the handler of a listener, or the decoder of one answer. A call that
//! decodes is encoded and decoded to the same.

use crate::stage::Stage;
use bytes::{BufMut, Bytes, BytesMut};
use leasehold_broker::internal::{CONTROLLER_KEY, FETCH_KEY, PING_KEY, Pong};
use leasehold_broker::replica::wire_fetch::{FETCH_VERSION, from_request, to_results};
use leasehold_broker::server::{Handler, Reply};
use leasehold_log::batch::batches;
use leasehold_metadata::Image;
use leasehold_metadata::rpc::{Call, News, Response};
use leasehold_types::ClusterId;
use leasehold_wire::decode;
use leasehold_wire::kafka::messages::{FetchRequest, FetchResponse};
use std::cell::RefCell;
use std::time::Duration;

thread_local! {
    static STAGE: RefCell<Option<Stage>> = const { RefCell::new(None) };
}

/// See above.
pub(crate) fn run(data: &[u8]) {
    let Some((what, bytes)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(bytes);
    match what % 7 {
        0 => ask(bytes),
        1 => ask(frame(PING_KEY, &bytes)),
        2 => ask(frame(CONTROLLER_KEY, &bytes)),
        3 => ask(frame(FETCH_KEY, &bytes)),
        4 => call(&bytes),
        5 => answer(&bytes),
        _ => fetches(bytes),
    }
}

/// A frame with a sound header, which a fuzzer would have to guess.
fn frame(key: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(key);
    frame.put_i16(if key == FETCH_KEY { FETCH_VERSION } else { 0 });
    frame.put_i32(1);
    frame.put_i16(1);
    frame.put_u8(b'c');
    if key == FETCH_KEY {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

fn ask(frame: Bytes) {
    STAGE.with_borrow_mut(|slot| {
        let stage = slot.get_or_insert_with(Stage::up);
        stage.runtime.block_on(async {
            let reply = stage.internal.handle(&stage.connection, frame).await;
            if let Ok(Reply::Exclusive(reply) | Reply::Pipelined(reply)) = reply {
                let _ = tokio::time::timeout(Duration::from_millis(100), reply).await;
            }
        });
    });
}

fn call(bytes: &[u8]) {
    let Ok(call) = serde_json::from_slice::<Call>(bytes) else {
        return;
    };
    let again = serde_json::to_vec(&call).expect("a call that was decoded");
    assert_eq!(serde_json::from_slice::<Call>(&again).ok(), Some(call));
}

fn answer(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Pong>(bytes);
    let Ok(answer) = serde_json::from_slice::<Response>(bytes) else {
        return;
    };
    let again = serde_json::to_vec(&answer).expect("an answer that was decoded");
    assert_eq!(
        serde_json::from_slice::<Response>(&again).ok().as_ref(),
        Some(&answer)
    );
    let Response::Poll(poll) = answer else { return };
    match poll.news {
        News::Entries(entries) => {
            let mut image = Image::genesis(ClusterId("c".into()));
            for entry in &entries {
                if image.apply(entry).is_err() {
                    return;
                }
            }
        }
        News::Snapshot { position, records } => {
            let _ = Image::from_snapshot(ClusterId("c".into()), position, &records);
        }
    }
}

/// A follower's request as the leader reads it, and a leader's response as the follower does.
fn fetches(bytes: Bytes) {
    if let Ok(request) = decode::<FetchRequest>(bytes.clone(), FETCH_VERSION) {
        let _ = from_request(request);
    }
    let Ok(response) = decode::<FetchResponse>(bytes, FETCH_VERSION) else {
        return;
    };
    for result in to_results(response).into_iter().flatten() {
        for batch in batches(result.records).flatten() {
            let _ = batch.check_crc();
        }
    }
}
