//! Notices that another broker's process has ended, within milliseconds where the kernel tells.
//!
//! A connection is held open to the peer. Evidence of its death is: the connection ends, and a new one
//! is refused, unreachable, not answered in time, or answered by someone else. A peer that is merely
//! silent (stopped, partitioned) gives no evidence; sessions and the Lease time it out.

use super::{PING_KEY, Pong, VERSION};
use bytes::Bytes;
use leasehold_types::{BrokerId, ClusterId, Incarnation};
use leasehold_wire::encode::encode_raw_request;
use leasehold_wire::kafka::protocol::StrBytes;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A reconnect after an end that is not answered by then counts as refused.
const RECONNECT: Duration = Duration::from_millis(200);
/// A first connection has no end before it: a busy peer gets more time.
const FIRST: Duration = Duration::from_millis(1_500);
/// A held connection is used at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const BETWEEN: Duration = Duration::from_millis(20);
/// A pong is a few dozen bytes.
const MAX_PONG: u32 = 4_096;

/// Whom to watch, and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub cluster_id: ClusterId,
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    /// Its internal listener, `host:port`.
    pub address: String,
}

/// Returns once there is evidence that `peer` is dead, and says what it is.
pub async fn death_of(peer: &Peer) -> String {
    #[cfg(any(test, feature = "simulation"))]
    if let Some(watch) = simulated::WATCH.get() {
        return watch(peer.clone()).await;
    }
    let mut failures = 0;
    let mut ended = false;
    loop {
        let limit = if ended { RECONNECT } else { FIRST };
        match timeout(limit, greet(peer)).await {
            Ok(Ok(Some(mut stream))) => {
                (failures, ended) = (0, true);
                held_to_its_end(&mut stream, peer).await;
                continue;
            }
            Ok(Ok(None)) => return "another process answers at its address".to_owned(),
            Ok(Err(error)) => {
                if ended {
                    return format!("its connection ended, a new one failed: {error}");
                }
                failures += 1;
                // Nothing ended before this: once more, in case the network had a hiccup.
                if failures > 1 {
                    return format!("it cannot be reached: {error}");
                }
            }
            Err(_) if ended => {
                return format!("its connection ended, a new one was not answered in {limit:?}");
            }
            Err(_) => {
                failures += 1;
                if failures > 1 {
                    return format!("it does not answer new connections within {limit:?}");
                }
            }
        }
        sleep(BETWEEN).await;
    }
}

/// Who watches peers in place of sockets, in the simulation and where a test has no processes to watch.
#[cfg(any(test, feature = "simulation"))]
pub mod simulated {
    use super::Peer;
    use futures::future::BoxFuture;
    use std::cell::Cell;

    /// As [`super::death_of`].
    pub type Watch = fn(Peer) -> BoxFuture<'static, String>;

    thread_local! {
        /// That of this thread.
        pub static WATCH: Cell<Option<Watch>> = const { Cell::new(None) };
    }
}

/// Whether `peer` answers a new connection within `limit`. A "no" is no evidence of anything.
pub async fn answers(peer: &Peer, limit: Duration) -> bool {
    matches!(timeout(limit, greet(peer)).await, Ok(Ok(Some(_))))
}

/// Returns when the connection ends. A peer that does not answer has not ended.
async fn held_to_its_end(stream: &mut TcpStream, peer: &Peer) {
    let mut answers = [0; 256];
    loop {
        match timeout(KEEP_ALIVE, stream.read(&mut answers)).await {
            Ok(Ok(n)) if n > 0 => {}
            Ok(_) => return,
            // Idle connections are closed by the listener, so this one is not left idle.
            Err(_) => match timeout(KEEP_ALIVE, ask(stream, peer)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(_)) => return,
            },
        }
    }
}

async fn ask(stream: &mut TcpStream, peer: &Peer) -> io::Result<()> {
    let client_id = StrBytes::from_string(peer.cluster_id.0.clone());
    let mut frame = encode_raw_request(PING_KEY, VERSION, 1, Some(client_id), Bytes::new())
        .map_err(io::Error::other)?;
    stream.write_all_buf(&mut frame).await
}

/// Connects and asks who is there. `None`: someone else.
async fn greet(peer: &Peer) -> io::Result<Option<TcpStream>> {
    let mut stream = TcpStream::connect(&peer.address).await?;
    stream.set_nodelay(true)?;
    ask(&mut stream, peer).await?;
    let length = stream.read_u32().await?;
    if !(4..=MAX_PONG).contains(&length) {
        return Ok(None);
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    let pong: Option<Pong> = answer.get(4..).and_then(|b| serde_json::from_slice(b).ok());
    let same = pong.is_some_and(|pong| {
        (pong.cluster_id, pong.broker, pong.incarnation)
            == (peer.cluster_id.clone(), peer.broker, peer.incarnation)
    });
    Ok(same.then_some(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::internal::InternalHandler;
    use crate::server::{Limits, Server};
    use std::sync::Arc;

    async fn listen(peer: &Peer) -> Server {
        let me = Pong {
            cluster_id: peer.cluster_id.clone(),
            broker: peer.broker,
            incarnation: peer.incarnation,
        };
        let handler = Arc::new(InternalHandler::new(me));
        Server::bind(&peer.address, handler, Limits::default())
            .await
            .unwrap()
    }

    fn peer() -> Peer {
        Peer {
            cluster_id: ClusterId::random(),
            broker: BrokerId(1),
            incarnation: Incarnation(7),
            address: "127.0.0.1:0".into(),
        }
    }

    const SOON: Duration = Duration::from_millis(300);

    #[tokio::test]
    async fn a_living_peer_gives_no_evidence_and_its_end_does_at_once() {
        let mut peer = peer();
        let listener = listen(&peer).await;
        peer.address = listener.local_addr().to_string();
        let watched = peer.clone();
        let mut death = tokio::spawn(async move { death_of(&watched).await });
        assert!(timeout(SOON, &mut death).await.is_err());
        drop(listener);
        let evidence = timeout(SOON, death).await.unwrap().unwrap();
        assert!(evidence.contains("ended"), "{evidence}");
    }

    #[tokio::test]
    async fn another_process_at_the_same_address_is_evidence() {
        let mut peer = peer();
        let listener = listen(&peer).await;
        peer.address = listener.local_addr().to_string();
        peer.incarnation = Incarnation(6);
        let evidence = timeout(SOON, death_of(&peer)).await.unwrap();
        assert!(evidence.contains("another process"), "{evidence}");
    }

    #[tokio::test]
    async fn a_peer_that_is_stopped_gives_no_evidence_while_its_connection_stands() {
        // It answers one greeting, then never reads again, like a process under SIGSTOP.
        let mut peer = peer();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        peer.address = listener.local_addr().unwrap().to_string();
        let pong = serde_json::to_vec(&Pong {
            cluster_id: peer.cluster_id.clone(),
            broker: peer.broker,
            incarnation: peer.incarnation,
        })
        .unwrap();
        let stopped = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_u32(pong.len() as u32 + 4).await.unwrap();
            stream.write_u32(1).await.unwrap();
            stream.write_all(&pong).await.unwrap();
            sleep(Duration::from_secs(60)).await;
        });
        assert!(timeout(SOON * 3, death_of(&peer)).await.is_err());
        stopped.abort();
    }
}
