//! What can be wrong with a configuration, all of it at once.

use std::fmt;

use crate::dispatch::DispatchError;

/// Everything that is wrong with a configuration, one problem a line.
///
/// `Debug` prints the same as `Display`, so that a `main` that returns this error with `?` reads well.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    problems: Vec<ConfigProblem>,
}

impl ConfigError {
    pub(super) fn new(problems: Vec<ConfigProblem>) -> Self {
        debug_assert!(!problems.is_empty(), "an error without a problem");
        Self { problems }
    }

    /// The problems, in the order of the settings.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cluster's configuration is not valid")?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// Give the setting a value that is allowed.
    #[error("{given}: {reason} (allowed: {allowed})")]
    NotAllowed {
        /// The setting and its value.
        given: Given,
        /// What is wrong with the value.
        reason: String,
        /// What is allowed.
        allowed: String,
    },
    /// Give the variable a value that is text, or unset it.
    #[error("{variable}={value}: not UTF-8 (allowed: {allowed})")]
    NotUnicode {
        /// The environment variable.
        variable: &'static str,
        /// Its value, with what is not text escaped.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// Correct the variable's name, or unset it.
    #[error("{variable}: there is no such setting; did you mean {nearest}?")]
    UnknownVariable {
        /// The environment variable.
        variable: String,
        /// The known name that is most like it.
        nearest: &'static str,
    },
    /// Add the setting that is missing, or take this one away: by itself it has no effect.
    #[error("{given} needs {missing}: {why}")]
    Incomplete {
        /// The setting and its value.
        given: Given,
        /// The setting to add, as in code and as variable.
        missing: String,
        /// What is missing without it.
        why: &'static str,
    },
    /// Two settings cannot both hold, or need what this version does not have.
    #[error(transparent)]
    Dispatch(#[from] DispatchError),
}

/// A value and where it came from: `.workers(300)` or `STICKY_WORKERS="many"`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Given {
    /// A method of the builder was called.
    Builder {
        /// The method's name.
        method: &'static str,
        /// The argument, as text.
        value: String,
    },
    /// An environment variable is set.
    Variable {
        /// The variable's name.
        name: &'static str,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builder { method, value } => write!(f, ".{method}({value})"),
            Self::Variable { name, value } => write!(f, "{name}={value:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(given: Given) -> ConfigProblem {
        ConfigProblem::NotAllowed { given, reason: "wrong".to_owned(), allowed: "0 to 1".to_owned() }
    }

    #[test]
    fn one_problem_a_line_and_debug_is_display() {
        let error = ConfigError::new(vec![
            problem(Given::Builder { method: "workers", value: "300".to_owned() }),
            problem(Given::Variable { name: "STICKY_LISTEN", value: "a\nb".to_owned() }),
        ]);
        let expected = "the cluster's configuration is not valid\
            \n  .workers(300): wrong (allowed: 0 to 1)\
            \n  STICKY_LISTEN=\"a\\nb\": wrong (allowed: 0 to 1)";
        assert_eq!(error.to_string(), expected);
        assert_eq!(format!("{error:?}"), expected);
        assert_eq!(error.problems().len(), 2);
    }

    #[test]
    fn unknown_variables_are_answered_with_the_nearest() {
        let problem =
            ConfigProblem::UnknownVariable { variable: "STICKY_WORKER".to_owned(), nearest: "STICKY_WORKERS" };
        assert_eq!(problem.to_string(), "STICKY_WORKER: there is no such setting; did you mean STICKY_WORKERS?");
    }
}
