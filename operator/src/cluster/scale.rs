//! How many pods there should be now, who is to be emptied, and who can be forgotten; pure.
//!
//! Promises: a broker's pod is taken away only when the metadata says that the broker is cordoned and
//! holds nothing, the highest number first, one at a time, each gone before the next; a wish that
//! would leave fewer brokers than some topic has replicas changes nothing; raising `replicas` again
//! cancels a drain; `replicas: 0` stops all brokers and forgets none.

use std::collections::{BTreeMap, BTreeSet};

/// One broker as the metadata has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerFacts {
    /// Registered; a broker that only appears in assignments is not.
    pub registered: bool,
    pub fenced: bool,
    pub cordoned: bool,
    /// Replicas that it holds or is about to get.
    pub replicas: usize,
    /// Partitions that it leads.
    pub leaders: usize,
}

/// All that the decision rests on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the user wants.
    pub wanted: i32,
    /// What the StatefulSet has been told; `None` if there is none.
    pub current: Option<i32>,
    /// Ordinals of the pods that exist, terminating ones included.
    pub pods: BTreeSet<i32>,
    /// Brokers by id; `None` while the metadata could not be read.
    pub brokers: Option<BTreeMap<i32, BrokerFacts>>,
    /// Brokers that stay, but are to be kept empty.
    pub maintenance: BTreeSet<i32>,
    /// The topic with the most replicas, and how many.
    pub widest: Option<(String, usize)>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Pods of the StatefulSet.
    pub replicas: i32,
    /// Exactly the brokers to cordon; `None` leaves the controller alone.
    pub cordon: Option<BTreeSet<i32>>,
    /// Brokers to forget.
    pub unregister: Vec<i32>,
    /// Brokers whose volume nobody needs, should `whenScaled: Delete` want it gone.
    pub spent: Vec<i32>,
    pub draining: Draining,
}

/// The `Draining` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Draining {
    Idle,
    InProgress(String),
    Refused(String),
}

/// Decides.
pub fn decide(facts: &Facts) -> Decision {
    let current = facts.current.unwrap_or(0);
    let steady = |replicas, draining| Decision {
        replicas,
        cordon: None,
        unregister: Vec::new(),
        spent: Vec::new(),
        draining,
    };
    if facts.wanted <= 0 {
        return steady(0, Draining::Idle);
    }
    let Some(brokers) = &facts.brokers else {
        // Adding pods is safe without knowing the metadata; taking one away is not.
        return steady(current.max(facts.wanted), Draining::Idle);
    };
    let beyond = |id: &i32| *id >= facts.wanted;
    let held = brokers
        .iter()
        .filter(|(id, b)| beyond(id) && b.replicas > 0)
        .map(|(id, _)| *id)
        .max();
    let floor = facts.wanted.max(held.map_or(0, |id| id.saturating_add(1)));
    let shrinking = current > facts.wanted || held.is_some();
    if let Some((topic, width)) = facts
        .widest
        .as_ref()
        .filter(|(_, width)| shrinking && exceeds(*width, facts.wanted))
    {
        return Decision {
            cordon: Some(facts.maintenance.clone()),
            ..steady(
                current.max(floor),
                Draining::Refused(format!(
                    "topic {topic} has {width} replicas, which do not fit on {} brokers: lower its replication factor first, or set replicas to {width} or more",
                    facts.wanted
                )),
            )
        };
    }
    let leaving: BTreeSet<i32> = brokers
        .iter()
        .filter(|(id, b)| beyond(id) && b.registered)
        .map(|(id, _)| *id)
        .collect();
    let replicas = match current.cmp(&floor) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Equal => current,
        std::cmp::Ordering::Greater if may_lower(facts, brokers, current) => current - 1,
        std::cmp::Ordering::Greater => current,
    };
    // A broker whose pod is gone for good, and which holds nothing.
    let gone = |id: &i32| *id >= floor && *id >= current && !facts.pods.contains(id);
    let unregister: Vec<i32> = brokers
        .iter()
        .filter(|(id, b)| gone(id) && b.registered && b.fenced && b.replicas == 0)
        .map(|(id, _)| *id)
        .collect();
    let spent = (floor.max(current)..floor.max(current).saturating_add(500))
        .filter(|id| gone(id) && !brokers.contains_key(id))
        .collect();
    let draining = if leaving.is_empty() && current <= facts.wanted {
        Draining::Idle
    } else {
        Draining::InProgress(progress(facts, brokers))
    };
    Decision {
        replicas,
        cordon: Some(&leaving | &facts.maintenance),
        unregister,
        spent,
        draining,
    }
}

fn exceeds(width: usize, wanted: i32) -> bool {
    usize::try_from(wanted).is_ok_and(|wanted| width > wanted)
}

/// Whether the pod with the highest number can go.
fn may_lower(facts: &Facts, brokers: &BTreeMap<i32, BrokerFacts>, current: i32) -> bool {
    let former_is_gone = facts.pods.iter().all(|ordinal| *ordinal < current);
    let empty = brokers
        .get(&(current - 1))
        .is_none_or(|broker| broker.replicas == 0 && (broker.cordoned || !broker.registered));
    former_is_gone && empty
}

fn progress(facts: &Facts, brokers: &BTreeMap<i32, BrokerFacts>) -> String {
    let top = facts
        .current
        .unwrap_or(0)
        .max(brokers.keys().max().map_or(0, |id| id + 1));
    let (mut names, mut replicas, mut leaders) = (Vec::new(), 0, 0);
    for id in facts.wanted..top {
        let broker = brokers.get(&id);
        if broker.is_none_or(|b| !b.registered) && !facts.pods.contains(&id) {
            continue;
        }
        names.push(id.to_string());
        replicas += broker.map_or(0, |b| b.replicas);
        leaders += broker.map_or(0, |b| b.leaders);
    }
    format!(
        "removing broker{} {}: {replicas} replica{} and {leaders} leader{} left to move",
        if names.len() == 1 { "" } else { "s" },
        names.join(", "),
        if replicas == 1 { "" } else { "s" },
        if leaders == 1 { "" } else { "s" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `"0:5/2 3:4c 4:0cf"`: id, replicas, leaders, c = cordoned, f = fenced.
    fn brokers(text: &str) -> BTreeMap<i32, BrokerFacts> {
        text.split_whitespace()
            .map(|one| {
                let (id, rest) = one.split_once(':').unwrap();
                let numbers = rest.trim_end_matches(['c', 'f']);
                let (replicas, leaders) = numbers.split_once('/').unwrap_or((numbers, "0"));
                let facts = BrokerFacts {
                    registered: true,
                    fenced: rest.ends_with('f'),
                    cordoned: rest.contains('c'),
                    replicas: replicas.parse().unwrap(),
                    leaders: leaders.parse().unwrap(),
                };
                (id.parse().unwrap(), facts)
            })
            .collect()
    }

    fn facts(wanted: i32, current: i32, pods: i32, text: &str) -> Facts {
        Facts {
            wanted,
            current: Some(current),
            pods: (0..pods).collect(),
            brokers: Some(brokers(text)),
            maintenance: BTreeSet::new(),
            widest: Some(("orders".into(), 3)),
        }
    }

    fn show(decision: &Decision) -> String {
        let draining = match &decision.draining {
            Draining::Idle => "idle",
            Draining::InProgress(_) => "draining",
            Draining::Refused(_) => "refused",
        };
        let cordon = decision
            .cordon
            .as_ref()
            .map_or("-".to_owned(), |set| format!("{set:?}"));
        format!(
            "{} {cordon} {:?} {draining}",
            decision.replicas, decision.unregister
        )
    }

    #[test]
    fn the_table_of_scaling() {
        let three = "0:9 1:9 2:9";
        let cases: Vec<(&str, Facts, &str)> = vec![
            ("nothing to do", facts(3, 3, 3, three), "3 {} [] idle"),
            ("up at once", facts(5, 3, 3, three), "5 {} [] idle"),
            (
                "down begins with a cordon",
                facts(3, 5, 5, "0:9 1:9 2:9 3:4 4:4"),
                "5 {3, 4} [] draining",
            ),
            (
                "an empty broker that is not cordoned yet stays",
                facts(3, 5, 5, "0:9 1:9 2:9 3:4 4:0"),
                "5 {3, 4} [] draining",
            ),
            (
                "the highest leaves first, though another is not empty",
                facts(3, 5, 5, "0:9 1:9 2:9 3:4c 4:0c"),
                "4 {3, 4} [] draining",
            ),
            (
                "an empty one below the highest waits for it",
                facts(3, 5, 5, "0:9 1:9 2:9 3:0c 4:1c"),
                "5 {3, 4} [] draining",
            ),
            (
                "both empty: still one by one",
                facts(3, 5, 5, "0:9 1:9 2:9 3:0c 4:0c"),
                "4 {3, 4} [] draining",
            ),
            (
                "the next waits until the former's pod is gone",
                facts(3, 4, 5, "0:9 1:9 2:9 3:0c 4:0c"),
                "4 {3, 4} [] draining",
            ),
            (
                "a pod that is gone but not yet fenced is remembered",
                facts(3, 4, 4, "0:9 1:9 2:9 3:4c 4:0c"),
                "4 {3, 4} [] draining",
            ),
            (
                "gone and fenced: forgotten, and the next goes",
                facts(3, 4, 4, "0:9 1:9 2:9 3:0c 4:0cf"),
                "3 {3, 4} [4] draining",
            ),
            (
                "the last one is forgotten",
                facts(3, 3, 3, "0:9 1:9 2:9 3:0cf"),
                "3 {3} [3] draining",
            ),
            (
                "raising again cancels",
                facts(5, 5, 5, "0:9 1:9 2:9 3:4c 4:0c"),
                "5 {} [] idle",
            ),
            (
                "too few brokers for a topic",
                facts(2, 3, 3, three),
                "3 {} [] refused",
            ),
            (
                "someone lowered the StatefulSet by hand",
                facts(3, 3, 3, "0:9 1:9 2:9 3:4f"),
                "4 {3} [] draining",
            ),
            ("asleep", facts(0, 3, 3, three), "0 - [] idle"),
            (
                "awake with fewer than before: all come back to be drained",
                facts(3, 0, 0, "0:9f 1:9f 2:9f 3:4f"),
                "4 {3} [] draining",
            ),
            ("awake", facts(3, 0, 0, "0:9f 1:9f 2:9f"), "3 {} [] idle"),
            (
                "metadata unknown: never fewer pods",
                Facts {
                    brokers: None,
                    ..facts(3, 5, 5, "")
                },
                "5 - [] idle",
            ),
            (
                "born",
                Facts {
                    current: None,
                    ..facts(3, 0, 0, "")
                },
                "3 {} [] idle",
            ),
            (
                "a surplus pod that never registered",
                facts(3, 4, 4, three),
                "3 {} [] draining",
            ),
        ];
        for (what, facts, expected) in cases {
            assert_eq!(show(&decide(&facts)), expected, "{what}");
        }
    }

    #[test]
    fn progress_names_brokers_and_what_is_left() {
        let Draining::InProgress(text) =
            decide(&facts(3, 5, 5, "0:9 1:9 2:9 3:4/1c 4:1/0c")).draining
        else {
            panic!("not draining")
        };
        assert_eq!(
            text,
            "removing brokers 3, 4: 5 replicas and 1 leader left to move"
        );
    }

    #[test]
    fn brokers_in_maintenance_are_emptied_and_keep_their_pods() {
        let kept_empty = |mut facts: Facts| {
            facts.maintenance = BTreeSet::from([1]);
            show(&decide(&facts))
        };
        assert_eq!(kept_empty(facts(3, 3, 3, "0:9 1:9 2:9")), "3 {1} [] idle");
        assert_eq!(kept_empty(facts(3, 3, 3, "0:9 1:0c 2:9")), "3 {1} [] idle");
        assert_eq!(
            kept_empty(facts(3, 4, 4, "0:9 1:0c 2:9 3:2")),
            "4 {1, 3} [] draining"
        );
        assert_eq!(
            kept_empty(facts(2, 3, 3, "0:9 1:9 2:9")),
            "3 {1} [] refused",
            "a wish that does not fit does not end another"
        );
    }

    #[test]
    fn only_volumes_of_forgotten_brokers_are_spent() {
        let spent = decide(&facts(3, 3, 3, "0:9 1:9 2:9 3:0cf")).spent;
        assert!(!spent.contains(&3) && spent.contains(&4) && !spent.contains(&2));
    }

    #[test]
    fn a_pod_never_leaves_with_a_replica_whatever_the_facts() {
        use proptest::prelude::*;
        let broker =
            (any::<bool>(), any::<bool>(), 0usize..3).prop_map(|(fenced, cordoned, replicas)| {
                BrokerFacts {
                    registered: true,
                    fenced,
                    cordoned,
                    replicas,
                    leaders: 0,
                }
            });
        let table = proptest::collection::btree_map(0i32..8, broker, 0..8);
        proptest!(|(table in table, wanted in 1i32..8, current in 0i32..8, pods in 0i32..8, width in 0usize..4, maintenance in proptest::collection::btree_set(0i32..8, 0..3))| {
            let facts = Facts {
                wanted,
                current: Some(current),
                pods: (0..pods).collect(),
                brokers: Some(table.clone()),
                maintenance: maintenance.clone(),
                widest: Some(("t".into(), width)),
            };
            let decision = decide(&facts);
            prop_assert!(decision.replicas >= current - 1);
            for (id, broker) in &table {
                if *id >= decision.replicas && broker.replicas > 0 {
                    prop_assert!(false, "broker {id} would leave with replicas: {decision:?}");
                }
                if broker.replicas > 0 || !broker.fenced {
                    prop_assert!(!decision.unregister.contains(id));
                }
            }
        });
    }
}
