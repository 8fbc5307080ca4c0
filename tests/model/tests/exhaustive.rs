//! Every world is searched whole and keeps its promises; and each rule, taken out, breaks one.

use leasehold_model::cases::{MOST, MUTATIONS, WORLDS, explore, world};

#[test]
fn no_promise_breaks_anywhere_within_the_bounds() {
    for world in WORLDS {
        let (report, _) = explore(world.small, None, MOST);
        let found = report.found.map(|found| (found.broken, found.steps));
        assert_eq!(found, None, "{}", world.name);
        assert!(report.complete, "{} was not searched whole", world.name);
        println!(
            "{}: {} states, depth {}, {:.1} s",
            world.name, report.states, report.depth, report.seconds
        );
    }
}

#[test]
fn each_rule_taken_out_breaks_its_promise() {
    for mutation in MUTATIONS {
        let small = world(mutation.world).expect(mutation.world).small;
        let (report, _) = explore(small, Some(mutation.rule), MOST);
        let found = report.found.map(|found| found.broken).unwrap_or_default();
        let promise = found.split(' ').next();
        assert_eq!(promise, Some(mutation.breaks), "{}: {found}", mutation.rule);
    }
}
