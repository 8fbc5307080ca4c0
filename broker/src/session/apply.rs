//! Whether, and how, a broker takes in what the controller answered: pure.
//!
//! Promise (I11, I13): a position never falls, and only what extends the line that this broker is on is
//! taken in. A snapshot must pass through the broker's own point; entries must follow it without a gap.

use leasehold_metadata::features::Unsupported;
use leasehold_metadata::image::{ApplyError, Image};
use leasehold_metadata::records::Entry;
use leasehold_metadata::rpc::{News, PollAnswer};

/// What to do with an answer.
#[derive(Debug)]
pub enum Taken {
    /// Nothing new.
    Nothing,
    /// Make these entries durable, then publish the image.
    Entries(Vec<Entry>, Image),
    /// Make the image durable in place of everything, then publish it.
    Snapshot(Image),
}

/// Why an answer is not taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("the controller's answer does not extend this broker's metadata: {0}")]
    OffLine(String),
    /// This release can follow no further.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

impl From<ApplyError> for NotTaken {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Unsupported(unsupported) => Self::Unsupported(unsupported),
            other => Self::OffLine(other.to_string()),
        }
    }
}

/// Judges `answer` on `image`, which is what this broker has durably.
pub fn take(image: &Image, answer: PollAnswer) -> Result<Taken, NotTaken> {
    if answer.committed.epoch < image.position.epoch {
        let (theirs, ours) = (answer.committed.epoch, image.position.epoch);
        return Err(NotTaken::OffLine(format!(
            "it comes from controller epoch {theirs}, this broker follows {ours}"
        )));
    }
    match answer.news {
        News::Entries(mut entries) => {
            // A repeated answer may begin with what is known already.
            entries.retain(|entry| entry.seq > image.position.seq);
            if entries.is_empty() {
                return Ok(Taken::Nothing);
            }
            let mut next = image.clone();
            for entry in &entries {
                next.apply(entry)?;
            }
            Ok(Taken::Entries(entries, next))
        }
        News::Snapshot { position, records } => {
            if position == image.position {
                return Ok(Taken::Nothing);
            }
            let next = Image::from_snapshot(image.cluster_id.clone(), position, &records)?;
            let fresh = image.position.seq.0 == 0;
            let passes = next.leads_through(&image.position);
            if !fresh && (!passes || position.seq < image.position.seq) {
                return Err(NotTaken::OffLine(format!(
                    "its snapshot at {position:?} does not pass through {:?}",
                    image.position
                )));
            }
            Ok(Taken::Snapshot(next))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_metadata::features::{Level, METADATA_VERSION};
    use leasehold_metadata::image::{Claim, ClaimId};
    use leasehold_metadata::records::Record;
    use leasehold_types::{BrokerId, ClusterId, ControllerEpoch, Incarnation, Seq};

    /// Claims of epochs 1.. at these seqs, with ids, then entries up to `last`.
    fn image(claims: &[(u64, u128)], last: u64) -> (Image, Vec<Entry>) {
        let mut image = Image::genesis(ClusterId("c".into()));
        let mut entries = Vec::new();
        let mut epoch = 0;
        for seq in 1..=last {
            let claim = claims.iter().find(|(first, _)| *first == seq);
            let mut records = vec![Record::NoOp];
            if let Some((first, id)) = claim {
                epoch += 1;
                records = vec![Record::Claim(Claim {
                    epoch: ControllerEpoch(epoch),
                    claim_id: ClaimId(*id),
                    first_seq: Seq(*first),
                    broker: BrokerId(0),
                    incarnation: Incarnation(1),
                })];
            }
            let entry = Entry {
                seq: Seq(seq),
                epoch: ControllerEpoch(epoch),
                nonce: String::new(),
                records,
            };
            image.apply(&entry).unwrap();
            entries.push(entry);
        }
        (image, entries)
    }

    fn snapshot(of: &Image) -> PollAnswer {
        PollAnswer {
            committed: of.position,
            news: News::Snapshot {
                position: of.position,
                records: of.to_records(),
            },
            may_stop: false,
            frozen: None,
        }
    }

    fn entries(of: &Image, entries: &[Entry]) -> PollAnswer {
        PollAnswer {
            committed: of.position,
            news: News::Entries(entries.to_vec()),
            may_stop: false,
            frozen: None,
        }
    }

    #[test]
    fn entries_are_taken_in_order_and_without_a_gap() {
        let (ours, _) = image(&[(1, 1)], 2);
        let (theirs, all) = image(&[(1, 1)], 5);
        let taken = take(&ours, entries(&theirs, &all[1..])).unwrap();
        assert!(matches!(taken, Taken::Entries(e, i) if e.len() == 3 && i == theirs));
        assert!(take(&ours, entries(&theirs, &all[3..])).is_err());
    }

    #[test]
    fn a_snapshot_of_another_line_is_refused_even_at_a_higher_epoch_and_seq() {
        // Ours followed claim 2 at seq 3; theirs was restored and claimed otherwise there.
        let (ours, _) = image(&[(1, 1), (3, 2)], 4);
        let (theirs, _) = image(&[(1, 1), (3, 9), (4, 10)], 9);
        assert!(take(&ours, snapshot(&theirs)).is_err());
        let (same_line, _) = image(&[(1, 1), (3, 2), (6, 3)], 9);
        assert!(matches!(
            take(&ours, snapshot(&same_line)),
            Ok(Taken::Snapshot(_))
        ));
    }

    #[test]
    fn a_position_never_falls() {
        let (ours, _) = image(&[(1, 1)], 5);
        let (older, all) = image(&[(1, 1)], 3);
        assert!(take(&ours, snapshot(&older)).is_err());
        let nothing = take(&ours, entries(&older, &all)).unwrap();
        assert!(matches!(nothing, Taken::Nothing));
    }

    #[test]
    fn news_of_a_level_that_is_not_known_is_told_apart_from_a_line_that_is_not_ours() {
        let (ours, _) = image(&[(1, 1)], 2);
        let (theirs, mut all) = image(&[(1, 1)], 3);
        let newer = Record::FeatureLevel {
            name: METADATA_VERSION.to_owned(),
            level: Level(Level::NEWEST.0 + 1),
        };
        all[2].records.push(newer.clone());
        let in_entries = entries(&theirs, &all);
        let mut in_snapshot = snapshot(&theirs);
        if let News::Snapshot { records, .. } = &mut in_snapshot.news {
            records.push(newer);
        }
        for answer in [in_entries, in_snapshot] {
            let error = take(&ours, answer).unwrap_err();
            assert!(matches!(error, NotTaken::Unsupported(_)), "{error}");
        }
    }

    #[test]
    fn a_deposed_controller_is_not_listened_to() {
        let (ours, _) = image(&[(1, 1), (3, 2)], 4);
        let (zombie, all) = image(&[(1, 1)], 9);
        assert!(take(&ours, entries(&zombie, &all[4..])).is_err());
    }
}
