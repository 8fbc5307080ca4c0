//! A state of the small world: plain numbers. What belongs to the product (an image, a replica, a request) is
//! the number that [`super::product`] gave it.

/// At most.
pub const BROKERS: usize = 3;
pub const LOG: usize = 3;
pub const VERSIONS: usize = 9;
pub const FLIGHTS: usize = 3;
pub const EPOCHS: usize = 10;

/// No image, replica or request.
pub const NONE: u32 = u32::MAX;

/// How much may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub brokers: usize,
    /// `min.insync.replicas`.
    pub min: u8,
    /// Records produced.
    pub values: u8,
    /// Head writes: fences, unfences, registrations, ISR changes.
    pub writes: u8,
    /// ISR requests sent, retries included.
    pub proposals: u8,
    /// Processes killed.
    pub crashes: u8,
    /// Machines that lose power, and with it what was not flushed.
    pub losses: u8,
    /// Fetches of which a second copy arrives late.
    pub late: u8,
    /// Leaderships handed to the preferred broker, 0, at an administrator's wish. If any may be, 1 leads at first.
    pub moves: u8,
    /// A broker that is not in the ISR at first; 0 for none.
    pub apart: u8,
}

/// One record: the leader epoch in which it was appended, and its value, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record(u8);

impl Record {
    pub fn new(epoch: u8, value: u8) -> Self {
        Self(epoch << 4 | value)
    }

    pub fn epoch(self) -> u8 {
        self.0 >> 4
    }

    pub fn value(self) -> u8 {
        self.0 & 15
    }
}

/// A replica's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Log {
    records: [Record; LOG],
    len: u8,
}

impl Log {
    pub fn records(&self) -> &[Record] {
        &self.records[..usize::from(self.len)]
    }

    pub fn end(&self) -> u8 {
        self.len
    }

    pub fn is_full(&self) -> bool {
        usize::from(self.len) == LOG
    }

    pub fn last_epoch(&self) -> Option<u8> {
        self.records().last().map(|r| r.epoch())
    }

    pub fn push(&mut self, record: Record) {
        self.records[usize::from(self.len)] = record;
        self.len += 1;
    }

    /// Keeps the first `end` records; returns those that go, a bit per value.
    pub fn cut(&mut self, end: u8) -> u8 {
        let gone = self.records().iter().skip(usize::from(end));
        let gone = gone.fold(0, |bits, r| bits | bit(r.value()));
        for place in self.records.iter_mut().skip(usize::from(end)) {
            *place = Record::default();
        }
        self.len = self.len.min(end);
        gone
    }

    /// The greatest epoch not above `epoch`, if any, and where it ends.
    pub fn end_of(&self, epoch: Option<u8>) -> (Option<u8>, u8) {
        let within = |r: &Record| epoch.is_some_and(|epoch| r.epoch() <= epoch);
        match self.records().iter().rposition(within) {
            Some(n) => (Some(self.records[n].epoch()), n as u8 + 1),
            None => (None, 0),
        }
    }

    pub fn has(&self, value: u8) -> bool {
        self.records().iter().any(|r| r.value() == value)
    }
}

/// What a broker's process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Phase {
    Down,
    /// Has noted its life in the `run` file; not registered, or not aware of it.
    Starting,
    Up,
}

/// One broker: its process and its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub phase: Phase,
    /// Its incarnation, from 1.
    pub life: u8,
    /// The version of the metadata that it acts on, as a place in [`State::history`].
    pub view: u8,
    pub replica: u32,
    pub log: Log,
    /// The greatest leader epoch that someone who fetched from it knew of.
    pub heard: u8,
    /// The `run` file: the confirmed life, the kernel in which it was, and the lives tried since (bits).
    pub confirmed: u8,
    pub confirmed_boot: u8,
    pub attempted: u8,
    /// The kernel's present run.
    pub boot: u8,
    /// Lost something since the controller last judged it.
    pub damaged: bool,
}

/// An ISR request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flight {
    pub request: u32,
    /// Its sender waits for the answer still.
    pub awaited: bool,
}

/// A fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    pub to: u8,
    pub from: u8,
    pub life: u8,
    pub epoch: u8,
    pub offset: u8,
    pub last: Option<u8>,
}

/// How much of the bounds is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Used {
    pub values: u8,
    pub proposals: u8,
    pub crashes: u8,
    pub losses: u8,
    pub late: u8,
    pub moves: u8,
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The committed images, from the oldest that a broker still acts on to the newest.
    pub history: [u32; VERSIONS],
    pub versions: u8,
    pub nodes: [Node; BROKERS],
    pub flights: [Flight; FLIGHTS],
    pub late: Option<Fetch>,
    pub used: Used,
    /// Records acknowledged with acks=all, and records that a leader showed as committed (a bit per value).
    pub acknowledged: u8,
    pub committed: u8,
    /// Who appended each record and did not cut it away since (a bit per broker).
    pub held: [u8; LOG],
    /// Who appended as leader in each epoch: broker and life.
    pub appenders: [u8; EPOCHS],
    /// An election was marked as recovering: records may be missing, and that was said.
    pub forgiven: bool,
    /// A promise that a step broke, as a place in `check::BROKEN`; 0 for none.
    pub broken: u8,
}

/// The bit of a broker or value.
pub fn bit(n: u8) -> u8 {
    1 << n
}

impl State {
    /// The newest committed image.
    pub fn newest(&self) -> u32 {
        self.history[usize::from(self.versions) - 1]
    }

    /// The image that `broker` acts on.
    pub fn view(&self, broker: u8) -> u32 {
        self.history[usize::from(self.node(broker).view)]
    }

    pub fn node(&self, broker: u8) -> &Node {
        &self.nodes[usize::from(broker)]
    }

    pub fn node_mut(&mut self, broker: u8) -> &mut Node {
        &mut self.nodes[usize::from(broker)]
    }

    /// Forgets what can make no difference any more, so that states that differ only in it are one.
    pub fn tidy(&mut self) {
        let newest = self.versions - 1;
        let up = self.nodes.iter().filter(|n| n.phase == Phase::Up);
        let oldest = up.map(|n| n.view).min().unwrap_or(newest);
        if oldest > 0 {
            self.history.rotate_left(usize::from(oldest));
            self.versions -= oldest;
            self.history[usize::from(self.versions)..].fill(NONE);
            for node in &mut self.nodes {
                node.view = node.view.saturating_sub(oldest);
            }
        }
        self.flights.sort_unstable();
    }
}
