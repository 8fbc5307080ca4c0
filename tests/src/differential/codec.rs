//! Bytes of a message to JSON and back, by Kafka's own definitions.
//!
//! A value that begins with `$` stands for what a peer chose itself (an id); it is resolved while it is
//! encoded, for each peer anew. Bytes are hexadecimal text. Promise: what is decoded is decoded to its
//! last byte, or it is an error.

use super::batch;
use super::schema::{Field, Kind, Message};
use anyhow::{Context as _, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What stands for a name that begins with `$`.
pub type Resolve<'a> = &'a dyn Fn(&str) -> Option<Value>;

/// The body of a message.
pub fn encode(
    message: &Message,
    version: i16,
    value: &Value,
    resolve: Resolve,
) -> anyhow::Result<Bytes> {
    let mut out = Encoder {
        version,
        flexible: message.flexible.contains(version),
        resolve,
        out: BytesMut::new(),
    };
    out.fields(&message.fields, value)?;
    Ok(out.out.freeze())
}

/// What a body says.
pub fn decode(message: &Message, version: i16, mut body: Bytes) -> anyhow::Result<Value> {
    let flexible = message.flexible.contains(version);
    let value = fields(&message.fields, version, flexible, &mut body)?;
    ensure!(body.is_empty(), "{} bytes behind the end", body.len());
    Ok(value)
}

/// What a field is where nobody says: Kafka's default.
pub fn default_of(field: &Field, version: i16) -> Value {
    match (&field.default, &field.kind) {
        (Some(Value::String(text)), _) if text == "null" => Value::Null,
        (Some(Value::String(text)), Kind::String) => json!(text),
        (Some(Value::String(text)), Kind::Bool) => json!(text == "true"),
        (Some(Value::String(text)), _) => {
            let hex = text
                .strip_prefix("0x")
                .and_then(|hex| i64::from_str_radix(hex, 16).ok());
            json!(hex.or_else(|| text.parse().ok()).unwrap_or(0))
        }
        (Some(other), _) => other.clone(),
        (None, kind) => zero(kind, version),
    }
}

fn zero(kind: &Kind, version: i16) -> Value {
    match kind {
        Kind::Bool => json!(false),
        Kind::Float64 => json!(0.0),
        Kind::Uuid => json!(hex(&[0; 16])),
        Kind::String | Kind::Bytes => json!(""),
        Kind::Records => Value::Null,
        Kind::Array(_) => json!([]),
        Kind::Struct(fields) => {
            let there = fields.iter().filter(|f| f.versions.contains(version));
            Value::Object(
                there
                    .map(|f| (f.name.clone(), default_of(f, version)))
                    .collect(),
            )
        }
        _ => json!(0),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |sum, digit| (sum << 4) | *digit as u8))
        .collect()
}

struct Encoder<'a> {
    version: i16,
    flexible: bool,
    resolve: Resolve<'a>,
    out: BytesMut,
}

impl Encoder<'_> {
    fn fields(&mut self, fields: &[Field], value: &Value) -> anyhow::Result<()> {
        let (version, mut tagged) = (self.version, Vec::new());
        for field in fields.iter().filter(|f| f.versions.contains(version)) {
            let given = value.get(&field.name);
            match field.tag {
                Some((tag, versions)) if versions.contains(version) => {
                    if let Some(given) = given {
                        tagged.push((tag, field, given));
                    }
                }
                _ => {
                    let absent = || default_of(field, version);
                    let nullable = field.nullable.contains(version);
                    let given = given.cloned().unwrap_or_else(absent);
                    self.value(&field.kind, &given, nullable)
                        .context(field.name.clone())?;
                }
            }
        }
        if self.flexible {
            tagged.sort_by_key(|(tag, ..)| *tag);
            self.varint(tagged.len());
            for (tag, field, given) in tagged {
                let outer = std::mem::take(&mut self.out);
                self.value(&field.kind, given, field.nullable.contains(self.version))?;
                let inner = std::mem::replace(&mut self.out, outer);
                self.varint(tag as usize);
                self.varint(inner.len());
                self.out.put_slice(&inner);
            }
        }
        Ok(())
    }

    fn value(&mut self, kind: &Kind, value: &Value, nullable: bool) -> anyhow::Result<()> {
        let resolved = match value.as_str().filter(|text| text.starts_with('$')) {
            Some(name) => (self.resolve)(name).unwrap_or_else(|| nobody(kind, name)),
            None => value.clone(),
        };
        let value = &resolved;
        let int = || value.as_i64().unwrap_or(0);
        match kind {
            Kind::Bool => self.out.put_u8(u8::from(value.as_bool().unwrap_or(false))),
            Kind::Int8 => self.out.put_i8(int() as i8),
            Kind::Int16 => self.out.put_i16(int() as i16),
            Kind::Uint16 => self.out.put_u16(int() as u16),
            Kind::Int32 => self.out.put_i32(int() as i32),
            Kind::Int64 => self.out.put_i64(int()),
            // JSON has no NaN: null stands for it.
            Kind::Float64 => self.out.put_f64(value.as_f64().unwrap_or(f64::NAN)),
            Kind::Uuid => {
                let mut bytes = unhex(value.as_str().unwrap_or(""));
                bytes.resize(16, 0);
                self.out.put_slice(&bytes);
            }
            Kind::String => {
                let text = value.as_str();
                self.length(text.map(str::len), nullable, true);
                self.out.put_slice(text.unwrap_or("").as_bytes());
            }
            Kind::Bytes | Kind::Records => {
                let bytes = match value {
                    Value::Null => None,
                    Value::String(text) => Some(unhex(text)),
                    batches => Some(batch::encode(batches, self.resolve)),
                };
                self.length(bytes.as_ref().map(Vec::len), nullable, false);
                self.out.put_slice(&bytes.unwrap_or_default());
            }
            Kind::Array(element) => {
                let list = value.as_array();
                self.length(list.map(Vec::len), nullable, false);
                for one in list.into_iter().flatten() {
                    self.value(element, one, false)?;
                }
            }
            Kind::Struct(fields) => {
                if nullable {
                    self.out.put_i8(if value.is_null() { -1 } else { 1 });
                }
                if !(nullable && value.is_null()) {
                    self.fields(fields, value)?;
                }
            }
        }
        Ok(())
    }

    /// `None` is null where that is allowed, and empty where it is not.
    fn length(&mut self, length: Option<usize>, nullable: bool, short: bool) {
        let length = if nullable {
            length
        } else {
            Some(length.unwrap_or(0))
        };
        match (self.flexible, short) {
            (true, _) => self.varint(length.map_or(0, |length| length + 1)),
            (false, true) => self.out.put_i16(length.map_or(-1, |length| length as i16)),
            (false, false) => self.out.put_i32(length.map_or(-1, |length| length as i32)),
        }
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }
}

/// The number that stands for one that a peer never gave: the same for both, and mostly another for each name.
pub fn nobodys_number(name: &str) -> i64 {
    let mixed = name.bytes().fold(7_u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    10_000 + i64::from(mixed % 20_000)
}

/// What stands for an id that a peer never gave.
fn nobody(kind: &Kind, name: &str) -> Value {
    match kind {
        Kind::Uuid => json!("000000000000000000000000000000ff"),
        Kind::String => json!("nobody"),
        _ => json!(nobodys_number(name)),
    }
}

fn fields(
    fields_of: &[Field],
    version: i16,
    flexible: bool,
    body: &mut Bytes,
) -> anyhow::Result<Value> {
    let mut map = Map::new();
    let tagged = |field: &&Field| {
        field
            .tag
            .is_some_and(|(_, versions)| versions.contains(version))
    };
    let there: Vec<&Field> = fields_of
        .iter()
        .filter(|f| f.versions.contains(version))
        .collect();
    for field in &there {
        let value = match tagged(field) {
            true => default_of(field, version),
            false => {
                let nullable = field.nullable.contains(version);
                value(&field.kind, version, flexible, nullable, body).context(field.name.clone())?
            }
        };
        map.insert(field.name.clone(), value);
    }
    if flexible {
        for _ in 0..varint(body)? {
            let (tag, size) = (varint(body)?, varint(body)?);
            let mut inner = take(body, size)?;
            match there
                .iter()
                .find(|f| tagged(f) && f.tag.is_some_and(|(t, _)| t as usize == tag))
            {
                Some(field) => {
                    let nullable = field.nullable.contains(version);
                    let value = value(&field.kind, version, flexible, nullable, &mut inner)?;
                    map.insert(field.name.clone(), value);
                }
                None => {
                    map.insert(format!("unknown tag {tag}"), json!(hex(&inner)));
                }
            }
        }
    }
    Ok(Value::Object(map))
}

fn value(
    kind: &Kind,
    version: i16,
    flexible: bool,
    nullable: bool,
    body: &mut Bytes,
) -> anyhow::Result<Value> {
    Ok(match kind {
        Kind::Bool => json!(body.try_get_u8()? != 0),
        Kind::Int8 => json!(body.try_get_i8()?),
        Kind::Int16 => json!(body.try_get_i16()?),
        Kind::Uint16 => json!(body.try_get_u16()?),
        Kind::Int32 => json!(body.try_get_i32()?),
        Kind::Int64 => json!(body.try_get_i64()?),
        Kind::Float64 => json!(body.try_get_f64()?),
        Kind::Uuid => json!(hex(&take(body, 16)?)),
        Kind::String => match length(flexible, true, body)? {
            None => Value::Null,
            Some(size) => json!(String::from_utf8(take(body, size)?.to_vec())?),
        },
        Kind::Bytes => match length(flexible, false, body)? {
            None => Value::Null,
            Some(size) => json!(hex(&take(body, size)?)),
        },
        Kind::Records => match length(flexible, false, body)? {
            None => Value::Null,
            Some(size) => batch::decode(&take(body, size)?),
        },
        Kind::Array(element) => match length(flexible, false, body)? {
            None => Value::Null,
            Some(size) => {
                let one = |_| value(element, version, flexible, false, body);
                Value::Array((0..size).map(one).collect::<anyhow::Result<_>>()?)
            }
        },
        Kind::Struct(_) if nullable && body.try_get_i8()? < 0 => Value::Null,
        Kind::Struct(list) => fields(list, version, flexible, body)?,
    })
}

fn length(flexible: bool, short: bool, body: &mut Bytes) -> anyhow::Result<Option<usize>> {
    let length = match (flexible, short) {
        (true, _) => varint(body)? as i64 - 1,
        (false, true) => i64::from(body.try_get_i16()?),
        (false, false) => i64::from(body.try_get_i32()?),
    };
    Ok(usize::try_from(length).ok())
}

fn varint(body: &mut Bytes) -> anyhow::Result<usize> {
    let mut value = 0;
    for shift in (0..35).step_by(7) {
        let byte = body.try_get_u8()?;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    bail!("a number without an end")
}

fn take(body: &mut Bytes, size: usize) -> anyhow::Result<Bytes> {
    ensure!(size <= body.len(), "{size} bytes of {}", body.len());
    Ok(body.split_to(size))
}

#[cfg(test)]
mod tests {
    use super::super::schema::{parse, tests::EXAMPLE};
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_again_in_each_version() {
        let (_, message) = parse(EXAMPLE).unwrap().unwrap();
        let id = "000102030405060708090a0b0c0d0e0f";
        let value = json!({"Name": "n", "Count": 7, "Extra": 9, "Topics": [{"Id": id, "Partitions": [1, -2]}]});
        for version in 0..=3 {
            let body = encode(&message, version, &value, &|_| None).unwrap();
            let mut expected = value.clone();
            let map = expected.as_object_mut().unwrap();
            if version < 1 {
                map.remove("Count");
            }
            if version < 2 {
                map.remove("Extra");
            }
            assert_eq!(
                decode(&message, version, body.clone()).unwrap(),
                expected,
                "version {version}"
            );
            let longer = [&body[..], &[0]].concat();
            assert!(decode(&message, version, longer.into()).is_err());
            assert!(decode(&message, version, body.slice(..body.len() - 1)).is_err());
        }
    }

    #[test]
    fn what_nobody_gives_is_the_default_and_what_a_peer_chose_is_resolved() {
        let (_, message) = parse(EXAMPLE).unwrap().unwrap();
        let resolve = |name: &str| (name == "$n").then(|| json!("resolved"));
        let body = encode(&message, 2, &json!({"Name": "$n"}), &resolve).unwrap();
        let value = decode(&message, 2, body).unwrap();
        assert_eq!(
            value,
            json!({"Name": "resolved", "Count": -1, "Topics": [], "Extra": -1})
        );
        let body = encode(&message, 2, &json!({"Name": "$m"}), &resolve).unwrap();
        assert_eq!(decode(&message, 2, body).unwrap()["Name"], "nobody");
    }
}
