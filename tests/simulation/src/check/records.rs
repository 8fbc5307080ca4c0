//! The records, folded by rules written down here a second time: epochs, ISR, leaders (I5, I6).

use super::{Checker, Part, Registered, Topic, ids};
use crate::broker::FOREIGNERS;
use crate::disk::Key;
use leasehold_types::LeaderEpoch;
use serde_json::Value;

impl Checker {
    /// Takes in one record; a few words about it for the trace.
    pub(super) fn fold(&mut self, record: &Value) -> String {
        let Some((kind, body)) = record.as_object().and_then(|fields| fields.iter().next()) else {
            return record.to_string();
        };
        match kind.as_str() {
            "register_broker" => self.fold_registration(body),
            "broker_change" => self.fold_standing(body),
            "topic" => {
                let id = body["id"].as_str().unwrap_or_default().to_owned();
                let name = body["name"].as_str().unwrap_or_default().to_owned();
                let configs = body["configs"].as_object().into_iter().flatten();
                let configs = configs
                    .map(|(key, value)| {
                        (key.clone(), value.as_str().unwrap_or_default().to_owned())
                    })
                    .collect();
                if let Some(why) = self.denied.get(&name).cloned() {
                    self.broke(format!("C1 topic {name} is created, after its creation was said not to be applied: {why}"));
                }
                let told = format!("topic {name}");
                self.topics.insert(id, Topic { name, configs });
                told
            }
            "partition" => {
                let (at, part) = (at(body), part_of(body));
                let told = format!("partition {:?} of {}", part, at.1);
                self.check_part(&at, &part);
                self.parts.insert(at, part);
                told
            }
            "partition_change" => self.fold_change(body),
            "delete_topic" => {
                let id = body["id"].as_str().unwrap_or_default().to_owned();
                self.parts.retain(|(topic, _), _| *topic != id);
                let topic = self.topics.remove(&id);
                self.groups.deleted.extend(topic.map(|topic| topic.name));
                "topic deleted".to_owned()
            }
            "config" => {
                let topic = body["resource"]["topic"].as_str().unwrap_or_default();
                if let Some(topic) = self.topics.get_mut(topic) {
                    let key = body["key"].as_str().unwrap_or_default().to_owned();
                    match body["value"].as_str() {
                        Some(value) => topic.configs.insert(key, value.to_owned()),
                        None => topic.configs.remove(&key),
                    };
                }
                format!("config {body}")
            }
            "unregister_broker" => {
                let id = body["broker"].as_i64().unwrap_or(-1);
                let alive = self.brokers.remove(&id).is_some_and(|known| !known.fenced);
                let hosts = self.parts.values().any(|part| part.replicas.contains(&id));
                if alive || hosts {
                    self.broke(format!("I6 broker {id} is forgotten, though it lives ({alive}) or has replicas ({hosts})"));
                }
                format!("broker {id} is forgotten")
            }
            "claim" => format!("claim of broker {}", body["broker"]),
            other => other.to_owned(),
        }
    }

    fn fold_registration(&mut self, body: &Value) -> String {
        let id = body["broker"].as_i64().unwrap_or(-1);
        let incarnation = body["incarnation"].as_i64().unwrap_or(-1);
        let fenced = body["fenced"].as_bool().unwrap_or(false);
        if incarnation >= FOREIGNERS {
            self.broke(format!(
                "I12 {id}/{incarnation}, of another cluster, is registered"
            ));
        }
        let changed_at = self.last_seq();
        let registered = Registered {
            incarnation,
            fenced,
            changed_at,
        };
        self.brokers.insert(id, registered);
        format!("broker {id} registers as {incarnation}")
    }

    fn fold_standing(&mut self, body: &Value) -> String {
        let id = body["broker"].as_i64().unwrap_or(-1);
        let incarnation = body["incarnation"].as_i64().unwrap_or(-1);
        let seq = self.last_seq();
        let reached = self.reached.get(&incarnation).copied();
        match self.brokers.get_mut(&id) {
            Some(known) if known.incarnation == incarnation => {
                let fenced = body["fenced"].as_bool().unwrap_or(known.fenced);
                let must = known.changed_at;
                if fenced && !known.fenced {
                    known.changed_at = seq;
                }
                let unfenced = known.fenced && !fenced;
                known.fenced = fenced;
                if unfenced && reached < Some(must) {
                    self.broke(format!("I6 broker {id} is unfenced at {reached:?}, though it has not applied entry {must}"));
                }
            }
            known => {
                let known = known.map(|k| k.incarnation);
                self.broke(format!(
                    "I6 the standing of {id}/{incarnation} changes, registered is {known:?}"
                ));
            }
        }
        format!("broker {id} fenced {}", body["fenced"])
    }

    fn fold_change(&mut self, body: &Value) -> String {
        let at = at(body);
        let Some(old) = self.parts.get(&at).cloned() else {
            self.broke(format!(
                "I6 a change of partition {at:?}, which does not exist"
            ));
            return String::new();
        };
        let mut new = old.clone();
        let set = |field: &str, to: &mut Vec<i64>| {
            if body[field].is_array() {
                *to = ids(&body[field]);
            }
        };
        set("replicas", &mut new.replicas);
        set("isr", &mut new.isr);
        set("elr", &mut new.elr);
        set("adding", &mut new.adding);
        new.recovering = body["recovering"].as_bool().unwrap_or(old.recovering);
        if let Some(leader) = body.get("leader") {
            new.leader = leader.as_i64();
        }
        new.leader_epoch = body["leader_epoch"].as_i64().unwrap_or(old.leader_epoch);
        new.partition_epoch = body["partition_epoch"].as_i64().unwrap_or(-1);
        let name = self
            .topics
            .get(&at.0)
            .map(|t| t.name.clone())
            .unwrap_or_default();
        let change = format!("{name}-{}: {old:?} -> {new:?}", at.1);
        if new.partition_epoch != old.partition_epoch + 1 {
            self.broke(format!(
                "I5 the partition epoch does not rise by one: {change}"
            ));
        }
        let elected = new.leader != old.leader;
        if elected && new.leader_epoch != old.leader_epoch + 1 {
            self.broke(format!(
                "I5 another leader without another leader epoch: {change}"
            ));
        }
        if !elected && !(0..=1).contains(&(new.leader_epoch - old.leader_epoch)) {
            self.broke(format!("I5 the leader epoch jumps: {change}"));
        }
        self.check_elr((&at, &old, &new), body["recovering"] == true, &change);
        let outside = |leader| !old.isr.contains(&leader) && !old.elr.contains(&leader);
        let unclean = body["recovering"] == true
            || (new.recovering && elected && new.leader.is_some_and(outside));
        if elected && let Some(leader) = new.leader {
            self.elections += 1;
            // The proposal that adds a member and moves the leader to it is one change.
            if outside(leader) && !unclean && !new.isr.contains(&leader) {
                self.broke(format!("I6 a leader from outside ISR and ELR: {change}"));
            }
        }
        if unclean && let Some(data) = key_of(&at).and_then(|key| self.data.get_mut(&key)) {
            data.lossy_since = Some(LeaderEpoch(i32::try_from(new.leader_epoch).unwrap_or(0)));
            data.loss_pending = true;
        }
        if let Some(key) = key_of(&at) {
            let joined = new.isr.iter().filter(|id| !old.isr.contains(id));
            let joined = joined.filter(|id| !old.elr.contains(id) && !unclean);
            let nodes = joined.filter_map(|&id| Some((key, usize::try_from(id).ok()?)));
            self.joins.extend(nodes);
        }
        self.check_part(&at, &new);
        self.parts.insert(at, new);
        format!("{}{}", if unclean { "UNCLEAN " } else { "" }, change)
    }

    /// Who leaves an ISR that is then below the effective minimum is remembered in the ELR, unless it may have
    /// lost data, as one may that registers.
    fn check_elr(
        &mut self,
        (at, old, new): (&(String, i64), &Part, &Part),
        unclean: bool,
        change: &str,
    ) {
        let Some(key) = key_of(at) else {
            return;
        };
        let min = self.effective_min(key);
        if unclean || new.isr.len() >= min || old.replicas != new.replicas || old.recovering {
            return;
        }
        let left = old
            .isr
            .iter()
            .chain(&old.elr)
            .filter(|id| !new.isr.contains(id));
        let mut forgotten =
            left.filter(|id| !new.elr.contains(id) && !self.registering.contains(id));
        if let Some(id) = forgotten.next() {
            self.broke(format!(
                "I6 broker {id} leaves an ISR below the minimum {min}, and is not in the ELR: {change}"
            ));
        }
    }

    fn check_part(&mut self, at: &(String, i64), part: &Part) {
        let outside = |list: &[i64]| list.iter().any(|id| !part.replicas.contains(id));
        if outside(&part.isr) || outside(&part.elr) {
            self.broke(format!(
                "I6 ISR or ELR holds others than replicas: {at:?} {part:?}"
            ));
        }
        let Some(leader) = part.leader else {
            return;
        };
        if !part.isr.contains(&leader) {
            self.broke(format!("I6 the leader is not in the ISR: {at:?} {part:?}"));
        }
        if self.brokers.get(&leader).is_none_or(|b| b.fenced) {
            self.broke(format!("I6 the leader is fenced: {at:?} {part:?}"));
        }
        let fenced = |id: &i64| self.brokers.get(id).is_none_or(|b| b.fenced);
        if part.isr.iter().any(fenced) {
            self.broke(format!(
                "I6 a fenced member of the ISR while there is a leader: {at:?} {part:?}"
            ));
        }
    }

    /// After each entry: nobody who is fenced leads, and a registration leaves its broker fenced.
    pub fn check_standing(&mut self) {
        let mut lines = Vec::new();
        for (at, part) in &self.parts {
            if let Some(leader) = part.leader
                && self.brokers.get(&leader).is_none_or(|b| b.fenced)
            {
                lines.push(format!(
                    "I6 {at:?} is led by broker {leader}, which is fenced: {part:?}"
                ));
            }
        }
        lines.into_iter().for_each(|line| self.broke(line));
    }
}

fn at(body: &Value) -> (String, i64) {
    let topic = body["topic"].as_str().unwrap_or_default().to_owned();
    (topic, body["partition"].as_i64().unwrap_or(-1))
}

fn part_of(body: &Value) -> Part {
    Part {
        replicas: ids(&body["replicas"]),
        isr: ids(&body["isr"]),
        elr: ids(&body["elr"]),
        leader: body["leader"].as_i64(),
        leader_epoch: body["leader_epoch"].as_i64().unwrap_or(0),
        partition_epoch: body["partition_epoch"].as_i64().unwrap_or(0),
        adding: ids(&body["adding"]),
        recovering: false,
    }
}

/// The same partition as processes name it.
pub fn key_of(at: &(String, i64)) -> Option<Key> {
    let topic = serde_json::from_value(Value::String(at.0.clone())).ok()?;
    Some((topic, i32::try_from(at.1).ok()?))
}

/// The same partition as the records name it.
pub(crate) fn name_of(key: Key) -> (String, i64) {
    let topic = serde_json::to_value(key.0).ok();
    let topic = topic.and_then(|t| t.as_str().map(str::to_owned));
    (topic.unwrap_or_default(), i64::from(key.1))
}
