//! The broker's settings, and a group's own, as far as groups of the newer protocol obey them.

use super::assignor::Assignor;
use leasehold_metadata::Image;
use leasehold_metadata::group_configs::{
    GroupDefaults, HEARTBEAT_INTERVAL_MS, Limits, SESSION_TIMEOUT_MS,
};

/// Which groups may change their protocol while they have members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Migration {
    Disabled,
    /// Classic groups become groups of the newer protocol.
    Upgrade,
    /// And the other way round.
    Downgrade,
    #[default]
    Bidirectional,
}

impl Migration {
    /// Reads `group.consumer.migration.policy`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "disabled" => Some(Self::Disabled),
            "upgrade" => Some(Self::Upgrade),
            "downgrade" => Some(Self::Downgrade),
            "bidirectional" => Some(Self::Bidirectional),
            _ => None,
        }
    }

    /// Whether a classic group may be upgraded.
    pub fn upgrades(self) -> bool {
        matches!(self, Self::Upgrade | Self::Bidirectional)
    }

    /// Whether a group may be downgraded to a classic one.
    pub fn downgrades(self) -> bool {
        matches!(self, Self::Downgrade | Self::Bidirectional)
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// `group.consumer.max.size`.
    pub max_size: usize,
    /// `group.consumer.session.timeout.ms`, or the group's own `consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`, or the group's own `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
    /// Between which bounds a group may have its own.
    pub own: GroupDefaults,
    /// `group.consumer.assignors`: what members may choose; the first is the default.
    pub assignors: [Option<Assignor>; Assignor::COUNT],
    /// `group.consumer.migration.policy`.
    pub migration: Migration,
    /// `group.max.size`: a larger group cannot go back to the classic protocol.
    pub classic_max_size: usize,
}

impl ConsumerSettings {
    /// Kafka's defaults.
    pub const DEFAULT: Self = Self {
        max_size: i32::MAX as usize,
        session_timeout_ms: 45_000,
        heartbeat_interval_ms: 5_000,
        own: GroupDefaults {
            session_timeout_ms: Limits {
                default: 45_000,
                min: 45_000,
                max: 60_000,
            },
            heartbeat_interval_ms: Limits {
                default: 5_000,
                min: 5_000,
                max: 15_000,
            },
        },
        assignors: [Some(Assignor::Uniform), Some(Assignor::Range)],
        migration: Migration::Bidirectional,
        classic_max_size: i32::MAX as usize,
    };

    /// What one group obeys: its own configuration goes before the broker's.
    pub fn of_group(mut self, image: &Image, group: &str) -> Self {
        let Some(values) = image.group_configs.get(group) else {
            return self;
        };
        if let Some(own) = values.get(SESSION_TIMEOUT_MS) {
            self.session_timeout_ms = self.own.session_timeout_ms.in_force(Some(own));
        }
        if let Some(own) = values.get(HEARTBEAT_INTERVAL_MS) {
            self.heartbeat_interval_ms = self.own.heartbeat_interval_ms.in_force(Some(own));
        }
        self
    }

    /// The assignors that members may choose, the default first.
    pub fn assignors(&self) -> impl Iterator<Item = Assignor> {
        self.assignors.iter().copied().flatten()
    }

    /// The assignor of this name, if members may choose it.
    pub fn assignor(&self, name: &str) -> Option<Assignor> {
        self.assignors().find(|assignor| assignor.name() == name)
    }
}
