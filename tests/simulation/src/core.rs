//! What all simulated processes share: the time, the dice, the queue of what is under way, and the objects.
//!
//! Promise: everything that happens between processes goes through the queue here, whose order depends
//! on the seed alone. Time passes in steps of [`STEP`]; a process runs through one step at a time.

use crate::ambush::{Aim, Fate};
use crate::api::Objects;
use crate::broker::mail::Mail;
use crate::broker::reply::Kept;
use crate::check::{Checker, key_of};
use crate::disk::{Disk, Key};
use crate::ploys::Trap;
use crate::process::{CALENDAR, calendar_of};
use leasehold_metadata::store::ChunkInfo;
use leasehold_types::Incarnation;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// How far a process runs at a time, in milliseconds.
pub const STEP: u64 = 5;

/// The shared part, as processes hold it. One thread runs everything, so it is never contended.
pub type Shared = Arc<Mutex<Core>>;

type Action = Box<dyn FnOnce(&mut Core) + Send>;

/// How likely each mishap is, in thousandths, for one message or one call.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    pub api_lost_request: u32,
    pub api_lost_reply: u32,
    pub api_late: u32,
    pub api_duplicate: u32,
    pub api_error: u32,
    pub api_refused: u32,
    pub api_throttled: u32,
    pub api_stale: u32,
    pub net_lost: u32,
    pub net_slow: u32,
    pub net_twice: u32,
    /// Of ISR proposals: those that get lost, and those that come late.
    pub alter_lost: u32,
    pub alter_slow: u32,
    /// A head write is applied, its answer is late, and its writer's Lease is another's at once.
    pub api_usurped: u32,
}

/// One broker's machine, seen from outside.
pub struct Node {
    /// The process that runs there.
    pub up: Option<Incarnation>,
    pub inbox: Option<UnboundedSender<Mail>>,
    /// What the process has to answer, in the order in which it was asked.
    pub answering: Vec<Kept>,
    /// The process asked to end, and why.
    pub exit: Option<String>,
    /// Until when the API server cannot be reached from here.
    pub api_cut_until: u64,
    /// What someone set the calendar of its process ahead by, or back.
    pub calendar: i64,
    /// When what fails there, or is full, is well again.
    pub well_at: Option<u64>,
    /// When it last went on after a pause: what it finds to say first may be older than that.
    pub resumed_at: u64,
    pub disk: Disk,
}

impl Node {
    fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            up: None,
            inbox: None,
            answering: Vec::new(),
            exit: None,
            api_cut_until: 0,
            calendar: 0,
            well_at: None,
            resumed_at: 0,
            disk: Disk::new(root)?,
        })
    }
}

/// Everything that is shared.
pub struct Core {
    pub now: u64,
    pub rng: StdRng,
    pub seed: u64,
    /// Markers that nobody waits for any more are written all the same.
    pub late_markers: bool,
    pub weather: Weather,
    pub api: Objects,
    /// What a backup of the API server holds.
    pub backup: Option<Objects>,
    /// The head was deleted: this is what will be put back.
    pub kept: Option<Objects>,
    /// The chunks as a server lists them that is behind.
    pub listing: Vec<ChunkInfo>,
    /// How many chunks were collected.
    pub collected: u64,
    /// Until when the API server answers 429 to most calls.
    pub throttled_until: u64,
    pub api_down_until: u64,
    /// Who hears nothing of its next head write, nor anything else of the API for a while.
    pub unanswered: Option<usize>,
    /// Until when the answers to head writes get lost, after a while in which much may happen.
    pub deaf_until: u64,
    pub nodes: Vec<Node>,
    /// Followers whose fetches get lost, while all else from them arrives; and until when.
    pub mute: BTreeMap<usize, u64>,
    /// The kind of message that is waited for, and who lost its power with one.
    pub aim: Option<Aim>,
    pub struck: Vec<usize>,
    /// Transactional ids of which the next answer to a leader's question is held up.
    pub held_up: BTreeSet<&'static str>,
    /// Brokers that hear late of what is new in the metadata, and until when.
    pub behind: BTreeMap<usize, u64>,
    /// What is held back, and the partition that nobody produces to meanwhile.
    pub trap: Option<Trap>,
    pub quiet: Option<Key>,
    /// Links that lose everything, one way, and until when.
    pub cuts: BTreeMap<(usize, usize), u64>,
    /// When the last request of a client reaches a broker: what it sends over one connection stays in order.
    lines: BTreeMap<(u64, usize), u64>,
    pub check: Checker,
    pub trace: Vec<String>,
    queue: BTreeMap<(u64, u32, u64), Action>,
    counter: u64,
}

impl Core {
    /// The world before it begins; the disks of its machines are folders in `root`.
    pub fn new(seed: u64, nodes: usize, root: &Path) -> io::Result<Self> {
        let node = |n: usize| Node::new(&root.join(n.to_string()));
        Ok(Self {
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            seed,
            late_markers: false,
            weather: Weather::default(),
            api: Objects::default(),
            backup: None,
            kept: None,
            listing: Vec::new(),
            collected: 0,
            throttled_until: 0,
            api_down_until: 0,
            unanswered: None,
            deaf_until: 0,
            nodes: (0..nodes).map(node).collect::<io::Result<_>>()?,
            mute: BTreeMap::new(),
            aim: None,
            struck: Vec::new(),
            held_up: BTreeSet::new(),
            behind: BTreeMap::new(),
            trap: None,
            quiet: None,
            lines: BTreeMap::new(),
            cuts: BTreeMap::new(),
            check: Checker::new(nodes),
            trace: Vec::new(),
            queue: BTreeMap::new(),
            counter: 0,
        })
    }

    /// Tells the checker what reached the log files of `node` since.
    pub fn look(&mut self, node: usize) {
        let appended = self.nodes[node].disk.look();
        let wall = self.wall(node);
        for dropped in self.nodes[node].disk.take_dropped() {
            self.check.dropped(&dropped, wall);
        }
        for text in self.nodes[node].disk.take_texts() {
            let value = text.value.as_deref();
            self.check
                .groups
                .records
                .written(text.number, &text.key, value);
        }
        // Who was paused may write as of before.
        let paused = self.now <= self.nodes[node].resumed_at + 2 * STEP;
        let known = (!paused).then_some(wall);
        for appended in appended {
            let by = (node, self.nodes[node].up);
            self.check.stamped(node, known, &appended);
            self.check
                .appended(appended.key, by, appended.at, appended.entry);
        }
    }

    /// What the calendar of a process on `node` says, if that is running and was not just paused.
    fn wall(&self, node: usize) -> i64 {
        CALENDAR + calendar_of(node, self.nodes[node].calendar, self.now)
    }

    /// A log that begins before that of its leader.
    pub fn trails(&self) -> Option<String> {
        for (at, part) in &self.check.parts {
            let (Some(key), Some(leader)) = (key_of(at), part.leader) else {
                continue;
            };
            let start = |id: i64| {
                let node = self.nodes.get(usize::try_from(id).ok()?);
                node.map(|node| node.disk.log(key).start)
            };
            let late = part.isr.iter().find(|id| start(**id) < start(leader));
            if let Some(id) = late {
                return Some(format!(
                    "the log of {at:?} on broker {id} does not follow its leader's start"
                ));
            }
        }
        None
    }

    /// A line of the trace.
    pub fn note(&mut self, line: impl AsRef<str>) {
        let (seconds, millis) = (self.now / 1000, self.now % 1000);
        self.trace
            .push(format!("{seconds:>3}.{millis:03} {}", line.as_ref()));
    }

    /// True `thousandths` times in a thousand.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.rng.random_range(0..1000) < thousandths
    }

    /// Lets `action` happen `delay` milliseconds from now; what happens at one time is in random order.
    pub fn later(&mut self, delay: u64, action: impl FnOnce(&mut Core) + Send + 'static) {
        self.counter += 1;
        let key = (self.now + delay, self.rng.random(), self.counter);
        self.queue.insert(key, Box::new(action));
    }

    /// Lets happen what is due.
    pub fn deliver(&mut self) {
        while let Some(first) = self.queue.first_entry() {
            if first.key().0 > self.now {
                return;
            }
            let action = first.remove();
            action(self);
        }
    }

    /// Whether messages get from `from` to `to` at all.
    pub fn linked(&self, from: usize, to: usize) -> bool {
        from == to
            || self
                .cuts
                .get(&(from, to))
                .is_none_or(|&until| until <= self.now)
    }

    /// Whether a broker has yet to hear of what is new.
    pub fn is_behind(&self, node: usize) -> bool {
        self.behind
            .get(&node)
            .is_some_and(|&until| self.now < until)
    }

    fn delay(&mut self) -> u64 {
        match self.chance(self.weather.net_slow) {
            true => self.rng.random_range(50..2_500),
            false => self.rng.random_range(1..8),
        }
    }

    /// Sends `mail` from one process to another; it may get lost, late, or there twice.
    pub fn post(&mut self, from: usize, to: usize, mail: Mail) {
        let Some(life) = self.nodes[to].up else {
            return;
        };
        // Rare requests would hardly ever come twice at the rate of frequent ones.
        let call = matches!(mail, Mail::Call { .. });
        let rare = call || matches!(mail, Mail::Markers { .. });
        let twice = self.weather.net_twice * if rare { 10 } else { 1 };
        if self.chance(twice)
            && let Some(copy) = mail.copy()
        {
            // The copy of a request that was thought lost: it may come when all has changed.
            let late = self.rng.random_range(0..if call { 9_000 } else { 3_000 });
            self.post_once(from, to, life, late, copy);
        }
        self.post_once(from, to, life, 0, mail);
    }

    fn post_once(&mut self, from: usize, to: usize, life: Incarnation, late: u64, mail: Mail) {
        let Some(mail) = self.past_the_trap((from, to), life, mail) else {
            return;
        };
        let lost = self.weather.net_lost;
        if !self.linked(from, to) || (from != to && self.chance(lost)) || self.muted(from, &mail) {
            return;
        }
        let ambushed = match self.ambush(from, &mail) {
            Fate::Spared => 0,
            Fate::Late(by) => by,
            Fate::Lost => return,
        };
        let way = if from == to { 0 } else { self.delay() };
        let delay = late + way + self.held_up(&mail) + ambushed;
        self.deliver_mail(to, life, delay, mail);
    }

    /// Whether this message is one that gets lost because of what it is.
    fn muted(&mut self, from: usize, mail: &Mail) -> bool {
        match mail {
            Mail::Fetch { .. } => self.mute.get(&from).is_some_and(|&until| self.now < until),
            _ => mail.is_proposal() && self.chance(self.weather.alter_lost),
        }
    }

    /// How much longer this message takes because of what it is.
    fn held_up(&mut self, mail: &Mail) -> u64 {
        match mail.is_proposal() && self.chance(self.weather.alter_slow) {
            true => self.rng.random_range(300..2_500),
            false => 0,
        }
    }

    /// What was held back arrives, if that process still runs.
    pub(crate) fn deliver_late(&mut self, to: usize, life: Incarnation, mail: Mail) {
        self.deliver_mail(to, life, 1, mail);
    }

    fn deliver_mail(&mut self, to: usize, life: Incarnation, delay: u64, mail: Mail) {
        self.later(delay, move |core| {
            // It was sent to that very process, over a connection that ends with it.
            let node = &mut core.nodes[to];
            if node.up == Some(life)
                && let Some(inbox) = &node.inbox
            {
                node.answering.extend(mail.kept());
                let _ = inbox.send(mail);
            }
        });
    }

    /// Sends `mail` from a client, over its connection to a process; it may get lost, and some come once more,
    /// when the connection has long ended.
    pub fn post_from(&mut self, client: u64, to: usize, mail: Mail) {
        let Some(life) = self.nodes[to].up else {
            return;
        };
        if self.chance(self.weather.net_twice / 4)
            && let Some(copy) = mail.copy()
        {
            let late = self.rng.random_range(0..2_000);
            self.deliver_mail(to, life, late, copy);
        }
        if self.chance(self.weather.net_lost) {
            return;
        }
        let due = self.now + self.delay();
        let last = self.lines.entry((client, to)).or_default();
        *last = due.max(*last + 1);
        let delay = *last - self.now;
        self.deliver_mail(to, life, delay, mail);
    }

    /// A peer of another cluster of this name, which found a broker under the name of one of its own, wants to
    /// register there as that.
    pub fn call_of_foreigner(&mut self, to: usize, call: Mail) {
        self.note(format!("fault broker {to} is called from another cluster"));
        if let Some(life) = self.nodes[to].up {
            self.deliver_mail(to, life, 1, Mail::Foreign(Box::new(call)));
        }
    }

    /// Sends an answer to a client; as [`Self::post_from`].
    pub fn answer_client(&mut self, send: impl FnOnce() + Send + 'static) {
        if !self.chance(self.weather.net_lost) {
            let delay = self.delay();
            self.later(delay, move |_| send());
        }
    }

    /// Sends an answer back; as [`Self::post`].
    pub fn answer(&mut self, from: usize, to: usize, send: impl FnOnce() + Send + 'static) {
        self.answer_late(from, to, 0, send);
    }

    /// The same, `late` by so many milliseconds.
    pub fn answer_late(
        &mut self,
        from: usize,
        to: usize,
        late: u64,
        send: impl FnOnce() + Send + 'static,
    ) {
        let lost = self.weather.net_lost;
        if !self.linked(from, to) || (from != to && self.chance(lost)) {
            return;
        }
        let delay = if from == to { 0 } else { self.delay() };
        self.later(late + delay, move |_| send());
    }
}
