//! The application's own metrics, of all workers: one text, with `worker="2"` on each line. Pure.
//!
//! What comes in is OpenMetrics or the older text format, written by any library. What goes out is OpenMetrics, whatever came
//! in: a line that does not fit is left out and counted, since one bad line has a scraper refuse all of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

/// What the names of our own metrics begin with: nobody else's may.
const OURS: &str = "sticky_";

/// What workers have told, put together.
#[derive(Debug, Default)]
pub(super) struct Merged {
    families: BTreeMap<String, Family>,
    /// Which family the samples of a name are of: a name that is of two would be described twice.
    owners: HashMap<String, String>,
    seen: HashSet<String>,
    /// How many lines of each worker were of no use.
    dropped: Vec<(String, usize)>,
}

#[derive(Debug)]
struct Family {
    kind: Kind,
    help: Option<String>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    /// What its name has beyond its family's.
    suffix: String,
    /// From the label set to the value.
    rest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Info,
    Unknown,
}

impl Kind {
    fn of(word: &str) -> Self {
        match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            _ => Self::Unknown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::Unknown => "unknown",
        }
    }

    /// What the names of samples may have beyond their family's.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge | Self::Unknown => &[""],
            Self::Histogram => &["_bucket", "_count", "_sum"],
            Self::Summary => &["", "_count", "_sum"],
            Self::Info => &["_info"],
        }
    }
}

/// What one worker has said of a family before its samples.
#[derive(Default)]
struct Described<'a> {
    kinds: BTreeMap<&'a str, Kind>,
    helps: BTreeMap<&'a str, &'a str>,
}

impl Merged {
    /// Takes in what a worker has told.
    pub(super) fn add(&mut self, worker: &str, text: &str) {
        let described = Described::of(text);
        let samples = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let dropped = samples.filter(|line| self.add_line(worker, line, &described).is_none()).count();
        self.dropped.push((worker.to_owned(), dropped));
    }

    fn add_line(&mut self, worker: &str, line: &str, described: &Described<'_>) -> Option<()> {
        let (name, labels, value) = split(line)?;
        let (family, suffix, kind) = described.family(name);
        let rest = format!("{{worker=\"{worker}\"{}}} {}", relabelled(labels)?, number(value)?);
        let series = rest.rsplit_once(' ')?.0;
        let is_others = self.owners.get(name).is_some_and(|owner| owner != family);
        if family.starts_with(OURS) || is_others || self.families.get(family).is_some_and(|known| known.kind != kind) {
            return None;
        }
        self.seen.insert(format!("{name}{series}")).then_some(())?;
        self.owners.entry(name.to_owned()).or_insert_with(|| family.to_owned());
        let known = self.families.entry(family.to_owned()).or_insert_with(|| Family {
            kind,
            help: described.help(family).map(str::to_owned),
            samples: Vec::new(),
        });
        known.samples.push(Sample { suffix: suffix.to_owned(), rest });
        Some(())
    }

    /// Everything, in OpenMetrics, without its end.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if !self.dropped.is_empty() {
            text += "# HELP sticky_exported_lines_dropped Lines of the application's own metrics that are not shown\n\
                     # TYPE sticky_exported_lines_dropped gauge\n";
        }
        for (worker, dropped) in &self.dropped {
            let _ = writeln!(text, "sticky_exported_lines_dropped{{worker=\"{worker}\"}} {dropped}");
        }
        for (name, Family { kind, help, samples }) in &self.families {
            // Writing into a text does not fail.
            if let Some(help) = help {
                let _ = writeln!(text, "# HELP {name} {help}");
            }
            let _ = writeln!(text, "# TYPE {name} {}", kind.name());
            for Sample { suffix, rest } in samples {
                let _ = writeln!(text, "{name}{suffix}{rest}");
            }
        }
        text
    }
}

impl<'a> Described<'a> {
    fn of(text: &'a str) -> Self {
        let mut described = Self::default();
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some("TYPE"), Some(name), Some(kind)) if is_name(name) => {
                    let kind = Kind::of(kind.trim());
                    // The older format has the suffixes of samples in the names of families.
                    let stem = kind.suffixes().first().filter(|_| matches!(kind, Kind::Counter | Kind::Info));
                    let stem = stem.and_then(|suffix| name.strip_suffix(suffix)).filter(|stem| !stem.is_empty());
                    described.kinds.insert(stem.unwrap_or(name), kind);
                }
                (Some("#"), Some("HELP"), Some(name), Some(help)) if is_name(name) => {
                    described.helps.insert(name, help);
                }
                _ => {}
            }
        }
        described
    }

    /// The family that a sample of this name is of, and what its name has beyond that.
    fn family<'n>(&self, name: &'n str) -> (&'n str, &'n str, Kind) {
        let stems = (1..=name.len()).filter(|at| name.is_char_boundary(*at)).map(|at| name.split_at(at));
        let mut fitting = stems.filter_map(|(stem, suffix)| {
            let kind = *self.kinds.get(stem)?;
            kind.suffixes().contains(&suffix).then_some((stem, suffix, kind))
        });
        fitting.next().unwrap_or((name, "", Kind::Unknown))
    }

    fn help(&self, family: &str) -> Option<&'a str> {
        let names = [family.to_owned(), format!("{family}_total"), format!("{family}_info")];
        names.iter().find_map(|name| self.helps.get(name.as_str()).copied())
    }
}

/// A sample's name, what is between its braces, and its value. A time and an exemplar that follow are not passed on.
fn split(line: &str) -> Option<(&str, &str, &str)> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => {
            let end = closing_brace(rest)?;
            (&rest[..end], &rest[end + 1..])
        }
        None => ("", rest),
    };
    let value = rest.split_ascii_whitespace().next()?;
    is_name(name).then_some((name, labels, value))
}

/// Where a label set ends: at the first brace that is in no value.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut is_inside, mut is_escaped) = (false, false);
    text.bytes().position(|byte| {
        let is_end = byte == b'}' && !is_inside;
        is_inside ^= byte == b'"' && !is_escaped;
        is_escaped = is_inside && byte == b'\\' && !is_escaped;
        is_end
    })
}

/// A label set as it goes behind ours, each label after a comma. One that is called like ours is called otherwise.
fn relabelled(labels: &str) -> Option<String> {
    let (mut rest, mut text, mut names) = (labels.trim(), String::new(), HashSet::new());
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start().strip_prefix('"')?;
        let end = closing_quote(after)?;
        let name = match name.trim() {
            "worker" => "exported_worker",
            name => name,
        };
        let is_new = is_name(name) && !name.contains(':') && names.insert(name);
        is_new.then_some(())?;
        let _ = write!(text, ",{name}=\"{}\"", &after[..end]);
        rest = after[end + 1..].trim_start();
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(text)
}

/// Where a label's value ends: at the first quote that is not escaped. Other escapes than there are make it no value.
fn closing_quote(text: &str) -> Option<usize> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some(at),
            b'\\' => matches!(bytes.next()?.1, b'\\' | b'"' | b'n').then_some(())?,
            _ => {}
        }
    }
    None
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_letter) && bytes.all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// The text of a number, as both formats write it.
fn number(text: &str) -> Option<&str> {
    match text.strip_prefix(['+', '-']).unwrap_or(text) {
        "Inf" | "NaN" => Some(text),
        digits if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => {
            // One that is too large is none for those who read it.
            text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| text)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(texts: &[(&str, &str)]) -> (String, usize) {
        let mut merged = Merged::default();
        texts.iter().for_each(|(worker, text)| merged.add(worker, text));
        let dropped = std::mem::take(&mut merged.dropped).into_iter().map(|(_, dropped)| dropped).sum();
        (merged.text(), dropped)
    }

    #[test]
    fn families_of_all_workers_are_put_together() {
        let text = "# HELP jobs Jobs that are done.\n# TYPE jobs counter\njobs_total 3\n# TYPE depth gauge\ndepth{queue=\"a\"} \
                    1.5\n# EOF\n";
        let (text, dropped) = merged(&[("0", text), ("1", text)]);
        let expected = "# TYPE depth gauge\ndepth{worker=\"0\",queue=\"a\"} 1.5\ndepth{worker=\"1\",queue=\"a\"} 1.5\n\
                        # HELP jobs Jobs that are done.\n# TYPE jobs counter\njobs_total{worker=\"0\"} \
                        3\njobs_total{worker=\"1\"} 3\n";
        assert_eq!((text.as_str(), dropped), (expected, 0));
    }

    #[test]
    fn the_older_format_is_understood() {
        let text = "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total 3 1700000000000\n\n# a comment\n# TYPE \
                    time histogram\ntime_bucket{le=\"1\"} 1\ntime_bucket{le=\"+Inf\"} 2\ntime_sum 3e-1\ntime_count 2\n\
                    # TYPE old untyped\nold 1\nloose 7\n";
        let expected = "# HELP jobs Jobs.\n# TYPE jobs counter\njobs_total{worker=\"2\"} 3\n# TYPE loose \
                        unknown\nloose{worker=\"2\"} 7\n# TYPE old unknown\nold{worker=\"2\"} 1\n# TYPE time \
                        histogram\ntime_bucket{worker=\"2\",le=\"1\"} 1\ntime_bucket{worker=\"2\",le=\"+Inf\"} \
                        2\ntime_sum{worker=\"2\"} 3e-1\ntime_count{worker=\"2\"} 2\n";
        assert_eq!(merged(&[("2", text)]), (expected.to_owned(), 0));
    }

    #[test]
    fn labels_keep_what_they_say() {
        for (line, expected) in [
            (r#"a{b="}",c="\"x\\"} 1"#, r#"a{worker="0",b="}",c="\"x\\"} 1"#),
            (r#"a{worker="7"} 1"#, r#"a{worker="0",exported_worker="7"} 1"#),
            (r#"a{ b = "1" , } 1"#, r#"a{worker="0",b="1"} 1"#),
            (r#"a{} -Inf"#, r#"a{worker="0"} -Inf"#),
            ("a\t1 # {id=\"x\"} 2", r#"a{worker="0"} 1"#),
            (r#"a{b="x"}1"#, r#"a{worker="0",b="x"} 1"#),
        ] {
            assert_eq!(merged(&[("0", line)]), (format!("# TYPE a unknown\n{expected}\n"), 0), "{line}");
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        for line in [
            "a",
            "a x",
            "a 1x",
            "a infinity",
            "a +-Inf",
            "a 1e999",
            "1a 1",
            "a-b 1",
            "a{b=\"1\" 1",
            "a{b=1} 1",
            "a{b=\"\\x\"} 1",
            "a{b=\"1\"c=\"2\"} 1",
            "a{b=\"1\",b=\"2\"} 1",
            "a{1=\"1\"} 1",
            "sticky_requests_total 1",
            "{a=\"1\"} 1",
        ] {
            assert_eq!(merged(&[("0", line)]), (String::new(), 1), "{line}");
        }
        let (text, dropped) = merged(&[("0", "# TYPE a gauge\na 1\na 2\n"), ("1", "# TYPE a counter\na_total 1\n")]);
        assert_eq!((text.as_str(), dropped), ("# TYPE a gauge\na{worker=\"0\"} 1\n", 2), "twice, and of another kind");
        let (text, dropped) = merged(&[("0", "# TYPE a counter\na_total 1\n"), ("1", "a_total 1\n")]);
        assert_eq!((text.as_str(), dropped), ("# TYPE a counter\na_total{worker=\"0\"} 1\n", 1), "of two families");
    }

    proptest! {
        /// Whatever a program tells, every line that goes out is one, and says whose it is.
        #[test]
        fn anything_becomes_well_formed(text in "([a-z_]{1,3}(\\{[a-z]=\"[a-z\\\\\"{}, ]{0,4}\"[,}]{0,2})?[ 0-9.]{0,4}|# TYPE [a-z]{1,2} (counter|gauge)|\\PC{0,9}\n){0,20}") {
            let mut merged = Merged::default();
            ["0", "1"].iter().for_each(|worker| merged.add(worker, &text));
            let merged = merged.text();
            for line in merged.lines().filter(|line| !line.starts_with("# ")) {
                let (name, labels, value) = split(line).expect("a sample");
                prop_assert!(is_name(name) && value.parse::<f64>().is_ok());
                prop_assert!(labels.starts_with("worker=\"") && relabelled(labels).is_some(), "{line}");
            }
        }
    }
}
