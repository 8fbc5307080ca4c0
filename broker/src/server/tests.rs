//! What the connections of a listener promise, over loopback.

use super::*;
use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use leasehold_types::ListenerName;
use leasehold_wire::kafka::messages::{ApiVersionsRequest, ApiVersionsResponse};
use leasehold_wire::{
    Client, ClientError, ClientOptions, RequestHead, encode_raw_reply, encode_reply,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Keys that the test handler gives a meaning.
const ECHO: i16 = 1000;
const PIPELINED: i16 = 1001;
const EXCLUSIVE: i16 = 1002;
const PANIC: i16 = 1003;
const REFUSE: i16 = 1004;
const PANIC_LATER: i16 = 1005;
/// Answers with a megabyte.
const LARGE: i16 = 1006;

/// Answers with the body it got; waiting requests are let go by the test.
#[derive(Default)]
struct Rehearsal {
    handled: Mutex<Vec<i32>>,
    held: Mutex<HashMap<i32, oneshot::Sender<()>>>,
}

impl Rehearsal {
    fn handled(&self) -> Vec<i32> {
        self.handled.lock().unwrap().clone()
    }

    async fn until_handled(&self, count: usize) {
        while self.handled().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn release(&self, id: i32) {
        self.held
            .lock()
            .unwrap()
            .remove(&id)
            .unwrap()
            .send(())
            .unwrap();
    }
}

#[async_trait]
impl Handler for Rehearsal {
    async fn handle(&self, _: &Arc<ConnectionContext>, mut frame: Bytes) -> Result<Reply, Refusal> {
        let head = RequestHead::take(&mut frame).map_err(|e| Refusal::new(e.to_string()))?;
        let id = head.correlation_id;
        self.handled.lock().unwrap().push(id);
        let reply = encode_raw_reply(id, frame).unwrap();
        let wait = || {
            let (release, released) = oneshot::channel();
            self.held.lock().unwrap().insert(id, release);
            released
        };
        Ok(match head.key {
            ECHO => Reply::Ready(reply),
            PIPELINED => {
                let released = wait();
                Reply::Pipelined(Box::pin(async move {
                    let _ = released.await;
                    Ok(Some(reply))
                }))
            }
            EXCLUSIVE => {
                let released = wait();
                Reply::Exclusive(Box::pin(async move {
                    let _ = released.await;
                    Ok(Some(reply))
                }))
            }
            18 => Reply::Ready(encode_reply(id, &ApiVersionsResponse::default(), 0).unwrap()),
            LARGE => Reply::Ready(encode_raw_reply(id, Bytes::from(vec![0; 1 << 20])).unwrap()),
            PANIC => panic!("as the test wants it"),
            PANIC_LATER => Reply::Pipelined(Box::pin(async { panic!("as the test wants it") })),
            REFUSE => return Err(Refusal::new("as the test wants it")),
            _ => Reply::Nothing,
        })
    }
}

fn quick() -> Limits {
    Limits {
        frame_grace: Duration::from_millis(300),
        max_idle: Duration::from_secs(5),
        max_frame: 1 << 20,
        ..Limits::default()
    }
}

async fn start(limits: Limits) -> (Server, Arc<Rehearsal>, String) {
    let handler = Arc::new(Rehearsal::default());
    let server = Server::bind("127.0.0.1:0", handler.clone(), limits)
        .await
        .unwrap();
    let address = server.local_addr().to_string();
    (server, handler, address)
}

fn request(key: i16, id: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(10 + body.len() as i32);
    frame.put_i16(key);
    frame.put_i16(0);
    frame.put_i32(id);
    frame.put_i16(-1);
    frame.put_slice(body);
    frame.freeze()
}

async fn read_id(stream: &mut TcpStream) -> i32 {
    let length = stream.read_i32().await.unwrap();
    let mut frame = vec![0; length as usize];
    stream.read_exact(&mut frame).await.unwrap();
    i32::from_be_bytes(frame[..4].try_into().unwrap())
}

/// Waits for the server to close, and says how long that took.
async fn until_closed(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut byte)).await;
    let end = read.expect("the server does not close");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    start.elapsed()
}

#[tokio::test]
async fn replies_leave_in_the_order_of_the_requests() {
    let (_server, handler, address) = start(quick()).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    for id in 0..5 {
        stream
            .write_all(&request(PIPELINED, id, b""))
            .await
            .unwrap();
    }
    stream.write_all(&request(ECHO, 5, b"")).await.unwrap();
    handler.until_handled(6).await;
    for id in [4, 2, 3, 1, 0] {
        handler.release(id);
    }
    for id in 0..6 {
        assert_eq!(read_id(&mut stream).await, id);
    }
}

#[tokio::test]
async fn an_exclusive_request_holds_back_the_next_and_not_earlier_replies() {
    let (_server, handler, address) = start(quick()).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    for (key, id) in [(PIPELINED, 0), (EXCLUSIVE, 1), (ECHO, 2)] {
        stream.write_all(&request(key, id, b"")).await.unwrap();
    }
    handler.until_handled(2).await;
    handler.release(0);
    assert_eq!(read_id(&mut stream).await, 0);
    assert_eq!(handler.handled(), [0, 1]);
    handler.release(1);
    assert_eq!(read_id(&mut stream).await, 1);
    assert_eq!(read_id(&mut stream).await, 2);
}

#[tokio::test]
async fn a_waiting_request_delays_its_own_connection_only() {
    let (_server, handler, address) = start(quick()).await;
    let mut parked = TcpStream::connect(&address).await.unwrap();
    parked.write_all(&request(EXCLUSIVE, 1, b"")).await.unwrap();
    handler.until_handled(1).await;
    let client = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    let echoed = client
        .call_raw(
            ECHO,
            0,
            Bytes::from_static(b"hello"),
            Duration::from_secs(2),
        )
        .await;
    assert_eq!(&echoed.unwrap()[..], b"hello");
}

#[tokio::test]
async fn requests_in_flight_on_one_connection_are_bounded() {
    let limits = Limits {
        max_in_flight: 3,
        ..quick()
    };
    let (_server, handler, address) = start(limits).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    for id in 0..40 {
        stream
            .write_all(&request(PIPELINED, id, b""))
            .await
            .unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let taken = handler.handled().len();
    assert!(
        (3..=6).contains(&taken),
        "{taken} requests were taken at once"
    );
    for id in 0..40 {
        handler.until_handled(id as usize + 1).await;
        handler.release(id);
        assert_eq!(read_id(&mut stream).await, id);
    }
}

#[tokio::test]
async fn large_frames_and_replies_pass_whole() {
    let (server, _handler, address) = start(quick()).await;
    let client = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    let body: Vec<u8> = (0..900_000u32).map(|i| (i * 31) as u8).collect();
    let body = Bytes::from(body);
    let calls = (0..4).map(|_| client.call_raw(ECHO, 0, body.clone(), Duration::from_secs(10)));
    for echoed in futures::future::join_all(calls).await {
        assert_eq!(echoed.unwrap(), body);
    }
    assert_eq!(server.stats().request_memory, 0);
}

#[tokio::test]
async fn typed_calls_find_their_replies() {
    let (_server, _handler, address) = start(quick()).await;
    let client = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    let reply = client
        .call(&ApiVersionsRequest::default(), 0)
        .await
        .unwrap();
    assert_eq!(reply.error_code, 0);
}

#[tokio::test]
async fn a_frame_beyond_the_limit_closes_the_connection_at_once() {
    let (server, _handler, address) = start(quick()).await;
    for claim in [(1 << 20) + 1, i32::MAX, -1, i32::from_be_bytes(*b"GET ")] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_i32(claim).await.unwrap();
        assert!(until_closed(&mut stream).await < Duration::from_millis(250));
    }
    assert_eq!(server.stats().faults, 4);
}

#[tokio::test]
async fn a_slow_sender_is_disconnected_and_an_idle_one_is_not_yet() {
    let (server, _handler, address) = start(quick()).await;
    let _idle = TcpStream::connect(&address).await.unwrap();
    let mut slow = TcpStream::connect(&address).await.unwrap();
    slow.write_all(&request(ECHO, 1, b"never finished")[..9])
        .await
        .unwrap();
    let took = until_closed(&mut slow).await;
    assert!(
        (250..2_000).contains(&(took.as_millis() as u64)),
        "{took:?}"
    );
    assert_eq!(server.stats().connections, 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let limits = Limits {
        max_idle: Duration::from_millis(200),
        ..quick()
    };
    let (_server, handler, address) = start(limits).await;
    let mut waiting = TcpStream::connect(&address).await.unwrap();
    waiting
        .write_all(&request(PIPELINED, 7, b""))
        .await
        .unwrap();
    let mut idle = TcpStream::connect(&address).await.unwrap();
    let took = until_closed(&mut idle).await;
    assert!(took >= Duration::from_millis(150), "{took:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    handler.release(7);
    assert_eq!(read_id(&mut waiting).await, 7);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_others_live() {
    let limits = Limits {
        max_connections: 1,
        ..quick()
    };
    let (server, _handler, address) = start(limits).await;
    let first = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    first
        .call_raw(ECHO, 0, Bytes::new(), Duration::from_secs(2))
        .await
        .unwrap();
    let mut second = TcpStream::connect(&address).await.unwrap();
    until_closed(&mut second).await;
    first
        .call_raw(ECHO, 0, Bytes::new(), Duration::from_secs(2))
        .await
        .unwrap();
    assert_eq!(server.stats().refused, 1);
    // The bound is another from now on, and nobody is sent away for it.
    server.set_max_connections(2);
    let third = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    for bound in [2, 1] {
        server.set_max_connections(bound);
        for client in [&first, &third] {
            client
                .call_raw(ECHO, 0, Bytes::new(), Duration::from_secs(2))
                .await
                .unwrap();
        }
    }
    let mut fourth = TcpStream::connect(&address).await.unwrap();
    until_closed(&mut fourth).await;
    assert_eq!(server.stats().refused, 2);
}

#[tokio::test]
async fn a_panic_or_refusal_ends_its_connection_after_the_replies_owed() {
    for (key, at_once) in [(PANIC, true), (REFUSE, true), (PANIC_LATER, false)] {
        let (_server, handler, address) = start(quick()).await;
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(&request(PIPELINED, 0, b"")).await.unwrap();
        stream.write_all(&request(key, 1, b"")).await.unwrap();
        handler.until_handled(if at_once { 2 } else { 1 }).await;
        handler.release(0);
        assert_eq!(read_id(&mut stream).await, 0);
        until_closed(&mut stream).await;
        let other = Client::connect(&address, ClientOptions::default())
            .await
            .unwrap();
        other
            .call_raw(ECHO, 0, Bytes::new(), Duration::from_secs(2))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn shutdown_lets_requests_in_flight_finish_and_takes_no_more() {
    let (server, handler, address) = start(quick()).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(&request(PIPELINED, 0, b"")).await.unwrap();
    handler.until_handled(1).await;
    let stopping = tokio::spawn(async move { server.shutdown(Duration::from_secs(5)).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        TcpStream::connect(&address).await.is_err(),
        "still accepting"
    );
    handler.release(0);
    assert_eq!(read_id(&mut stream).await, 0);
    until_closed(&mut stream).await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_its_grace() {
    let (server, handler, address) = start(quick()).await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(&request(EXCLUSIVE, 0, b"")).await.unwrap();
    handler.until_handled(1).await;
    let start = Instant::now();
    server.shutdown(Duration::from_millis(200)).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    until_closed(&mut stream).await;
}

#[tokio::test]
async fn a_client_learns_why_its_calls_failed() {
    let (server, _handler, address) = start(quick()).await;
    let client = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    let call = client
        .call_raw(EXCLUSIVE, 0, Bytes::new(), Duration::from_millis(100))
        .await;
    assert!(matches!(call, Err(ClientError::Timeout { .. })), "{call:?}");
    let call = client.call_raw(REFUSE, 0, Bytes::new(), Duration::from_secs(5));
    let (call, ()) = tokio::join!(call, server.shutdown(Duration::from_millis(100)));
    assert!(matches!(call, Err(ClientError::Closed { .. })), "{call:?}");
    assert!(client.is_closed());
    let refused = Client::connect(&address, ClientOptions::default()).await;
    assert!(refused.is_err_and(|error| error.is_connect()));
}

#[tokio::test]
async fn stalled_senders_make_room_for_those_who_go_on() {
    let limits = Limits {
        max_frame: 1 << 20,
        request_memory: 1 << 20,
        frame_grace: Duration::from_secs(60),
        ..quick()
    };
    let (_server, _handler, address) = start(limits).await;
    let mut hostile = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_i32(1 << 20).await.unwrap();
        // More than fits altogether; the last ones wait for room in vain.
        stream.try_write(&vec![0; 400_000]).unwrap();
        hostile.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let client = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    let small = Instant::now();
    client
        .call_raw(ECHO, 0, Bytes::from(vec![0; 1000]), Duration::from_secs(2))
        .await
        .unwrap();
    assert!(
        small.elapsed() < Duration::from_millis(200),
        "small requests wait for large ones"
    );
    let large = client.call_raw(
        ECHO,
        0,
        Bytes::from(vec![0; 500_000]),
        Duration::from_secs(9),
    );
    large.await.unwrap();
}

#[tokio::test]
async fn peers_that_do_not_read_are_dropped_when_replies_fill_the_memory() {
    let limits = Limits {
        reply_grace: Duration::from_secs(60),
        ..quick()
    };
    let (server, _handler, address) = start(limits).await;
    let mut deaf = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        for id in 0..8 {
            stream.write_all(&request(LARGE, id, b"")).await.unwrap();
        }
        deaf.push(stream);
    }
    let start = Instant::now();
    while server.stats().faults == 0 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "nobody was dropped"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let client = Client::connect(&address, ClientOptions::default())
        .await
        .unwrap();
    let large = client
        .call_raw(LARGE, 0, Bytes::new(), Duration::from_secs(5))
        .await;
    assert_eq!(large.unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn connections_of_all_entrances_count_together_and_end_together() {
    let limits = Limits {
        max_connections: 2,
        ..quick()
    };
    let (server, _, address) = start(limits).await;
    let name = ListenerName::parse("public").unwrap();
    let public = server.open("127.0.0.1:0", name).await.unwrap();
    let mut first = TcpStream::connect(&address).await.unwrap();
    let mut second = TcpStream::connect(public).await.unwrap();
    for stream in [&mut first, &mut second] {
        stream.write_all(&request(ECHO, 7, b"")).await.unwrap();
        assert_eq!(read_id(stream).await, 7);
    }
    assert_eq!(server.stats().connections, 2);
    let mut third = TcpStream::connect(public).await.unwrap();
    assert_eq!(
        third.read(&mut [0; 8]).await.unwrap_or(0),
        0,
        "one too many"
    );
    server.shutdown(Duration::from_secs(1)).await;
    for stream in [&mut first, &mut second] {
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    assert!(TcpStream::connect(public).await.is_err());
}
