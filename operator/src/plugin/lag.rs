//! How far consumer groups are behind, from what brokers tell at `/groups` and `/status`.
//!
//! Promises: asks each broker through the API server's proxy to its pod, so that it works from wherever kubectl
//! does; a broker that cannot be asked is named, and what it would have told is not made up. [`table`] is pure.

use super::table::{columns, row};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What a broker coordinates.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Groups {
    groups: Vec<Group>,
    /// Why groups may be missing.
    incomplete: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Group {
    group: String,
    state: String,
    offsets: Vec<Committed>,
}

#[derive(Debug, Deserialize)]
struct Committed {
    topic: String,
    partition: i32,
    committed: i64,
}

/// Of a broker's status, the replicas.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    partitions: Vec<Replica>,
}

#[derive(Debug, Deserialize)]
struct Replica {
    topic: String,
    partition: i32,
    role: String,
    high_watermark: i64,
}

/// One broker's answers, or why there are none.
pub(super) type Answer = Result<(Groups, Status), String>;

/// The lag of every group, or of one; brokers' answers by their pods' names.
pub(super) fn table(answers: &BTreeMap<String, Answer>, wanted: Option<&str>) -> String {
    let answered = || answers.values().filter_map(|answer| answer.as_ref().ok());
    let led = answered().flat_map(|(_, status)| &status.partitions);
    let ends: BTreeMap<(&str, i32), i64> = led
        .filter(|replica| replica.role == "leader")
        .map(|p| ((p.topic.as_str(), p.partition), p.high_watermark))
        .collect();
    let groups = answered().flat_map(|(groups, _)| &groups.groups);
    let mut groups: Vec<&Group> = groups
        .filter(|group| wanted.is_none_or(|wanted| wanted == group.group))
        .collect();
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    let mut rows = vec![row([
        "GROUP",
        "STATE",
        "TOPIC",
        "PARTITION",
        "COMMITTED",
        "END",
        "LAG",
    ])];
    for group in &groups {
        if group.offsets.is_empty() {
            rows.push(row([&group.group, &group.state, "-", "-", "-", "-", "-"]));
        }
        rows.extend(group.offsets.iter().map(|at| {
            let end = ends.get(&(at.topic.as_str(), at.partition));
            let told = |number: Option<i64>| number.map_or("-".to_owned(), |n| n.to_string());
            row([
                &group.group,
                &group.state,
                &at.topic,
                &at.partition.to_string(),
                &at.committed.to_string(),
                &told(end.copied()),
                // The end may be older than the commit: the brokers are asked one after the other.
                &told(end.map(|end| (end - at.committed).max(0))),
            ])
        }));
    }
    let mut text = match (groups.is_empty(), wanted) {
        (false, _) => columns(&rows),
        (true, Some(wanted)) => format!("no broker that answers knows a group {wanted}\n"),
        (true, None) => "no broker that answers knows a group\n".to_owned(),
    };
    for (pod, answer) in answers {
        match answer {
            Err(why) => {
                text += &format!("{pod} could not be asked, so some may be missing: {why}\n")
            }
            Ok((groups, _)) => {
                if let Some(why) = &groups.incomplete {
                    text += &format!("{pod} does not know all of its groups yet: {why}\n");
                }
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn lag_is_what_lies_between_the_commit_and_the_leaders_high_watermark() {
        let replica = |role: &str, end: i64| json!({"topic": "orders", "partition": 1, "role": role, "high_watermark": end, "isr": [0]});
        let groups = json!({"groups": [
            {"group": "shop", "state": "Stable", "offsets": [
                {"topic": "orders", "partition": 1, "committed": 7}, {"topic": "orders", "partition": 2, "committed": 3},
            ]},
            {"group": "audit", "state": "Empty", "offsets": []},
        ], "incomplete": null});
        let nothing = || from_value::<Groups>(json!({"groups": []})).unwrap();
        let status = |replica| from_value::<Status>(json!({"partitions": [replica]})).unwrap();
        let answers = BTreeMap::from([
            (
                "demo-broker-0".to_owned(),
                Ok((from_value(groups).unwrap(), status(replica("follower", 90)))),
            ),
            (
                "demo-broker-1".to_owned(),
                Ok((nothing(), status(replica("leader", 10)))),
            ),
            ("demo-broker-2".to_owned(), Err("refused".to_owned())),
        ]);
        let text = table(&answers, None);
        let words: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(words[1][..2], ["audit", "Empty"]);
        assert_eq!(words[2], ["shop", "Stable", "orders", "1", "7", "10", "3"]);
        assert_eq!(
            words[3],
            ["shop", "Stable", "orders", "2", "3", "-", "-"],
            "nobody leads it"
        );
        assert!(text.contains("demo-broker-2 could not be asked"), "{text}");
        assert!(!table(&answers, Some("shop")).contains("audit"));
        assert!(table(&answers, Some("none")).contains("a group none"));
    }
}
