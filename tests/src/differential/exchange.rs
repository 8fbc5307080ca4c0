//! One request to both peers, and what their answers say once it is what stays.

use super::codec;
use super::compare;
use super::intended;
use super::names::Names;
use super::normal::normal;
use super::peers::{Line, Raw};
use super::scenes::Bind;
use super::schema::{Message, Schemas};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// Asked again this often, this far apart, before an answer that says "in a moment" counts.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(120);

/// LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE,
/// NOT_COORDINATOR, CONCURRENT_TRANSACTIONS.
const IN_A_MOMENT: &[i64] = &[5, 6, 14, 15, 16, 51];

/// A request in one version.
#[derive(Clone, Debug)]
pub struct Request {
    pub key: i16,
    pub version: i16,
    pub body: Value,
    pub bind: Option<Bind>,
}

impl Request {
    /// Whether it has no answer.
    fn is_silent(&self) -> bool {
        self.key == 0 && self.body["Acks"] == 0
    }
}

/// One peer: its connection and its names.
pub struct Side {
    line: Line,
    pub names: Names,
}

impl Side {
    pub fn new(line: Line) -> Self {
        Self {
            line,
            names: Names::default(),
        }
    }

    /// The answer in words that both peers share.
    pub fn ask(&mut self, schemas: &Schemas, request: &Request, era: &str) -> Value {
        let Some((asked, told)) = schemas.get(request.key) else {
            return json!("no such API");
        };
        let names = &self.names;
        let body = match codec::encode(asked, request.version, &request.body, &|name| {
            names.resolve(name)
        }) {
            Ok(body) => body,
            Err(error) => return json!(format!("cannot be encoded: {error:#}")),
        };
        let frame = frame(asked, request.version, &body);
        let raw = match request.is_silent() {
            false => self.line.ask(&frame),
            // Whether it was to the peer's liking shows in whether the connection is still there.
            true => match self.line.send(&frame) {
                Ok(()) => self
                    .line
                    .ask(&Bytes::from_static(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff])),
                Err(_) => Raw::Closed,
            },
        };
        let answer = match raw {
            Raw::Closed => return json!("the connection is closed"),
            Raw::Silent => return json!("no answer"),
            Raw::Answer(_) if request.is_silent() => return json!("the connection stays"),
            Raw::Answer(answer) => answer,
        };
        match decode(told, request.version, answer) {
            Ok(value) => {
                self.names.learn(&value, request.bind.as_ref());
                normal(self.names.translate(value), era)
            }
            Err(error) => json!(format!("the answer cannot be decoded: {error:#}")),
        }
    }
}

fn frame(message: &Message, version: i16, body: &Bytes) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i16(message.key);
    frame.put_i16(version);
    frame.put_i32(1);
    let client = b"differential";
    frame.put_i16(client.len() as i16);
    frame.put_slice(client);
    if message.flexible.contains(version) {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    frame.freeze()
}

fn decode(message: &Message, version: i16, mut answer: Bytes) -> anyhow::Result<Value> {
    anyhow::ensure!(answer.try_get_i32()? == 1, "another correlation id");
    // The header of ApiVersions is that of version 0 for ever.
    if message.flexible.contains(version) && message.key != 18 {
        anyhow::ensure!(answer.try_get_u8()? == 0, "tagged fields in the header");
    }
    codec::decode(message, version, answer)
}

/// Asks both at the same time. Who says "in a moment" is asked again; and where answers to what only reads
/// differ in what nothing explains, both are: what a change has not reached yet is no difference.
pub fn exchange(
    schemas: &Schemas,
    request: &Request,
    era: &str,
    kafka: &mut Side,
    leasehold: &mut Side,
) -> (Value, Value) {
    let both = |kafka: &mut Side, leasehold: &mut Side| {
        thread::scope(|scope| {
            let other = scope.spawn(|| kafka.ask(schemas, request, era));
            let mine = leasehold.ask(schemas, request, era);
            (other.join().expect("the other peer's thread"), mine)
        })
    };
    let (mut left, mut right) = both(kafka, leasehold);
    for _ in 0..TRIES {
        if left == right {
            break;
        }
        let (again_left, again_right) = (in_a_moment(&left), in_a_moment(&right));
        if !again_left && !again_right {
            break;
        }
        thread::sleep(PAUSE);
        if again_left {
            left = kafka.ask(schemas, request, era);
        }
        if again_right {
            right = leasehold.ask(schemas, request, era);
        }
    }
    for _ in 0..4 {
        if !reads_only(schemas, request) || all_intended(schemas, request, &left, &right) {
            break;
        }
        thread::sleep(PAUSE);
        (left, right) = both(kafka, leasehold);
    }
    (left, right)
}

/// Whether any error code in an answer asks for patience.
pub fn in_a_moment(answer: &Value) -> bool {
    match answer {
        Value::Array(all) => all.iter().any(in_a_moment),
        Value::Object(map) => map.iter().any(|(field, value)| match field.as_str() {
            _ if field.ends_with("ErrorCode") => value
                .as_i64()
                .is_some_and(|code| IN_A_MOMENT.contains(&code)),
            _ => in_a_moment(value),
        }),
        _ => false,
    }
}

/// Whether waiting can bring nothing nearer: all that differs is meant to.
fn all_intended(schemas: &Schemas, request: &Request, kafka: &Value, leasehold: &Value) -> bool {
    let Some((message, _)) = schemas.get(request.key) else {
        return true;
    };
    let mut differences = compare::compare(kafka, leasehold).into_iter();
    differences.all(|one| intended::reason(&message.api, &request.body, &one).is_some())
}

/// Whether a request may be repeated without changing anything.
fn reads_only(schemas: &Schemas, request: &Request) -> bool {
    let Some((message, _)) = schemas.get(request.key) else {
        return false;
    };
    let session = request.body["SessionEpoch"]
        .as_i64()
        .is_some_and(|epoch| epoch != -1);
    let api = message.api.as_str();
    let reads = [
        "Describe",
        "List",
        "ConsumerGroupDescribe",
        "OffsetF",
        "Metadata",
        "FindCoordinator",
        "ApiVersions",
    ];
    reads.iter().any(|start| api.starts_with(start)) || (api == "Fetch" && !session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_that_asks_for_patience_is_found_wherever_it_stands() {
        assert!(in_a_moment(
            &json!({"Groups": [{"PartitionErrorCode": 15}]})
        ));
        assert!(!in_a_moment(
            &json!({"Groups": [{"ErrorCode": 3, "Code": 15}]})
        ));
    }
}
