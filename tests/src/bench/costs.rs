//! What one more of something costs a broker that has nothing to do: an idle connection, a partition, a consumer. Each
//! at growing numbers, so that the table shows how it grows.

use super::peers::{Peer, Who};
use super::raw::{Connection, Membership, parked_fetch};
use super::table::Table;
use crate::wait;
use std::time::{Duration, Instant};

/// So many of them, one after the other on the same broker.
const CONNECTIONS: [usize; 3] = [1_000, 5_000, 10_000];
const CONSUMERS: [usize; 3] = [100, 500, 2_000];
/// Topics of 1,000 partitions.
const TOPICS: [usize; 3] = [1, 5, 10];
/// Over which the CPU of those that wait is counted.
const REST: Duration = Duration::from_secs(10);
/// As often as Kafka's own consumer by default.
const HEARTBEAT: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

/// One round of one peer.
pub fn round(table: &mut Table, who: Who) -> anyhow::Result<()> {
    connections(table, who)?;
    partitions(table, who)?;
    consumers(table, who)
}

/// What each of `count` took, in KiB.
fn each(peer: &Peer, before: f64, count: usize) -> f64 {
    (peer.memory() - before) * 1024.0 / count as f64
}

fn connections(table: &mut Table, who: Who) -> anyhow::Result<()> {
    let peer = Peer::start(who, 1);
    let before = peer.memory();
    let mut all: Vec<Connection> = Vec::new();
    for count in CONNECTIONS {
        let begun = all.len();
        while all.len() < count {
            all.push(Connection::open(Peer::address(0))?);
        }
        // Each is served once.
        for connection in &mut all[begun..] {
            connection.brokers()?;
        }
        let row = format!("{count} idle connections: memory of each, KiB");
        table.note(who, &row, each(&peer, before, count));
    }
    Ok(())
}

fn partitions(table: &mut Table, who: Who) -> anyhow::Result<()> {
    let peer = Peer::start(who, 1);
    let mut connection = Connection::open(Peer::address(0))?;
    let before = peer.memory();
    let mut made = 0;
    for count in TOPICS {
        while made < count {
            connection.create(&[&format!("costs-{made}")], 1_000, 1)?;
            made += 1;
        }
        let count = count * 1_000;
        let row = format!("{count} empty partitions: memory of each, KiB");
        table.note(who, &row, each(&peer, before, count));
    }
    Ok(())
}

/// Consumers of groups of their own, as in publish-subscribe, that have read all there is: a connection for the
/// group and one for a Fetch that waits, as Kafka's clients have them.
fn consumers(table: &mut Table, who: Who) -> anyhow::Result<()> {
    let peer = Peer::start(who, 1);
    let mut first = Connection::open(Peer::address(0))?;
    first.create(&["consumed"], 1, 1)?;
    wait::until("the coordinator", PATIENCE, || first.coordinator("group-0"));
    wait::until("a leader", PATIENCE, || first.leader("consumed", 0));
    let idle = peer.memory();
    let mut members: Vec<(Membership, Connection)> = Vec::new();
    for count in CONSUMERS {
        while members.len() < count {
            let group = format!("group-{}", members.len());
            let joined = Membership::join(Peer::address(0), &group, "consumed")?;
            members.push((joined, Connection::open(Peer::address(0))?));
        }
        let cpu = peer.cpu();
        let mut beats = 0;
        let begun = Instant::now();
        while begun.elapsed() < REST {
            // All of them within the time of one heartbeat, evenly.
            let slice = HEARTBEAT / u32::try_from(count)?;
            for (n, (member, fetching)) in members.iter_mut().enumerate() {
                let due = begun + HEARTBEAT * beats + slice * u32::try_from(n)?;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                member.heartbeat()?;
                if beats > 0 {
                    anyhow::ensure!(fetching.fetched()?.is_empty(), "nothing was written");
                }
                fetching.send(&parked_fetch("consumed", HEARTBEAT / 2)?)?;
            }
            beats += 1;
        }
        let spent = (peer.cpu() - cpu) / begun.elapsed().as_secs_f64();
        for (_, fetching) in &mut members {
            fetching.fetched()?;
        }
        let row = format!("{count} waiting consumers: memory of each, KiB");
        table.note(who, &row, each(&peer, idle, count));
        let row = format!("{count} waiting consumers: CPU of each, ms/s");
        table.note(who, &row, spent * 1e3 / count as f64);
    }
    Ok(())
}
