//! What a leader does to a batch that it is sent: the time of its records, and the codec that they lie in (T1, T2).

use super::records::name_of;
use super::{Checker, Data};
use crate::codecs;
use crate::disk::Appended;

/// A process is at most so far behind the calendar's end of a step, in milliseconds.
const LATE: i64 = 50;

impl Checker {
    /// A record reached the log of `node`, where the calendar says `wall`, unless the process there was just
    /// paused. Its time is what its producer gave it or, where the topic
    /// says so, that of its first append, and stays so; it is packed in its producer's codec, or in its topic's.
    pub fn stamped(&mut self, node: usize, wall: Option<i64>, appended: &Appended) {
        let Appended {
            key,
            at,
            entry: (epoch, value),
            time,
            codec,
        } = *appended;
        if self.is_internal(key) {
            return;
        }
        let config = |name: &str| {
            let topic = self.topics.get(&name_of(key).0)?;
            topic.configs.get(name).cloned()
        };
        let by_append =
            config("message.timestamp.type").is_some_and(|kind| kind == "LogAppendTime");
        let packed_in = config("compression.type");
        let data: &mut Data = self.data.entry(key).or_default();
        let known = data.stamps.insert((at, epoch), time);
        let Some((made, own)) = data.made.get(&value).copied() else {
            return;
        };
        let right = match (by_append, known, wall) {
            (false, ..) => time == made,
            (true, Some(known), _) => time == known,
            (true, None, Some(wall)) => (wall - LATE..=wall).contains(&time),
            (true, None, None) => true,
        };
        let named = packed_in.as_deref().filter(|name| *name != "producer");
        let wanted = named.and_then(|name| codecs::NAMES.iter().position(|known| *known == name));
        let wanted = wanted.and_then(|n| i16::try_from(n).ok()).unwrap_or(own);
        if !right {
            self.broke(format!("T1 broker {node} gives {value:x} at {at} of {key:?} the time {time}; made {made}, known as {known:?}, it is {wall:?} there"));
        }
        if codec != wanted {
            self.broke(format!(
                "T2 broker {node} packs {value:x} at {at} of {key:?} in {codec}, not {wanted}"
            ));
        }
    }
}
