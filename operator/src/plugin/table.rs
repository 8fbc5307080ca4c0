//! Text in columns, and ages as kubectl tells them; pure.

/// Lines of columns two spaces apart; the last column is not padded.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let widths = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(|column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let widths: Vec<usize> = widths.collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            let missing = width.saturating_sub(cell.chars().count());
            line.extend(std::iter::repeat_n(' ', missing + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The cells of one row.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A time span by its two largest units; one that is negative (clocks differ) as none.
pub(super) fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_by_their_two_largest_units() {
        let spans = [-5, 0, 59, 60, 3_599, 3_600, 86_399, 90_000].map(span);
        let told = [
            "0s", "0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d1h",
        ];
        assert_eq!(spans, told);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(["A", "LONG"]), row(["äöü", "x"])];
        assert_eq!(columns(&rows), "A    LONG\näöü  x\n");
    }
}
