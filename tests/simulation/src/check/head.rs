//! The head and the chunks, from their bytes: one chain, one writer per epoch, nothing undone (I1, I2, I3,
//! I12, I16).

use super::{Checker, Claimed, Committed};
use leasehold_metadata::store::{Chunk, ChunkBody};
use leasehold_types::Incarnation;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read as _;

type Data = BTreeMap<String, String>;
type Chunks = BTreeMap<String, Chunk>;

fn number(data: &Data, key: &str) -> i64 {
    data.get(key)
        .and_then(|text| text.parse().ok())
        .unwrap_or(-1)
}

fn lines(data: &Data, key: &str) -> Vec<Value> {
    let text = data.get(key).map(String::as_str).unwrap_or_default();
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

impl Checker {
    /// The head was written by `by`. Returns a line about it for the trace.
    pub fn head_written(
        &mut self,
        by: (usize, Incarnation),
        before: &Data,
        after: &Data,
        chunks: &Chunks,
    ) -> String {
        let (epoch, seq) = (number(after, "controllerEpoch"), number(after, "seq"));
        let (old_epoch, old_seq) = (number(before, "controllerEpoch"), number(before, "seq"));
        if seq != old_seq + 1 {
            self.broke(format!("I1 seq went from {old_seq} to {seq}"));
        }
        if epoch < old_epoch {
            self.broke(format!(
                "I1 controllerEpoch fell from {old_epoch} to {epoch}"
            ));
        }
        if before.get("clusterId") != after.get("clusterId") {
            self.broke("I12 the cluster id changed");
        }
        let seq = u64::try_from(seq).unwrap_or(0);
        self.check_frozen(epoch, seq);
        let nonce = after.get("nonce").cloned().unwrap_or_default();
        if !self.nonces.insert(nonce.clone()) {
            self.broke(format!("I1 the nonce of entry {seq} was used before"));
        }
        let again = self.written_again(seq, &nonce);
        self.check_chunks(after, chunks, again);
        let Some(text) = self.text_of(seq, after, chunks) else {
            if !again {
                self.broke(format!(
                    "I16 entry {seq} is neither in the tail nor in a segment"
                ));
            }
            return "?".to_owned();
        };
        let mut values = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let header = values.next().unwrap_or_default();
        if header["epoch"] != epoch || header["nonce"] != *nonce || header["seq"] != seq {
            self.broke(format!(
                "I3 entry {seq} says {header}, the head is at epoch {epoch}"
            ));
        }
        let records: Vec<Value> = values.collect();
        self.check_claim(by, (old_epoch, epoch), seq, &records);
        let stored = Committed { epoch, nonce, text };
        if let Some(other) = self.log.insert(seq, stored) {
            self.broke(format!(
                "I1 entry {seq} was written twice, before by epoch {}",
                other.epoch
            ));
        }
        let registrations = records
            .iter()
            .map(|record| &record["register_broker"]["broker"]);
        self.registering = registrations.filter_map(Value::as_i64).collect();
        let mut told = format!("epoch {epoch} seq {seq}:");
        for record in &records {
            told += &format!(" {}", self.fold(record));
        }
        self.check_standing();
        told
    }

    fn check_claim(
        &mut self,
        by: (usize, Incarnation),
        (old, new): (i64, i64),
        seq: u64,
        records: &[Value],
    ) {
        let claim = records
            .first()
            .map(|record| &record["claim"])
            .filter(|c| c.is_object());
        match claim {
            Some(claim) => {
                if new != old + 1 || claim["epoch"] != new {
                    self.broke(format!("I3 a claim leads from epoch {old} to {new}"));
                }
                let claimed = Claimed {
                    first_seq: seq,
                    claim_id: claim["claim_id"].as_str().unwrap_or_default().to_owned(),
                    by,
                };
                if let Some(other) = self.claims.insert(new, claimed) {
                    self.broke(format!(
                        "I2 epoch {new} was claimed by {:?} at {} and by {by:?} at {seq}",
                        other.by, other.first_seq
                    ));
                }
            }
            None if new != old => {
                self.broke(format!("I3 epoch {new} begins at {seq} without a claim"))
            }
            None => {}
        }
        let owner = self.claims.get(&new).map(|claim| claim.by);
        if owner != Some(by) {
            self.broke(format!(
                "I3 broker {by:?} wrote entry {seq} in epoch {new}, which {owner:?} claimed"
            ));
        }
    }

    /// Everything that the head names exists, has its hash, and says what was committed. A write of the undone line
    /// that is there again may name what was undone with it: nobody can hold it up, and nobody can claim that head.
    /// So may the first write after, of who had just written a chunk when the old state came back without that.
    fn check_chunks(&mut self, data: &Data, chunks: &Chunks, again: bool) {
        for named in lines(data, "segments")
            .into_iter()
            .chain(lines(data, "snapshot"))
        {
            let snapshot = named["first"] == 0;
            let mut again = again;
            let mut bytes = Vec::new();
            for part in named["parts"].as_array().cloned().unwrap_or_default() {
                let name = part["name"].as_str().unwrap_or_default();
                match chunks.get(name).map(|chunk| &chunk.body) {
                    None if self.taken.contains(name) => again = true,
                    None if again => {}
                    None => self.broke(format!(
                        "I16 the head names chunk {name}, which does not exist"
                    )),
                    Some(body) if part["sha256"] != hash(body) => {
                        self.broke(format!("I16 chunk {name} does not have its hash"));
                    }
                    Some(body) => bytes.extend(unpacked(body)),
                }
            }
            if snapshot {
                continue;
            }
            let (first, last) = (
                named["first"].as_u64().unwrap_or(0),
                named["last"].as_u64().unwrap_or(0),
            );
            let known: String = self
                .log
                .range(first..=last)
                .map(|(_, entry)| entry.text.as_str())
                .collect();
            // The last entry may be the one of this very write.
            if !again && !String::from_utf8_lossy(&bytes).starts_with(&known) {
                self.broke(format!(
                    "I16 the segment {first}-{last} does not hold what was committed"
                ));
            }
        }
        for (key, text) in data.iter().filter(|(key, _)| key.starts_with("entry-")) {
            let seq = key.trim_start_matches("entry-").parse().unwrap_or(0);
            if self.log.get(&seq).is_some_and(|known| known.text != *text) {
                self.broke(format!(
                    "I1 entry {seq} of the tail is not what was committed"
                ));
            }
        }
    }

    fn text_of(&self, seq: u64, data: &Data, chunks: &Chunks) -> Option<String> {
        if let Some(text) = data.get(&format!("entry-{seq:020}")) {
            return Some(text.clone());
        }
        let named = lines(data, "segments")
            .into_iter()
            .find(|s| s["first"] == seq && s["last"] == seq)?;
        let parts = named["parts"].as_array().cloned().unwrap_or_default();
        let bytes: Vec<u8> = parts
            .iter()
            .filter_map(|part| chunks.get(part["name"].as_str()?))
            .flat_map(|chunk| unpacked(&chunk.body))
            .collect();
        String::from_utf8(bytes).ok()
    }

    /// A chunk went.
    pub fn chunk_deleted(&mut self, name: &str, head: &Data) {
        let named = ["segments", "snapshot"]
            .iter()
            .any(|key| head.get(*key).is_some_and(|text| text.contains(name)));
        if named {
            self.broke(format!(
                "I16 chunk {name} was deleted while the head names it"
            ));
        }
    }
}

fn hash(body: &ChunkBody) -> String {
    let bytes = match body {
        ChunkBody::Lines(text) => text.as_bytes(),
        ChunkBody::Zstd(bytes) => bytes,
    };
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn unpacked(body: &ChunkBody) -> Vec<u8> {
    match body {
        ChunkBody::Lines(text) => text.clone().into_bytes(),
        ChunkBody::Zstd(bytes) => {
            let mut text = Vec::new();
            if let Ok(mut decoder) = zstd::stream::read::Decoder::new(bytes.as_slice()) {
                let _ = decoder.read_to_end(&mut text);
            }
            text
        }
    }
}
