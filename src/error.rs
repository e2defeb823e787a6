//! Every way a job can fail flows in; one error enum, whose messages name the culprit and the way out, flows out.

use std::path::PathBuf;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, what was expected and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option name that does not exist. `hint` is empty or names the nearest option.
    #[error("unknown option '{name}'{hint}")]
    UnknownOption {
        /// The name as written.
        name: String,
        /// ` (did you mean 'ipc'?)` or the list of options.
        hint: String,
    },
    /// An option whose value has the wrong type, is out of range or contradicts another option.
    #[error("option '{name}': {message}")]
    Option {
        /// The option's name.
        name: String,
        /// What was found, what was expected, what to do.
        message: String,
    },
    /// A column that can't play the role it was given or was found to have.
    #[error("column '{column}': {message}")]
    Column {
        /// The column's name.
        column: String,
        /// What was found, what was expected, what to do.
        message: String,
    },
    /// A schema in which no label or no feature can be told.
    #[error("{0}")]
    Schema(String),
    /// One row that can't be used. `row` counts from 0 in the order the rows of `place` arrive.
    #[error("{place}row {row}, column '{column}': {message}")]
    Row {
        /// The file, followed by `, `, or empty where it is not known.
        place: String,
        /// The row's number, counted from 0.
        row: u64,
        /// The column's name.
        column: String,
        /// What was found, what was expected, what to do.
        message: String,
    },
    /// The rows as a whole can't be distilled (no rows, one class only, too few rows in a class).
    #[error("{0}")]
    Data(String),
    /// Two sketches, or a sketch and a pool, that don't belong together; or a sketch that can't be read.
    #[error("sketch: {0}")]
    Sketch(String),
    /// An extractor pool that can't be built or read.
    #[error("extractor pool: {0}")]
    Pool(String),
    /// A device that isn't there or wasn't compiled in.
    #[error("device '{device}': {message}")]
    Device {
        /// The device as asked for.
        device: String,
        /// Why it can't be used, and what can.
        message: String,
    },
    /// A file that can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The job was cancelled; nothing was written.
    #[error("the job was cancelled")]
    Cancelled,
    /// An error of the tensor library.
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
    /// An error of Arrow.
    #[error(transparent)]
    Arrow(#[from] crate::arrow::error::ArrowError),
    /// An error of the query engine, or of what it reads.
    #[error(transparent)]
    Query(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An [`Error::Option`].
    pub fn option(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Option { name: name.into(), message: message.into() }
    }

    /// An [`Error::Column`].
    pub fn column(column: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Column { column: column.into(), message: message.into() }
    }

    /// An [`Error::Io`].
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

/// The end of a message about a misspelt `name`: the nearest of `known`, or all of them.
pub(crate) fn nearest_hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&name.to_lowercase(), k), *k))
        .min()
        .filter(|(distance, k)| *distance <= 2.max(k.len() / 3));
    match near {
        Some((_, k)) => format!(" (did you mean '{k}'?)"),
        None => format!("; expected one of {}", known.join(", ")),
    }
}
