//! How even a cluster's brokers are, told from its metadata; pure. The controller does the moving.

use leasehold_crds::{BalancingMode, BalancingSpec};
use leasehold_metadata::balance::{self, Balancing, Mode, Move, PLAN_AT_MOST, Plan};
use leasehold_metadata::image::Image;
use leasehold_types::BrokerId;

/// Moves that a message names; more are counted.
const NAMED: usize = 20;

/// The `Balanced` condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Nothing is to be done.
    Even,
    /// Something is, but nothing moves yet.
    Settling(String),
    Moving(String),
    /// What would move, if the user let it.
    Planned(String),
    Off(String),
    /// The controller could not be told what the user wants.
    Unknown(String),
}

/// What the user wants, as the controller has it; whether something is due is the controller's own.
pub fn wanted(spec: &BalancingSpec) -> Balancing {
    Balancing {
        mode: match spec.mode {
            BalancingMode::Auto => Mode::Auto,
            BalancingMode::PlanOnly => Mode::PlanOnly,
            BalancingMode::Off => Mode::Off,
        },
        max_moves: u32::try_from(spec.max_moves).unwrap_or(1).max(1),
        bytes_per_second: u64::try_from(spec.bytes_per_second)
            .ok()
            .filter(|bytes| *bytes > 0),
        due: false,
    }
}

/// Whether the controller is yet to be told.
pub fn differs(image: &Image, wanted: &Balancing) -> bool {
    let known = Balancing {
        due: false,
        ..image.balancing
    };
    known != *wanted
}

/// How it goes.
pub fn look(image: &Image, spec: &BalancingSpec) -> Balance {
    let due = image.balancing.due;
    match spec.mode {
        BalancingMode::Auto if due => {}
        BalancingMode::Off if due => {
            return Balance::Off(
                "brokers came or went, and spec.balancing.mode is Off: replicas and leaders stay where they are".to_owned(),
            );
        }
        BalancingMode::PlanOnly => {}
        BalancingMode::Auto | BalancingMode::Off => return Balance::Even,
    }
    let plan = balance::of_image(image, PLAN_AT_MOST);
    if spec.mode == BalancingMode::PlanOnly {
        return match plan.is_empty() {
            true => Balance::Even,
            false => Balance::Planned(planned(image, &plan)),
        };
    }
    let moving = image.topics.values().flat_map(|topic| &topic.partitions);
    let moving = moving.filter(|partition| partition.balancing).count();
    let left = format!("{} and {} left to move", replicas(&plan), leaders(&plan));
    if moving > 0 {
        return Balance::Moving(format!("{} moving; {left}", partitions(moving)));
    }
    let brokers = image.brokers.values();
    let away: Vec<String> = brokers
        .filter(|broker| !broker.cordoned && !broker.is_eligible())
        .map(|broker| broker.id.to_string())
        .collect();
    let mut drained = image.brokers.values().filter(|broker| broker.cordoned);
    let drains = drained.any(|broker| image.hosted(broker.id).replicas > 0);
    let why = match (away.is_empty(), drains) {
        (false, _) => format!("waiting for broker {} to be there", away.join(", ")),
        (true, true) => "waiting for the drain to end".to_owned(),
        (true, false) => "about to begin or to end".to_owned(),
    };
    Balance::Settling(format!("{why}; {left}"))
}

fn planned(image: &Image, plan: &Plan) -> String {
    let name = |m: &Move| {
        let topic = image.topic(&m.topic);
        let topic = topic.map_or(m.topic.to_string(), |topic| topic.name.clone());
        format!(
            "{topic}-{}: {} to {}",
            m.partition,
            ids(&m.from),
            ids(&m.to)
        )
    };
    let named: Vec<String> = plan.moves.iter().take(NAMED).map(name).collect();
    let more = match plan.moves.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "would move {} and {}: {}{more}",
        replicas(plan),
        leaders(plan),
        named.join("; ")
    )
}

fn ids(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(ToString::to_string).collect();
    format!("[{}]", ids.join(","))
}

fn replicas(plan: &Plan) -> String {
    let than = if plan.more { "more than " } else { "" };
    let count = plan.replicas();
    format!("{than}{count} replica{}", if count == 1 { "" } else { "s" })
}

/// Of a plan in parts, leaders are settled with the last one.
fn leaders(plan: &Plan) -> String {
    let count = plan.leaders();
    format!("{count} leader{}", if count == 1 { "" } else { "s" })
}

fn partitions(count: usize) -> String {
    match count {
        1 => "1 partition is".to_owned(),
        _ => format!("{count} partitions are"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{add_topic, image};
    use super::*;
    use std::sync::Arc;

    fn spec(text: &str) -> BalancingSpec {
        serde_yaml::from_str(text).unwrap()
    }

    /// Three brokers hold two partitions, a fourth came.
    fn four(due: bool) -> Image {
        let mut image = image("0 1 2 3");
        add_topic(&mut image, "a", &["012/012/0", "120/012/1"]);
        image.balancing.due = due;
        image
    }

    #[test]
    fn the_users_limits_are_the_controllers() {
        let defaults = wanted(&spec("{}"));
        assert_eq!(defaults, Balancing::default(), "one default for both");
        let told = wanted(&spec("{mode: PlanOnly, maxMoves: 3, bytesPerSecond: 0}"));
        assert_eq!((told.mode, told.max_moves), (Mode::PlanOnly, 3));
        assert_eq!(told.bytes_per_second, None, "0 is no bound");
        let mut image = four(true);
        assert!(!differs(&image, &defaults), "what is due is not the user's");
        assert!(differs(&image, &told));
        image.balancing = Balancing { due: true, ..told };
        assert!(!differs(&image, &told));
    }

    #[test]
    fn it_is_told_what_is_left_to_move() {
        let auto = spec("{}");
        assert_eq!(look(&four(false), &auto), Balance::Even);
        assert_eq!(
            look(&four(true), &auto),
            Balance::Settling(
                "about to begin or to end; 1 replica and 0 leaders left to move".into()
            )
        );
        let mut moving = four(true);
        let id = *moving.names.get("a").unwrap();
        let topic = Arc::make_mut(moving.topics.get_mut(&id).unwrap());
        let partition = Arc::make_mut(&mut topic.partitions[0]);
        partition.balancing = true;
        partition.replicas.push(BrokerId(3));
        (partition.adding, partition.removing) = (vec![BrokerId(3)], vec![BrokerId(1)]);
        let told = look(&moving, &auto);
        assert_eq!(
            told,
            Balance::Moving("1 partition is moving; 0 replicas and 0 leaders left to move".into())
        );
    }

    #[test]
    fn it_is_told_whom_it_waits_for() {
        let told = |brokers: &str| {
            let mut image = image(brokers);
            add_topic(&mut image, "a", &["012/01/0"]);
            image.balancing.due = true;
            match look(&image, &spec("{}")) {
                Balance::Settling(message) => message,
                other => panic!("{other:?}"),
            }
        };
        assert!(told("0 1 2f").starts_with("waiting for broker 2 to be there;"));
        assert!(told("0 1 2c").starts_with("waiting for the drain"));
    }

    #[test]
    fn a_plan_is_told_move_by_move_and_off_is_off() {
        let plan_only = spec("{mode: PlanOnly}");
        let Balance::Planned(message) = look(&four(false), &plan_only) else {
            panic!("no plan")
        };
        assert!(
            message.starts_with("would move 1 replica and 0 leaders: a-"),
            "{message}"
        );
        assert!(
            message.contains(" to [") && message.contains('3'),
            "{message}"
        );
        let off = spec("{mode: Off}");
        assert_eq!(look(&four(false), &off), Balance::Even);
        assert!(matches!(look(&four(true), &off), Balance::Off(_)));
        let mut even = image("0 1");
        add_topic(&mut even, "a", &["01/01/0", "10/01/1"]);
        assert_eq!(look(&even, &plan_only), Balance::Even);
    }

    #[test]
    fn a_long_plan_is_cut_short() {
        let mut image = image("0 1");
        add_topic(&mut image, "a", &["0/0/0"; 100]);
        let Balance::Planned(message) = look(&image, &spec("{mode: PlanOnly}")) else {
            panic!("no plan")
        };
        assert!(message.ends_with("; and 30 more"), "{message}");
    }
}
