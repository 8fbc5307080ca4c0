//! Two answers field by field. Elements of an array are paired by what they are about, not by their place:
//! Kafka promises no order of topics, partitions, groups or configuration keys.

use serde_json::Value;
use std::collections::BTreeMap;

/// Fields that say what an element is about, all that are there together.
pub const IDENTITY: &[&str] = &[
    "Name",
    "TopicName",
    "Topic",
    "TopicId",
    "GroupId",
    "ResourceName",
    "ResourceType",
    "TransactionalId",
    "MemberId",
    "PartitionIndex",
    "Partition",
    "PartitionId",
    "Index",
    "BrokerId",
    "NodeId",
    "ApiKey",
    "Key",
    "EntityType",
    "EntityName",
    "ProducerId",
    "baseOffset",
    "ConfigName",
    "BatchIndex",
];

/// Where two answers differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `Topics[e1-a].Partitions[0].ErrorCode`
    pub path: String,
    /// `None`: the field or the element is not there.
    pub kafka: Option<Value>,
    pub leasehold: Option<Value>,
}

impl Difference {
    /// The path without what stands in brackets: what differences of the same sort have in common.
    pub fn sort(&self) -> String {
        let (mut depth, mut sort) = (0, String::new());
        for c in self.path.chars() {
            depth -= i32::from(c == ']');
            if depth == 0 {
                sort.push(c);
            }
            depth += i32::from(c == '[');
        }
        sort
    }
}

/// Everything in which they differ.
pub fn compare(kafka: &Value, leasehold: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(kafka), Some(leasehold), &mut found);
    found
}

fn walk(path: &str, kafka: Option<&Value>, leasehold: Option<&Value>, found: &mut Vec<Difference>) {
    match (kafka, leasehold) {
        (Some(left), Some(right)) if left == right => {}
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let dot = if path.is_empty() { "" } else { "." };
                walk(
                    &format!("{path}{dot}{name}"),
                    left.get(name),
                    right.get(name),
                    found,
                );
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right)))
            if of_objects(left) && of_objects(right) =>
        {
            let (left, right) = (by_identity(left), by_identity(right));
            let mut all: Vec<&String> = left.keys().chain(right.keys()).collect();
            all.sort();
            all.dedup();
            for one in all {
                walk(
                    &format!("{path}[{one}]"),
                    left.get(one).copied(),
                    right.get(one).copied(),
                    found,
                );
            }
        }
        _ => found.push(Difference {
            path: path.to_owned(),
            kafka: kafka.cloned(),
            leasehold: leasehold.cloned(),
        }),
    }
}

fn of_objects(list: &[Value]) -> bool {
    list.iter().all(Value::is_object)
}

fn by_identity(list: &[Value]) -> BTreeMap<String, &Value> {
    let mut all = BTreeMap::new();
    for one in list {
        let parts: Vec<String> = IDENTITY
            .iter()
            .filter_map(|name| match one.get(name)? {
                Value::String(text) => Some(text.clone()),
                other => other.as_i64().map(|number| number.to_string()),
            })
            .collect();
        let name = parts.join(" ");
        let mut unique = name.clone();
        for number in 2.. {
            if !all.contains_key(&unique) {
                break;
            }
            unique = format!("{name} #{number}");
        }
        all.insert(unique, one);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(left: Value, right: Value) -> Vec<String> {
        compare(&left, &right)
            .into_iter()
            .map(|found| found.path)
            .collect()
    }

    #[test]
    fn equal_answers_have_no_difference_whatever_their_order() {
        let left =
            json!({"Topics": [{"Name": "a", "ErrorCode": 0}, {"Name": "b", "ErrorCode": 3}]});
        let right =
            json!({"Topics": [{"Name": "b", "ErrorCode": 3}, {"Name": "a", "ErrorCode": 0}]});
        assert_eq!(compare(&left, &right), []);
    }

    #[test]
    fn another_error_code_deep_inside_is_found_and_named() {
        let answer = |code| json!({"Topics": [{"Name": "a", "Partitions": [{"PartitionIndex": 1, "ErrorCode": code}]}]});
        let found = compare(&answer(0), &answer(6));
        assert_eq!(found[0].path, "Topics[a].Partitions[1].ErrorCode");
        assert_eq!(found[0].sort(), "Topics[].Partitions[].ErrorCode");
        assert_eq!(
            (found[0].kafka.clone(), found[0].leasehold.clone()),
            (Some(json!(0)), Some(json!(6)))
        );
    }

    #[test]
    fn what_only_one_has_is_a_difference() {
        let both = json!({"Topics": [{"Name": "a"}, {"Name": "b"}]});
        let one = json!({"Topics": [{"Name": "a"}]});
        assert_eq!(paths(both.clone(), one.clone()), ["Topics[b]"]);
        assert_eq!(paths(one.clone(), both), ["Topics[b]"]);
        assert_eq!(
            paths(
                one.clone(),
                json!({"Topics": [{"Name": "a"}, {"Name": "a"}]})
            ),
            ["Topics[a #2]"]
        );
        assert_eq!(paths(one, json!({"Topics": null})), ["Topics"]);
    }

    #[test]
    fn the_order_of_numbers_counts() {
        assert_eq!(
            paths(json!({"Replicas": [0, 1]}), json!({"Replicas": [1, 0]})),
            ["Replicas"]
        );
    }
}
