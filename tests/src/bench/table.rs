//! Figures of several rounds, and the Markdown table of them.

use super::peers::Who;
use std::collections::BTreeMap;

/// Figures by row; each row has one per round and peer.
#[derive(Default)]
pub struct Table {
    /// In the order of their first appearance.
    rows: Vec<String>,
    figures: BTreeMap<(String, bool), Vec<f64>>,
}

impl Table {
    /// Notes one figure; prints it as well, since a run is long.
    pub fn note(&mut self, who: Who, row: &str, figure: f64) {
        eprintln!("  {}: {row}: {}", who.name(), short(figure));
        if !self.rows.iter().any(|known| known == row) {
            self.rows.push(row.to_owned());
        }
        let key = (row.to_owned(), who == Who::Leasehold);
        self.figures.entry(key).or_default().push(figure);
    }

    /// Median and, in brackets, all figures of both; and the ratio of the medians.
    pub fn print(&self) {
        let (ours, theirs) = (Who::Leasehold.name(), Who::Kafka.name());
        println!("| | {ours} | {theirs} | {ours} / Kafka |\n|---|---|---|---|");
        for row in &self.rows {
            let of = |leasehold| self.figures.get(&(row.clone(), leasehold));
            let cell = |leasehold| of(leasehold).map_or_else(|| "-".to_owned(), |all| text(all));
            let ratio = match (of(true), of(false)) {
                (Some(ours), Some(theirs)) => format!("{:.2}", median(ours) / median(theirs)),
                _ => "-".to_owned(),
            };
            println!("| {row} | {} | {} | {ratio} |", cell(true), cell(false));
        }
    }
}

fn text(all: &[f64]) -> String {
    let figures: Vec<String> = all.iter().map(|f| short(*f)).collect();
    match figures.as_slice() {
        [one] => one.clone(),
        _ => format!("{} ({})", short(median(all)), figures.join(", ")),
    }
}

/// Three digits that say something.
fn short(figure: f64) -> String {
    match figure {
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        f if f >= 1.0 => format!("{f:.2}"),
        f => format!("{f:.3}"),
    }
}

/// The middle one; of an even number the higher of the two in the middle.
pub fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The value below which `share` of all are.
pub fn quantile(all: &mut [f64], share: f64) -> f64 {
    all.sort_by(f64::total_cmp);
    all[((all.len() as f64 * share) as usize).min(all.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tail_are_what_they_are_called() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        let mut all: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&mut all, 0.99), 100.0);
        assert_eq!(quantile(&mut all, 0.5), 51.0);
    }

    #[test]
    fn figures_keep_three_digits() {
        let all = [0.1234, 5.678, 56.78, 567.8];
        assert_eq!(all.map(short), ["0.123", "5.68", "56.8", "568"]);
    }
}
