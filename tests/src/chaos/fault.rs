//! The faults that strike a cluster, and how each is mended.
//!
//! Promise: dropped, an injury is mended, so that a failing run does not leave the machine hurt.

use super::network::{Cut, Lost};
use super::volumes;
use crate::cluster::{Kube, run_script};
use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    PodDeleted,
    PodDeletedByForce,
    Killed,
    Paused,
    CutOff,
    HearsNobody,
    HeardByNobody,
    CutFromApi,
    ApiServerAway,
    EtcdKilled,
    LeaseDeleted,
    NodeLost,
    DiskFull,
}

/// All of them.
pub const ALL: [Fault; 13] = [
    Fault::PodDeleted,
    Fault::PodDeletedByForce,
    Fault::Killed,
    Fault::Paused,
    Fault::CutOff,
    Fault::HearsNobody,
    Fault::HeardByNobody,
    Fault::CutFromApi,
    Fault::ApiServerAway,
    Fault::EtcdKilled,
    Fault::LeaseDeleted,
    Fault::NodeLost,
    Fault::DiskFull,
];

/// What a struck cluster suffers from, until it is dropped.
pub struct Injury(#[expect(dead_code, reason = "it is there to be dropped")] Kind);

enum Kind {
    Healing,
    Paused(#[expect(dead_code, reason = "it is there to be dropped")] Pause),
    Cut(#[expect(dead_code, reason = "it is there to be dropped")] Cut),
    Script(#[expect(dead_code, reason = "it is there to be dropped")] Script),
}

impl Fault {
    /// What it is called in the timeline.
    pub fn name(self) -> &'static str {
        match self {
            Self::PodDeleted => "pod deleted",
            Self::PodDeletedByForce => "pod deleted with --force --grace-period=0",
            Self::Killed => "broker killed (SIGKILL)",
            Self::Paused => "broker paused (SIGSTOP)",
            Self::CutOff => "pod cut off, both ways",
            Self::HearsNobody => "pod cut off, inwards only",
            Self::HeardByNobody => "pod cut off, outwards only",
            Self::CutFromApi => "pod cut off from the API server",
            Self::ApiServerAway => "API server stopped",
            Self::EtcdKilled => "etcd killed",
            Self::LeaseDeleted => "Lease deleted",
            Self::NodeLost => "node lost its power",
            Self::DiskFull => "disk full",
        }
    }

    /// Whether it strikes one broker.
    pub fn has_victim(self) -> bool {
        !matches!(
            self,
            Self::ApiServerAway | Self::EtcdKilled | Self::LeaseDeleted
        )
    }

    /// How long it lasts before it is mended: where something has to be found out by silence, longer than a
    /// Lease (4 s) and a session (3 s) together.
    pub fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            Self::Paused | Self::CutOff | Self::HearsNobody | Self::HeardByNobody => 10,
            Self::CutFromApi | Self::ApiServerAway | Self::NodeLost => 10,
            Self::DiskFull => 5,
            _ => 0,
        })
    }

    /// Strikes broker `victim`, or the cluster.
    pub fn strike(self, kube: &Kube, victim: i32) -> Injury {
        let cut = |lost| Kind::Cut(Cut::of(kube, victim, lost));
        Injury(match self {
            Self::PodDeleted | Self::PodDeletedByForce => {
                kube.delete_pod(victim, self == Self::PodDeletedByForce);
                Kind::Healing
            }
            Self::Killed => {
                kube.signal(victim, Signal::KILL);
                Kind::Healing
            }
            Self::Paused => Kind::Paused(Pause::of(kube.process(victim))),
            Self::CutOff => cut(Lost::Both),
            Self::HearsNobody => cut(Lost::In),
            Self::HeardByNobody => cut(Lost::Out),
            Self::CutFromApi => cut(Lost::ToApi),
            Self::ApiServerAway => Kind::Script(Script::run("apiserver", "stop", "start", "")),
            Self::EtcdKilled => {
                run_script("etcd", &["kill"]);
                Kind::Healing
            }
            Self::LeaseDeleted => {
                kube.delete_lease();
                Kind::Healing
            }
            Self::NodeLost => {
                let node = kube.node(victim);
                let number = node.trim_start_matches("node");
                Kind::Script(Script::run("node", "stop", "start", number))
            }
            Self::DiskFull => Kind::Script(Script::run(
                "volume",
                "fill",
                "free",
                &volumes::name(victim),
            )),
        })
    }
}

/// A process that stands still until it is dropped.
struct Pause(Pid);

impl Pause {
    fn of(process: Pid) -> Self {
        kill_process(process, Signal::STOP).expect("SIGSTOP");
        Self(process)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        // Its container may have been killed meanwhile for not answering.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// A script that is to be run once more, to mend what it did.
struct Script {
    name: &'static str,
    mend: Vec<String>,
}

impl Script {
    fn run(name: &'static str, hurt: &str, mend: &str, on: &str) -> Self {
        let args = |what: &str| {
            let all = [what, on].into_iter().filter(|word| !word.is_empty());
            all.map(str::to_owned).collect::<Vec<_>>()
        };
        let hurt = args(hurt);
        run_script(name, &hurt.iter().map(String::as_str).collect::<Vec<_>>());
        let mend = args(mend);
        Self { name, mend }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let args: Vec<&str> = self.mend.iter().map(String::as_str).collect();
        if std::thread::panicking() {
            eprintln!("mending: {} {args:?}", self.name);
        }
        run_script(self.name, &args);
    }
}
