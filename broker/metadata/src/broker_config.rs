//! Kafka's broker configuration keys that Leasehold honours: typed values, defaults, documentation.
//!
//! One table serves everyone who must agree about a key: the broker that reads its file, the
//! operator that validates `spec.config`, `DescribeConfigs`, and the configuration reference in
//! `docs/`. A key that is not in the table is refused by name, never ignored. Names, meanings and
//! defaults are Apache Kafka's (<https://kafka.apache.org/documentation/#brokerconfigs>) unless the
//! documentation of the key says otherwise.

use crate::configs::{self, TOPIC_KEYS};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A broker key as it is documented and described to clients.
#[derive(Clone, Copy, Debug)]
pub struct BrokerKey {
    /// Kafka's name, such as `num.partitions`.
    pub name: &'static str,
    /// The type of its value.
    pub kind: Kind,
    /// Default, in the form in which a user writes it.
    pub default: &'static str,
    /// The smallest value allowed, for a number.
    pub min: Option<i64>,
    /// What it does, with its unit.
    pub doc: &'static str,
}

/// The type of a value, as Kafka's documentation names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Int,
    Long,
    Double,
    String,
}

/// A share, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(f64);

// None is NaN.
impl Eq for Ratio {}

impl FromStr for Ratio {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let ratio = text.parse().map_err(drop)?;
        if (0.0..=1.0).contains(&ratio) {
            return Ok(Self(ratio));
        }
        Err(())
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "{0:?} is not a broker configuration key that Leasehold knows; docs/configuration.md lists them"
    )]
    Unknown(String),
    #[error("{key}={value:?} is not a valid {kind:?}{}", min.map(|m| format!(" of at least {m}")).unwrap_or_default())]
    Invalid {
        key: &'static str,
        value: String,
        kind: Kind,
        min: Option<i64>,
    },
    #[error("{key}={value:?} is no default for topics: {why}")]
    NoDefault {
        key: &'static str,
        value: String,
        why: configs::ConfigError,
    },
    #[error("the defaults for topics do not go together: {0}")]
    Together(configs::ConfigError),
    #[error("{key}={value:?} is not supported in this release: {why}")]
    NotAllowed {
        key: &'static str,
        value: String,
        why: &'static str,
    },
}

/// More would share too little memory to get anywhere.
const MOST_CLEANER_THREADS: i32 = 64;
/// What `replica.selector.class` may name.
const SELECTORS: [&str; 3] = [
    "",
    "org.apache.kafka.common.replica.LeaderSelector",
    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
];

trait Value: FromStr + ToString {
    const KIND: Kind;
    fn number(&self) -> Option<i64> {
        None
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;
}
impl Value for i32 {
    const KIND: Kind = Kind::Int;
    fn number(&self) -> Option<i64> {
        Some(i64::from(*self))
    }
}
impl Value for i64 {
    const KIND: Kind = Kind::Long;
    fn number(&self) -> Option<i64> {
        Some(*self)
    }
}
impl Value for Ratio {
    const KIND: Kind = Kind::Double;
}
impl Value for String {
    const KIND: Kind = Kind::String;
}

fn parse<T: Value>(key: &BrokerKey, text: &str) -> Result<T, ConfigError> {
    let invalid = || ConfigError::Invalid {
        key: key.name,
        value: text.to_owned(),
        kind: T::KIND,
        min: key.min,
    };
    let value: T = text.trim().parse().map_err(|_| invalid())?;
    match (value.number(), key.min) {
        (Some(number), Some(min)) if number < min => Err(invalid()),
        _ => Ok(value),
    }
}

fn default_of<T: Value>(literal: &str) -> T {
    match literal.trim_matches('"').parse() {
        Ok(value) => value,
        // The table is a constant of this file, and a test parses all of it.
        Err(_) => unreachable!("the default {literal} does not parse"),
    }
}

macro_rules! broker_config {
    ($( $(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:literal, $name:literal $(, min $min:literal)?; )+) => {
        /// The values of every broker key. `Default` gives Kafka's defaults.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct BrokerConfig {
            $( $(#[doc = $doc])+ pub $field: $ty, )+
        }

        /// Every key that is honoured, in the order of the documentation.
        pub const BROKER_KEYS: &[BrokerKey] = &[
            $( BrokerKey {
                name: $name,
                kind: <$ty as Value>::KIND,
                // A string literal keeps its quotes here; `default_text` takes them off.
                default: stringify!($default),
                min: broker_config!(@min $($min)?),
                doc: concat!($($doc),+),
            }, )+
        ];

        impl Default for BrokerConfig {
            fn default() -> Self {
                Self { $( $field: default_of(stringify!($default)), )+ }
            }
        }

        impl BrokerConfig {
            fn assign(&mut self, key: &BrokerKey, value: &str) -> Result<(), ConfigError> {
                match key.name {
                    $( $name => self.$field = parse::<$ty>(key, value)?, )+
                    other => return Err(ConfigError::Unknown(other.to_owned())),
                }
                Ok(())
            }

            /// The value of `name` as text, `None` if the key is unknown.
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $( $name => Some(self.$field.to_string()), )+
                    _ => None,
                }
            }
        }
    };
    (@min $min:literal) => { Some($min) };
    (@min) => { None };
}

broker_config! {
    /// Create a topic when a client produces to it or asks for its metadata.
    auto_create_topics_enable: bool = true, "auto.create.topics.enable";
    /// Partitions of a topic that is created without a number.
    num_partitions: i32 = 1, "num.partitions", min 1;
    /// Replicas of a topic that is created without a number.
    default_replication_factor: i32 = 1, "default.replication.factor", min 1;
    /// Replicas that must be in sync before acks=all is granted; at most the replication factor counts. Default of the topic's `min.insync.replicas`.
    min_insync_replicas: i32 = 1, "min.insync.replicas", min 1;
    /// Elect a replica that is not in sync when no other is left, losing data. Default of the topic's key of the same name.
    unclean_leader_election_enable: bool = false, "unclean.leader.election.enable";
    /// Whether topics can be deleted at all.
    delete_topic_enable: bool = true, "delete.topic.enable";
    /// Give leadership back to the first replica of the assignment by itself.
    auto_leader_rebalance_enable: bool = true, "auto.leader.rebalance.enable";
    /// How long a broker must have been back before it gets its preferred leaderships, in milliseconds. Leasehold's own: covers stale DNS answers after a pod's address changed.
    leader_restore_delay_ms: i64 = 60000, "leader.restore.delay.ms", min 0;
    /// Largest record batch, in bytes. Default of the topic's `max.message.bytes`.
    message_max_bytes: i32 = 1048588, "message.max.bytes", min 0;
    /// A segment is rolled when it reaches this size, in bytes. Default of `segment.bytes`.
    log_segment_bytes: i32 = 1073741824, "log.segment.bytes", min 1048576;
    /// A segment is rolled at this age, in milliseconds. Default of `segment.ms`.
    log_roll_ms: i64 = 604800000, "log.roll.ms", min 1;
    /// A segment is rolled up to this much before its age, in milliseconds. Default of `segment.jitter.ms`.
    log_roll_jitter_ms: i64 = 0, "log.roll.jitter.ms", min 0;
    /// Whether the disk sets a whole segment aside when one is begun. Default of `preallocate`.
    log_preallocate: bool = false, "log.preallocate";
    /// How long the file of a deleted segment is kept, renamed, in milliseconds. Default of `file.delete.delay.ms`.
    log_segment_delete_delay_ms: i64 = 60000, "log.segment.delete.delay.ms", min 0;
    /// How long records are kept, in milliseconds; -1 for ever. Default of `retention.ms`.
    log_retention_ms: i64 = 604800000, "log.retention.ms", min -1;
    /// How many bytes of a partition are kept; -1 without limit. Default of `retention.bytes`.
    log_retention_bytes: i64 = -1, "log.retention.bytes", min -1;
    /// How often retention is applied, in milliseconds.
    log_retention_check_interval_ms: i64 = 300000, "log.retention.check.interval.ms", min 1;
    /// An index entry is written each time this many bytes were appended. Default of `index.interval.bytes`.
    log_index_interval_bytes: i32 = 4096, "log.index.interval.bytes", min 0;
    /// Largest size of an index file, in bytes. Default of `segment.index.bytes`.
    log_index_size_max_bytes: i32 = 10485760, "log.index.size.max.bytes", min 4;
    /// Flush a partition to the disk after this many messages. Default of `flush.messages`.
    log_flush_interval_messages: i64 = 9223372036854775807, "log.flush.interval.messages", min 1;
    /// Flush a partition to the disk when a message has waited this long, in milliseconds. Default of `flush.ms`.
    log_flush_interval_ms: i64 = 9223372036854775807, "log.flush.interval.ms", min 0;
    /// `delete`, `compact`, both or neither. Default of `cleanup.policy`.
    log_cleanup_policy: String = "delete", "log.cleanup.policy";
    /// How long tombstones of compacted topics are kept, in milliseconds. Default of `delete.retention.ms`.
    log_cleaner_delete_retention_ms: i64 = 86400000, "log.cleaner.delete.retention.ms", min 0;
    /// How long a record stays uncompacted at least, in milliseconds. Default of `min.compaction.lag.ms`.
    log_cleaner_min_compaction_lag_ms: i64 = 0, "log.cleaner.min.compaction.lag.ms", min 0;
    /// How long a record may stay uncompacted, in milliseconds. Default of `max.compaction.lag.ms`.
    log_cleaner_max_compaction_lag_ms: i64 = 9223372036854775807, "log.cleaner.max.compaction.lag.ms", min 1;
    /// Share of uncompacted data, from 0 to 1, at which compaction begins. Default of `min.cleanable.dirty.ratio`.
    log_cleaner_min_cleanable_ratio: Ratio = 0.5, "log.cleaner.min.cleanable.ratio";
    /// How soon the cleaner looks again at a log that waits for time to pass, in milliseconds.
    log_cleaner_backoff_ms: i64 = 15000, "log.cleaner.backoff.ms", min 1;
    /// How many logs are compacted at a time, at most 64.
    log_cleaner_threads: i32 = 1, "log.cleaner.threads", min 1;
    /// How batches are compressed on disk: `producer`, `uncompressed`, `gzip`, `snappy`, `lz4` or `zstd`. Default of the topic's key of the same name.
    compression_type: String = "producer", "compression.type";
    /// Level of the leader's gzip; 1 to 9, or -1 for gzip's own default. Default of the topic's key of the same name.
    compression_gzip_level: i32 = -1, "compression.gzip.level";
    /// Level of the leader's lz4; only 9, Kafka's default, is supported. Default of the topic's key of the same name.
    compression_lz4_level: i32 = 9, "compression.lz4.level";
    /// Level of the leader's zstd. Default of the topic's key of the same name.
    compression_zstd_level: i32 = 3, "compression.zstd.level";
    /// `CreateTime` or `LogAppendTime`. Default of `message.timestamp.type`.
    log_message_timestamp_type: String = "CreateTime", "log.message.timestamp.type";
    /// How far a record's timestamp may lie in the past, in milliseconds. Default of `message.timestamp.before.max.ms`.
    log_message_timestamp_before_max_ms: i64 = 9223372036854775807, "log.message.timestamp.before.max.ms", min 0;
    /// How far a record's timestamp may lie in the future, in milliseconds. Default of `message.timestamp.after.max.ms`.
    log_message_timestamp_after_max_ms: i64 = 3600000, "log.message.timestamp.after.max.ms", min 0;
    /// Where the logs are, separated by commas: each on a disk of its own, which may fail without the others. Relative to the broker's `--data`, which is the only one where neither this nor `log.dir` is set. A new replica goes where the fewest are. Not in a `Cluster`, whose brokers have one volume each.
    log_dirs: String = "", "log.dirs";
    /// Where the logs are, if `log.dirs` is not set.
    log_dir: String = "", "log.dir";
    /// Bytes of each log directory's disk that stay free: with fewer, records for partitions in it are refused with KAFKA_STORAGE_ERROR, which clients repeat, until there is room again; 0 for no such bound. Leasehold's own.
    log_dir_min_free_bytes: i64 = 67108864, "log.dir.min.free.bytes", min 0;
    /// A follower that has not caught up for this long leaves the ISR, in milliseconds.
    replica_lag_time_max_ms: i64 = 30000, "replica.lag.time.max.ms", min 1;
    /// How long a follower's fetch waits for data, in milliseconds.
    replica_fetch_wait_max_ms: i32 = 500, "replica.fetch.wait.max.ms", min 1;
    /// Bytes that a follower asks for per partition.
    replica_fetch_max_bytes: i32 = 1048576, "replica.fetch.max.bytes", min 0;
    /// Bytes that a follower asks for in one answer.
    replica_fetch_response_max_bytes: i32 = 10485760, "replica.fetch.response.max.bytes", min 0;
    /// Who of a partition's replicas serves a consumer that tells its rack: `org.apache.kafka.common.replica.RackAwareReplicaSelector`, or nothing (as `org.apache.kafka.common.replica.LeaderSelector`) for the leader.
    replica_selector_class: String = "", "replica.selector.class";
    /// How often high watermarks are written to the disk, in milliseconds.
    replica_high_watermark_checkpoint_interval_ms: i64 = 5000, "replica.high.watermark.checkpoint.interval.ms", min 1;
    /// Bytes of a fetch answer at most, whatever a client asks for.
    fetch_max_bytes: i32 = 57671680, "fetch.max.bytes", min 1024;
    /// Fetch sessions (KIP-227) that are kept; with 0, none is. Consumers without one name all their partitions in each fetch.
    max_incremental_fetch_session_cache_slots: i32 = 1000, "max.incremental.fetch.session.cache.slots", min 0;
    /// Samples over which client quotas are measured.
    quota_window_num: i32 = 11, "quota.window.num", min 1;
    /// How long one such sample is, in seconds.
    quota_window_size_seconds: i32 = 1, "quota.window.size.seconds", min 1;
    /// Bytes per second that a broker sends, as leader of what `leader.replication.throttled.replicas` of a topic names, to followers that are not in sync.
    leader_replication_throttled_rate: i64 = 9223372036854775807, "leader.replication.throttled.rate", min 0;
    /// Bytes per second that a broker copies, as follower of what `follower.replication.throttled.replicas` of a topic names, while it is not in sync.
    follower_replication_throttled_rate: i64 = 9223372036854775807, "follower.replication.throttled.rate", min 0;
    /// Bytes per second that a broker copies from one of its log directories to another.
    replica_alter_log_dirs_io_max_bytes_per_second: i64 = 9223372036854775807, "replica.alter.log.dirs.io.max.bytes.per.second", min 0;
    /// Client connections at most; one more is closed at once.
    max_connections: i32 = 2147483647, "max.connections", min 0;
    /// A client connection without a request for this long is closed, in milliseconds.
    connections_max_idle_ms: i64 = 600000, "connections.max.idle.ms", min 1;
    /// Largest request, in bytes; a larger one closes the connection.
    socket_request_max_bytes: i32 = 104857600, "socket.request.max.bytes", min 1;
    /// Without a sign of life for this long a broker is fenced, in milliseconds.
    broker_session_timeout_ms: i64 = 3000, "broker.session.timeout.ms", min 500;
    /// How long a clean stop waits for leaders to move away, in milliseconds. Leasehold's own.
    controlled_shutdown_timeout_ms: i64 = 30000, "controlled.shutdown.timeout.ms", min 0;
    /// Partitions of `__consumer_offsets`; fixed once it was created.
    offsets_topic_num_partitions: i32 = 50, "offsets.topic.num.partitions", min 1;
    /// Replicas of `__consumer_offsets`; it is not created before so many brokers are there.
    offsets_topic_replication_factor: i32 = 3, "offsets.topic.replication.factor", min 1;
    /// Segment size of `__consumer_offsets`, in bytes.
    offsets_topic_segment_bytes: i32 = 104857600, "offsets.topic.segment.bytes", min 1048576;
    /// How long the offsets of an empty group are kept, in minutes.
    offsets_retention_minutes: i32 = 10080, "offsets.retention.minutes", min 1;
    /// How often expired offsets are looked for, in milliseconds.
    offsets_retention_check_interval_ms: i64 = 600000, "offsets.retention.check.interval.ms", min 1;
    /// Largest metadata string of an offset commit, in bytes.
    offset_metadata_max_bytes: i32 = 4096, "offset.metadata.max.bytes", min 0;
    /// How long an offset commit waits for its replicas, in milliseconds.
    offsets_commit_timeout_ms: i32 = 5000, "offsets.commit.timeout.ms", min 1;
    /// Shortest session timeout that a group member may ask for, in milliseconds.
    group_min_session_timeout_ms: i32 = 6000, "group.min.session.timeout.ms", min 0;
    /// Longest session timeout that a group member may ask for, in milliseconds.
    group_max_session_timeout_ms: i32 = 1800000, "group.max.session.timeout.ms", min 0;
    /// Members of one group at most.
    group_max_size: i32 = 2147483647, "group.max.size", min 1;
    /// How long the first rebalance of an empty group waits for more members, in milliseconds.
    group_initial_rebalance_delay_ms: i32 = 3000, "group.initial.rebalance.delay.ms", min 0;
    /// How long a member of the newer protocol (KIP-848) may be silent, in milliseconds.
    group_consumer_session_timeout_ms: i32 = 45000, "group.consumer.session.timeout.ms", min 1;
    /// How often members of the newer protocol are to heartbeat, in milliseconds.
    group_consumer_heartbeat_interval_ms: i32 = 5000, "group.consumer.heartbeat.interval.ms", min 1;
    /// Shortest `consumer.session.timeout.ms` that a group may be given, in milliseconds.
    group_consumer_min_session_timeout_ms: i32 = 45000, "group.consumer.min.session.timeout.ms", min 1;
    /// Longest `consumer.session.timeout.ms` that a group may be given, in milliseconds.
    group_consumer_max_session_timeout_ms: i32 = 60000, "group.consumer.max.session.timeout.ms", min 1;
    /// Shortest `consumer.heartbeat.interval.ms` that a group may be given, in milliseconds.
    group_consumer_min_heartbeat_interval_ms: i32 = 5000, "group.consumer.min.heartbeat.interval.ms", min 1;
    /// Longest `consumer.heartbeat.interval.ms` that a group may be given, in milliseconds.
    group_consumer_max_heartbeat_interval_ms: i32 = 15000, "group.consumer.max.heartbeat.interval.ms", min 1;
    /// Members of one group of the newer protocol at most.
    group_consumer_max_size: i32 = 2147483647, "group.consumer.max.size", min 1;
    /// Server-side assignors that members of the newer protocol may choose, the default first: `uniform`, `range`.
    group_consumer_assignors: String = "uniform,range", "group.consumer.assignors";
    /// Which groups change their protocol while they have members: `disabled`, `upgrade`, `downgrade` or `bidirectional`.
    group_consumer_migration_policy: String = "bidirectional", "group.consumer.migration.policy";
    /// Partitions of `__transaction_state`; fixed once it was created.
    transaction_state_log_num_partitions: i32 = 50, "transaction.state.log.num.partitions", min 1;
    /// Replicas of `__transaction_state`; it is not created before so many brokers are there.
    transaction_state_log_replication_factor: i32 = 3, "transaction.state.log.replication.factor", min 1;
    /// `min.insync.replicas` of `__transaction_state`.
    transaction_state_log_min_isr: i32 = 2, "transaction.state.log.min.isr", min 1;
    /// Segment size of `__transaction_state`, in bytes.
    transaction_state_log_segment_bytes: i32 = 104857600, "transaction.state.log.segment.bytes", min 1048576;
    /// Longest transaction timeout that a producer may ask for, in milliseconds.
    transaction_max_timeout_ms: i32 = 900000, "transaction.max.timeout.ms", min 1;
    /// How often transactions that have timed out are looked for and aborted, in milliseconds.
    transaction_abort_timed_out_transaction_cleanup_interval_ms: i32 = 10000, "transaction.abort.timed.out.transaction.cleanup.interval.ms", min 1;
    /// A transactional id without a transaction for this long is forgotten, in milliseconds.
    transactional_id_expiration_ms: i32 = 604800000, "transactional.id.expiration.ms", min 1;
    /// How often forgotten transactional ids are looked for, in milliseconds.
    transaction_remove_expired_transaction_cleanup_interval_ms: i32 = 3600000, "transaction.remove.expired.transaction.cleanup.interval.ms", min 1;
}

impl BrokerKey {
    /// The default as a user would write it.
    pub fn default_text(&self) -> &'static str {
        self.default.trim_matches('"')
    }
}

/// Kafka's other spellings of a key: name, key of the table, milliseconds per unit.
const UNITS: &[(&str, &str, i64)] = &[
    ("log.retention.hours", "log.retention.ms", 3_600_000),
    ("log.retention.minutes", "log.retention.ms", 60_000),
    ("log.roll.hours", "log.roll.ms", 3_600_000),
    ("log.roll.jitter.hours", "log.roll.jitter.ms", 3_600_000),
];

/// Who a broker is: arguments of its process, described among its keys.
pub const IDENTITY_KEYS: [&str; 4] = [
    "node.id",
    "broker.id",
    "advertised.listeners",
    "broker.rack",
];

/// Whether `name` means something in a broker's configuration.
pub fn is_known(name: &str) -> bool {
    BROKER_KEYS.iter().any(|key| key.name == name)
        || UNITS.iter().any(|(alias, ..)| *alias == name)
        || IDENTITY_KEYS.contains(&name)
}

impl BrokerConfig {
    /// The defaults, overridden by `overrides` (Kafka's names and values as text). Reports every
    /// key that is wrong, so that a user mends them in one go.
    pub fn from_map(overrides: &BTreeMap<String, String>) -> Result<Self, Vec<ConfigError>> {
        let mut config = Self::default();
        let mut errors = Vec::new();
        // Finer units win over coarser ones, as in Kafka; so those come last.
        for (alias, name, unit) in UNITS {
            if let Some(value) = overrides.get(*alias)
                && let Err(error) = config.set_in_units(alias, name, *unit, value)
            {
                errors.push(error);
            }
        }
        for (name, value) in overrides {
            if UNITS.iter().any(|(alias, ..)| alias == name) {
                continue;
            }
            if let Err(error) = config.set(name, value) {
                errors.push(error);
            }
        }
        if let Err(error) =
            configs::check_together(|key| config.get(configs::find(key)?.broker_key?))
        {
            errors.push(ConfigError::Together(error));
        }
        if errors.is_empty() {
            Ok(config)
        } else {
            Err(errors)
        }
    }

    /// Sets one key from text.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let Some(key) = BROKER_KEYS.iter().find(|key| key.name == name) else {
            return Err(ConfigError::Unknown(name.to_owned()));
        };
        let mut set = self.clone();
        set.assign(key, value)?;
        // What a topic may not have is no default for topics.
        let topic_key = TOPIC_KEYS.iter().find(|t| t.broker_key == Some(key.name));
        if let Some(topic_key) = topic_key {
            configs::validate(topic_key.name, value).map_err(|why| ConfigError::NoDefault {
                key: key.name,
                value: value.to_owned(),
                why,
            })?;
        }
        for directories in [&set.log_dirs, &set.log_dir] {
            let none = directories.split(',').any(|one| one.trim().is_empty());
            if none && !directories.is_empty() {
                return Err(ConfigError::NotAllowed {
                    key: key.name,
                    value: value.to_owned(),
                    why: "an entry of the list names no directory",
                });
            }
        }
        if !SELECTORS.contains(&set.replica_selector_class.as_str()) {
            return Err(ConfigError::NotAllowed {
                key: key.name,
                value: value.to_owned(),
                why: "classes cannot be loaded; RackAwareReplicaSelector and LeaderSelector of org.apache.kafka.common.replica are known",
            });
        }
        let policies = ["disabled", "upgrade", "downgrade", "bidirectional"];
        let policy = set.group_consumer_migration_policy.to_ascii_lowercase();
        let assignors: Vec<&str> = set
            .group_consumer_assignors
            .split(',')
            .map(str::trim)
            .collect();
        let each_once = |(n, name): (usize, &&str)| {
            matches!(*name, "uniform" | "range") && !assignors[..n].contains(name)
        };
        for (fine, why) in [
            (
                policies.contains(&policy.as_str()),
                "it is one of disabled, upgrade, downgrade and bidirectional",
            ),
            (
                assignors.iter().enumerate().all(each_once),
                "the assignors are uniform and range, each at most once",
            ),
            (
                set.log_cleaner_threads <= MOST_CLEANER_THREADS,
                "at most 64 logs are compacted at a time, as they share the memory for their keys",
            ),
        ] {
            if !fine {
                return Err(ConfigError::NotAllowed {
                    key: key.name,
                    value: value.to_owned(),
                    why,
                });
            }
        }
        *self = set;
        Ok(())
    }

    /// Where the logs are of a broker whose own files are in `home`.
    pub fn log_directories(&self, home: &Path) -> Vec<PathBuf> {
        let listed = match self.log_dirs.is_empty() {
            true => &self.log_dir,
            false => &self.log_dirs,
        };
        match listed.is_empty() {
            true => vec![home.to_owned()],
            false => listed.split(',').map(|one| home.join(one.trim())).collect(),
        }
    }

    fn set_in_units(
        &mut self,
        alias: &'static str,
        name: &str,
        unit: i64,
        value: &str,
    ) -> Result<(), ConfigError> {
        let invalid = || ConfigError::Invalid {
            key: alias,
            value: value.to_owned(),
            kind: Kind::Int,
            min: Some(-1),
        };
        let number: i64 = value.trim().parse().map_err(|_| invalid())?;
        let millis = if number == -1 {
            Some(-1)
        } else {
            number.checked_mul(unit)
        };
        let millis = millis.filter(|m| *m >= -1).ok_or_else(invalid)?;
        self.set(name, &millis.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn every_default_is_the_value_that_its_text_parses_to() {
        let mut config = BrokerConfig::default();
        for key in BROKER_KEYS {
            config.set(key.name, key.default_text()).unwrap();
            assert_eq!(
                config.get(key.name).unwrap(),
                key.default_text(),
                "{}",
                key.name
            );
        }
        assert_eq!(config, BrokerConfig::default());
    }

    #[test]
    fn what_no_topic_may_have_is_no_default_for_topics() {
        for (key, value) in [
            ("log.message.timestamp.type", "Sometimes"),
            ("log.cleanup.policy", "burn"),
            ("compression.type", "rar"),
            ("compression.gzip.level", "0"),
            ("compression.lz4.level", "12"),
            ("log.cleaner.min.cleanable.ratio", "1.5"),
            ("log.cleaner.min.cleanable.ratio", "NaN"),
            ("log.cleaner.threads", "0"),
            ("log.cleaner.threads", "65"),
        ] {
            let mut config = BrokerConfig::default();
            let error = config.set(key, value).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
            assert_eq!(config, BrokerConfig::default(), "{key}");
        }
        let lags = map(&[
            ("log.cleaner.min.compaction.lag.ms", "6"),
            ("log.cleaner.max.compaction.lag.ms", "5"),
        ]);
        assert_eq!(BrokerConfig::from_map(&lags).unwrap_err().len(), 1);
        let config = BrokerConfig::from_map(&map(&[
            ("log.roll.jitter.hours", "2"),
            ("log.cleaner.min.cleanable.ratio", "0.25"),
            ("log.cleanup.policy", "compact,delete"),
        ]))
        .unwrap();
        assert_eq!(config.log_roll_jitter_ms, 7_200_000);
        let ratio = config.get("log.cleaner.min.cleanable.ratio");
        assert_eq!(ratio.as_deref(), Some("0.25"));
    }

    #[test]
    fn log_directories_are_found_from_the_brokers_own() {
        let home = Path::new("/home");
        let of = |pairs: &[(&str, &str)]| {
            let config = BrokerConfig::from_map(&map(pairs)).unwrap();
            config.log_directories(home)
        };
        assert_eq!(of(&[]), [home]);
        assert_eq!(of(&[("log.dir", "a")]), [home.join("a")]);
        let both = of(&[("log.dir", "a"), ("log.dirs", "/disk-1, b")]);
        assert_eq!(both, [PathBuf::from("/disk-1"), home.join("b")]);
        for (key, value) in [
            ("log.dirs", "/a,,/b"),
            ("log.dirs", "/a,"),
            ("log.dir", ","),
        ] {
            let error = BrokerConfig::from_map(&map(&[(key, value)])).unwrap_err();
            assert!(error[0].to_string().contains(key), "{error:?}");
        }
    }

    #[test]
    fn all_wrong_keys_are_named_at_once() {
        let errors =
            BrokerConfig::from_map(&map(&[("no.such", "1"), ("num.partitions", "0")])).unwrap_err();
        assert_eq!(errors.len(), 2);
        let text = format!("{} {}", errors[0], errors[1]);
        assert!(
            text.contains("no.such") && text.contains("num.partitions"),
            "{text}"
        );
        assert!(text.contains("at least 1"), "{text}");
    }

    #[test]
    fn the_finest_unit_of_retention_wins() {
        let config = BrokerConfig::from_map(&map(&[
            ("log.retention.hours", "2"),
            ("log.retention.minutes", "5"),
        ]));
        assert_eq!(config.unwrap().log_retention_ms, 300_000);
        let config = BrokerConfig::from_map(&map(&[
            ("log.retention.ms", "7"),
            ("log.retention.hours", "2"),
        ]));
        assert_eq!(config.unwrap().log_retention_ms, 7);
        let forever = BrokerConfig::from_map(&map(&[("log.retention.hours", "-1")]));
        assert_eq!(forever.unwrap().log_retention_ms, -1);
        assert!(
            BrokerConfig::from_map(&map(&[("log.retention.hours", "9223372036854775807")]))
                .is_err()
        );
    }
}
