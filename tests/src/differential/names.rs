//! What each peer chose itself (ids of topics, producers, members, sessions, paths of log directories), under names that are the same for
//! both: `$pid:t` in a request becomes the peer's own id, and that id in an answer becomes `$pid:t` again.
//!
//! Promise: two peers that do the same give the same names, whatever their ids are.

use super::scenes::Bind;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Fields of answers that hold such ids, by the kind of id.
const FIELDS: &[(&str, &str)] = &[
    ("TopicId", "topic"),
    ("ProducerId", "pid"),
    ("MemberId", "member"),
    ("Leader", "member"),
];

/// One peer's names.
#[derive(Default)]
pub struct Names {
    /// What a name stands for now.
    now: BTreeMap<String, Value>,
    /// (kind, id) to the name that it was given first. An id that came later under the same name has a number.
    names: BTreeMap<(String, String), String>,
}

impl Names {
    pub fn resolve(&self, name: &str) -> Option<Value> {
        let (name, add) = match name.split_once('+') {
            Some((name, add)) => (name, add.parse::<i64>().unwrap_or(0)),
            None => (name, 0),
        };
        let value = self.now.get(name)?;
        match (value.as_i64(), add) {
            (Some(number), 1..) => Some(json!(number + add)),
            _ => Some(value.clone()),
        }
    }

    fn set(&mut self, kind: &str, name: &str, value: &Value) {
        let full = format!("${kind}:{name}");
        let id = (kind.to_owned(), value.to_string());
        if !self.names.contains_key(&id) {
            let taken = |wish: &String| self.names.values().any(|name| name == wish);
            let mut wish = full.clone();
            for number in 2.. {
                if !taken(&wish) {
                    break;
                }
                wish = format!("{full}#{number}");
            }
            self.names.insert(id, wish);
        }
        self.now.insert(full, value.clone());
    }

    /// Takes from an answer what it tells of ids.
    pub fn learn(&mut self, answer: &Value, bind: Option<&Bind>) {
        self.topics(answer);
        for (n, dir) in (0..).zip(answer["Results"].as_array().into_iter().flatten()) {
            if let Some(path) = dir.get("LogDir") {
                self.set("dir", &i32::to_string(&n), path);
            }
        }
        let fine = answer["ErrorCode"] == 0;
        match bind {
            Some(Bind::Producer(name)) if fine => {
                self.set("pid", name, &answer["ProducerId"]);
                self.now
                    .insert(format!("$epoch:{name}"), answer["ProducerEpoch"].clone());
            }
            Some(Bind::Member { group, slot }) => {
                let member = &answer["MemberId"];
                if member.as_str().is_some_and(|id| !id.is_empty()) {
                    self.set("member", &format!("{group}:{slot}"), member);
                }
                let generation = answer
                    .get("GenerationId")
                    .or_else(|| answer.get("MemberEpoch"));
                if let (true, Some(generation)) = (fine, generation) {
                    self.now
                        .insert(format!("$gen:{group}:{slot}"), generation.clone());
                }
            }
            Some(Bind::Session) if answer["SessionId"].as_i64().is_some_and(|id| id > 0) => {
                self.set("session", "s", &answer["SessionId"]);
            }
            _ => {}
        }
    }

    fn topics(&mut self, answer: &Value) {
        match answer {
            Value::Array(all) => all.iter().for_each(|one| self.topics(one)),
            Value::Object(map) => {
                let id = map.get("TopicId").filter(|id| {
                    id.as_str()
                        .is_some_and(|id| !id.trim_matches('0').is_empty())
                });
                if let (Some(id), Some(Value::String(name))) = (id, map.get("Name")) {
                    self.set("topic", name, id);
                }
                map.values().for_each(|one| self.topics(one));
            }
            _ => {}
        }
    }

    /// The answer with names in place of ids.
    pub fn translate(&self, answer: Value) -> Value {
        match answer {
            Value::Array(all) => all.into_iter().map(|one| self.translate(one)).collect(),
            Value::Object(map) => {
                let one = |(field, value): (String, Value)| {
                    let kind = FIELDS.iter().find(|(name, _)| *name == field);
                    let id = kind.map(|(_, kind)| (kind.to_string(), value.to_string()));
                    match id.and_then(|id| self.names.get(&id)) {
                        Some(name) => (field, json!(name)),
                        None => (field, self.translate(value)),
                    }
                };
                Value::Object(map.into_iter().map(one).collect::<Map<_, _>>())
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_peers_with_ids_of_their_own_give_the_same_names() {
        let answer = |id: &str| json!({"Topics": [{"Name": "a", "TopicId": id}]});
        let told = |ids: &[&str]| {
            let mut names = Names::default();
            ids.iter().for_each(|id| names.learn(&answer(id), None));
            let last = answer(ids.last().unwrap());
            (names.translate(last), names.resolve("$topic:a").unwrap())
        };
        let (left, id) = told(&["01", "02"]);
        assert_eq!(id, "02");
        assert_eq!(left, told(&["07", "08"]).0);
        assert_ne!(left, told(&["07"]).0, "a topic created anew is another");
    }

    #[test]
    fn a_producers_id_and_epoch_are_learnt_from_a_good_answer_only() {
        let mut names = Names::default();
        let bind = Bind::Producer("t".into());
        names.learn(
            &json!({"ErrorCode": 51, "ProducerId": -1, "ProducerEpoch": -1}),
            Some(&bind),
        );
        assert_eq!(names.resolve("$pid:t"), None);
        names.learn(
            &json!({"ErrorCode": 0, "ProducerId": 77, "ProducerEpoch": 3}),
            Some(&bind),
        );
        assert_eq!(names.resolve("$epoch:t+1"), Some(json!(4)));
        assert_eq!(
            names.translate(json!({"ProducerId": 77})),
            json!({"ProducerId": "$pid:t"})
        );
    }
}
