//! Requests that decode and make no sense: every API in every version, with bodies that are near
//! enough to real ones to get past the decoder. The handler is called without the net that a
//! connection has, so a panic fails the test.

use super::stage::*;
use crate::server::{ConnectionContext, Handler, Reply};
use bytes::{BufMut, Bytes, BytesMut};
use leasehold_wire::header::request_header_version;
use leasehold_wire::versions::SERVED;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// Small numbers nest and name what exists; now and then a byte is anything.
fn body(rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(0..160);
    (0..length)
        .map(|_| match rng.random_range(0..20) {
            0..8 => 0,
            8..14 => 1,
            14..16 => 2,
            16 => b'a',
            17 => 0xff,
            18 => 0x7f,
            _ => rng.random(),
        })
        .collect()
}

fn frame(key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(1);
    frame.put_i16(-1);
    if request_header_version(key, version) >= 2 {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

#[tokio::test]
async fn senseless_requests_are_answered_or_refused_and_never_panic() {
    let stage = Stage::up().await;
    stage.add_topic("a", &[Some(ME), Some(OTHER), None]);
    let context = ConnectionContext::for_tests();
    let mut rng = StdRng::seed_from_u64(7);
    let (mut answered, mut refused) = (0, 0);
    for round in 0..40 {
        for served in SERVED {
            for version in served.min..=served.max {
                let frame = frame(served.key as i16, version, &body(&mut rng));
                match stage.handler.handle(&context, frame).await {
                    Err(refusal) => {
                        let reason = refusal.to_string();
                        assert!(!reason.contains("defect"), "round {round}: {reason}");
                        refused += 1;
                    }
                    Ok(Reply::Exclusive(reply) | Reply::Pipelined(reply)) => {
                        // One that waits is let go: it only has to survive that.
                        let waited = tokio::time::timeout(Duration::from_millis(1), reply).await;
                        if let Ok(Err(refusal)) = waited {
                            let reason = refusal.to_string();
                            assert!(!reason.contains("defect"), "round {round}: {reason}");
                        }
                        answered += 1;
                    }
                    Ok(Reply::Ready(_) | Reply::Nothing) => answered += 1,
                }
            }
        }
    }
    assert!(
        answered > 300 && refused > 300,
        "{answered} answered, {refused} refused"
    );
}
