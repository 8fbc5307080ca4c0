//! Every world is searched whole and keeps its promises; and each rule, taken out, breaks one.

use leasehold_model::cases::{MOST, MUTATIONS, WORLDS, explore, world};
use leasehold_simulation::rules::RULES;

/// Searches the worlds whose names begin so. Several tests share them out, so that they run side by side.
fn whole(begin: &str) {
    for world in WORLDS.iter().filter(|world| world.name.starts_with(begin)) {
        let (report, _) = explore(world.small, None, MOST);
        let found = report.found.map(|found| (found.broken, found.steps));
        assert_eq!(found, None, "{}", world.name);
        assert!(report.complete, "{} was not searched whole", world.name);
        // A world in which nothing can happen proves nothing.
        assert!(
            report.states > 100_000,
            "{} has only {} states",
            world.name,
            report.states
        );
        println!(
            "{}: {} states, depth {}, {:.1} s",
            world.name, report.states, report.depth, report.seconds
        );
    }
}

#[test]
fn no_promise_breaks_on_two_brokers() {
    whole("two");
}

#[test]
fn no_promise_breaks_on_three_brokers() {
    whole("three");
}

#[test]
fn no_promise_breaks_at_the_head() {
    whole("head");
}

#[test]
fn no_world_is_left_out() {
    let known = ["two", "three", "head"];
    let searched = |name: &str| known.iter().any(|begin| name.starts_with(begin));
    assert!(WORLDS.iter().all(|world| searched(world.name)));
}

#[test]
fn each_rule_taken_out_breaks_its_promise() {
    for mutation in MUTATIONS {
        assert!(RULES.iter().any(|rule| rule.name == mutation.rule));
        let small = world(mutation.world).expect(mutation.world).small;
        let (report, _) = explore(small, Some(mutation.rule), MOST);
        let found = report.found.map(|found| found.broken).unwrap_or_default();
        let promise = found.split(' ').next();
        assert_eq!(promise, Some(mutation.breaks), "{}: {found}", mutation.rule);
    }
}
