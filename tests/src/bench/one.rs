//! What is measured on one broker, by a raw client that costs nearly nothing itself.

use super::peers::{Peer, Who};
use super::raw::{Connection, batch, fetch, produce};
use super::table::{Table, quantile};
use anyhow::ensure;
use bytes::{Buf as _, Bytes};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Records of one batch: 1 MB with 1 KiB each.
const PER_BATCH: i64 = 1_000;
/// Batches that differ, so that a lost or doubled one is noticed.
const KINDS: usize = 16;
/// Requests that are sent ahead, as many as Kafka's own producer sends.
const AHEAD: usize = 5;
const FETCH_BYTES: i32 = 8 << 20;

/// Batches that differ.
pub fn batches() -> anyhow::Result<Vec<Bytes>> {
    (0..KINDS)
        .map(|tag| batch(PER_BATCH, 1024, tag as u64))
        .collect()
}

/// Writes `count` batches to partition 0, some sent ahead. Every one must get the offset that is due.
pub fn write(topic: &str, count: usize, batches: &[Bytes]) -> anyhow::Result<Duration> {
    let leader = wait_leader(topic)?;
    let mut connection = Connection::open(leader)?;
    let frames: Vec<Bytes> = batches
        .iter()
        .map(|batch| produce(topic, 0, batch))
        .collect::<Result<_, _>>()?;
    let begun = Instant::now();
    let mut answered = 0;
    for n in 0..count {
        connection.send(&frames[n % frames.len()])?;
        if n + 1 - answered >= AHEAD {
            take(&mut connection, &mut answered)?;
        }
    }
    while answered < count {
        take(&mut connection, &mut answered)?;
    }
    Ok(begun.elapsed())
}

fn take(connection: &mut Connection, answered: &mut usize) -> anyhow::Result<()> {
    let offset = connection.produced()?;
    let due = *answered as i64 * PER_BATCH;
    ensure!(offset == due, "acknowledged at {offset}, not {due}");
    *answered += 1;
    Ok(())
}

fn wait_leader(topic: &str) -> anyhow::Result<std::net::SocketAddr> {
    let mut asking = Connection::open(Peer::address(0))?;
    let leader = crate::wait::until("a leader", Duration::from_secs(30), || {
        asking.leader(topic, 0)
    });
    Ok(Peer::address(u16::try_from(leader.0)?))
}

/// Reads `count` batches of partition 0 from the beginning. With `check`, holds each against what was written,
/// checksum and content; otherwise only the offsets.
pub fn read(topic: &str, count: usize, batches: &[Bytes], check: bool) -> anyhow::Result<Duration> {
    // After a restart a broker may be known as the leader a moment before it is one.
    let mut connection = crate::wait::until("a first Fetch", Duration::from_secs(30), || {
        let mut connection = Connection::open(wait_leader(topic)?)?;
        connection.send(&fetch(topic, 0, 0, 1)?)?;
        connection.fetched().map(|_| connection)
    });
    let begun = Instant::now();
    let mut at = 0;
    while at < count {
        connection.send(&fetch(topic, 0, at as i64 * PER_BATCH, FETCH_BYTES)?)?;
        let mut records = connection.fetched()?;
        while records.len() >= 12 {
            let base = (&records[..8]).get_i64();
            let length = (&records[8..12]).get_i32() as usize + 12;
            if records.len() < length {
                break;
            }
            ensure!(
                base == at as i64 * PER_BATCH,
                "offset {base} in place of {at}"
            );
            if check {
                // Base offset and leader epoch are the broker's; all from the magic on is the producer's, and
                // the producer's checksum covers all behind itself.
                let (sent, read) = (&batches[at % batches.len()], &records[..length]);
                ensure!(
                    read[16..] == sent[16..],
                    "batch {at} is not what was written"
                );
            }
            records.advance(length);
            at += 1;
        }
    }
    Ok(begun.elapsed())
}

/// Records of 1 KiB, 100 in a second, from the call that sends one until another connection has it. In ms.
fn end_to_end(topic: &'static str, count: usize) -> anyhow::Result<Vec<f64>> {
    let leader = wait_leader(topic)?;
    let one = produce(topic, 0, &batch(1, 1024, 0)?)?;
    let (tell, told) = mpsc::channel();
    let consumer = std::thread::spawn(move || -> anyhow::Result<()> {
        let mut connection = Connection::open(leader)?;
        let mut next = 0;
        while next < count as i64 {
            connection.send(&fetch(topic, 0, next, 1 << 20)?)?;
            if !connection.fetched()?.is_empty() {
                tell.send(Instant::now())?;
                next += 1;
            }
        }
        Ok(())
    });
    let mut producer = Connection::open(leader)?;
    let mut times = Vec::new();
    let begun = Instant::now();
    for n in 0..count {
        let due = begun + Duration::from_millis(10) * n as u32;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        producer.send(&one)?;
        producer.produced()?;
        let got = told.recv_timeout(Duration::from_secs(30))?;
        times.push(got.duration_since(sent).as_secs_f64() * 1e3);
    }
    consumer.join().expect("the consumer")?;
    Ok(times)
}

/// One round of one peer.
pub fn round(table: &mut Table, who: Who, megabytes: usize) -> anyhow::Result<()> {
    let peer = Peer::start(who, 1);
    let mut note = |row: &str, figure: f64| table.note(who, row, figure);
    note("start to first Metadata, s", peer.started_in.as_secs_f64());
    note("memory idle, MiB", peer.memory());
    let batches = batches()?;
    let bytes: usize = (0..megabytes).map(|n| batches[n % KINDS].len()).sum();
    let gigabytes = bytes as f64 / 1e9;
    Connection::open(Peer::address(0))?.create(&["warm", "load", "ends"], 1, 1)?;
    write("warm", megabytes / 4, &batches)?;

    peer.warm_page_cache(bytes, batches[0].len())?;
    let before = peer.cpu();
    let took = write("load", megabytes, &batches)?.as_secs_f64();
    note(
        "raw produce, 1 MB batches, acks=all, MB/s",
        gigabytes * 1e3 / took,
    );
    note("raw produce: CPU-s/GB", (peer.cpu() - before) / gigabytes);

    read("warm", megabytes / 4, &batches, false)?;
    let before = peer.cpu();
    let took = read("load", megabytes, &batches, false)?.as_secs_f64();
    note(
        "raw fetch from the page cache, MB/s",
        gigabytes * 1e3 / took,
    );
    note("raw fetch: CPU-s/GB", (peer.cpu() - before) / gigabytes);

    let mut times = end_to_end("ends", 1_000)?;
    note("end to end at 100/s, p50, ms", quantile(&mut times, 0.5));
    note("end to end at 100/s, p99, ms", quantile(&mut times, 0.99));
    note("memory after all of this, MiB", peer.memory());
    Ok(())
}

/// One round of a broker with nothing but 10,000 partitions.
pub fn partitions(table: &mut Table, who: Who) -> anyhow::Result<()> {
    let peer = Peer::start(who, 1);
    let mut connection = Connection::open(Peer::address(0))?;
    let before = Instant::now();
    // Kafka takes fewer than 10,000 in one request.
    for n in 0..10 {
        connection.create(&[&format!("many-{n}")], 1_000, 1)?;
    }
    let took = before.elapsed().as_secs_f64();
    table.note(
        who,
        "10,000 partitions in 10 topics, on a fresh broker, s",
        took,
    );
    table.note(who, "memory idle with them, MiB", peer.memory());
    Ok(())
}
