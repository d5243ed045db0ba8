//! The older text format, made from OpenMetrics: for those who do not ask for that, and for tools that know no other.

use std::fmt::Write as _;

/// The end of an OpenMetrics text.
pub(super) const END: &str = "# EOF\n";

/// The same metrics in the text format 0.0.4: there a family has its samples' name, the suffixes of counters and infos included.
pub(super) fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        match line.split_once(' ').map(|(hash, rest)| (hash, rest.splitn(3, ' ').collect::<Vec<_>>())) {
            Some(("#", words)) => match words[..] {
                ["HELP", name, rest] => help = Some((name, rest)),
                ["TYPE", name, kind] => describe(&mut classic, name, kind, help.take_if(|(of, _)| *of == name)),
                // Units are part of the names already, and there is no end.
                _ => {}
            },
            _ => {
                classic.push_str(line);
                classic.push('\n');
            }
        }
    }
    classic
}

fn describe(text: &mut String, name: &str, kind: &str, help: Option<(&str, &str)>) {
    let (suffix, kind) = match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        "stateset" => ("", "gauge"),
        kind => ("", kind),
    };
    if let Some((_, help)) = help {
        let _ = writeln!(text, "# HELP {name}{suffix} {help}");
    }
    let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_samples() {
        let text = "# HELP a What it is.\n# TYPE a counter\na_total{b=\"# x\"} 1\n# TYPE b_seconds gauge\n# UNIT b_seconds \
                    seconds\nb_seconds 2\n# HELP c Of x\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total{b=\"# x\"} 1\n# TYPE b_seconds \
                        gauge\nb_seconds 2\n# HELP c_info Of x\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(classic(text), expected);
    }
}
