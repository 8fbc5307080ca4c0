//! The table of topic keys, in alphabetical order.

use super::{Kind, Support, TopicKey};

const NO_TIERS: &str = "tiered storage is not part of it";
const NO_RECOMPRESSION: &str = "batches are kept as the producer compressed them";
const NO_THROTTLE: &str = "replication is not throttled";
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
use Support::{DefaultOnly, Full, Only};

/// Every topic key of Apache Kafka 4.3.
pub const TOPIC_KEYS: &[TopicKey] = &[
    row(
        "cleanup.policy",
        Kind::List(&["delete", "compact"]),
        "delete",
        "",
        Full,
        "What happens to old records: `delete` discards whole segments by time or size, `compact` keeps the last record of each key; `compact,delete` does both.",
    ),
    row(
        "compression.gzip.level",
        Kind::Int { min: -1, max: 9 },
        "-1",
        "",
        DefaultOnly(NO_RECOMPRESSION),
        "Compression level if the broker compressed with gzip.",
    ),
    row(
        "compression.lz4.level",
        Kind::Int { min: 1, max: 17 },
        "9",
        "",
        DefaultOnly(NO_RECOMPRESSION),
        "Compression level if the broker compressed with lz4.",
    ),
    row(
        "compression.type",
        Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "",
        Only(&["producer"], NO_RECOMPRESSION),
        "How batches are compressed on disk: `producer` keeps them as they came.",
    ),
    row(
        "compression.zstd.level",
        Kind::Int {
            min: -131072,
            max: 22,
        },
        "3",
        "",
        DefaultOnly(NO_RECOMPRESSION),
        "Compression level if the broker compressed with zstd.",
    ),
    row(
        "delete.retention.ms",
        long(0),
        "86400000",
        "",
        Full,
        "How long tombstones of compacted topics are kept, in milliseconds.",
    ),
    row(
        "file.delete.delay.ms",
        long(0),
        "60000",
        "",
        DefaultOnly("files are deleted when no reader needs them"),
        "How long a file stays after its segment was deleted, in milliseconds.",
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
        "",
        Full,
        "Flush to the disk when a message has waited this long, in milliseconds.",
    ),
    row(
        "follower.replication.throttled.replicas",
        Kind::Replicas,
        "",
        "",
        DefaultOnly(NO_THROTTLE),
        "Replicas whose replication is throttled on the follower's side.",
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
        DefaultOnly(NO_THROTTLE),
        "Replicas whose replication is throttled on the leader's side.",
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
        "",
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
        "How far a record's timestamp may lie in the future, in milliseconds.",
    ),
    row(
        "message.timestamp.before.max.ms",
        long(0),
        "9223372036854775807",
        "log.message.timestamp.before.max.ms",
        Full,
        "How far a record's timestamp may lie in the past, in milliseconds.",
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
        "",
        Full,
        "Share of uncompacted data at which compaction begins.",
    ),
    row(
        "min.compaction.lag.ms",
        long(0),
        "0",
        "",
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
        "",
        DefaultOnly("segments are not preallocated"),
        "Whether the file of a new segment is preallocated.",
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
        "",
        DefaultOnly("segments are rolled at their exact age"),
        "Random part of the age at which a segment is rolled, in milliseconds.",
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
