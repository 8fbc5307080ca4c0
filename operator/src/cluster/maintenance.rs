//! Brokers that the user wants empty while they stay: maintenance; pure.
//!
//! Promises: a wish that cannot be read, that names a broker which does not belong to the cluster, or that would
//! leave nobody to lead, changes nothing and is told; the controller does the moving, as for brokers that leave.

use super::scale::BrokerFacts;
use leasehold_crds::MAINTENANCE_ANNOTATION;
use std::collections::{BTreeMap, BTreeSet};

/// What the annotation asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Brokers to keep empty.
    pub brokers: BTreeSet<i32>,
    /// Why it is not followed.
    pub refused: Option<String>,
}

/// The `Maintenance` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Maintenance {
    Refused(String),
    /// Leaders or replicas are still to move.
    Emptying(String),
    /// They lead nothing, and what they hold finds no room elsewhere.
    LeadsNothing(String),
    Empty(String),
}

/// Reads the annotation's value: numbers of brokers with commas between them.
pub fn wish(value: Option<&str>, replicas: i32) -> Wish {
    let refused = |why: String| Wish {
        brokers: BTreeSet::new(),
        refused: Some(format!("{MAINTENANCE_ANNOTATION}: {why}")),
    };
    if replicas <= 0 {
        return Wish::default();
    }
    let mut brokers = BTreeSet::new();
    let words = value.unwrap_or_default().split(',').map(str::trim);
    for word in words.filter(|word| !word.is_empty()) {
        match word.parse() {
            Ok(id) if (0..replicas).contains(&id) => _ = brokers.insert(id),
            Ok(id) => {
                return refused(format!(
                    "there is no broker {id}: this cluster has brokers 0 to {}",
                    replicas - 1
                ));
            }
            Err(_) => {
                return refused(format!(
                    "{word:?} is no broker's number: write numbers with commas between them, such as 0,2"
                ));
            }
        }
    }
    if i32::try_from(brokers.len()).is_ok_and(|count| count == replicas) {
        return refused("not all brokers at once: somebody has to lead".to_owned());
    }
    Wish {
        brokers,
        refused: None,
    }
}

/// How it goes; `None`: nobody asks for it. `widest` is the most replicas of any topic.
pub fn look(
    wish: &Wish,
    brokers: &BTreeMap<i32, BrokerFacts>,
    widest: usize,
) -> Option<Maintenance> {
    if let Some(why) = &wish.refused {
        return Some(Maintenance::Refused(why.clone()));
    }
    if wish.brokers.is_empty() {
        return None;
    }
    let of = |count: fn(&BrokerFacts) -> usize| -> usize {
        let mine = wish.brokers.iter().filter_map(|id| brokers.get(id));
        mine.map(count).sum()
    };
    let (replicas, leaders) = (of(|b| b.replicas), of(|b| b.leaders));
    let told = wish
        .brokers
        .iter()
        .all(|id| brokers.get(id).is_none_or(|b| b.cordoned));
    let names: Vec<String> = wish.brokers.iter().map(ToString::to_string).collect();
    let names = format!(
        "broker{} {}",
        if names.len() == 1 { "" } else { "s" },
        names.join(", ")
    );
    let takers = brokers
        .values()
        .filter(|b| b.registered && !b.fenced && !b.cordoned)
        .count();
    Some(match (told && leaders == 0, replicas) {
        (true, 0) => Maintenance::Empty(format!("{names}: no leaders and no replicas")),
        (true, held) if takers < widest => Maintenance::LeadsNothing(format!(
            "{names}: no leaders; {held} replicas stay, since {takers} other brokers cannot take what has up to {widest} replicas"
        )),
        (_, held) => Maintenance::Emptying(format!(
            "{names}: {held} replicas and {leaders} leaders left to move"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(replicas: usize, leaders: usize, cordoned: bool) -> BrokerFacts {
        BrokerFacts {
            registered: true,
            fenced: false,
            cordoned,
            replicas,
            leaders,
        }
    }

    #[test]
    fn a_wish_that_cannot_be_followed_changes_nothing_and_says_why() {
        let read = |text| {
            let Wish { brokers, refused } = wish(Some(text), 3);
            (Vec::from_iter(brokers), refused.unwrap_or_default())
        };
        assert_eq!(read("1"), (vec![1], String::new()));
        assert_eq!(read(" 2, 0,"), (vec![0, 2], String::new()));
        assert_eq!(read(""), (vec![], String::new()));
        for (text, why) in [
            ("3", "brokers 0 to 2"),
            ("-1", "no broker -1"),
            ("demo-broker-1", "no broker's number"),
            ("0,1,2", "somebody has to lead"),
        ] {
            let (brokers, refused) = read(text);
            assert!(
                brokers.is_empty() && refused.contains(why),
                "{text}: {refused}"
            );
        }
        assert_eq!(wish(None, 3), Wish::default());
        assert_eq!(wish(Some("1"), 0), Wish::default(), "all are asleep");
    }

    #[test]
    fn people_see_what_is_left_to_move_and_what_has_to_stay() {
        let asked = wish(Some("1"), 3);
        let look = |broker_1, widest| {
            let brokers = BTreeMap::from([
                (0, broker(5, 3, false)),
                (1, broker_1),
                (2, broker(5, 2, false)),
            ]);
            look(&asked, &brokers, widest)
        };
        let emptying = |text: &str| Some(Maintenance::Emptying(format!("broker 1: {text}")));
        assert_eq!(
            look(broker(5, 2, false), 2),
            emptying("5 replicas and 2 leaders left to move")
        );
        assert_eq!(
            look(broker(5, 2, true), 3),
            emptying("5 replicas and 2 leaders left to move")
        );
        assert!(matches!(
            look(broker(5, 0, true), 3),
            Some(Maintenance::LeadsNothing(_))
        ));
        assert_eq!(
            look(broker(5, 0, true), 2),
            emptying("5 replicas and 0 leaders left to move")
        );
        assert!(matches!(
            look(broker(0, 0, true), 2),
            Some(Maintenance::Empty(_))
        ));
        assert!(
            matches!(look(broker(0, 0, false), 2), Some(Maintenance::Emptying(_))),
            "the controller has not been told"
        );
        assert_eq!(super::look(&wish(None, 3), &BTreeMap::new(), 3), None);
    }
}
