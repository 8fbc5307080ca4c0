//! Feature levels: what may be decided at the level in force, and when another may be.
//!
//! Promises: a level is raised only if every registered broker supports it, whether it is there or not, since it may be
//! back and read; `metadata.version` never falls, since what was written at it stays in the log and in brokers' copies;
//! who does not support a level in force is not admitted.
//!
//! Kafka's own features only tell clients what they may use. They may fall: what is under way ends as it began.

use super::{Controller, Event};
use crate::features::{
    self, KAFKAS, Level, LevelRange, METADATA_VERSION, METADATA_VERSIONS, metadata_versions,
};
use crate::image::Broker;
use crate::records::Record;
use crate::rpc::{Direction, FeatureUpdate, Outcome, Registration, codes};
use std::collections::BTreeSet;

impl Controller {
    /// A cluster in which nobody has registered yet has nothing that an older release could not read, nor anyone of it.
    pub(super) fn begin_at_the_newest_level(&mut self) {
        let image = &self.image;
        let begun = !image.brokers.is_empty() || !image.topics.is_empty();
        if image.metadata_version.is_none() && !begun {
            self.set_level(METADATA_VERSION, Level::NEWEST);
            for (name, level) in KAFKAS {
                self.set_level(name, level);
            }
        }
    }

    fn set_level(&mut self, name: &str, level: Level) {
        let name = name.to_owned();
        self.emit(Record::FeatureLevel {
            name: name.clone(),
            level,
        });
        self.event(Event::FeatureLevel { name, level });
        #[cfg(feature = "next-release")]
        self.write_what_is_new();
    }

    /// As a release does that has something new to write: whenever it is permitted, and not before.
    #[cfg(feature = "next-release")]
    pub(super) fn write_what_is_new(&mut self) {
        if self.permits(Level::NEXT, "what is new").is_ok() {
            self.emit(Record::NextRelease {});
        }
    }

    /// Whether `what`, which is written from level `needed` on, may be.
    pub(super) fn permits(&self, needed: Level, what: &str) -> Result<(), Outcome> {
        let refused = |message| Outcome::refused(codes::UNSUPPORTED_VERSION, message);
        self.image.permits(needed, what).map_err(refused)
    }

    /// Whether the process that registers can live with the level in force.
    pub(super) fn check_support(&self, r: &Registration) -> Result<(), String> {
        let level = self.image.metadata_level();
        let range = metadata_versions(&r.features, r.directories.len());
        if !range.contains(level) {
            return Err(format!(
                "broker {} (release {}) supports {METADATA_VERSION} {range}, and the cluster is at {level}: run a release that supports that level; it cannot be lowered",
                r.broker, r.version
            ));
        }
        for (feature, level) in self.image.features.iter() {
            let range = features::levels_of(feature, &r.features);
            if !range.contains(*level) {
                return Err(format!(
                    "broker {} (release {}) supports {feature} {range}, and the cluster is at {level}: run a release that supports that level, or lower it with kafka-features.sh downgrade --feature {feature}={}",
                    r.broker, r.version, range.max
                ));
            }
        }
        if r.directories.len() > 1 || r.unreadable > 0 {
            self.permits(Level::ADMINISTERED, "several log directories in a broker")
                .map_err(|refused| refused.message.unwrap_or_default())?;
        }
        Ok(())
    }

    /// All of `updates`, or none.
    pub(super) fn update_features(
        &mut self,
        updates: &[FeatureUpdate],
        validate_only: bool,
    ) -> Outcome {
        let mut named = BTreeSet::new();
        for update in updates {
            if !named.insert(&update.name) {
                let message = format!("feature {} is named twice", update.name);
                return Outcome::refused(codes::INVALID_REQUEST, message);
            }
            if let Err(why) = self.judge(update) {
                let (name, level) = (&update.name, update.level);
                let message = format!("Invalid update version {level} for feature {name}. {why}");
                return Outcome::refused(codes::INVALID_UPDATE_VERSION, message);
            }
        }
        for update in updates {
            let now = self.image.feature_level(&update.name);
            if !validate_only && now != update.level {
                self.set_level(&update.name, update.level);
            }
        }
        Outcome::ok()
    }

    fn judge(&self, update: &FeatureUpdate) -> Result<(), String> {
        let name = &update.name;
        if name == METADATA_VERSION {
            return self.judge_metadata_version(update);
        }
        let supported = features::supported();
        let Some(range) = supported.get(name) else {
            let known: Vec<&str> = supported.keys().map(String::as_str).collect();
            return Err(format!(
                "There is no such feature; there are {}.",
                known.join(", ")
            ));
        };
        let (now, level) = (self.image.feature_level(name), update.level);
        if level == now {
            return Ok(());
        }
        match (level < now, update.direction) {
            (true, Direction::Up) => {
                return Err(format!("It is at {now}, and an upgrade does not lower it."));
            }
            (false, Direction::DownIfSafe | Direction::Down) => {
                return Err(format!(
                    "It is at {now}, and a downgrade does not raise it."
                ));
            }
            _ => {}
        }
        if !range.contains(level) {
            return Err(format!(
                "The controller's release supports {range}: roll all brokers to one that supports {level} first."
            ));
        }
        self.permits(Level::RECORDED, "levels of features")
            .map_err(|refused| refused.message.unwrap_or_default())?;
        self.supported_by_all(level, |broker| features::levels_of(name, &broker.features))
    }

    fn judge_metadata_version(&self, update: &FeatureUpdate) -> Result<(), String> {
        let (now, level) = (self.image.metadata_level(), update.level);
        if level < now {
            return Err(match update.direction {
                Direction::Up => {
                    format!("It is at {now}, and an upgrade does not lower it.")
                }
                Direction::DownIfSafe | Direction::Down => format!(
                    "It is at {now} and cannot be lowered: what was written at that level is in the log and in the brokers' copies of it, where an older release would misread it. Brokers of any release that supports {now} may take the place of these."
                ),
            });
        }
        if level == now {
            return Ok(());
        }
        if update.direction != Direction::Up {
            return Err(format!(
                "It is at {now}, and a downgrade does not raise it."
            ));
        }
        let highest = METADATA_VERSIONS.max;
        if level > highest {
            return Err(format!(
                "The controller's release supports {METADATA_VERSIONS}: roll all brokers to one that supports {level} first."
            ));
        }
        if level < Level::RECORDED {
            return Err(format!(
                "Levels are recorded from {} on: raise it to that at once.",
                Level::RECORDED
            ));
        }
        self.supported_by_all(level, |broker| {
            metadata_versions(&broker.features, broker.directories.len())
        })
    }

    /// `range` is what a broker supports.
    fn supported_by_all(
        &self,
        level: Level,
        range: impl Fn(&Broker) -> LevelRange,
    ) -> Result<(), String> {
        let lags: Vec<String> = self
            .image
            .brokers
            .values()
            .filter_map(|broker| {
                let range = range(broker);
                let shown = format!("broker {} (release {}) {range}", broker.id, broker.version);
                (!range.contains(level)).then_some(shown)
            })
            .collect();
        match lags.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "Not every registered broker supports it: {}. Roll these to a newer release, or unregister those that are gone for good.",
                lags.join(", ")
            )),
        }
    }
}
