//! The members of one group, each a process, and what all of them have told.
//!
//! Promise: dropped, every process has ended.

use super::ledger::{Ledger, Nanos, Told};
use super::{Plan, Protocol, member};
use anyhow::bail;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

struct Member {
    process: Child,
    listener: JoinHandle<()>,
}

/// Whoever is, was and will be in the group.
pub struct Party<'a> {
    plan: &'a Plan,
    arguments: [String; 4],
    members: BTreeMap<usize, Member>,
    next: usize,
    ledger: Arc<Mutex<Ledger>>,
}

impl<'a> Party<'a> {
    pub fn new(plan: &'a Plan, bootstrap: &str, name: &str, protocol: Protocol) -> Self {
        Self {
            plan,
            arguments: [bootstrap, name, name, protocol.name()].map(str::to_owned),
            members: BTreeMap::new(),
            next: 0,
            ledger: Arc::default(),
        }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("the ledger")
    }

    pub fn join(&mut self, count: usize) {
        for _ in 0..count {
            let mut process = Command::new(&self.plan.program)
                .arg("--member")
                .args(&self.arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a member starts");
            let (id, ledger) = (self.next, self.ledger.clone());
            let mut lines = BufReader::new(process.stdout.take().expect("piped"));
            let listener = std::thread::spawn(move || {
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
                    if let Some(told) = Told::parse(&line) {
                        ledger.lock().expect("the ledger").note(id, told);
                    }
                    line.clear();
                }
            });
            self.members.insert(id, Member { process, listener });
            self.next += 1;
        }
    }

    /// The members that have been there longest leave in order.
    pub fn leave(&mut self, count: usize) {
        let mut leaving: Vec<(usize, Member)> =
            (0..count).map_while(|_| self.members.pop_first()).collect();
        for (_, member) in &mut leaving {
            drop(member.process.stdin.take());
        }
        for (id, member) in leaving {
            self.bury(id, member);
        }
    }

    /// As many die.
    pub fn die(&mut self, count: usize) {
        let mut dying: Vec<(usize, Member)> =
            (0..count).map_while(|_| self.members.pop_first()).collect();
        for (_, member) in &mut dying {
            member.process.kill().expect("kill");
        }
        for (id, member) in dying {
            self.bury(id, member);
        }
    }

    pub fn leave_all(&mut self) {
        self.leave(self.members.len());
    }

    fn bury(&self, id: usize, mut member: Member) {
        member.process.wait().expect("the end of a member");
        let at = member::now();
        member.listener.join().expect("the listener");
        self.ledger().gone(id, at);
    }

    /// Waits until the group rests; how long after `begun` the last partition changed hands.
    pub fn settle(&mut self, begun: Nanos) -> anyhow::Result<Duration> {
        let members: BTreeSet<usize> = self.members.keys().copied().collect();
        let late = Instant::now() + self.plan.patience;
        loop {
            let ended = self.members.iter_mut().find_map(|(id, member)| {
                let status = member.process.try_wait().expect("wait")?;
                Some(format!("member {id} ended by itself: {status}"))
            });
            if let Some(ended) = ended {
                bail!(ended);
            }
            let (changed, settled) = {
                let ledger = self.ledger();
                let settled = ledger.settled(self.plan.partitions, &members);
                (ledger.changed, settled)
            };
            let rested = Duration::from_nanos(member::now().saturating_sub(changed.max(begun)));
            match settled {
                Ok(()) if rested >= self.plan.rest => {
                    return Ok(Duration::from_nanos(changed.saturating_sub(begun)));
                }
                Err(why) if Instant::now() > late => {
                    bail!("not settled within {:?}: {why}", self.plan.patience)
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Waits until every acknowledged record was read by somebody.
    pub fn wait_read<I: Iterator<Item = i64>>(
        &self,
        acked: &dyn Fn(usize) -> I,
        partitions: i32,
    ) -> Result<(), String> {
        let late = Instant::now() + self.plan.patience;
        loop {
            let (count, first) = {
                let ledger = self.ledger();
                let unread = (0..partitions).flat_map(|partition| {
                    let missing = ledger.unread(partition, acked(partition as usize));
                    missing.into_iter().map(move |offset| (partition, offset))
                });
                let unread: Vec<(i32, i64)> = unread.collect();
                (unread.len(), unread.first().copied())
            };
            let Some((partition, offset)) = first else {
                return Ok(());
            };
            if Instant::now() > late {
                return Err(format!(
                    "{count} acknowledged records were read by nobody, the first at {offset} of partition {partition}"
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Party<'_> {
    fn drop(&mut self) {
        for member in self.members.values_mut() {
            // It may have ended already.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}
