//! One field of a good request made odd, by the schema.

use super::schema::{Field, Kind, Message};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::{Value, json};

/// Fields that stay as they are: how long somebody waits, and what would bring the peers' machines into play.
const LEFT: &[&str] = &[
    "MaxWaitMs",
    "TimeoutMs",
    "timeoutMs",
    "RebalanceTimeoutMs",
    "SessionTimeoutMs",
    "TransactionTimeoutMs",
    "MemberEpoch",
    "Records",
    "ClientSoftwareName",
];

/// Changes one field, if there is one that may change.
pub fn mutate(rng: &mut StdRng, message: &Message, version: i16, request: &mut Value) {
    let mut places = Vec::new();
    collect(
        &message.fields,
        version,
        request,
        &mut Vec::new(),
        &mut places,
    );
    let Some((path, kind, nullable)) = places.choose(rng) else {
        return;
    };
    let mut place = request;
    for step in path {
        let next = match step {
            Step::Field(name) => place.get_mut(name.as_str()),
            Step::Element(index) => place.get_mut(index),
        };
        match next {
            Some(next) => place = next,
            None => return,
        }
    }
    let mut choice = odd(kind, place);
    if *nullable {
        choice.push(Value::Null);
    }
    if let Some(value) = choice.choose(rng) {
        *place = value.clone();
    }
}

#[derive(Clone)]
enum Step {
    Field(String),
    Element(usize),
}

type Place = (Vec<Step>, Kind, bool);

fn collect(
    fields: &[Field],
    version: i16,
    value: &Value,
    path: &mut Vec<Step>,
    places: &mut Vec<Place>,
) {
    for field in fields {
        let left = LEFT.contains(&field.name.as_str()) || !field.versions.contains(version);
        let Some(inner) = value.get(&field.name).filter(|_| !left) else {
            continue;
        };
        path.push(Step::Field(field.name.clone()));
        let nullable = field.nullable.contains(version);
        places.push((path.clone(), field.kind.clone(), nullable));
        match &field.kind {
            Kind::Struct(list) => collect(list, version, inner, path, places),
            Kind::Array(element) => {
                for (index, one) in inner.as_array().into_iter().flatten().enumerate() {
                    path.push(Step::Element(index));
                    match &**element {
                        Kind::Struct(list) => collect(list, version, one, path, places),
                        kind => places.push((path.clone(), kind.clone(), false)),
                    }
                    path.pop();
                }
            }
            _ => {}
        }
        path.pop();
    }
}

fn odd(kind: &Kind, now: &Value) -> Vec<Value> {
    match kind {
        Kind::Bool => vec![json!(now != &json!(true))],
        Kind::Int8 => vec![json!(-1), json!(0), json!(1), json!(3), json!(127)],
        Kind::Int16 => vec![
            json!(-1),
            json!(0),
            json!(1),
            json!(3),
            json!(-2),
            json!(i16::MAX),
        ],
        Kind::Uint16 => vec![json!(0), json!(u16::MAX)],
        Kind::Int32 => vec![
            json!(-1),
            json!(0),
            json!(1),
            json!(2),
            json!(-2),
            json!(7),
            json!(i32::MAX),
        ],
        Kind::Int64 => vec![
            json!(-1),
            json!(0),
            json!(1),
            json!(-2),
            json!(-7),
            json!(1000),
            json!(i64::MAX),
        ],
        Kind::Float64 => vec![json!(-1.0), json!(1e12)],
        Kind::Uuid => ["00", "01", "ffffffffffffffffffffffffffffffff"]
            .map(|text| json!(text))
            .into(),
        Kind::String => {
            let long = "x".repeat(300);
            ["", "absent", "bad name!", "..", "ä", long.as_str()]
                .map(|text| json!(text))
                .into()
        }
        Kind::Bytes => vec![json!(""), json!("00ff")],
        Kind::Array(_) => {
            let first = now.as_array().and_then(|list| list.first()).cloned();
            let twice = first.map(|one| json!([one.clone(), one]));
            [Some(json!([])), twice].into_iter().flatten().collect()
        }
        Kind::Struct(_) | Kind::Records => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::{parse, tests::EXAMPLE};
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    #[test]
    fn each_field_is_reached_and_one_seed_gives_one_request() {
        let (_, message) = parse(EXAMPLE).unwrap().unwrap();
        let good = json!({"Name": "n", "Count": 5, "Topics": [{"Id": "0f", "Partitions": [3]}], "Extra": 5});
        let made = |seed| {
            let mut request = good.clone();
            mutate(&mut StdRng::seed_from_u64(seed), &message, 2, &mut request);
            request
        };
        assert_eq!(made(1), made(1));
        let all: BTreeSet<String> = (0..200).map(|seed| made(seed).to_string()).collect();
        for field in ["Name", "Count", "Topics", "Extra"] {
            let changed = (0..200).any(|seed| made(seed)[field] != good[field]);
            assert!(changed, "{field} is never made odd");
        }
        assert!(all.len() > 15, "{all:?}");
    }
}
