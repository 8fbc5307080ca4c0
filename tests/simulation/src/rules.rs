//! The rules that can be taken out of the product, one at a time, to show that the simulation notices.

/// A rule: its name in the code, and what it says.
pub struct Rule {
    pub name: &'static str,
    pub says: &'static str,
    /// It is asked only where there are transactions: without them a run is the same with it and without.
    pub of_transactions: bool,
}

const fn rule(name: &'static str, says: &'static str) -> Rule {
    Rule {
        name,
        says,
        of_transactions: false,
    }
}

const fn of_transactions(name: &'static str, says: &'static str) -> Rule {
    Rule {
        name,
        says,
        of_transactions: true,
    }
}

/// All of them. The first stands in the simulated API server, where the product asks for it.
pub const RULES: &[Rule] = &[
    rule(
        "head-tests-nonce",
        "a head write is applied only on the content that its writer knows",
    ),
    rule(
        "a-foreign-head-is-left-alone",
        "a head of another cluster is not claimed",
    ),
    rule(
        "a-foreign-peer-is-refused",
        "what a peer of another cluster asks is not answered",
    ),
    rule(
        "a-foreign-volume-is-refused",
        "a volume of another cluster is not opened",
    ),
    rule(
        "foreign-chunks-are-kept",
        "chunks of another cluster are not collected",
    ),
    rule(
        "a-frozen-controller-writes-nothing",
        "what was decided and is not on its way is not written after a freeze",
    ),
    rule("claim-raises-epoch", "a claim is the next controller epoch"),
    rule(
        "refusal-is-doubt",
        "a refused head write may be the second copy of an applied one",
    ),
    rule(
        "doubt-is-resolved",
        "a head write without an answer is not taken for applied",
    ),
    rule(
        "unmoved-is-undecided",
        "a head that has not moved does not mean that a write never comes",
    ),
    rule(
        "own-nonce-is-looked-for",
        "an own nonce in the tail means applied, though another wrote since",
    ),
    rule(
        "unknown-is-told",
        "who waits for a write of unknown outcome is not told that it was not applied",
    ),
    rule(
        "effects-wait",
        "effects wait until what they rest on is known to be applied",
    ),
    rule(
        "failed-write-ends-the-term",
        "a failed write ends the term and its image",
    ),
    rule(
        "lease-deadline",
        "the holder of the Lease stops acting at its deadline",
    ),
    rule(
        "lease-is-waited-for",
        "a Lease that is held is not taken before its time",
    ),
    rule(
        "leader-change-raises-epoch",
        "another leader means leader epoch + 1",
    ),
    rule("leader-from-the-isr", "a leader comes from the ISR"),
    rule(
        "fenced-leave-the-isr",
        "who is fenced leaves the ISR and leads no more",
    ),
    rule(
        "elr-is-emptied-at-the-minimum",
        "the ELR is emptied once the ISR is at the effective minimum",
    ),
    rule(
        "restart-is-judged",
        "a restart that may have lost data leaves ISR and ELR",
    ),
    rule(
        "kernel-and-pod-are-compared",
        "a restart is intact only in the same kernel and pod, or after a clean stop",
    ),
    rule(
        "the-last-member-is-judged-too",
        "a lossy restart leaves the ISR even as its last member",
    ),
    rule(
        "registered-fenced",
        "a process that registers leads nothing until it has applied that: its leadership ended",
    ),
    rule(
        "elr-is-kept",
        "who leaves an ISR that is below the minimum is remembered in the ELR",
    ),
    rule(
        "isr-partition-epoch",
        "an ISR proposal on an older partition epoch is refused",
    ),
    rule(
        "isr-member-incarnation",
        "an ISR member is the incarnation that was judged",
    ),
    rule("isr-member-unfenced", "an ISR member is unfenced"),
    rule(
        "unfenced-when-caught-up",
        "a broker is unfenced once it has applied its own registration",
    ),
    rule(
        "hw-needs-the-minimum",
        "the high watermark stands while the ISR is below the minimum",
    ),
    rule(
        "hw-counts-the-proposal",
        "a proposed member counts for the high watermark",
    ),
    rule(
        "hw-counts-who-is-to-leave",
        "a member counts for the high watermark until its removal is committed",
    ),
    rule(
        "hw-needs-every-member",
        "a member that never fetched holds the high watermark",
    ),
    rule(
        "fetch-of-an-older-epoch",
        "a fetch at an older leader epoch does not count",
    ),
    rule(
        "fetch-incarnation",
        "a fetch counts only for the incarnation that the image names",
    ),
    rule(
        "follower-state-is-reset",
        "how far a follower had come is forgotten with its incarnation",
    ),
    rule(
        "join-at-the-high-watermark",
        "who joins the ISR has all that is committed",
    ),
    rule(
        "join-at-the-epochs-start",
        "who joins the ISR has all that the epoch began with",
    ),
    rule(
        "one-proposal-at-a-time",
        "a leader has one ISR proposal outstanding",
    ),
    rule(
        "a-retry-is-identical",
        "a retry names the incarnations that were judged",
    ),
    rule(
        "only-a-record-ends-a-proposal",
        "no answer ends an ISR proposal, only a record",
    ),
    rule(
        "a-newer-epoch-ends-serving",
        "who hears of a newer leader epoch stops serving",
    ),
    rule(
        "logs-are-compared",
        "a follower's fetch is answered only where its log is a beginning of the leader's",
    ),
    rule(
        "readers-stop-at-the-high-watermark",
        "a consumer reads to the high watermark",
    ),
    rule(
        "a-repeat-is-recognised",
        "a batch that an idempotent producer sends again is not appended again",
    ),
    rule(
        "sequences-have-no-gap",
        "a batch of an idempotent producer follows the one before",
    ),
    rule(
        "a-clean-marker-is-for-one-start",
        "the marker of a clean close is gone before the next life registers",
    ),
    rule(
        "only-what-is-committed-is-deleted",
        "nobody can have records deleted that are not committed",
    ),
    rule(
        "a-deletion-waits-for-the-replicas",
        "who deletes records is told so when every live replica's log begins there",
    ),
    rule(
        "deletions-are-followed",
        "a follower's log begins where its leader's does",
    ),
    rule(
        "a-log-may-begin-within-a-batch",
        "a leader whose log begins in the midst of a batch can be followed from nothing",
    ),
    rule(
        "retention-leaves-its-bytes",
        "retention by size leaves that many bytes",
    ),
    rule(
        "retention-ends-at-the-high-watermark",
        "retention takes only what is committed",
    ),
    rule(
        "a-keys-last-record-stays",
        "a compaction keeps the last record of each key",
    ),
    rule(
        "a-tombstone-stays-for-its-time",
        "a tombstone stays for delete.retention.ms",
    ),
    rule(
        "a-producers-last-batch-stays",
        "a compaction keeps what tells of a producer's last sequence",
    ),
    rule(
        "only-what-is-committed-is-compacted",
        "a compaction ends at the last stable offset",
    ),
    rule(
        "commits-are-of-this-generation",
        "an offset commit names the group's generation",
    ),
    rule(
        "member-ids-are-checked",
        "who is no member of the group is refused",
    ),
    rule(
        "instances-are-fenced",
        "a static member that was replaced is refused",
    ),
    rule(
        "a-silent-member-is-put-out",
        "a member whose session ends is put out of its group",
    ),
    rule(
        "a-rebalance-waits-for-all",
        "a rebalance waits for all members, or their timeout",
    ),
    rule(
        "a-rebalance-ends-in-time",
        "a rebalance waits no longer than its timeout",
    ),
    rule(
        "a-rebalance-is-a-generation",
        "each rebalance is a new generation",
    ),
    rule(
        "the-leader-assigns",
        "only the leader of a generation assigns",
    ),
    rule(
        "syncs-are-of-this-generation",
        "a sync names the group's generation",
    ),
    rule(
        "an-offset-is-shown-when-stored",
        "an offset is shown once it is stored",
    ),
    rule(
        "a-commit-waits-for-the-isr",
        "what a coordinator writes counts once the ISR holds it",
    ),
    rule(
        "a-write-is-of-its-epoch",
        "a coordinator writes only in the leader epoch that it loaded in",
    ),
    rule(
        "all-is-loaded-first",
        "a coordinator answers once it has loaded all that its log held",
    ),
    rule(
        "a-former-leader-lets-go",
        "who leads a group's partition no more lets the group go",
    ),
    rule(
        "a-share-is-given-when-stored",
        "members are told of their shares once these are stored",
    ),
    of_transactions(
        "a-marker-does-not-end-the-next-transaction",
        "in version 2 a marker ends only what has an older epoch than it",
    ),
    of_transactions(
        "readers-of-committed-records-stop-at-what-is-open",
        "who reads committed records reads to the last stable offset",
    ),
    of_transactions(
        "aborted-transactions-are-told",
        "who reads committed records is told what was aborted",
    ),
    of_transactions(
        "what-begins-a-transaction-is-verified",
        "a batch begins a transaction only where the coordinator has the partition in it",
    ),
    of_transactions(
        "a-coordinator-adds-what-it-knows",
        "a coordinator adds to a transaction only partitions of its own metadata",
    ),
    of_transactions(
        "an-end-is-told-when-stored",
        "a producer is told of the end of its transaction once that is stored",
    ),
    of_transactions(
        "the-next-coordinator-carries-on",
        "an end that is stored is carried to its partitions by whoever coordinates next",
    ),
    of_transactions(
        "a-marker-is-sent-until-it-is-in",
        "a marker that a leader refuses is sent again",
    ),
    of_transactions(
        "an-older-epoch-changes-nothing",
        "a producer of an older epoch changes no transaction",
    ),
    of_transactions(
        "a-new-producer-ends-what-is-open",
        "a new producer is given an epoch once what the last one had open is ended",
    ),
    of_transactions(
        "aborted-offsets-do-not-show",
        "an offset that was committed in a transaction shows only if that is committed",
    ),
    of_transactions(
        "a-log-that-is-read-keeps-offsets-open",
        "who reads the log anew keeps an offset in a transaction back until its end",
    ),
    of_transactions(
        "an-end-that-is-heard-of-first-counts",
        "a marker that is heard of before the write of an offset is known as stored ends that, too",
    ),
    of_transactions(
        "who-wants-stable-offsets-waits",
        "who asks for stable offsets is not given one that a transaction may change",
    ),
    rule(
        "the-leader-gives-the-time",
        "where the topic says so, records have the time of their append",
    ),
    rule(
        "a-topic-has-its-codec",
        "records lie in their topic's codec",
    ),
    rule(
        "a-batch-has-its-checksum",
        "a batch without its checksum is refused",
    ),
];
