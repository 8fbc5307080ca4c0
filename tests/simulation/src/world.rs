//! One run: brokers come and go, clients ask, faults strike, then everything is healed; the checker watches.

use crate::broker::{cluster_id, foreign_cluster, mail::Mail};
use crate::check::name_of;
use crate::core::{Core, STEP, Shared, Weather};
use crate::faults::{Climate, Fault, damages_too_much};
use crate::outage::Outage;
use crate::ploys::Ploy;
use crate::process::{Process, Seams};
use crate::{clients::Clients, panics, voices};
use leasehold_log::LogDir;
use leasehold_log::faults::Crash;
use leasehold_metadata::head::format::initial;
use leasehold_metadata::store::HeadObject;
use leasehold_types::{BrokerId, Incarnation, LeaderEpoch};
use parking_lot::Mutex;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use std::sync::Arc;

/// How long faults strike.
const TROUBLE: u64 = 12_000;
/// By then everything must be well again: a Lease, two session timeouts, and the clients' own pauses.
const HEALED_BY: u64 = TROUBLE + 20_000;

/// What became of one run.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    /// The first broken promise.
    pub broken: Option<String>,
    pub trace: Vec<String>,
    pub writes: u64,
    pub claims: usize,
    pub elections: u64,
    pub acknowledged: u64,
    pub consumed: u64,
    /// Offset commits acknowledged, offsets fetched, generations in which all was shared out.
    pub groups: [u64; 3],
    /// Transactions told as committed, as aborted, and records and offsets of them read as committed.
    pub txns: [u64; 4],
}

struct World {
    core: Shared,
    processes: Vec<Option<Process>>,
    restart_at: Vec<u64>,
    next_life: i64,
    climate: Climate,
    /// When the API server is put back to an older state, in the few runs in which it is.
    disaster: Option<u64>,
    /// Whether the API goes away once all is well.
    ends_in_outage: bool,
    clients: Clients,
    /// What is played once the faults have ended.
    ploy: Option<Ploy>,
    wide: bool,
}

/// Runs `seed`, with the rule of that name taken out of the product; `wide`: with all that clients may do.
pub fn run(seed: u64, rule: Option<&str>, wide: bool) -> std::io::Result<Outcome> {
    let scratch = scratch()?;
    let _seams = Seams::take(seed, rule);
    panics::watch();
    voices::forget();
    let mut core = Core::new(seed, 0, scratch.path())?;
    let nodes = if core.chance(300) { 4 } else { 3 };
    core = Core::new(seed, nodes, scratch.path())?;
    let uid = "head".to_owned();
    core.api.head = Some(HeadObject {
        uid,
        data: initial(&cluster_id()),
    });
    core.check.default_min = if core.chance(500) { 2 } else { 1 };
    for node in 0..nodes {
        if wide && core.chance(500) {
            core.nodes[node].disk.split();
        }
    }
    let climate = Climate::draw(&mut core, wide);
    let disaster = seed
        .is_multiple_of(8)
        .then(|| core.rng.random_range(600..2_200) * STEP);
    let clients = Clients::draw(&mut core, wide);
    let core = Arc::new(Mutex::new(core));
    let mut world = World {
        processes: (0..nodes).map(|_| None).collect(),
        restart_at: vec![0; nodes],
        next_life: 100,
        climate,
        disaster,
        ends_in_outage: seed % 4 == 1,
        clients,
        ploy: None,
        wide,
        core,
    };
    let broken = world.live();
    // Processes hold the core, and the core their inboxes.
    world.processes.clear();
    let mut core = world.core.lock();
    let root = scratch.path().display().to_string();
    for line in &mut core.trace {
        if line.contains(&root) {
            *line = line.replace(&root, "disks");
        }
    }
    panics::leave();
    let broken = panics::take()
        .map(|panic| format!("panic: {panic}"))
        .or(broken);
    let broken = broken.map(|line| line.replace(&root, "disks"));
    if let Some(line) = &broken {
        core.note(format!("BROKEN {line}"));
    }
    Ok(Outcome {
        seed,
        broken,
        trace: std::mem::take(&mut core.trace),
        writes: core.check.last_seq(),
        claims: core.check.claims.len(),
        elections: core.check.elections,
        acknowledged: core.check.acknowledged,
        consumed: core.check.consumed,
        groups: core.check.groups.counts,
        txns: core.check.txns.counts,
    })
}

/// Where the disks are: in memory, where the machine has such a place, as what is durable is known anyhow.
fn scratch() -> std::io::Result<tempfile::TempDir> {
    let memory = std::path::Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    }
}

impl World {
    fn live(&mut self) -> Option<String> {
        let mut healed = false;
        let mut outage: Option<Outage> = None;
        loop {
            {
                let mut core = self.core.lock();
                core.now += STEP;
                core.deliver();
            }
            let now = self.core.lock().now;
            if self.disaster == Some(now) {
                self.core.lock().restore();
            } else if now.is_multiple_of(2_000) && self.disaster.is_some_and(|at| now < at) {
                let mut core = self.core.lock();
                if core.kept.is_none() {
                    core.backup = Some(core.api.clone());
                }
            }
            if now.is_multiple_of(1_000) {
                self.core.lock().note_listing();
            }
            if now <= TROUBLE && now > 1_500 {
                let fault = self.climate.strike(&mut self.core.lock());
                if let Some(fault) = fault {
                    self.do_fault(fault);
                }
            } else if now > TROUBLE && !healed {
                healed = true;
                self.heal();
            }
            self.mend(now);
            self.restart();
            self.clients.step(&mut self.core.lock(), now < TROUBLE);
            let mut core = self.core.lock();
            if self
                .ploy
                .as_mut()
                .is_some_and(|ploy| ploy.is_over(&mut core))
            {
                self.ploy = None;
            }
            drop(core);
            self.run_all(now);
            self.strike_down();
            if let Some(line) = self.broken() {
                return Some(line);
            }
            if healed && self.core.lock().check.restored {
                // Frozen or not, nothing is promised but that nothing is undone: a little more of that.
                if now >= TROUBLE + 4_000 {
                    return None;
                }
                continue;
            }
            if let Some(outage) = &mut outage {
                if outage.wants_records(now) {
                    self.clients.produce_everywhere(&mut self.core.lock());
                }
                if outage.is_over(&mut self.core.lock()) {
                    return self.last_words();
                }
                continue;
            }
            if healed && (now - TROUBLE).is_multiple_of(200) {
                let ill = self.ill();
                if ill.is_none() && now >= TROUBLE + 1_000 {
                    if !self.ends_in_outage {
                        return self.last_words();
                    }
                    outage = Some(Outage::begin(&mut self.core.lock()));
                    continue;
                }
                if now >= HEALED_BY {
                    return ill.map(|why| match why.split_once(' ') {
                        Some((number @ ("G4" | "X4"), why)) => {
                            format!("{number} not well again in time: {why}")
                        }
                        _ => format!("I15 not well again in time: {why}"),
                    });
                }
            }
        }
    }

    fn run_all(&mut self, now: u64) {
        let mut order: Vec<usize> = (0..self.processes.len()).collect();
        order.shuffle(&mut self.core.lock().rng);
        for node in order {
            if let Some(process) = &self.processes[node]
                && process.paused_until <= now
            {
                process.run_until(now);
                let mut core = self.core.lock();
                core.look(node);
                core.nodes[node].answering.retain(|way| !way.is_over());
            }
            if self.core.lock().nodes[node].exit.take().is_some() {
                self.stop(node);
            }
        }
    }

    fn broken(&self) -> Option<String> {
        if let Some(panic) = panics::take() {
            return Some(format!("panic: {panic}"));
        }
        self.core.lock().check.broken.first().cloned()
    }

    /// Ends a process where it stands.
    fn stop(&mut self, node: usize) {
        let mut core = self.core.lock();
        core.nodes[node].up = None;
        core.nodes[node].inbox = None;
        let away = match core.chance(500) {
            true => core.rng.random_range(20..200),
            false => core.rng.random_range(200..3_000),
        };
        self.restart_at[node] = core.now + away;
        drop(core);
        self.processes[node] = None;
        let mut core = self.core.lock();
        core.nodes[node].exit = None;
        core.nodes[node].answering.clear();
        if std::mem::take(&mut core.nodes[node].disk.given_away) {
            if let Err(error) = core.nodes[node].disk.wipe() {
                core.check.broke(format!("no disk: {error}"));
            }
            core.check.wiped(node);
        }
    }

    fn restart(&mut self) {
        let now = self.core.lock().now;
        for node in 0..self.processes.len() {
            if self.processes[node].is_some() || self.restart_at[node] > now {
                continue;
            }
            self.next_life += 1;
            match Process::start(&self.core, node, Incarnation(self.next_life)) {
                Ok(process) => self.processes[node] = Some(process),
                Err(error) => self.core.lock().check.broke(format!("no runtime: {error}")),
            }
        }
    }

    fn do_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(node) => self.stop(node),
            Fault::PowerCut(node, crash) => {
                self.stop(node);
                let mut core = self.core.lock();
                let Core {
                    nodes, rng, check, ..
                } = &mut *core;
                if let Err(error) = nodes[node].disk.power_cut(crash, rng) {
                    check.broke(format!("no disk: {error}"));
                }
            }
            Fault::Wipe(node) => {
                self.stop(node);
                let mut core = self.core.lock();
                if let Err(error) = core.nodes[node].disk.wipe() {
                    core.check.broke(format!("no disk: {error}"));
                }
                core.check.wiped(node);
            }
            Fault::Copy(node) => {
                if self.core.lock().nodes[node].disk.has_copy() {
                    self.stop(node);
                }
                let mut core = self.core.lock();
                let Core {
                    nodes, rng, check, ..
                } = &mut *core;
                match nodes[node].disk.copy_or_put_back(rng) {
                    Ok(true) => {
                        let image = nodes[node].disk.image.as_ref();
                        check.put_back(node, image.map(|image| &image.position));
                    }
                    Ok(false) => {}
                    Err(error) => check.broke(format!("no disk: {error}")),
                }
            }
            Fault::BreakFolder(node, nth, errno, until) => {
                let mut core = self.core.lock();
                if core.nodes[node].disk.break_folder(nth, errno) {
                    core.nodes[node].well_at.get_or_insert(until);
                }
            }
            Fault::Fill(node, until) => {
                let mut core = self.core.lock();
                core.nodes[node].disk.full = true;
                core.nodes[node].well_at.get_or_insert(until);
            }
            Fault::Pause(node, until) => {
                if let Some(process) = &mut self.processes[node] {
                    process.paused_until = until;
                }
            }
            Fault::Leave(node) => {
                let core = self.core.lock();
                if let Some(inbox) = &core.nodes[node].inbox {
                    let _ = inbox.send(Mail::Leave);
                }
            }
            Fault::Calendar(node, by) => {
                if let Some(process) = &mut self.processes[node] {
                    process.set_calendar(by);
                }
            }
            Fault::Swap(node) => {
                self.stop(node);
                let theirs = self.core.lock().nodes[node].disk.swap();
                let id = BrokerId(i32::try_from(node).unwrap_or(-1));
                if let Err(error) = LogDir::open(theirs, &foreign_cluster(), id) {
                    self.core.lock().check.broke(format!("no disk: {error}"));
                }
            }
            Fault::Suspend(node, gone) => {
                if let Some(process) = &mut self.processes[node] {
                    process.sleep_through(gone);
                }
            }
        }
    }

    /// Someone mends the disks whose time has come: those with room again go on, for the others their process is
    /// started again.
    fn mend(&mut self, now: u64) {
        for node in 0..self.processes.len() {
            let mut core = self.core.lock();
            if core.nodes[node].well_at.is_none_or(|at| now < at) {
                continue;
            }
            core.nodes[node].well_at = None;
            core.nodes[node].disk.full = false;
            core.note(format!("fault the disk of {node} is well again"));
            if !core.nodes[node].disk.is_broken() {
                continue;
            }
            let empty = core.chance(300) && !damages_too_much(&core.check, &core, node);
            drop(core);
            self.stop(node);
            let mut core = self.core.lock();
            let Core {
                nodes, rng, check, ..
            } = &mut *core;
            if let Err(error) = nodes[node].disk.mend(empty, rng) {
                check.broke(format!("no disk: {error}"));
            }
        }
    }

    /// Ends the machines that were struck with a message of theirs; they are soon back.
    fn strike_down(&mut self) {
        let struck = std::mem::take(&mut self.core.lock().struck);
        for node in struck {
            let mut core = self.core.lock();
            if self.processes[node].is_none() || damages_too_much(&core.check, &core, node) {
                continue;
            }
            let back = core.now + core.rng.random_range(10..60);
            drop(core);
            self.do_fault(Fault::PowerCut(node, Crash::Lost));
            self.restart_at[node] = back;
        }
    }

    fn heal(&mut self) {
        let mut core = self.core.lock();
        core.note("healed: no more faults");
        core.weather = Weather::default();
        core.cuts.clear();
        core.api_down_until = 0;
        core.throttled_until = 0;
        core.put_head_back();
        core.deaf_until = 0;
        core.unanswered = None;
        core.aim = None;
        core.mute.clear();
        core.held_up.clear();
        core.behind.clear();
        let now = core.now;
        for node in &mut core.nodes {
            node.api_cut_until = 0;
            node.well_at = node.well_at.map(|_| now);
        }
        drop(core);
        for process in self.processes.iter_mut().flatten() {
            process.paused_until = 0;
        }
        for at in &mut self.restart_at {
            *at = (*at).min(now + 500);
        }
        let mut core = self.core.lock();
        self.clients.healed(&mut core);
        self.ploy = Ploy::draw(&mut core, self.wide);
    }

    /// What is not as it should be in good times.
    fn ill(&self) -> Option<String> {
        if self.ploy.is_some() {
            return Some("a ploy is not over".to_owned());
        }
        let core = self.core.lock();
        for (id, broker) in &core.check.brokers {
            if broker.fenced {
                return Some(format!("broker {id} is fenced"));
            }
        }
        for (at, part) in &core.check.parts {
            if part.leader.is_none() || part.isr.len() < part.replicas.len() {
                return Some(format!("{at:?} is {part:?}"));
            }
        }
        // What is written and not known to all may hide who leads what from clients.
        let last = core.check.last_seq();
        let behind = |position: &Option<(i64, u64)>| position.is_none_or(|(_, at)| at < last);
        if let Some(node) = core.check.positions.iter().position(behind) {
            return Some(format!("broker {node} has not applied entry {last}"));
        }
        core.trails().or_else(|| self.clients.ill(&core))
    }

    /// Every log of every partition ends alike, and holds all that was acknowledged.
    fn last_words(&self) -> Option<String> {
        let mut core = self.core.lock();
        let Core { check, nodes, .. } = &mut *core;
        check.all_committed();
        for key in check.data.keys().copied().collect::<Vec<_>>() {
            for (node, there) in nodes.iter().enumerate() {
                let log = there.disk.log(key);
                let part = check.parts.get(&name_of(key));
                if part.is_some_and(|part| part.isr.contains(&(node as i64))) {
                    check.check_acked(key, node, LeaderEpoch(i32::MAX), log);
                    check.joined(key, node, log);
                }
            }
        }
        let names: Vec<String> = check
            .topics
            .values()
            .map(|topic| topic.name.clone())
            .collect();
        if let Some(name) = check
            .granted
            .iter()
            .find(|name| !names.contains(name))
            .cloned()
        {
            check.broke(format!(
                "C2 topic {name} was said to be created, and is not there"
            ));
        }
        check.broken.first().cloned()
    }
}
