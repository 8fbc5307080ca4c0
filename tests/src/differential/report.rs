//! What was found: a line per API, and each unexplained difference once, with a request that shows it.

use super::compare::Difference;
use super::exchange::Request;
use super::intended;
use serde_json::Value;
use std::collections::BTreeMap;

/// How many requests of an API were how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    compared: u32,
    equal: u32,
    intended: u32,
    unexplained: u32,
}

/// One sort of unexplained difference.
struct Found {
    times: u32,
    example: String,
}

/// The report of a run.
#[derive(Default)]
pub struct Report {
    counts: BTreeMap<String, Counts>,
    found: BTreeMap<String, Found>,
}

impl Report {
    /// Takes in one request; gives whether anything differed, intended or not.
    pub fn add(
        &mut self,
        api: &str,
        place: &str,
        request: &Request,
        differences: &[Difference],
    ) -> bool {
        let counts = self.counts.entry(api.to_owned()).or_default();
        counts.compared += 1;
        let unexplained: Vec<&Difference> = differences
            .iter()
            .filter(|one| intended::reason(api, &request.body, one).is_none())
            .collect();
        match (differences.is_empty(), unexplained.is_empty()) {
            (true, _) => counts.equal += 1,
            (_, true) => counts.intended += 1,
            _ => counts.unexplained += 1,
        }
        for one in &unexplained {
            let sort = format!(
                "{api} {}: Kafka {}, Leasehold {}",
                one.sort(),
                show(&one.kafka),
                show(&one.leasehold)
            );
            let found = self.found.entry(sort).or_insert_with(|| Found {
                times: 0,
                example: format!(
                    "{place} version {}, {}\n      {}",
                    request.version, one.path, request.body
                ),
            });
            found.times += 1;
        }
        !differences.is_empty()
    }

    pub fn unexplained(&self) -> bool {
        !self.found.is_empty()
    }

    pub fn text(&self) -> String {
        let mut text =
            "| API | compared | equal | intended | unexplained |\n|---|---|---|---|---|\n"
                .to_owned();
        let mut line = |name: &str, c: &Counts| {
            text += &format!(
                "| {name} | {} | {} | {} | {} |\n",
                c.compared, c.equal, c.intended, c.unexplained
            );
        };
        let mut all = Counts::default();
        for (api, counts) in &self.counts {
            line(api, counts);
            all.compared += counts.compared;
            all.equal += counts.equal;
            all.intended += counts.intended;
            all.unexplained += counts.unexplained;
        }
        line("all", &all);
        for (sort, found) in &self.found {
            text += &format!("\n{sort} ({} times)\n    {}\n", found.times, found.example);
        }
        text
    }
}

fn show(value: &Option<Value>) -> String {
    let text = value
        .as_ref()
        .map_or("has it not".to_owned(), Value::to_string);
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unexplained_difference_is_counted_shown_and_fails_the_run() {
        let request = Request {
            key: 3,
            version: 9,
            body: json!({"Topics": []}),
            bind: None,
        };
        let mut report = Report::default();
        assert!(!report.add("Metadata", "e1 1", &request, &[]));
        assert!(!report.unexplained());
        let difference = Difference {
            path: "Topics[a].ErrorCode".into(),
            kafka: Some(json!(3)),
            leasehold: Some(json!(0)),
        };
        assert!(report.add("Metadata", "e1 2", &request, &[difference]));
        assert!(report.unexplained());
        let text = report.text();
        assert!(text.contains("| Metadata | 2 | 1 | 0 | 1 |"), "{text}");
        assert!(
            text.contains("Topics[].ErrorCode: Kafka 3, Leasehold 0 (1 times)"),
            "{text}"
        );
    }
}
