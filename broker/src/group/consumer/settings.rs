//! The broker's settings as far as groups of the newer protocol obey them.

use super::assignor::Assignor;

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
    /// `group.consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
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
        assignors: [Some(Assignor::Uniform), Some(Assignor::Range)],
        migration: Migration::Bidirectional,
        classic_max_size: i32::MAX as usize,
    };

    /// The assignors that members may choose, the default first.
    pub fn assignors(&self) -> impl Iterator<Item = Assignor> {
        self.assignors.iter().copied().flatten()
    }

    /// The assignor of this name, if members may choose it.
    pub fn assignor(&self, name: &str) -> Option<Assignor> {
        self.assignors().find(|assignor| assignor.name() == name)
    }
}
