//! The table, as text or markdown.

use crate::stats::{Summary, Verdict};

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Line {
    /// The row's name.
    pub row: &'static str,
    /// What was measured, and its unit.
    pub metric: &'static str,
    /// The sign between the two sides; empty where one stands alone.
    pub compare: &'static str,
    /// The measured side and its median.
    pub side: (&'static str, f64),
    /// The other side and its median.
    pub against: Option<(&'static str, f64)>,
    /// What the pairs say.
    pub result: Summary,
    /// How many there were.
    pub pairs: usize,
    /// "At most".
    pub bar: Option<f64>,
}

const HEADINGS: [&str; 9] =
    ["row", "measured", "side", "against", "median", "95 % bounds", "p10-p90", "bar", "verdict"];

impl Line {
    /// Whether the bar was reached; `None` without one.
    pub fn verdict(&self) -> Option<Verdict> {
        self.bar.map(|bar| self.result.verdict(bar))
    }

    fn cells(&self) -> [String; 9] {
        let range = |(low, high)| format!("{}-{}", number(low), number(high));
        [
            self.row.to_owned(),
            self.metric.to_owned(),
            format!("{} {}", self.side.0, number(self.side.1)),
            self.against.map_or_else(String::new, |(name, value)| format!("{} {name} {}", self.compare, number(value))),
            number(self.result.median),
            self.result.bounds.map_or_else(|| "too few".to_owned(), range),
            range(self.result.spread),
            self.bar.map_or_else(String::new, |bar| format!("≤ {bar}")),
            self.verdict().map_or_else(String::new, |verdict| verdict_text(verdict, self.pairs)),
        ]
    }
}

/// The table with its columns aligned.
pub fn text(lines: &[Line]) -> String {
    let rows: Vec<[String; 9]> =
        std::iter::once(HEADINGS.map(str::to_owned)).chain(lines.iter().map(Line::cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let line = |row: &[String; 9]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The table as markdown.
pub fn markdown(lines: &[Line]) -> String {
    let row = |cells: [String; 9]| format!("| {} |\n", cells.join(" | "));
    let head = row(HEADINGS.map(str::to_owned)) + &row(["---"; 9].map(str::to_owned));
    lines.iter().map(|line| row(line.cells())).fold(head, |table, line| table + &line)
}

fn verdict_text(verdict: Verdict, pairs: usize) -> String {
    match verdict {
        Verdict::Met => format!("met ({pairs} pairs)"),
        Verdict::Open => format!("open ({pairs} pairs)"),
        Verdict::Missed => format!("MISSED ({pairs} pairs)"),
    }
}

/// Three or four significant digits: more would be noise.
fn number(value: f64) -> String {
    match value.abs() {
        size if size < 0.1 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_compared_and_the_verdict() {
        let result = Summary { median: 1.0, bounds: Some((0.98, 1.02)), spread: (0.9, 1.1) };
        let line = Line {
            row: "kernel/requests",
            metric: "CPU µs/request",
            compare: "÷",
            side: ("kernel", 10.04),
            against: Some(("plain", 11.0)),
            result,
            pairs: 40,
            bar: Some(1.05),
        };
        let table = markdown(&[line]);
        let cells = "| kernel 10.0 | ÷ plain 11.0 | 1.00 | 0.98-1.02 | 0.90-1.10 | ≤ 1.05 | met (40 pairs) |";
        assert!(table.contains(cells), "{table}");
    }
}
