//! A name and a value flow in, from SQL, `SET`, a command flag or Python; one typed, checked set of options flows out.
//!
//! [`SPECS`] is the only list of options there is: names, defaults, documentation and parsing. The SQL planner, the
//! `SET distill.*` extension, the command's flags and `schemas/options.json` are all made from it.

mod automatic;
mod contradictions;

pub use contradictions::check_given;

use std::fmt;

use crate::error::{Error, Result, nearest_hint};

/// An option's value as SQL, a flag or a file gives it, before it is checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `NULL`: back to the default.
    Null,
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text; numbers, lists (comma-separated) and booleans are accepted in this form too.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A list, as `['a', 'b']` in SQL.
    List(Vec<Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => write!(f, "NULL"),
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v}"),
            Value::Text(v) => write!(f, "{v}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::List(v) => write!(f, "{}", v.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal $(| $alias:literal)*),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// The values as written in SQL.
            pub const VALUES: &'static [&'static str] = &[$($text),+];

            /// The value as written in SQL.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            fn parse(option: &str, text: &str) -> Result<Self> {
                match text.to_ascii_lowercase().as_str() {
                    $($text $(| $alias)* => Ok(Self::$variant),)+
                    _ => Err(Error::option(
                        option,
                        format!("'{text}' is not a choice{}", nearest_hint(text, Self::VALUES.iter().copied())),
                    )),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

choice! {
    /// How the rows are made: what is matched between real and synthetic rows, or how real rows are chosen.
    Method {
        /// Chosen from the kind of rows and `ipc`.
        Auto = "auto",
        /// Mean embeddings (distribution matching, Zhao and Bilen 2023).
        Mean = "mean" | "dm",
        /// Characteristic functions (neural characteristic function matching, Wang et al. 2025).
        Characteristic = "characteristic" | "ncfm",
        /// Real rows, uniformly drawn.
        Random = "random",
        /// Real rows whose mean embedding follows the class's (Welling 2009).
        Herding = "herding",
        /// Real rows of which no other is far (Gonzalez 1985).
        KCenter = "k_center" | "k-center",
        /// Real rows nearest to the centres of k-means (Lloyd 1982).
        KMeans = "k_means" | "k-means",
    }
}
choice! {
    /// How synthetic rows are split over the classes.
    Allocation {
        /// As many each.
        Equal = "equal",
        /// In proportion to the class's real rows.
        Proportional = "proportional",
        /// In proportion to the square root of the class's real rows.
        Sqrt = "sqrt",
    }
}
choice! {
    /// Where the extractors' weights come from.
    PoolKind {
        /// Random, from `seed`.
        Random = "random",
    }
}
choice! {
    /// What the synthetic rows start from.
    Init {
        /// Real rows of the reservoir.
        Real = "real",
        /// Noise.
        Noise = "noise",
    }
}
choice! {
    /// What labels the synthetic rows carry.
    LabelKind {
        /// One class a row, in the source's own label column.
        Hard = "hard",
    }
}
choice! {
    /// How the synthetic pictures are written.
    Encoding {
        /// As the source has them: PNG for pictures.
        Source = "source" | "png",
        /// As exact lists of f32.
        Tensor = "tensor",
    }
}
choice! {
    /// What to do with a row whose label or feature is NULL.
    OnNull {
        /// Stop, naming the row.
        Error = "error",
        /// Leave the row out and count it.
        Skip = "skip",
        /// Take a missing feature of a table as missing: the synthetic rows miss it as often. A missing label stops the job.
        Impute = "impute",
    }
}
choice! {
    /// How the numbers of a table are mapped to the extractors' input.
    Curve {
        /// Each column by its own numbers: linear, or by quantiles where its tails are heavy.
        Auto = "auto",
        /// Mean 0 and standard deviation 1.
        Linear = "linear",
        /// The inverse hyperbolic sine, a logarithm that takes 0 and negative numbers, then as linear.
        Log = "log",
        /// The rank among the column's numbers.
        Quantile = "quantile",
    }
}
choice! {
    /// What the extractors are.
    Network {
        /// ConvNets for pictures, MLPs for lists of numbers, MLPs and Fourier features in turn for tables.
        Auto = "auto",
        /// The field's ConvNet, for pictures.
        ConvNet = "convnet",
        /// Random multilayer perceptrons, for vectors and tables.
        Mlp = "mlp",
        /// Random Fourier features (Rahimi and Recht 2007), for vectors and tables.
        Fourier = "fourier",
        /// MLPs and Fourier features in turn, for vectors and tables.
        Mixed = "mixed",
    }
}
choice! {
    /// The optimizer of the synthetic rows.
    OptimizerKind {
        /// Adam (Kingma and Ba 2015).
        Adam = "adam",
        /// Stochastic gradient descent with momentum.
        Sgd = "sgd",
    }
}

impl Method {
    /// Whether it chooses real rows, in place of optimizing synthetic ones.
    pub fn selects(self) -> bool {
        match self {
            Self::Auto | Self::Mean | Self::Characteristic => false,
            Self::Random | Self::Herding | Self::KCenter | Self::KMeans => true,
        }
    }
}

/// The size of a picture, as `image_size` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Channels, where given (`28x28x3`).
    pub channels: Option<usize>,
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)?;
        self.channels.map_or(Ok(()), |c| write!(f, "x{c}"))
    }
}

/// The lowest and the highest value that the numbers of a list column can take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.low, self.high)
    }
}

/// What is declared of a feature column's values, so that no scan has to find it.
#[derive(Clone, Debug, PartialEq)]
pub enum Ranges {
    /// Of the numbers of the one list column: `0,16`.
    List(Range),
    /// Of each column of a table: `age=0..100, sex=female|male`.
    Columns(Vec<(String, Declared)>),
}

/// What is declared of one column of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Declared {
    /// The lowest and the highest number.
    Numbers(Range),
    /// The categories, as text.
    Categories(Vec<String>),
}

impl Ranges {
    /// What is declared of the one list column.
    pub fn list(&self) -> Option<Range> {
        match self {
            Self::List(range) => Some(*range),
            Self::Columns(_) => None,
        }
    }

    /// What is declared of column `name` of a table.
    pub fn column(&self, name: &str) -> Option<&Declared> {
        match self {
            Self::List(_) => None,
            Self::Columns(columns) => columns.iter().find(|(n, _)| n == name).map(|(_, declared)| declared),
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = match self {
            Self::List(range) => return range.fmt(f),
            Self::Columns(columns) => columns,
        };
        for (i, (name, declared)) in columns.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match declared {
                Declared::Numbers(range) => write!(f, "{comma}{name}={}..{}", range.low, range.high)?,
                Declared::Categories(values) => write!(f, "{comma}{name}={}", values.join("|"))?,
            }
        }
        Ok(())
    }
}

/// The options of a distillation job. `None` means: chosen from the rows, see the option's documentation.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each field is documented in SPECS, where users read it
pub struct Options {
    pub ipc: usize,
    pub rows: Option<usize>,
    pub allocation: Allocation,
    pub weight: Option<String>,
    pub label: Option<String>,
    pub features: Option<Vec<String>>,
    pub categorical: Vec<String>,
    pub exclude: Vec<String>,
    pub classes: Option<Vec<String>>,
    pub method: Method,
    pub steps: Option<usize>,
    pub extractors: Option<usize>,
    pub network: Network,
    pub width: Option<usize>,
    pub depth: Option<usize>,
    pub pool: PoolKind,
    pub pool_file: Option<String>,
    pub frequencies: Option<usize>,
    pub alpha: f64,
    pub beta: f64,
    pub init: Init,
    pub label_kind: LabelKind,
    pub mosaic: usize,
    pub augment: String,
    pub image_size: Option<ImageSize>,
    pub ranges: Option<Ranges>,
    pub curve: Curve,
    pub encoding: Encoding,
    pub reservoir_per_class: Option<usize>,
    pub on_null: OnNull,
    pub optimizer: OptimizerKind,
    pub learning_rate: Option<f64>,
    pub seed: u64,
    pub device: String,
    pub threads: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            ipc: 10,
            rows: None,
            allocation: Allocation::Equal,
            weight: None,
            label: None,
            features: None,
            categorical: vec![],
            exclude: vec![],
            classes: None,
            method: Method::Auto,
            steps: None,
            extractors: None,
            network: Network::Auto,
            width: None,
            depth: None,
            pool: PoolKind::Random,
            pool_file: None,
            frequencies: None,
            alpha: 0.5,
            beta: 0.5,
            init: Init::Real,
            label_kind: LabelKind::Hard,
            mosaic: 1,
            augment: "none".into(),
            image_size: None,
            ranges: None,
            curve: Curve::Auto,
            encoding: Encoding::Source,
            reservoir_per_class: None,
            on_null: OnNull::Error,
            optimizer: OptimizerKind::Adam,
            learning_rate: None,
            seed: 0,
            device: "auto".into(),
            threads: None,
        }
    }
}

/// The kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// Text.
    Text,
    /// A list of text: `['a', 'b']` or `'a,b'`.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
}

/// One option: its name, what it takes, and how it is read and shown.
pub struct OptionSpec {
    /// The name in SQL, in `SET distill.name` and, with dashes, on the command line.
    pub name: &'static str,
    /// The kind of value.
    pub kind: Kind,
    /// One or two sentences for users.
    pub doc: &'static str,
    set: fn(&mut Options, &Value) -> Result<()>,
    get: fn(&Options) -> Option<String>,
}

macro_rules! spec {
    ($name:ident, $kind:expr, $doc:literal, $set:expr, $get:expr) => {
        OptionSpec {
            name: stringify!($name),
            kind: $kind,
            doc: $doc,
            set: |o, v| {
                o.$name = if *v == Value::Null {
                    Options::default().$name
                } else {
                    #[allow(clippy::redundant_closure_call)]
                    ($set)(stringify!($name), v)?
                };
                Ok(())
            },
            get: |o| {
                #[allow(clippy::redundant_closure_call)]
                ($get)(&o.$name)
            },
        }
    };
}

fn shown<T: fmt::Display>(v: &T) -> Option<String> {
    Some(v.to_string())
}
fn shown_option<T: fmt::Display>(v: &Option<T>) -> Option<String> {
    v.as_ref().map(T::to_string)
}

/// All options, in the order in which they are documented.
pub static SPECS: &[OptionSpec] = &[
    spec!(ipc, Kind::Integer, "Synthetic rows per class.", |n, v| int(n, v, 1, 100_000), shown),
    spec!(
        rows,
        Kind::Integer,
        "Synthetic rows in all, at least one a class; in place of ipc.",
        |n, v| int_option(n, v, 2, 10_000_000),
        shown_option
    ),
    spec!(
        allocation,
        Kind::Choice(Allocation::VALUES),
        "How rows, or ipc times the classes, are split over the classes: 'equal', 'proportional' to the classes' real rows, or to their square root, 'sqrt'.",
        |n, v| Allocation::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        weight,
        Kind::Text,
        "Name of a column that is added: how many real rows of its class each synthetic row stands for. Default: none.",
        text_option,
        shown_option
    ),
    spec!(
        label,
        Kind::Text,
        "The label column. Default: the Hugging Face ClassLabel, else a column named label, labels, target, class, y or fine_label.",
        text_option,
        shown_option
    ),
    spec!(
        features,
        Kind::List,
        "The feature columns. Default: the column of pictures or of lists of numbers, else all columns of numbers and categories but dates, ids and the like.",
        list_option,
        shown_list_option
    ),
    spec!(
        categorical,
        Kind::List,
        "Integer columns of a table whose numbers are categories, not amounts. Text, dictionaries and booleans are categories anyway.",
        list,
        |v: &Vec<String>| shown_list(v)
    ),
    spec!(
        exclude,
        Kind::List,
        "Columns that are neither features nor label, and not in the output either.",
        list,
        |v: &Vec<String>| shown_list(v)
    ),
    spec!(
        classes,
        Kind::List,
        "Keep only rows of these classes, given as label values or Hugging Face names. Default: all.",
        list_option,
        shown_list_option
    ),
    spec!(
        method,
        Kind::Choice(Method::VALUES),
        "What synthetic rows match: 'mean' embeddings (alias 'dm') or 'characteristic' functions (alias 'ncfm'); or how real rows are chosen, unchanged: 'random', 'herding', 'k_center', 'k_means'. 'auto': 'herding' for tables, else 'characteristic'.",
        |n, v| Method::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        steps,
        Kind::Integer,
        "Optimizer steps. Default: by method and ipc. Methods that choose real rows have none.",
        |n, v| int_option(n, v, 0, 10_000_000),
        shown_option
    ),
    spec!(
        extractors,
        Kind::Integer,
        "Frozen networks in the pool. Default: by method.",
        |n, v| int_option(n, v, 1, 4096),
        shown_option
    ),
    spec!(
        network,
        Kind::Choice(Network::VALUES),
        "What the extractors are: 'convnet' for pictures; 'mlp', 'fourier' (random Fourier features) or 'mixed' for lists of numbers and tables; 'auto'.",
        |n, v| Network::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        width,
        Kind::Integer,
        "Channels (or units) of each extractor's layers; a multiple of 8.",
        |n, v| int_option(n, v, 8, 4096).and_then(multiple_of_8),
        shown_option
    ),
    spec!(
        depth,
        Kind::Integer,
        "Blocks of each extractor. Default: from the picture's size.",
        |n, v| int_option(n, v, 1, 8),
        shown_option
    ),
    spec!(
        pool,
        Kind::Choice(PoolKind::VALUES),
        "Where the extractors' weights come from: 'random', from seed.",
        |n, v| PoolKind::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        pool_file,
        Kind::Text,
        "A safetensors file with the extractors' weights, in place of pool.",
        text_option,
        shown_option
    ),
    spec!(
        frequencies,
        Kind::Integer,
        "Frequencies of the characteristic function per extractor. 0 leaves it out of the sketch. Default: 1024 where the method needs them.",
        |n, v| int_option(n, v, 0, 65_536),
        shown_option
    ),
    spec!(
        alpha,
        Kind::Number,
        "Weight of the amplitude in the characteristic-function distance.",
        |n, v| number(n, v, 0.0, 1e6),
        shown
    ),
    spec!(
        beta,
        Kind::Number,
        "Weight of the phase in the characteristic-function distance.",
        |n, v| number(n, v, 0.0, 1e6),
        shown
    ),
    spec!(
        init,
        Kind::Choice(Init::VALUES),
        "What synthetic rows start from: 'real' rows of the reservoir or 'noise'.",
        |n, v| Init::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        label_kind,
        Kind::Choice(LabelKind::VALUES),
        "What labels the synthetic rows carry: 'hard', one class a row.",
        |n, v| LabelKind::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        mosaic,
        Kind::Integer,
        "Pictures stored in one picture, per side; 1 stores plain rows.",
        |n, v| int(n, v, 1, 1),
        shown
    ),
    spec!(
        augment,
        Kind::Text,
        "Differentiable augmentation of real and synthetic rows, one fixed transform an extractor: 'none', or some of color, crop, cutout, flip, scale, rotate joined by '_'.",
        augment,
        shown
    ),
    spec!(
        image_size,
        Kind::Text,
        "Resize pictures to, or read lists of numbers as pictures of, 'HxW', 'HxWxC' or 'N' (square).",
        |n, v| image_size(n, v).map(Some),
        shown_option
    ),
    spec!(
        ranges,
        Kind::Text,
        "Lowest and highest value of a list column's numbers, 'low,high'; or of each column of a table, 'age=0..100, sex=female|male'. Default: 0,255 for bytes, else found by an earlier scan.",
        |n, v| ranges(n, v).map(Some),
        shown_option
    ),
    spec!(
        curve,
        Kind::Choice(Curve::VALUES),
        "How the numbers of a table are scaled: 'linear', or 'log' or 'quantile' for heavy tails; 'auto' chooses for each column.",
        |n, v| Curve::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        encoding,
        Kind::Choice(Encoding::VALUES),
        "How synthetic pictures are written: 'source' (PNG for pictures) or 'tensor' (exact lists of f32).",
        |n, v| Encoding::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        reservoir_per_class,
        Kind::Integer,
        "Real rows kept per class to start or choose from. Default: max(ipc, 64); max(10 * ipc, 64) with method => 'herding', 'k_center' or 'k_means'; 0 with init => 'noise'; max(64, min(rows, 1000)) with rows.",
        |n, v| int_option(n, v, 0, 1_000_000),
        shown_option
    ),
    spec!(
        on_null,
        Kind::Choice(OnNull::VALUES),
        "Rows whose label or feature is NULL or NaN: 'error', 'skip', or, for features of a table, 'impute': synthetic rows miss values as often.",
        |n, v| OnNull::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        optimizer,
        Kind::Choice(OptimizerKind::VALUES),
        "Optimizer of the synthetic rows: 'adam' or 'sgd'.",
        |n, v| OptimizerKind::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        learning_rate,
        Kind::Number,
        "Learning rate, in units of the extractor's input. Default: by optimizer and method.",
        |n, v| number(n, v, 0.0, 1e9).map(Some),
        shown_option
    ),
    spec!(
        seed,
        Kind::Integer,
        "Seed of every random draw: the same seed, input and machine give the same bytes.",
        |n, v| int::<i64>(n, v, 0, i64::MAX).map(|s| s as u64),
        shown
    ),
    spec!(device, Kind::Text, "'auto', 'cpu', 'cuda', 'cuda:N' or 'metal'.", device, shown),
    spec!(
        threads,
        Kind::Integer,
        "CPU threads of the job. Default: all cores. Doesn't change the result.",
        |n, v| int_option(n, v, 1, 4096),
        shown_option
    ),
];

impl Options {
    /// Sets option `name`; unknown names fail with the nearest one, values of the wrong type or range with what was expected.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        let spec = SPECS.iter().find(|s| s.name == name).ok_or_else(|| Error::UnknownOption {
            name: name.into(),
            hint: nearest_hint(name, SPECS.iter().map(|s| s.name)),
        })?;
        (spec.set)(self, value)?;
        // Two ways to say one thing: the later one counts, so that an argument wins over the session's default.
        match name {
            "ipc" if *value != Value::Null => self.rows = None,
            "rows" if *value != Value::Null => self.ipc = Self::default().ipc,
            _ => {}
        }
        Ok(())
    }

    /// Name, value as text (`None`: chosen from the rows) and documentation of every option.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, Option<String>, &'static str)> + '_ {
        SPECS.iter().map(|s| (s.name, (s.get)(self), s.doc))
    }

    /// The options that differ from the defaults, as `name=value` in the order of [`SPECS`].
    pub fn changed(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        SPECS
            .iter()
            .filter(|s| (s.get)(self) != (s.get)(&default))
            .map(|s| (s.name, (s.get)(self).unwrap_or_default()))
            .collect()
    }

    /// Real rows kept per class: `reservoir_per_class`, else what `method` and `init` need.
    ///
    /// Where the classes' shares depend on how many classes there are or how large they are, they aren't known before the pass: then at most 1,000
    /// are kept, or what `ipc` asks for.
    pub fn reservoir(&self) -> usize {
        let compares = matches!(self.method, Method::Herding | Method::KCenter | Method::KMeans);
        let wanted = match (self.rows, self.allocation) {
            _ if self.init == Init::Noise && !compares => 0,
            (Some(rows), _) => rows.clamp(64, 1000),
            (None, _) if compares => (10 * self.ipc).max(64),
            (None, Allocation::Equal) => self.ipc.max(64),
            (None, Allocation::Proportional | Allocation::Sqrt) => (10 * self.ipc).min(1000).max(self.ipc).max(64),
        };
        self.reservoir_per_class.unwrap_or(wanted)
    }

    /// Whether every class gets `ipc` rows, whatever the classes turn out to be.
    pub(crate) fn is_ipc_each(&self) -> bool {
        self.rows.is_none() && self.allocation == Allocation::Equal
    }
}

fn wrong(name: &str, value: &Value, expected: impl fmt::Display) -> Error {
    Error::option(name, format!("expected {expected}, found '{value}'"))
}

fn text(name: &str, value: &Value) -> Result<String> {
    match value {
        Value::Text(t) if !t.is_empty() => Ok(t.clone()),
        _ => Err(wrong(name, value, "text")),
    }
}

fn text_option(name: &str, value: &Value) -> Result<Option<String>> {
    text(name, value).map(Some)
}

fn int<T: TryFrom<i64>>(name: &str, value: &Value, low: i64, high: i64) -> Result<T> {
    let expected = || wrong(name, value, format!("a whole number from {low} to {high}"));
    let n = match value {
        Value::Int(n) => *n,
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => *f as i64,
        Value::Text(t) => t.trim().parse().map_err(|_| expected())?,
        _ => return Err(expected()),
    };
    if n < low || n > high {
        return Err(expected());
    }
    T::try_from(n).map_err(|_| expected())
}

fn int_option(name: &str, value: &Value, low: i64, high: i64) -> Result<Option<usize>> {
    int(name, value, low, high).map(Some)
}

fn multiple_of_8(width: Option<usize>) -> Result<Option<usize>> {
    match width {
        Some(w) if w % 8 != 0 => Err(Error::option("width", format!("expected a multiple of 8, found {w}"))),
        _ => Ok(width),
    }
}

fn number(name: &str, value: &Value, low: f64, high: f64) -> Result<f64> {
    let n = match value {
        Value::Int(n) => Some(*n as f64),
        Value::Float(f) => Some(*f),
        Value::Text(t) => t.trim().parse().ok(),
        _ => None,
    };
    n.filter(|n| (low..=high).contains(n)).ok_or_else(|| wrong(name, value, format!("a number from {low} to {high}")))
}

fn list(name: &str, value: &Value) -> Result<Vec<String>> {
    let items: Vec<String> = match value {
        Value::Text(t) => t.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect(),
        Value::List(items) => items.iter().map(Value::to_string).collect(),
        Value::Int(_) | Value::Bool(_) => vec![value.to_string()],
        _ => return Err(wrong(name, value, "a list, ['a', 'b'] or 'a,b'")),
    };
    if items.is_empty() { Err(wrong(name, value, "a list that is not empty")) } else { Ok(items) }
}

fn list_option(name: &str, value: &Value) -> Result<Option<Vec<String>>> {
    list(name, value).map(Some)
}

fn shown_list(v: &[String]) -> Option<String> {
    (!v.is_empty()).then(|| v.join(","))
}

fn shown_list_option(v: &Option<Vec<String>>) -> Option<String> {
    v.as_ref().and_then(|v| shown_list(v))
}

fn image_size(name: &str, value: &Value) -> Result<ImageSize> {
    let expected = || wrong(name, value, "'HxW', 'HxWxC' or 'N', with sides from 4 to 1024 and 1 or 3 channels");
    let parts: Vec<usize> =
        value.to_string().split('x').map(|p| p.trim().parse().map_err(|_| expected())).collect::<Result<_>>()?;
    let size = match parts[..] {
        [n] => ImageSize { height: n, width: n, channels: None },
        [height, width] => ImageSize { height, width, channels: None },
        [height, width, c] => ImageSize { height, width, channels: Some(c) },
        _ => return Err(expected()),
    };
    let sides = 4..=1024;
    if sides.contains(&size.height) && sides.contains(&size.width) && matches!(size.channels, None | Some(1 | 3)) {
        Ok(size)
    } else {
        Err(expected())
    }
}

fn ranges(name: &str, value: &Value) -> Result<Ranges> {
    let text = value.to_string();
    if !text.contains('=') {
        return Ok(Ranges::List(range(name, value, &text)?));
    }
    let column = |part: &str| -> Result<(String, Declared)> {
        let wrong = || wrong(name, value, "'column=low..high' or 'column=a|b|c', separated by commas");
        let (column, declared) = part.split_once('=').ok_or_else(wrong)?;
        let declared = declared.trim();
        Ok((
            column.trim().to_string(),
            match declared.split_once("..") {
                Some((low, high)) => Declared::Numbers(range(name, value, &format!("{low},{high}"))?),
                None => {
                    let values: Vec<String> = declared.split('|').map(|v| v.trim().to_string()).collect();
                    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
                    if values.len() < 2 || distinct.len() < values.len() {
                        return Err(wrong());
                    }
                    Declared::Categories(values)
                }
            },
        ))
    };
    let columns: Vec<_> = text.split(',').map(column).collect::<Result<_>>()?;
    match columns.iter().enumerate().find(|(i, (name, _))| columns[..*i].iter().any(|(n, _)| n == name)) {
        Some((_, (twice, _))) => Err(Error::option(name, format!("column '{twice}' is declared twice"))),
        None => Ok(Ranges::Columns(columns)),
    }
}

fn range(name: &str, value: &Value, text: &str) -> Result<Range> {
    let expected = || wrong(name, value, "two numbers, 'low,high' with low < high");
    let parts: Vec<f64> = text.split(',').map(|p| p.trim().parse().map_err(|_| expected())).collect::<Result<_>>()?;
    match parts[..] {
        [low, high] if low < high && low.is_finite() && high.is_finite() => Ok(Range { low, high }),
        _ => Err(expected()),
    }
}

/// The transforms that `augment` may name.
pub const AUGMENTS: &[&str] = &["color", "crop", "cutout", "flip", "scale", "rotate"];

fn augment(name: &str, value: &Value) -> Result<String> {
    let t = text(name, value)?.to_ascii_lowercase();
    if t != "none"
        && let Some(bad) = t.split('_').find(|part| !AUGMENTS.contains(part))
    {
        let hint = nearest_hint(bad, AUGMENTS.iter().copied());
        return Err(Error::option(name, format!("'{bad}' is not a transform{hint}")));
    }
    Ok(t)
}

fn device(name: &str, value: &Value) -> Result<String> {
    let t = text(name, value)?.to_ascii_lowercase();
    let cuda_index = t.strip_prefix("cuda:").is_some_and(|n| n.parse::<u16>().is_ok());
    if cuda_index || ["auto", "cpu", "cuda", "metal"].contains(&t.as_str()) {
        Ok(t)
    } else {
        Err(wrong(name, value, "'auto', 'cpu', 'cuda', 'cuda:N' or 'metal'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: Value) -> Result<Options> {
        let mut o = Options::default();
        o.set(name, &value).map(|()| o)
    }

    #[test]
    fn a_misspelt_name_fails_with_the_nearest() {
        let e = set("icp", Value::Int(1)).unwrap_err().to_string();
        assert_eq!(e, "unknown option 'icp' (did you mean 'ipc'?)");
    }

    #[test]
    fn values_are_checked_for_type_and_range() {
        assert_eq!(set("ipc", Value::Text("50".into())).unwrap().ipc, 50);
        for (name, value, part) in [
            ("ipc", Value::Int(0), "from 1 to"),
            ("ipc", Value::Text("many".into()), "whole number"),
            ("ipc", Value::Float(1.5), "whole number"),
            ("width", Value::Int(20), "multiple of 8"),
            ("method", Value::Text("characterstic".into()), "did you mean 'characteristic'"),
            ("augment", Value::Text("crop_flop".into()), "did you mean 'flip'"),
            ("device", Value::Text("tpu".into()), "cuda:N"),
            ("ranges", Value::Text("5,1".into()), "low < high"),
            ("image_size", Value::Text("28x28x2".into()), "1 or 3 channels"),
        ] {
            let e = set(name, value).unwrap_err().to_string();
            assert!(e.contains(part) && e.contains(name), "{e}");
        }
    }

    #[test]
    fn ranges_are_of_one_list_or_of_the_columns_of_a_table() {
        let of = |text: &str| set("ranges", Value::Text(text.into())).map(|o| o.ranges.unwrap());
        assert_eq!(of("0, 16").unwrap().list(), Some(Range { low: 0.0, high: 16.0 }));
        let table = of("age=0..100, sex=female | male").unwrap();
        assert_eq!(table.column("age"), Some(&Declared::Numbers(Range { low: 0.0, high: 100.0 })));
        assert_eq!(table.column("sex"), Some(&Declared::Categories(vec!["female".into(), "male".into()])));
        assert_eq!((table.list(), table.column("id")), (None, None));
        assert_eq!(of(&table.to_string()).unwrap(), table);
        for (text, part) in [
            ("age=5..1", "low < high"),
            ("age=0..1, 5", "column=low..high"),
            ("sex=a|a", "column=a|b|c"),
            ("sex=a", "column=a|b|c"),
            ("a=0..1,a=0..2", "column 'a' is declared twice"),
        ] {
            let e = of(text).unwrap_err().to_string();
            assert!(e.contains(part), "{text}: {e}");
        }
    }

    #[test]
    fn null_goes_back_to_the_default_and_aliases_are_understood() {
        let mut o = set("ipc", Value::Int(3)).unwrap();
        o.set("ipc", &Value::Null).unwrap();
        assert_eq!(o, Options::default());
        assert_eq!(set("method", Value::Text("DM".into())).unwrap().method, Method::Mean);
    }

    #[test]
    fn of_ipc_and_rows_the_later_one_counts() {
        let mut o = set("ipc", Value::Int(3)).unwrap();
        o.set("rows", &Value::Int(50)).unwrap();
        assert_eq!((o.rows, o.ipc), (Some(50), 10));
        o.set("ipc", &Value::Null).unwrap();
        assert_eq!(o.rows, Some(50));
        o.set("ipc", &Value::Int(4)).unwrap();
        assert_eq!((o.rows, o.ipc), (None, 4));
    }

    #[test]
    fn every_option_shown_can_be_read_back() {
        let o = Options::default();
        let mut back = Options::default();
        for (name, value, _) in o.entries() {
            if let Some(v) = value {
                back.set(name, &Value::Text(v)).unwrap();
            }
        }
        assert_eq!(o, back);
    }
}
