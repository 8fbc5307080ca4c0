//! Feature levels as Apache Kafka's own tool shows and changes them on a laptop cluster.

use leasehold_tests::dev::Dev;
use leasehold_tests::tools::{Output, kafka, run};

#[test]
fn kafkas_tool_describes_the_level_and_neither_lowers_nor_overshoots_it() {
    let dev = Dev::start(3, &[]);
    let bootstrap = dev.bootstrap();
    let features = |more: &[&str]| {
        let args = [&["--bootstrap-server", bootstrap.as_str()], more].concat();
        run(kafka("kafka-features", &args), b"")
    };
    let said = |output: &Output| format!("{}{}", output.stdout, output.stderr);
    // The tool knows Kafka's own levels by the name of a release, and shows all others as unknown numbers.
    let described = features(&["describe"]).expect_ok();
    let line = described
        .lines()
        .find(|line| line.contains("Feature: metadata.version"));
    let line = line.unwrap_or_else(|| panic!("no metadata.version: {described}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let level = |name: &str| {
        let at = words.iter().position(|word| *word == format!("{name}:"));
        let mut after = words.iter().skip(at.unwrap_or(words.len()));
        after.find_map(|word| word.parse().ok()).unwrap_or(-1)
    };
    assert_eq!(level("SupportedMinVersion"), 1, "{line}");
    assert_eq!(level("SupportedMaxVersion"), 4, "{line}");
    // A new cluster begins at the newest level.
    assert_eq!(level("FinalizedVersionLevel"), 4, "{line}");

    let newest = ["--feature", "metadata.version=4"];
    let upgraded = features(&[&["upgrade"][..], &newest].concat()).expect_ok();
    assert!(upgraded.contains("upgraded to 4"), "{upgraded}");
    let only = features(&["upgrade", "--dry-run", "--feature", "metadata.version=5"]);
    assert!(said(&only).contains("supports 1 to 4"), "{}", said(&only));
    for how in [&["downgrade"][..], &["downgrade", "--unsafe"]] {
        let lowered = features(&[how, &["--feature", "metadata.version=2"]].concat());
        assert!(
            said(&lowered).contains("cannot be lowered"),
            "{}",
            said(&lowered)
        );
    }
    let unknown = features(&["upgrade", "--feature", "share.version=1"]);
    assert!(
        !said(&unknown).contains("was upgraded"),
        "{}",
        said(&unknown)
    );
    // Kafka's own features begin at the highest level, and may go up and down.
    let at = |level: &str| {
        let described = features(&["describe"]).expect_ok();
        let mut lines = described.lines();
        let line = lines.find(|line| line.contains("Feature: transaction.version"));
        let shown = format!("FinalizedVersionLevel: {level}");
        assert!(
            line.is_some_and(|line| line.contains(&shown)),
            "{described}"
        );
        let groups = described.contains("Feature: group.version");
        assert!(groups, "{described}");
    };
    at("2");
    for (how, level) in [("downgrade", "1"), ("upgrade", "2")] {
        let feature = format!("transaction.version={level}");
        features(&[how, "--feature", &feature]).expect_ok();
        at(level);
    }
    let group = features(&["upgrade", "--feature", "group.version=1"]).expect_ok();
    assert!(group.contains("upgraded to 1"), "{group}");
    // Nothing of that changed it.
    let described = features(&["describe"]).expect_ok();
    let same = described.contains("FinalizedVersionLevel: UNKNOWN 4");
    assert!(same, "{described}");
}
