//! The command behind `benches/run`: runs the rows it is given, or all, and prints one table.

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    match linux::main() {
        Ok(code) => code,
        Err(message) => {
            eprintln!("benches/run: {message}");
            ExitCode::from(2)
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("benches/run: it measures processes through interfaces that only Linux has");
    ExitCode::from(2)
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::fs;
    use std::process::ExitCode;

    use sticky_benches::cpus;
    use sticky_benches::pairs;
    use sticky_benches::report::{self, Line};
    use sticky_benches::rows::{self, Row};
    use sticky_benches::stats::Verdict;

    #[derive(Default)]
    struct Arguments {
        list: bool,
        pairs: Option<usize>,
        markdown: Option<String>,
        rows: Vec<&'static Row>,
    }

    pub(super) fn main() -> Result<ExitCode, String> {
        let arguments = parse(std::env::args().skip(1))?;
        if arguments.list {
            list();
            return Ok(ExitCode::SUCCESS);
        }
        cpus::pin_load().map_err(|error| format!("failed to keep the load on one CPU: {error}"))?;
        let (lines, failed) = run(&arguments);
        println!("{}\n\n{}", machine(), report::text(&lines));
        if let Some(file) = &arguments.markdown {
            let text = format!("{}\n\n{}", machine(), report::markdown(&lines));
            fs::write(file, text).map_err(|error| format!("failed to write {file}: {error}"))?;
        }
        let missed = lines.iter().any(|line| line.verdict() == Some(Verdict::Missed));
        Ok(ExitCode::from(if failed { 2 } else { u8::from(missed) }))
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => arguments.list = true,
                "--pairs" => {
                    let number = words.next().and_then(|number| number.parse().ok()).filter(|&number| number > 0);
                    arguments.pairs = Some(number.ok_or("--pairs takes a number above 0")?);
                }
                "--markdown" => arguments.markdown = Some(words.next().ok_or("--markdown takes a file")?),
                name => arguments.rows.extend(rows_named(name)?),
            }
        }
        if arguments.rows.is_empty() {
            arguments.rows.extend(rows::all());
        }
        Ok(arguments)
    }

    fn rows_named(name: &str) -> Result<Vec<&'static Row>, String> {
        let family = |row: &Row| row.name.split_once('/').is_some_and(|(family, _)| family == name);
        let named: Vec<_> = rows::all().filter(|row| row.name == name || family(row)).collect();
        if named.is_empty() { Err(format!("there is no row {name:?}; --list names them")) } else { Ok(named) }
    }

    fn list() {
        let width = rows::all().map(|row| row.name.len()).max().unwrap_or(0);
        for row in rows::all() {
            println!("{:width$} {}", row.name, row.about);
            for metric in row.metrics {
                let bar = metric.bar.map_or_else(String::new, |bar| format!(" ≤ {bar}"));
                println!("{:width$}   {}{bar}", "", metric.name);
            }
        }
    }

    /// Runs what it can; the flag says that something did not run.
    fn run(arguments: &Arguments) -> (Vec<Line>, bool) {
        let mut lines = Vec::new();
        let mut failed = false;
        for row in &arguments.rows {
            let wanted = arguments.pairs.unwrap_or(row.pairs);
            let result = pairs::run(row, wanted, |pair| eprint!("\r{}: pair {pair} of {wanted}", row.name));
            eprintln!();
            match result {
                Ok(of_row) => lines.extend(of_row),
                Err(error) => {
                    failed = true;
                    eprintln!("{}: {}", row.name, with_causes(&error));
                }
            }
        }
        (lines, failed)
    }

    fn with_causes(error: &dyn Error) -> String {
        let causes = std::iter::successors(error.source(), |&error| error.source());
        causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    fn machine() -> String {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!("{} CPUs, the load on the last, Linux {}", cpus::count(), kernel.trim())
    }
}
