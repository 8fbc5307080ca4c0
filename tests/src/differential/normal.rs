//! What of two right answers may differ, and is therefore not compared. All of it is here.

use serde_json::{Map, Value, json};

/// Fields that are a matter of the machine or the moment: their value is replaced.
const FREE: &[&str] = &[
    // How busy the peer is.
    "ThrottleTimeMs",
    // Where it listens and lies.
    "Host",
    "Port",
    "ClusterId",
    "LogDir",
    "ClientHost",
    "TotalBytes",
    "UsableBytes",
    "PartitionSize",
];

/// Times: whether there is one is compared, not which.
const TIMES: &[&str] = &["LogAppendTimeMs", "TransactionStartTimeMs", "LastTimestamp"];

/// Sessions are begun and lost in passing: whether there is one is compared, not which.
const SESSION: &str = "SessionId";

/// Texts for people: whether there is one is compared.
const TEXTS: &[&str] = &["ErrorMessage", "BatchIndexErrorMessage", "Documentation"];

/// An answer without what may differ. `era` is the prefix of the names of now: in lists of everything that
/// there is, what earlier episodes left is no matter of this request.
pub fn normal(value: Value, era: &str) -> Value {
    match value {
        Value::Array(all) => {
            let mine = all.into_iter().filter(|one| !foreign(one, era));
            mine.map(|one| normal(one, era)).collect()
        }
        Value::Object(map) => {
            let one = |(field, value): (String, Value)| {
                let value = field_value(&field, value, era);
                (field, value)
            };
            Value::Object(map.into_iter().map(one).collect::<Map<_, _>>())
        }
        other => other,
    }
}

fn field_value(field: &str, value: Value, era: &str) -> Value {
    match field {
        _ if FREE.contains(&field) => json!("free"),
        _ if TIMES.contains(&field) => json!(if value.as_i64() >= Some(0) {
            "a time"
        } else {
            "none"
        }),
        SESSION => json!(if value.as_i64() > Some(0) {
            "a session"
        } else {
            "none"
        }),
        _ if TEXTS.contains(&field) => match value.as_str() {
            None | Some("") => Value::Null,
            Some(_) => json!("a text"),
        },
        _ => normal(value, era),
    }
}

/// Whether an element belongs to another episode, by its name: `e12-a`.
fn foreign(element: &Value, era: &str) -> bool {
    let name = match element {
        Value::String(name) => Some(name.as_str()),
        Value::Object(map) => super::compare::IDENTITY
            .iter()
            .find_map(|field| map.get(*field)?.as_str()),
        _ => None,
    };
    let of_an_era = |name: &str| {
        let digits = name.strip_prefix('e').and_then(|rest| rest.split_once('-'));
        digits.is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    name.is_some_and(|name| of_an_era(name) && !name.starts_with(era))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_differ_is_taken_away_and_nothing_else() {
        let answer = json!({"ThrottleTimeMs": 7, "ErrorCode": 3, "ErrorMessage": "why", "LogAppendTimeMs": -1,
            "Topics": [{"Name": "e1-a"}, {"Name": "e2-a"}, {"Name": "other"}]});
        let expected = json!({"ThrottleTimeMs": "free", "ErrorCode": 3, "ErrorMessage": "a text",
            "LogAppendTimeMs": "none", "Topics": [{"Name": "e2-a"}, {"Name": "other"}]});
        assert_eq!(normal(answer, "e2-"), expected);
    }
}
