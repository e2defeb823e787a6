//! The list of options: each one's name, kind, documentation, and how it is read and shown.

use std::fmt;

use super::terms;
use super::value::{
    augment, device, image_size, int, int_option, list, list_option, multiple_of_8, number, ranges, text, text_option,
};
use super::{
    Allocation, Curve, Encoding, FrequencyScales, Init, Input, LabelKind, LabelSource, Layers, Method, Moments,
    Network, OnNull, OptimizerKind, Options, PoolKind, Sizes, Value,
};
use crate::error::Result;
use crate::rows::MOST_PER_SIDE;

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
    pub(super) set: fn(&mut Options, &Value) -> Result<()>,
    pub(super) get: fn(&Options) -> Option<String>,
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

fn shown_list(v: &[String]) -> Option<String> {
    (!v.is_empty()).then(|| v.join(","))
}

fn shown_list_option(v: &Option<Vec<String>>) -> Option<String> {
    v.as_ref().and_then(|v| shown_list(v))
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
        "What synthetic rows match: 'mean' embeddings (alias 'dm'), 'characteristic' functions (alias 'ncfm') or the loss of a 'ridge' regression (alias 'frepo'); or how real rows are chosen, unchanged: 'random', 'herding', 'k_center', 'k_means'. 'auto': 'herding' for tables, else 'characteristic', or 'ridge' where labels are learned.",
        |n, v| Method::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        terms,
        Kind::Text,
        "The terms of the loss, each with its weight, 'ridge=1,mean=0.1', some of 'mean', 'characteristic', 'ridge' and 'calibration' (cross-entropy under a classifier fitted to the real rows). Default: by method and ipc.",
        |n, v| terms::parse(n, v).map(Some),
        shown_option
    ),
    spec!(
        steps,
        Kind::Integer,
        "Optimizer steps. Default: by method and ipc. Methods that choose real rows have none.",
        |n, v| int_option(n, v, 0, 10_000_000),
        shown_option
    ),
    spec!(
        unroll,
        Kind::Integer,
        "Steps, after the others, through the training of small networks on the synthetic pictures: each moves the pictures so that such training ends better, as experts says. 0: none. Default: 800 for at most 4 pictures a class, 280 for 5 to 20 and 400 for 21 to 50 (those that mosaics hold count, and up to 50 rows a class may hold 80; fewer beyond 32 x 32 pixels) with hard or learned labels and method => 'auto', init => 'real', enough real ones kept and no steps, terms or learning_rate given; as many where experts or unroll_width are asked for, else none.",
        |n, v| int_option(n, v, 0, 10_000_000),
        shown_option
    ),
    spec!(
        experts,
        Kind::Integer,
        "Networks that are trained on the real pictures that are kept first, for unroll to move the synthetic ones so that networks trained on these go the same way (MTT). 0: they are to do better on real ones instead (RaT-BPTT). Default: 8 for more than 4 pictures a class, else 0.",
        |n, v| int_option(n, v, 0, 1024),
        shown_option
    ),
    spec!(
        unroll_width,
        Kind::Integer,
        "Channels of the layers of unroll's networks and of experts; a multiple of 8. 64 take three times the time of 32 (what they are worth is in docs/results.md). Asks for unroll, as experts does. Default: 32.",
        |n, v| int_option(n, v, 8, 4096).and_then(|width| multiple_of_8(n, width)),
        shown_option
    ),
    spec!(
        passes,
        Kind::Integer,
        "Scans that sketch the rows. From the second on with extractors that were trained on the synthetic pictures as they are by then, which the steps go on from; unrolled training comes in the last. Pictures only, not of sketches or streams.",
        |n, v| int(n, v, 1, 16),
        shown
    ),
    spec!(
        extractors,
        Kind::Integer,
        "Frozen networks in the pool. Default: 16; 4 where pictures end with unrolled training, as ipc says, or unroll with rows, and nothing else asks for more of the pool; none where features don't matter.",
        |n, v| int_option(n, v, 1, 4096),
        shown_option
    ),
    spec!(
        kept_extractors,
        Kind::Integer,
        "Further random networks, for pictures 16 channels wide with an augmentation each (that of augment, else all), that see only the real rows that are kept, each once; steps take them and those of the pool in turn. Give more steps with them.",
        |n, v| int(n, v, 0, 4096),
        shown
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
        |n, v| int_option(n, v, 8, 4096).and_then(|width| multiple_of_8(n, width)),
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
        layers,
        Kind::Choice(Layers::VALUES),
        "Whose outputs are an extractor's features: its 'last' block's, or those of 'all' blocks, averaged to the last one's height and width. For pictures.",
        |n, v| Layers::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        sizes,
        Kind::Choice(Sizes::VALUES),
        "Whether all extractors have the 'same' width and depth, or 'mixed' ones: as width and depth say, half as wide, one block less, and both, in turn. For pictures.",
        |n, v| Sizes::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        pool,
        Kind::Choice(PoolKind::VALUES),
        "Where the extractors' weights come from: 'random', from seed; 'trained' on a sample of the rows, by a scan of its own, to several levels; 'early', from the first epochs of training, perturbed.",
        |n, v| PoolKind::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        perturb,
        Kind::Number,
        "How far the extractors of one training run are moved apart, filter by filter, with pool => 'trained' or 'early': the second by noise of this share of a filter's length, the third by twice, the fourth by three times as much. Default: 0.05 with 'early', else 0.",
        |n, v| number(n, v, 0.0, 1.0).map(Some),
        shown_option
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
        frequency_scales,
        Kind::Text,
        "Standard deviations of the normal distributions that frequencies are drawn from, in turn: '0.5,1,2' compares coarse and fine features too. Part of the sketch.",
        FrequencyScales::parse,
        shown
    ),
    spec!(
        learned_frequencies,
        Kind::Integer,
        "Frequencies per extractor, beside those of the sketch, that move, step by step, to where synthetic rows and the real ones that are kept are furthest apart. 0: none.",
        |n, v| int(n, v, 0, 65_536),
        shown
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
        min_max,
        Kind::Number,
        "How fast weights of frequencies in the characteristic-function distance follow the gap that is left at each: 0, they are all alike; else from 0.01 (slow) to 1.",
        |n, v| number(n, v, 0.0, 1.0),
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
        warm_start,
        Kind::Text,
        "A file of synthetic rows of the same columns, made before, that the rows of each class start from in place of init. It holds traces of the rows it was made of.",
        text_option,
        shown_option
    ),
    spec!(
        label_kind,
        Kind::Choice(LabelKind::VALUES),
        "What labels the synthetic rows carry: 'hard', one class a row; 'soft', beside it a column soft_label with a share for each class.",
        |n, v| LabelKind::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        soft_labels,
        Kind::Choice(LabelSource::VALUES),
        "Where soft labels come from: 'learned' with the rows; a 'teacher', which is the ridge regression of all real rows on the extractors' features, asked about the finished rows; 'both', their mean.",
        |n, v| LabelSource::parse(n, &text(n, v)?),
        shown
    ),
    spec!(
        mosaic,
        Kind::Integer,
        "Pictures stored in one picture, per side: 2 stores four in one, at half their size, in as many rows as mosaic_rows says; distill unpack and unpack(...) write what they decode to. 1 stores plain rows.",
        |n, v| int(n, v, 1, MOST_PER_SIDE as i64),
        shown
    ),
    spec!(
        mosaic_rows,
        Kind::Integer,
        "Of each class's rows, how many hold several pictures where mosaic is 2 or more; the others are whole ones, and a column mosaic says which are which (pictures a side: 2, or 1). As many as there are rows: all. Default: 2, or a fifth of the rows where that is more.",
        |n, v| int_option(n, v, 0, 1_000_000),
        shown_option
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
        "Real rows kept per class to start or choose from, and to try networks on. Default: max(ipc, 64); max(10 * ipc, 64) with method => 'herding', 'k_center' or 'k_means'; max(64, min(rows, 1000)) with rows; 10 * ipc, from 64 to 1000, or ipc where that is more, with another allocation; 0 with init => 'noise'. At least 1000, fewer beyond 1,024 numbers, where pictures are made from real ones, or where unroll, experts, unroll_width, kept_extractors or learned_frequencies ask for it.",
        |n, v| int_option(n, v, 0, 1_000_000),
        shown_option
    ),
    spec!(
        moments,
        Kind::Choice(Moments::VALUES),
        "Second moments of the features in the sketch: 'none', those of all classes 'pooled', or those of each 'class'. Default: 'pooled' where the method or a teacher needs them.",
        |n, v| Moments::parse(n, &text(n, v)?).map(Some),
        shown_option
    ),
    spec!(
        moment_dim,
        Kind::Integer,
        "Dimensions that features are projected to, by seed, before their second moments are taken. Default: 1024 where the method or a teacher needs them, else 256; the features' length where that is less.",
        |n, v| int_option(n, v, 1, 4096),
        shown_option
    ),
    spec!(
        input,
        Kind::Choice(Input::VALUES),
        "What the source's rows are: 'rows', or 'sketches' beside their labels. Default: told by the columns' types.",
        |n, v| Input::parse(n, &text(n, v)?).map(Some),
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
