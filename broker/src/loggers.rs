//! What is logged, and how the levels change while the broker runs: Kafka's resource BROKER_LOGGER
//! (<https://cwiki.apache.org/confluence/display/KAFKA/KIP-412>).
//!
//! A logger is the path of a module, and `root` is all of them. Promises: all changes of a request hold, or none;
//! they end with the process, as in Kafka.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// What holds for modules that nobody named.
pub const ROOT: &str = "root";

/// The loggers that are always listed. What lies below them can be set too.
const KNOWN: [&str; 22] = [
    "kube",
    "leasehold_broker",
    "leasehold_broker::api",
    "leasehold_broker::config",
    "leasehold_broker::controller",
    "leasehold_broker::coordinator",
    "leasehold_broker::fetch_session",
    "leasehold_broker::group",
    "leasehold_broker::http",
    "leasehold_broker::inspect",
    "leasehold_broker::internal",
    "leasehold_broker::loggers",
    "leasehold_broker::quota",
    "leasehold_broker::replica",
    "leasehold_broker::run",
    "leasehold_broker::server",
    "leasehold_broker::session",
    "leasehold_broker::txn",
    "leasehold_log",
    "leasehold_metadata",
    "leasehold_metadata::lease",
    "leasehold_wire",
];

/// Kafka's names of levels. There is none below ERROR here, so FATAL is ERROR.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("FATAL", LevelFilter::ERROR),
    ("ERROR", LevelFilter::ERROR),
    ("WARN", LevelFilter::WARN),
    ("INFO", LevelFilter::INFO),
    ("DEBUG", LevelFilter::DEBUG),
    ("TRACE", LevelFilter::TRACE),
];

/// Why a change was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoggerError {
    #[error(
        "there is no logger {0:?}; a logger is `root` or a module such as leasehold_broker::replica"
    )]
    Unknown(String),
    #[error("{0:?} is no level; FATAL, ERROR, WARN, INFO, DEBUG and TRACE are")]
    NoLevel(String),
    #[error("the level of root can be set, but not taken away")]
    Root,
    #[error("the levels could not be put in force: {0}")]
    Failed(String),
}

type Install = Box<dyn Fn(Targets) -> Result<(), String> + Send + Sync>;

/// The levels in force. The default has none, and changes are kept but put in force nowhere: for tests.
pub struct Loggers {
    begun: Targets,
    set: Mutex<BTreeMap<String, LevelFilter>>,
    install: Install,
}

impl Default for Loggers {
    fn default() -> Self {
        Self::new(Targets::new(), |_| Ok(()))
    }
}

impl Loggers {
    /// With the levels at the start of the process, and the way to put others in force.
    pub fn new(
        begun: Targets,
        install: impl Fn(Targets) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            begun,
            set: Mutex::default(),
            install: Box::new(install),
        }
    }

    /// Every logger that is known or was named, with its level.
    pub fn all(&self) -> BTreeMap<String, &'static str> {
        let targets = self.in_force(&self.set.lock());
        let named: BTreeSet<String> = targets.iter().map(|(name, _)| name.to_owned()).collect();
        let all = named.into_iter().chain(KNOWN.map(str::to_owned));
        let root = targets.default_level().unwrap_or(LevelFilter::OFF);
        let mut levels: BTreeMap<_, _> = all
            .map(|name| {
                let level = name_of(level_of(&targets, &name));
                (name, level)
            })
            .collect();
        levels.insert(ROOT.to_owned(), name_of(root));
        levels
    }

    /// Sets levels, or (`None`) takes them away again; with `validate_only` only says whether that could be done.
    pub fn change(
        &self,
        changes: &[(String, Option<String>)],
        validate_only: bool,
    ) -> Result<(), LoggerError> {
        let mut set = self.set.lock();
        let mut next = set.clone();
        for (name, level) in changes {
            if !exists(name) {
                return Err(LoggerError::Unknown(name.clone()));
            }
            match level {
                Some(level) => {
                    let known = LEVELS.iter().find(|(text, _)| text == level);
                    let (_, filter) = known.ok_or_else(|| LoggerError::NoLevel(level.clone()))?;
                    next.insert(name.clone(), *filter);
                }
                None if name == ROOT => return Err(LoggerError::Root),
                None => {
                    next.remove(name);
                }
            }
        }
        if validate_only {
            return Ok(());
        }
        (self.install)(self.in_force(&next)).map_err(LoggerError::Failed)?;
        for (name, level) in changes {
            let level = level.as_deref().unwrap_or("as at the start");
            tracing::warn!(logger = name, level, "log level changed");
        }
        *set = next;
        Ok(())
    }

    fn in_force(&self, set: &BTreeMap<String, LevelFilter>) -> Targets {
        set.iter()
            .fold(self.begun.clone(), |targets, (name, level)| {
                match name.as_str() {
                    ROOT => targets.with_default(*level),
                    name => targets.with_target(name, *level),
                }
            })
    }
}

fn exists(name: &str) -> bool {
    let below = |known: &str| {
        let rest = name.strip_prefix(known);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    name == ROOT || KNOWN.into_iter().any(below)
}

/// The most that gets through of a module.
fn level_of(targets: &Targets, name: &str) -> LevelFilter {
    let levels = [
        tracing::Level::TRACE,
        tracing::Level::DEBUG,
        tracing::Level::INFO,
        tracing::Level::WARN,
        tracing::Level::ERROR,
    ];
    let most = levels
        .into_iter()
        .find(|level| targets.would_enable(name, level));
    most.map_or(LevelFilter::OFF, LevelFilter::from_level)
}

fn name_of(level: LevelFilter) -> &'static str {
    let found = LEVELS.iter().rev().find(|(_, filter)| *filter == level);
    found.map_or("OFF", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// The loggers of a process that began with `text`, and what was put in force last.
    fn begun(text: &str) -> (Loggers, Arc<Mutex<Option<Targets>>>) {
        let installed = Arc::new(Mutex::new(None));
        let seen = installed.clone();
        let loggers = Loggers::new(text.parse().unwrap(), move |targets| {
            *seen.lock() = Some(targets);
            Ok(())
        });
        (loggers, installed)
    }

    fn set(name: &str, level: Option<&str>) -> Vec<(String, Option<String>)> {
        vec![(name.to_owned(), level.map(str::to_owned))]
    }

    #[test]
    fn a_level_is_that_of_the_nearest_module_above() {
        let (loggers, installed) = begun("info,leasehold_broker::replica=warn");
        assert_eq!(loggers.all()["leasehold_broker::replica"], "WARN");
        assert_eq!(loggers.all()["leasehold_broker::api"], "INFO");
        assert_eq!(loggers.all()[ROOT], "INFO");
        loggers.change(&set(ROOT, Some("ERROR")), false).unwrap();
        let fetcher = "leasehold_broker::replica::fetcher";
        loggers.change(&set(fetcher, Some("TRACE")), false).unwrap();
        let all = loggers.all();
        assert_eq!(
            (all[fetcher], all["leasehold_broker::api"]),
            ("TRACE", "ERROR")
        );
        let now = installed.lock().clone().unwrap();
        assert!(now.would_enable(fetcher, &tracing::Level::TRACE));
        assert!(!now.would_enable("leasehold_broker::api", &tracing::Level::WARN));
        loggers.change(&set(fetcher, None), false).unwrap();
        assert!(!loggers.all().contains_key(fetcher));
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let (loggers, installed) = begun("info");
        let refused = |changes: &[(String, Option<String>)]| {
            let error = loggers.change(changes, false).unwrap_err();
            assert!(installed.lock().is_none());
            error
        };
        let mut two = set("leasehold_log", Some("DEBUG"));
        two.extend(set("leasehold_loggerhead", Some("DEBUG")));
        assert_eq!(
            refused(&two),
            LoggerError::Unknown("leasehold_loggerhead".into())
        );
        let loud = refused(&set(ROOT, Some("loud")));
        assert_eq!(loud, LoggerError::NoLevel("loud".into()));
        assert_eq!(refused(&set(ROOT, None)), LoggerError::Root);
        loggers.change(&set(ROOT, Some("DEBUG")), true).unwrap();
        assert!(installed.lock().is_none(), "only validated");
        assert_eq!(loggers.all()[ROOT], "INFO");
    }

    #[test]
    fn every_room_of_the_broker_has_its_logger() {
        let rooms = include_str!("lib.rs").lines();
        let rooms = rooms.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        // These run in processes of their own, or print.
        let others = ["cli", "dev"];
        for room in rooms.filter(|room| !others.contains(room)) {
            assert!(exists(&format!("leasehold_broker::{room}")));
            let logger = format!("leasehold_broker::{room}");
            assert!(KNOWN.contains(&logger.as_str()), "{logger}");
        }
    }
}
