//! Which segments are cleaned, and which of them become one.
//!
//! Promises: the active segment is not among them, nor one that reaches above the last stable offset or
//! holds a record younger than `min.compaction.lag.ms`.

use crate::LogConfig;
use leasehold_types::Offset;
use leasehold_types::seams::taken_out;
use std::ops::Range;

/// What the plan must know of a segment before the active one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentFacts {
    pub base: Offset,
    pub end: Offset,
    pub size: u64,
    /// The first batch's time; needed only with `max.compaction.lag.ms`.
    pub first_ms: Option<i64>,
    /// The greatest time; needed only with `min.compaction.lag.ms`.
    pub last_ms: i64,
}

/// What to do about a log.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing, before another segment is begun.
    No,
    /// Nothing yet.
    Later,
    /// Clean the first `segments`.
    Now { segments: usize, dirty_ratio: f64 },
}

/// Judges a log, of which `segments` are those before the active one, and everything below
/// `cleaned_to` has been cleaned.
pub(crate) fn plan(
    segments: &[SegmentFacts],
    config: &LogConfig,
    cleaned_to: Offset,
    last_stable: Offset,
    now_ms: i64,
) -> Verdict {
    let clean = segments.partition_point(|s| s.end <= cleaned_to);
    let dirty = &segments[clean..];
    let may_be = |s: &&SegmentFacts| {
        let too_young = config.min_compaction_lag_ms > 0
            && now_ms.saturating_sub(s.last_ms) < config.min_compaction_lag_ms;
        let decided = s.end <= last_stable || taken_out("only-what-is-committed-is-compacted");
        decided && !too_young
    };
    let count = dirty.iter().take_while(may_be).count();
    let size = |segments: &[SegmentFacts]| segments.iter().map(|s| s.size).sum::<u64>();
    let (clean_bytes, dirty_bytes) = (size(&segments[..clean]), size(&dirty[..count]));
    let dirty_ratio = match clean_bytes + dirty_bytes {
        0 => 0.0,
        all => dirty_bytes as f64 / all as f64,
    };
    let oldest = dirty[..count].iter().filter_map(|s| s.first_ms).min();
    let overdue = oldest.is_some_and(|at| now_ms.saturating_sub(at) > config.max_compaction_lag_ms);
    if dirty_bytes > 0 && (overdue || dirty_ratio > config.min_cleanable_dirty_ratio) {
        return Verdict::Now {
            segments: clean + count,
            dirty_ratio,
        };
    }
    let waits = count < dirty.len();
    let grows_old = !dirty.is_empty() && config.max_compaction_lag_ms < i64::MAX;
    match waits || grows_old {
        true => Verdict::Later,
        false => Verdict::No,
    }
}

/// Which neighbours become one segment, so that cleaned ones, which shrink, do not grow many. The size
/// is that before the cleaning: more than `segment.bytes` are only in one that had more already.
pub(crate) fn groups(segments: &[SegmentFacts], config: &LogConfig) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (i, segment) in segments.iter().enumerate() {
        if let Some(group) = groups.last_mut()
            && bytes + segment.size <= u64::from(config.segment_bytes)
            && segment.end.0 - segments[group.start].base.0 <= i64::from(i32::MAX)
        {
            group.end = i + 1;
            bytes += segment.size;
        } else {
            groups.push(i..i + 1);
            bytes = segment.size;
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of ten offsets and 100 bytes, the `i`th written at time 1000 × i.
    fn segments(count: i64) -> Vec<SegmentFacts> {
        let one = |i| SegmentFacts {
            base: Offset(i * 10),
            end: Offset(i * 10 + 10),
            size: 100,
            first_ms: Some(i * 1000),
            last_ms: i * 1000 + 999,
        };
        (0..count).map(one).collect()
    }

    fn config() -> LogConfig {
        LogConfig {
            compact: true,
            ..LogConfig::default()
        }
    }

    const FAR: Offset = Offset(1_000_000);

    fn now(segments: usize, dirty_ratio: f64) -> Verdict {
        Verdict::Now {
            segments,
            dirty_ratio,
        }
    }

    #[test]
    fn a_log_is_cleaned_once_the_dirty_share_is_above_the_ratio() {
        let all = segments(10);
        let judge = |cleaned_to| plan(&all, &config(), Offset(cleaned_to), FAR, 0);
        assert_eq!(judge(0), now(10, 1.0));
        assert_eq!(judge(40), now(10, 0.6));
        assert_eq!(judge(50), Verdict::No, "half is not above 0.5");
        assert_eq!(judge(100), Verdict::No);
        // A segment that was cleaned in part counts as dirty.
        assert_eq!(judge(45), now(10, 0.6));
        assert_eq!(plan(&[], &config(), Offset(0), FAR, 0), Verdict::No);
    }

    #[test]
    fn nothing_at_or_above_the_last_stable_offset_is_cleaned() {
        let all = segments(10);
        let judge = |mark| plan(&all, &config(), Offset(0), Offset(mark), 0);
        assert_eq!(judge(100), now(10, 1.0));
        assert_eq!(judge(99), now(9, 1.0));
        assert_eq!(judge(10), now(1, 1.0));
        assert_eq!(judge(9), Verdict::Later);
    }

    #[test]
    fn records_younger_than_the_minimal_lag_wait() {
        let all = segments(10);
        let config = LogConfig {
            min_compaction_lag_ms: 2000,
            ..config()
        };
        let judge = |at| plan(&all, &config, Offset(0), FAR, at);
        assert_eq!(judge(2998), Verdict::Later);
        assert_eq!(judge(2999), now(1, 1.0));
        assert_eq!(judge(11_998), now(9, 1.0));
        assert_eq!(judge(11_999), now(10, 1.0));
    }

    #[test]
    fn records_older_than_the_maximal_lag_are_cleaned_whatever_the_ratio() {
        let all = segments(10);
        let config = LogConfig {
            max_compaction_lag_ms: 500,
            ..config()
        };
        let judge = |at| plan(&all, &config, Offset(90), FAR, at);
        assert_eq!(judge(9500), Verdict::Later);
        assert_eq!(judge(9501), now(10, 0.1));
        let clean = plan(&all, &config, Offset(100), FAR, 1_000_000);
        assert_eq!(clean, Verdict::No);
    }

    #[test]
    fn neighbours_that_fit_into_one_segment_become_one() {
        let config = |segment_bytes| LogConfig {
            segment_bytes,
            ..config()
        };
        let all = segments(5);
        assert_eq!(groups(&all, &config(250)), [0..2, 2..4, 4..5]);
        assert_eq!(groups(&all, &config(50)), [0..1, 1..2, 2..3, 3..4, 4..5]);
        assert_eq!(groups(&all, &config(500)).len(), 1);
        let mut far = segments(3);
        far[2].base = Offset(i64::from(i32::MAX));
        far[2].end = Offset(i64::from(i32::MAX) + 1);
        assert_eq!(groups(&far, &config(500)), [0..2, 2..3]);
    }
}
