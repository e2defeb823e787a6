//! Errors of every library flow in; a message without repetitions and an exit code flow out.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::process::ExitCode;

use datafusion::arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::Error;

/// Why the command ends early.
#[derive(Debug)]
pub(super) enum Failure {
    /// An error.
    Failed {
        /// The message, causes that it doesn't name already, and what helps.
        messages: Vec<String>,
        /// Line and column of the SQL text, counted from 1, where they are known.
        position: Option<(u64, u64)>,
    },
    /// Ctrl-C or a request to terminate, with the exit code that a shell expects.
    Interrupted(u8),
    /// Whoever reads our output has gone (`| head`): nothing to say, and nobody to say it to.
    Closed,
}

/// The result of a subcommand.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Failed { messages: vec![message.into()], position: None }
    }

    /// The same without a position: the user didn't write the SQL text that it is in.
    pub(super) fn without_position(self) -> Self {
        match self {
            Self::Failed { messages, .. } => Self::Failed { messages, position: None },
            other => other,
        }
    }

    /// Prints the error, if there is one, and gives the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Interrupted(code) => {
                let _ = writeln!(io::stderr(), "cancelled; nothing was written");
                ExitCode::from(code)
            }
            Self::Failed { mut messages, position } => {
                if let Some((line, column)) = position {
                    messages.push(format!("at line {line}, column {column} of the SQL text"));
                }
                let mut messages = messages.iter().map(|m| m.trim().replace('\n', "\n  "));
                let mut text = format!("error: {}\n", messages.next().unwrap_or_default());
                messages.for_each(|m| text += &format!("  {m}\n"));
                let _ = io::stderr().write_all(text.as_bytes());
                ExitCode::FAILURE
            }
        }
    }
}

impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn StdError + 'static) = &error;
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return Self::Closed;
        }
        let mut messages = vec![];
        if let Err(Cancelled) = collect(error, &mut messages) {
            return Self::Interrupted(130);
        }
        let mut position = None;
        if let Some(diagnostic) = error.downcast_ref::<DataFusionError>().and_then(DataFusionError::diagnostic) {
            let start = diagnostic.span.map(|span| (span.start.line, span.start.column));
            position = start.filter(|(line, _)| *line > 0);
            for help in &diagnostic.helps {
                add(help.message.clone(), &mut messages);
            }
        }
        Self::Failed { messages, position }
    }
}

/// The job was cancelled from within.
struct Cancelled;

/// Adds the message of `error` and those of its causes that say something new.
fn collect(error: &(dyn StdError + 'static), messages: &mut Vec<String>) -> Result<(), Cancelled> {
    if let Some(Error::Cancelled) = error.downcast_ref() {
        return Err(Cancelled);
    }
    if let Some(Error::Query(inner)) = error.downcast_ref() {
        return collect(inner.as_ref(), messages);
    }
    if let Some(Error::Arrow(inner)) = error.downcast_ref() {
        return collect(inner, messages);
    }
    if let Some(ArrowError::ExternalError(inner)) = error.downcast_ref() {
        return collect(inner.as_ref(), messages);
    }
    if let Some(error) = error.downcast_ref::<DataFusionError>() {
        match error {
            DataFusionError::Context(text, inner) => {
                add(text.clone(), messages);
                return collect(inner.as_ref(), messages);
            }
            DataFusionError::Diagnostic(_, inner) => return collect(inner.as_ref(), messages),
            DataFusionError::Shared(inner) => return collect(inner.as_ref(), messages),
            DataFusionError::Collection(errors) => return errors.iter().try_for_each(|e| collect(e, messages)),
            DataFusionError::External(inner) => return collect(inner.as_ref(), messages),
            DataFusionError::SQL(inner, _) => {
                add(inner.to_string(), messages);
                return Ok(());
            }
            DataFusionError::ArrowError(inner, _) => return collect(inner.as_ref(), messages),
            // The kind of these is clear from the text; that of the others (Internal, SchemaError, ...) is part of it.
            DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::Configuration(text) => {
                add(without_backtrace(text).into(), messages);
                return Ok(());
            }
            other => add(other.strip_backtrace(), messages),
        }
    } else {
        add(without_backtrace(&error.to_string()).into(), messages);
    }
    error.source().map_or(Ok(()), |cause| collect(cause, messages))
}

fn without_backtrace(text: &str) -> &str {
    text.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or(text)
}

fn add(message: String, messages: &mut Vec<String>) {
    if !message.trim().is_empty() && !messages.iter().any(|m| m.contains(message.trim())) {
        messages.push(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(error: impl StdError + 'static) -> Vec<String> {
        match Failure::from(error) {
            Failure::Failed { messages, .. } => messages,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_error_of_ours_comes_through_the_engine_as_it_was() {
        let ours = Error::option("ipc", "expected a whole number");
        let wrapped = DataFusionError::External(Box::new(ArrowError::ExternalError(Box::new(
            DataFusionError::Context("while planning".into(), Box::new(DataFusionError::External(Box::new(ours)))),
        ))));
        assert_eq!(messages(wrapped), ["while planning", "option 'ipc': expected a whole number"]);
    }

    #[test]
    fn a_cause_that_the_message_names_already_is_not_repeated() {
        let cause = io::Error::other("disk full");
        assert_eq!(messages(Error::io("out.parquet", cause)), ["out.parquet: disk full"]);
    }

    #[test]
    fn a_closed_pipe_and_a_cancelled_job_are_no_errors() {
        assert!(matches!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), Failure::Closed));
        let cancelled = DataFusionError::External(Box::new(Error::Cancelled));
        assert!(matches!(Failure::from(cancelled), Failure::Interrupted(130)));
    }
}
