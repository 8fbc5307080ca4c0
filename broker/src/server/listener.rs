//! Accepts connections, counts them, and ends them in order.

use super::connection::{ConnectionContext, End, serve};
use super::handler::Handler;
use super::limits::Limits;
use super::memory::Memory;
use super::quiet::Quiet;
use leasehold_types::ListenerName;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Numbers connections across all listeners of the process.
static NEXT_CONNECTION: AtomicU64 = AtomicU64::new(1);

/// A listener that is accepting, in one place or several. Dropping it closes everything at once.
pub struct Server {
    local: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    limits: Arc<Limits>,
    handler: Arc<dyn Handler>,
    memory: Arc<Memory>,
    quiet: Quiet,
    tasks: TaskTracker,
    /// Stop accepting and reading; finish what is in flight.
    shutdown: CancellationToken,
    /// End every connection now.
    kill: CancellationToken,
    connections: AtomicUsize,
    max_connections: AtomicUsize,
    accepted: AtomicU64,
    refused: AtomicU64,
    faults: AtomicU64,
}

/// Figures of a listener, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now.
    pub connections: usize,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections closed at once because there were too many.
    pub refused: u64,
    /// Connections closed for what the peer did: malformed, too large, too slow.
    pub faults: u64,
    /// Bytes taken by requests now.
    pub request_memory: usize,
}

impl Server {
    /// Binds `address` (`host:port`, port 0 for any) and begins to accept at once.
    pub async fn bind(
        address: &str,
        handler: Arc<dyn Handler>,
        limits: Limits,
    ) -> io::Result<Self> {
        let (listener, local) = listen(address).await?;
        let memory = Memory::new(limits.request_memory);
        let max_connections = AtomicUsize::new(limits.max_connections);
        let shared = Arc::new(Shared {
            limits: Arc::new(limits),
            handler,
            memory,
            quiet: Quiet::default(),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            kill: CancellationToken::new(),
            connections: AtomicUsize::new(0),
            max_connections,
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            faults: AtomicU64::new(0),
        });
        shared.tasks.spawn(accept(listener, None, shared.clone()));
        Ok(Self { local, shared })
    }

    /// Accepts on `address` too, and tells the handler that those who come there came through `entrance`. All
    /// bounds and figures are of all connections together, wherever they came in. Gives the address bound.
    pub async fn open(&self, address: &str, entrance: ListenerName) -> io::Result<SocketAddr> {
        let (listener, local) = listen(address).await?;
        let accepting = accept(listener, Some(entrance), self.shared.clone());
        self.shared.tasks.spawn(accepting);
        Ok(local)
    }

    /// The address that was bound first.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Another bound from now on. Connections that are open stay, even if they are more.
    pub fn set_max_connections(&self, max: usize) {
        self.shared.max_connections.store(max, Ordering::Relaxed);
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            accepted: self.shared.accepted.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            faults: self.shared.faults.load(Ordering::Relaxed),
            request_memory: self.shared.memory.used(),
        }
    }

    /// Stops accepting and reading, waits up to `grace` for requests in flight, then closes all.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(grace, self.shared.tasks.wait())
            .await
            .is_err()
        {
            info!(
                listener = self.shared.limits.name,
                connections = self.shared.connections.load(Ordering::Relaxed),
                "closing connections whose requests did not finish in time"
            );
        }
        self.shared.kill.cancel();
        self.shared.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        self.shared.kill.cancel();
    }
}

async fn listen(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })?;
    let local = listener.local_addr()?;
    Ok((listener, local))
}

async fn accept(listener: TcpListener, entrance: Option<ListenerName>, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &entrance, &shared),
            Err(error) => {
                if let Some(suppressed) = shared.quiet.allow(Instant::now()) {
                    warn!(listener = shared.limits.name, %error, suppressed, "cannot accept a connection");
                }
                // Out of descriptors: accepting again at once would spin until some are closed.
                tokio::select! {
                    () = shared.shutdown.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                }
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    entrance: &Option<ListenerName>,
    shared: &Arc<Shared>,
) {
    let limits = &shared.limits;
    let limit = shared.max_connections.load(Ordering::Relaxed);
    if shared.connections.load(Ordering::Relaxed) >= limit {
        shared.refused.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = shared.quiet.allow(Instant::now()) {
            warn!(
                listener = limits.name, %peer, limit, suppressed,
                "connection refused: max.connections is reached"
            );
        }
        return;
    }
    // A peer that vanished without a word is noticed by the kernel, long before it counts as idle.
    if let Err(error) = socket2::SockRef::from(&stream).set_keepalive(true) {
        debug!(listener = limits.name, %peer, %error, "no keep-alive on this connection");
    }
    let local = match (stream.set_nodelay(true), stream.local_addr()) {
        (Ok(()), Ok(local)) => local,
        // The peer is gone already.
        _ => return,
    };
    shared.connections.fetch_add(1, Ordering::Relaxed);
    shared.accepted.fetch_add(1, Ordering::Relaxed);
    let context = Arc::new(ConnectionContext {
        muted_until: parking_lot::Mutex::default(),
        id: NEXT_CONNECTION.fetch_add(1, Ordering::Relaxed),
        peer,
        local,
        listener: limits.name,
        entrance: entrance.clone(),
        software: OnceLock::new(),
        memory: shared.memory.clone(),
    });
    let shared = shared.clone();
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let _counted = Counted(&shared.connections);
        // Boxed: select keeps a future in its arguments and in its state.
        let serving = Box::pin(serve(
            stream,
            context.clone(),
            shared.handler.clone(),
            shared.limits.clone(),
            shared.shutdown.clone(),
        ));
        tokio::select! {
            end = serving => shared.note_end(&context, &end),
            () = shared.kill.cancelled() => {}
        }
    });
}

/// Counts a connection for as long as its task lives, however that ends.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn note_end(&self, context: &ConnectionContext, end: &End) {
        let (listener, peer) = (self.limits.name, context.peer);
        if !end.is_fault() {
            debug!(listener, %peer, connection = context.id, reason = %end, "connection ended");
            return;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = self.quiet.allow(Instant::now()) {
            let software = context
                .software
                .get()
                .map(|(name, version)| format!("{name} {version}"));
            warn!(
                listener, %peer, connection = context.id, reason = %end, software, suppressed,
                "connection closed"
            );
        }
    }
}
