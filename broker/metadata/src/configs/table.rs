//! The table of topic keys, in alphabetical order.

use super::{Kind, Support, TopicKey};

const NO_TIERS: &str = "tiered storage is not part of it";
const ONE_LZ4: &str = "the lz4 encoder has one level, which is Kafka's default";
const MAX: i64 = i64::MAX;
const INT: i64 = i32::MAX as i64;

const fn row(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    broker_key: &'static str,
    support: Support,
    doc: &'static str,
) -> TopicKey {
    TopicKey {
        name,
        kind,
        default: Some(default),
        broker_key: if broker_key.is_empty() {
            None
        } else {
            Some(broker_key)
        },
        support,
        doc,
    }
}

const fn long(min: i64) -> Kind {
    Kind::Long { min, max: MAX }
}

const fn int(min: i64) -> Kind {
    Kind::Int { min, max: INT }
}

use Kind::Boolean;
use Support::{DefaultOnly, Full};

/// Every topic key of Apache Kafka 4.3.
pub const TOPIC_KEYS: &[TopicKey] = &[
    row(
        "cleanup.policy",
        // Kafka allows none, too.
        Kind::List(&["delete", "compact"]),
        "delete",
        "log.cleanup.policy",
        Full,
        "What happens to old records: `delete` discards whole segments by time or size, `compact` keeps the last record of each key; `compact,delete` does both; an empty list, neither.",
    ),
    row(
        "compression.gzip.level",
        Kind::GzipLevel,
        "-1",
        "compression.gzip.level",
        Full,
        "Level of the leader's gzip, where `compression.type` is `gzip`; 1 to 9, or -1 for gzip's own default.",
    ),
    row(
        "compression.lz4.level",
        Kind::Int { min: 1, max: 17 },
        "9",
        "compression.lz4.level",
        DefaultOnly(ONE_LZ4),
        "Level of the leader's lz4, where `compression.type` is `lz4`.",
    ),
    row(
        "compression.type",
        Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "compression.type",
        Full,
        "How batches are compressed on disk: `producer` keeps them as they came, `uncompressed` unpacks them; with a codec, the leader packs anew what came in another.",
    ),
    row(
        "compression.zstd.level",
        Kind::Int {
            min: -131072,
            max: 22,
        },
        "3",
        "compression.zstd.level",
        Full,
        "Level of the leader's zstd, where `compression.type` is `zstd`. From 17 on it looks back 4 MiB at most.",
    ),
    row(
        "delete.retention.ms",
        long(0),
        "86400000",
        "log.cleaner.delete.retention.ms",
        Full,
        "How long tombstones of compacted topics are kept, in milliseconds.",
    ),
    row(
        "file.delete.delay.ms",
        long(0),
        "60000",
        "log.segment.delete.delay.ms",
        Full,
        "How long the file of a deleted segment is kept, renamed, in milliseconds. What compaction replaced, and a deleted topic, goes at once.",
    ),
    row(
        "flush.messages",
        long(1),
        "9223372036854775807",
        "log.flush.interval.messages",
        Full,
        "Flush to the disk after this many messages. Replication, not this, is what keeps records safe.",
    ),
    row(
        "flush.ms",
        long(0),
        "9223372036854775807",
        "log.flush.interval.ms",
        Full,
        "Flush to the disk when a message has waited this long, in milliseconds; looked at each second.",
    ),
    row(
        "follower.replication.throttled.replicas",
        Kind::Replicas,
        "",
        "",
        Full,
        "Followers whose copying is held to their `follower.replication.throttled.rate` while they are not in sync: pairs `partition:broker`, or `*`.",
    ),
    row(
        "index.interval.bytes",
        int(0),
        "4096",
        "log.index.interval.bytes",
        Full,
        "An index entry is written each time this many bytes were appended.",
    ),
    row(
        "leader.replication.throttled.replicas",
        Kind::Replicas,
        "",
        "",
        Full,
        "Leaders that hold what they send to followers that are not in sync to their `leader.replication.throttled.rate`: pairs `partition:broker`, or `*`.",
    ),
    row(
        "local.retention.bytes",
        long(-2),
        "-2",
        "",
        DefaultOnly(NO_TIERS),
        "How many bytes stay local when segments are tiered.",
    ),
    row(
        "local.retention.ms",
        long(-2),
        "-2",
        "",
        DefaultOnly(NO_TIERS),
        "How long segments stay local when they are tiered, in milliseconds.",
    ),
    row(
        "max.compaction.lag.ms",
        long(1),
        "9223372036854775807",
        "log.cleaner.max.compaction.lag.ms",
        Full,
        "How long a record may stay uncompacted, in milliseconds.",
    ),
    row(
        "max.message.bytes",
        int(0),
        "1048588",
        "message.max.bytes",
        Full,
        "Largest record batch that is accepted, in bytes.",
    ),
    row(
        "message.timestamp.after.max.ms",
        long(0),
        "3600000",
        "log.message.timestamp.after.max.ms",
        Full,
        "How far a record's timestamp may lie in the future, in milliseconds. Of compressed batches, what the header says counts.",
    ),
    row(
        "message.timestamp.before.max.ms",
        long(0),
        "9223372036854775807",
        "log.message.timestamp.before.max.ms",
        Full,
        "How far a record's timestamp may lie in the past, in milliseconds. Where it is set, the leader unpacks compressed batches to look at each record.",
    ),
    row(
        "message.timestamp.type",
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "log.message.timestamp.type",
        Full,
        "Whether a record's timestamp is the producer's or the broker's.",
    ),
    row(
        "min.cleanable.dirty.ratio",
        Kind::Double { min: 0.0, max: 1.0 },
        "0.5",
        "log.cleaner.min.cleanable.ratio",
        Full,
        "Share of uncompacted data at which compaction begins.",
    ),
    row(
        "min.compaction.lag.ms",
        long(0),
        "0",
        "log.cleaner.min.compaction.lag.ms",
        Full,
        "How long a record stays uncompacted at least, in milliseconds.",
    ),
    row(
        "min.insync.replicas",
        int(1),
        "1",
        "min.insync.replicas",
        Full,
        "Replicas that must be in sync before acks=all is granted; never more than the topic has.",
    ),
    row(
        "preallocate",
        Boolean,
        "false",
        "log.preallocate",
        Full,
        "Whether the disk sets a whole segment aside when a new one is begun, where the file system can.",
    ),
    row(
        "remote.log.copy.disable",
        Boolean,
        "false",
        "",
        DefaultOnly(NO_TIERS),
        "Whether tiering of new segments is switched off.",
    ),
    row(
        "remote.log.delete.on.disable",
        Boolean,
        "false",
        "",
        DefaultOnly(NO_TIERS),
        "Whether tiered segments are deleted when tiering is switched off.",
    ),
    row(
        "remote.storage.enable",
        Boolean,
        "false",
        "",
        DefaultOnly(NO_TIERS),
        "Whether segments are moved to remote storage.",
    ),
    row(
        "retention.bytes",
        long(-1),
        "-1",
        "log.retention.bytes",
        Full,
        "How many bytes of a partition are kept; -1 without limit.",
    ),
    row(
        "retention.ms",
        long(-1),
        "604800000",
        "log.retention.ms",
        Full,
        "How long records are kept, in milliseconds; -1 for ever.",
    ),
    row(
        "segment.bytes",
        int(1048576),
        "1073741824",
        "log.segment.bytes",
        Full,
        "A segment is rolled when it reaches this size, in bytes.",
    ),
    row(
        "segment.index.bytes",
        int(4),
        "10485760",
        "log.index.size.max.bytes",
        Full,
        "Largest size of an index file, in bytes.",
    ),
    row(
        "segment.jitter.ms",
        long(0),
        "0",
        "log.roll.jitter.ms",
        Full,
        "A segment is rolled up to this much before its age, by a draw of its own, in milliseconds.",
    ),
    row(
        "segment.ms",
        long(1),
        "604800000",
        "log.roll.ms",
        Full,
        "A segment is rolled at this age, in milliseconds.",
    ),
    row(
        "unclean.leader.election.enable",
        Boolean,
        "false",
        "unclean.leader.election.enable",
        Full,
        "Elect a replica that is not in sync when no other is left, losing data.",
    ),
];

/// Names that Kafka or an older release of it has, and no topic here.
pub const NO_TOPIC_KEYS: &[(&str, &str)] = &[
    (
        "internal.segment.bytes",
        "it is for Apache Kafka's own tests; segment.bytes is the key",
    ),
    (
        "message.downconversion.enable",
        "since Kafka 4.0 it does nothing: no batch is converted to an older format",
    ),
    (
        "message.format.version",
        "Kafka 4.0 took it away: there is one format",
    ),
    (
        "message.timestamp.difference.max.ms",
        "Kafka 4.0 took it away: message.timestamp.before.max.ms and message.timestamp.after.max.ms are the keys",
    ),
];
