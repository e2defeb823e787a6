//! This crate's errors flow in, DataFusion's flow out at the border; and back, with the typed error found again inside.

use datafusion::common::{Diagnostic, Span};
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer;

use crate::error::Error;

/// Errors of a running job stay typed: `DataFusionError::find_root` is [`DataFusionError::External`] with an [`Error`] inside.
impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Arrow(error) => DataFusionError::ArrowError(Box::new(error), None),
            Error::Query(inner) => match inner.downcast::<DataFusionError>() {
                Ok(error) => *error,
                Err(inner) => DataFusionError::External(inner),
            },
            error => DataFusionError::External(Box::new(error)),
        }
    }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Error>() {
                Ok(error) => *error,
                Err(inner) => Error::Query(Box::new(DataFusionError::External(inner))),
            },
            DataFusionError::ArrowError(error, None) => Error::Arrow(*error),
            error => Error::Query(Box::new(error)),
        }
    }
}

/// An error of planning, at `span` of the SQL text.
pub(super) fn plan_error(message: impl Into<String>, span: tokenizer::Span) -> DataFusionError {
    let message = message.into();
    located(DataFusionError::Plan(message.clone()), message, span)
}

/// `error` with its place in the SQL text, unless it has one.
pub(super) fn at(error: DataFusionError, span: tokenizer::Span) -> DataFusionError {
    if error.diagnostic().is_some() {
        return error;
    }
    let message = error.strip_backtrace();
    located(error, message, span)
}

fn located(error: DataFusionError, message: String, span: tokenizer::Span) -> DataFusionError {
    error.with_diagnostic(Diagnostic::new_error(message, Span::try_from_sqlparser_span(span)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typed_error_survives_the_border_both_ways() {
        let there = DataFusionError::from(Error::column("image", "damaged"));
        assert!(matches!(&there, DataFusionError::External(_)));
        assert!(matches!(Error::from(there), Error::Column { column, .. } if column == "image"));

        let back = DataFusionError::from(Error::from(DataFusionError::Plan("x".into())));
        assert!(matches!(back, DataFusionError::Plan(m) if m == "x"));
    }
}
