//! Record batches by hand, right and wrong ones, and what of a stored batch is compared.

use super::codec::{Resolve, hex, nobodys_number};
use bytes::{Buf, BufMut, Bytes};
use serde_json::{Value, json};

const HEADER: usize = 61;

/// A batch, or several (an array), as the scenes describe them: `count` records, and what deviates from a good
/// batch. `corrupt` turns a bit after the checksum was made; `cut` takes bytes off the end.
pub fn encode(batches: &Value, resolve: Resolve) -> Vec<u8> {
    match batches {
        Value::Array(all) => all.iter().flat_map(|one| encode(one, resolve)).collect(),
        one => single(one, resolve),
    }
}

fn single(batch: &Value, resolve: Resolve) -> Vec<u8> {
    let int = |name: &str, default: i64| {
        let given = &batch[name];
        let resolved = given
            .as_str()
            .map(|name| resolve(name).unwrap_or(json!(nobodys_number(name))));
        let value = resolved.unwrap_or_else(|| given.clone());
        value.as_i64().unwrap_or(default)
    };
    let count = int("count", 1);
    let mut records = Vec::new();
    for index in 0..int("really", count) {
        let mut body = vec![0];
        varint(&mut body, index * int("timestampStep", 0));
        varint(&mut body, index);
        match batch["key"].as_str() {
            Some(key) => {
                varint(&mut body, key.len() as i64);
                body.put_slice(key.as_bytes());
            }
            None => varint(&mut body, -1),
        }
        let value = format!("value {index}");
        varint(&mut body, value.len() as i64);
        body.put_slice(value.as_bytes());
        varint(&mut body, 0);
        varint(&mut records, body.len() as i64);
        records.put_slice(&body);
    }
    let timestamp = int("timestamp", 1_700_000_000_000);
    let mut covered = Vec::new();
    covered.put_i16(int("attributes", 0) as i16);
    covered.put_i32(int("lastOffsetDelta", count - 1) as i32);
    covered.put_i64(timestamp);
    covered.put_i64(int(
        "maxTimestamp",
        timestamp + (count - 1) * int("timestampStep", 0),
    ));
    covered.put_i64(int("producerId", -1));
    covered.put_i16(int("producerEpoch", -1) as i16);
    covered.put_i32(int("sequence", -1) as i32);
    covered.put_i32(count as i32);
    covered.put_slice(&records);
    let mut out = Vec::new();
    out.put_i64(int("baseOffset", 0));
    out.put_i32(int("length", (9 + covered.len()) as i64) as i32);
    out.put_i32(int("leaderEpoch", -1) as i32);
    out.put_i8(int("magic", 2) as i8);
    out.put_u32(crc32c::crc32c(&covered));
    out.put_slice(&covered);
    if batch["corrupt"] == true
        && let Some(last) = out.last_mut()
    {
        *last ^= 1;
    }
    out.truncate(out.len().saturating_sub(int("cut", 0).max(0) as usize));
    out
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The batches of an answer, and whether the last one is cut. Left out: the checksum, which covers times, and the times of what the broker wrote
/// itself (markers of transactions).
pub fn decode(bytes: &Bytes) -> Value {
    let (mut rest, mut batches) = (bytes.clone(), Vec::new());
    while rest.len() >= HEADER {
        let base = rest.get_i64();
        let length = rest.get_i32().max(0) as usize;
        if length > rest.len() || length < HEADER - 12 {
            batches.push(json!({"cut": true}));
            return Value::Array(batches);
        }
        let mut one = rest.split_to(length);
        let (epoch, magic) = (one.get_i32(), one.get_i8());
        one.advance(4);
        let attributes = one.get_i16();
        let last = one.get_i32();
        let times = [one.get_i64(), one.get_i64()];
        let own = attributes & 0x28 != 0;
        batches.push(json!({
            "baseOffset": base, "LeaderEpoch": epoch, "magic": magic, "attributes": attributes,
            "lastOffsetDelta": last, "times": if own { json!("the broker's") } else { json!(times) },
            "ProducerId": one.get_i64(), "producerEpoch": one.get_i16(), "sequence": one.get_i32(),
            "count": one.get_i32(), "records": hex(&one),
        }));
    }
    if !rest.is_empty() {
        batches.push(json!({"cut": true}));
    }
    Value::Array(batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_wire::batch::BatchHeader;

    #[test]
    fn a_batch_without_deviations_is_a_good_one() {
        let bytes = Bytes::from(encode(&json!({"count": 3, "producerId": "$p"}), &|_| {
            Some(json!(42))
        }));
        let header = BatchHeader::read(&bytes).unwrap();
        assert_eq!(
            (header.count, header.producer_id, header.last_offset_delta),
            (3, 42, 2)
        );
        let decoded = decode(&bytes);
        assert_eq!(decoded[0]["count"], 3);
        assert_eq!(decoded[0]["ProducerId"], 42);
        assert_eq!(crc32c::crc32c(&bytes[21..]).to_be_bytes(), bytes[17..21]);
    }

    #[test]
    fn a_deviation_is_seen_on_the_wire() {
        let good = encode(&json!({"count": 1}), &|_| None);
        let corrupt = encode(&json!({"count": 1, "corrupt": true}), &|_| None);
        assert_ne!(
            crc32c::crc32c(&corrupt[21..]).to_be_bytes(),
            corrupt[17..21]
        );
        assert_eq!(
            encode(&json!({"count": 1, "cut": 5}), &|_| None).len(),
            good.len() - 5
        );
        assert_eq!(encode(&json!({"count": 1, "magic": 1}), &|_| None)[16], 1);
    }
}
