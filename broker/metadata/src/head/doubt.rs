//! What became of a head write whose outcome is in doubt: pure, on a head read by quorum.
//!
//! In doubt is every write without a success as its answer: a timeout, a 5xx, and *any refusal*, since
//! the refused copy may be the second of two. Promise: [`Verdict::Applied`] and [`Verdict::NotApplied`]
//! are said only when they are known to be true for ever.

use super::format::{FormatError, Head};
use crate::store::HeadObject;
use leasehold_types::Seq;
use leasehold_types::seams::taken_out;

/// A write that was sent at least once.
#[derive(Clone, Copy, Debug)]
pub struct Doubted<'a> {
    /// The uid and nonce that it tests.
    pub uid: &'a str,
    pub tested_nonce: &'a str,
    /// The nonce and the entry that it writes.
    pub nonce: &'a str,
    pub seq: Seq,
}

/// What a quorum read tells about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is in, and nothing came after it.
    Applied,
    /// It is in, and another writer has written since: success, and the end of our term.
    AppliedAndDeposed,
    /// The head has not moved: send the identical request again.
    Unmoved,
    /// Another writer's entry stands in its place: it is not in, and never will be.
    NotApplied,
    /// The head cannot tell any more.
    Unknown,
}

/// Judges by the newest head.
pub fn judge(write: Doubted<'_>, now: Option<&HeadObject>) -> Result<Verdict, FormatError> {
    let Some(object) = now else {
        return Ok(Verdict::Unknown);
    };
    let head = Head::parse(object)?;
    if head.nonce == write.nonce {
        return Ok(Verdict::Applied);
    }
    if object.uid != write.uid {
        // Deleted and made anew, from a copy of any age.
        return Ok(Verdict::Unknown);
    }
    if head.nonce == write.tested_nonce {
        if taken_out("unmoved-is-undecided") {
            return Ok(Verdict::NotApplied);
        }
        return Ok(Verdict::Unmoved);
    }
    let in_tail = head.tail.values().any(|e| e.header.nonce == write.nonce);
    let in_chunks = head
        .segments
        .iter()
        .chain(&head.snapshot)
        .any(|chunk| chunk.nonce == write.nonce);
    if (in_tail || in_chunks) && !taken_out("own-nonce-is-looked-for") {
        return Ok(Verdict::AppliedAndDeposed);
    }
    if head.tail.contains_key(&write.seq) {
        return Ok(Verdict::NotApplied);
    }
    Ok(Verdict::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::chunks::ChunkRef;
    use crate::head::format::{entry_text, initial};
    use crate::head::keys;
    use crate::records::Entry;
    use leasehold_types::{ClusterId, ControllerEpoch};
    use std::collections::BTreeMap;

    const WRITE: Doubted<'static> = Doubted {
        uid: "u",
        tested_nonce: "n1",
        nonce: "mine",
        seq: Seq(2),
    };

    /// A head whose entries have these nonces; the first `rolled` of them are in a segment.
    fn head(nonces: &[&str], rolled: usize) -> HeadObject {
        let mut data: BTreeMap<String, String> = initial(&ClusterId::random());
        data.insert(keys::SEQ.into(), nonces.len().to_string());
        if let Some(last) = nonces.last() {
            data.insert(keys::NONCE.into(), (*last).to_owned());
        }
        for (nonce, seq) in nonces.iter().zip(1u64..).skip(rolled) {
            let entry = Entry {
                seq: Seq(seq),
                epoch: ControllerEpoch(1),
                nonce: (*nonce).to_owned(),
                records: vec![],
            };
            data.insert(keys::entry(Seq(seq)), entry_text(&entry));
        }
        if rolled > 0 {
            let segment = ChunkRef {
                first: Seq(1),
                last: Seq(rolled as u64),
                nonce: nonces[rolled - 1].to_owned(),
                bytes: 0,
                parts: vec![],
            };
            data.insert(
                keys::SEGMENTS.into(),
                super::super::format::lines(&[segment]),
            );
        }
        HeadObject {
            uid: "u".into(),
            data,
        }
    }

    fn verdict(object: &HeadObject) -> Verdict {
        judge(WRITE, Some(object)).unwrap()
    }

    #[test]
    fn an_own_nonce_in_the_head_means_applied_even_after_a_refusal() {
        assert_eq!(verdict(&head(&["n1", "mine"], 0)), Verdict::Applied);
        assert_eq!(verdict(&head(&["n1", "mine"], 2)), Verdict::Applied);
    }

    #[test]
    fn an_own_nonce_below_anothers_entry_is_success_and_the_end_of_the_term() {
        let deposed = Verdict::AppliedAndDeposed;
        assert_eq!(verdict(&head(&["n1", "mine", "x"], 0)), deposed);
        // Rolled with our entry as the segment's last: still found.
        assert_eq!(verdict(&head(&["n1", "mine", "x"], 2)), deposed);
    }

    #[test]
    fn an_unmoved_head_decides_nothing() {
        assert_eq!(verdict(&head(&["n1"], 0)), Verdict::Unmoved);
    }

    #[test]
    fn anothers_entry_in_our_place_means_never() {
        assert_eq!(verdict(&head(&["n1", "x"], 0)), Verdict::NotApplied);
    }

    #[test]
    fn a_tail_that_rolled_past_our_entry_means_unknown_and_not_failure() {
        assert_eq!(verdict(&head(&["n1", "?", "x"], 3)), Verdict::Unknown);
    }

    #[test]
    fn a_rewound_recreated_or_missing_head_means_unknown() {
        assert_eq!(verdict(&head(&[], 0)), Verdict::Unknown);
        let mut recreated = head(&["n1"], 0);
        recreated.uid = "v".into();
        assert_eq!(verdict(&recreated), Verdict::Unknown);
        assert_eq!(judge(WRITE, None).unwrap(), Verdict::Unknown);
    }
}
