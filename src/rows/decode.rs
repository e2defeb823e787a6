//! Columns of pictures or lists flow in, plain numbers with labels flow out.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use crate::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, LargeBinaryArray};
use crate::arrow::buffer::NullBuffer;
use crate::arrow::datatypes::DataType;
use crate::error::{Error, Result};
use crate::options::{ImageSize, OnNull, Options, Ranges};
use crate::rows::form::{append_channels_first, shape_of};
use crate::rows::lists::{Lists, Row};
use crate::rows::table::{Profile, Seen, TableBatch, TableDecoder, TableScaling};
use crate::rows::{Label, Layout, Shape, form::Order, picture};

/// Decoded rows, in the input's own units (pictures 0..255), pictures channel first.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The shape of every row.
    pub shape: Shape,
    /// `[rows, shape.len()]`, row-major.
    pub values: Vec<f32>,
    /// One label a row.
    pub labels: Vec<Label>,
    /// The rows' numbers as they were read, where an f32 can't hold them and the method chooses real rows: as many bytes a row, of the feature
    /// columns in their order. Else empty.
    pub exact: Vec<u8>,
    /// Rows left out because of NULLs (`on_null => 'skip'`) or `classes`.
    pub skipped: u64,
}

impl Rows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The numbers of row `i`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.shape.len()..(i + 1) * self.shape.len()]
    }

    /// The bytes of row `i` in [`Rows::exact`].
    pub fn exact_row(&self, i: usize) -> &[u8] {
        let width = self.exact.len() / self.len().max(1);
        &self.exact[i * width..(i + 1) * width]
    }
}

/// Decodes the feature and label columns of one source. Shared by threads, each with its own batches.
#[derive(Debug)]
pub struct Decoder {
    labels: Labels,
    features: Columns,
    /// Whether rows keep the bytes of numbers that an f32 can't hold.
    exact: bool,
}

#[derive(Debug)]
enum Columns {
    /// One column of pictures or lists.
    Single(CellDecoder),
    /// The columns of a table.
    Table(TableDecoder),
}

/// Which labels a job keeps.
#[derive(Debug)]
struct Labels {
    name: String,
    on_null: OnNull,
    /// Negative labels of a Hugging Face ClassLabel mean: not labelled.
    negative_is_null: bool,
    classes: Option<BTreeSet<Label>>,
}

/// Decodes one column of pictures or lists.
#[derive(Debug)]
pub(super) struct CellDecoder {
    pub(super) name: String,
    image_size: Option<ImageSize>,
    /// `ranges`, which the numbers of lists must keep to.
    range: Option<(f32, f32)>,
    /// Shape and order of every row, where known before the first.
    fixed: Option<(Shape, Order)>,
    /// The order that the first row of nested lists had, where the type doesn't tell it.
    order: Arc<OnceLock<Order>>,
}

/// The most numbers for which memory is asked before they are decoded.
const RESERVED: usize = 1 << 24;

/// The features of one batch.
pub(super) enum Features<'a> {
    Pictures { structs: Option<&'a NullBuffer>, bytes: Bytes<'a> },
    Lists(Box<Lists>),
}

/// Why a row can't be used.
pub(super) enum Unusable {
    /// NULL, NaN or infinite: `on_null` decides.
    Null(String),
    /// Anything else: an error.
    Bad(String),
}

impl Decoder {
    /// A decoder for `layout`. The options must be those that `layout` was inferred with.
    pub fn new(layout: &Layout, options: &Options) -> Result<Self> {
        let labels = Labels {
            name: layout.label_name().into(),
            on_null: options.on_null,
            negative_is_null: layout.class_names.is_some(),
            classes: layout.classes(options)?,
        };
        let features = match layout.single() {
            Some(_) => Columns::Single(CellDecoder::new(layout, 0, options)?),
            None => Columns::Table(TableDecoder::new(layout, options)?),
        };
        Ok(Self { labels, features, exact: options.method.selects() })
    }

    /// Decodes one batch: `columns` are the features, in the layout's order, then the label. `scaling` is that of a table. `expected` is the
    /// shape of the rows before, where known: other sizes are an error. `place`
    /// and `first_row` (the number of the batch's first row there) go into errors. The shape of a batch without usable rows
    /// is `expected`, or `Vector { len: 0 }`.
    ///
    /// All rows of the batch are held decoded at once: keep batches of pictures short. Slices of longer batches are fine.
    ///
    /// Fails with [`Error::Row`] for undecodable pictures, other shapes, numbers outside `ranges`, and, unless
    /// `on_null => 'skip'`, for NULL labels (a negative Hugging Face ClassLabel is one), NULL features and numbers that
    /// are NULL, NaN or infinite (which `'impute'` takes as missing in tables).
    pub fn decode(
        &self,
        columns: &[ArrayRef],
        scaling: Option<&TableScaling>,
        expected: Option<Shape>,
        place: &str,
        first_row: u64,
    ) -> Result<Rows> {
        let (features, label) = split(columns)?;
        let labels = Label::from_array(&self.labels.name, label)?;
        let mut batch = match (&self.features, scaling) {
            (Columns::Single(decoder), _) => {
                Batch::Single { decoder, features: decoder.features(&features[0])?, known: decoder.known(expected) }
            }
            (Columns::Table(decoder), Some(scaling)) => Batch::Table(decoder.batch(features, scaling)?),
            (Columns::Table(_), None) => {
                return Err(Error::Data("a table can't be decoded before its scaling is known".into()));
            }
        };
        let none = Shape::Vector { len: 0 };
        let mut rows =
            Rows { shape: expected.unwrap_or(none), values: vec![], labels: vec![], exact: vec![], skipped: 0 };
        let count = labels.len();
        for (i, label) in labels.into_iter().enumerate() {
            let error = |column: &str, message| Error::Row {
                place: place.into(),
                row: first_row + i as u64,
                column: column.into(),
                message,
            };
            let Some(label) = self.labels.usable(label).map_err(|message| error(&self.labels.name, message))? else {
                rows.skipped += 1;
                continue;
            };
            let before = rows.values.len();
            match batch.append(i, &mut rows.values) {
                Ok(shape) => {
                    if rows.labels.is_empty() {
                        rows.shape = shape;
                        rows.values.reserve((count - i - 1).saturating_mul(shape.len()).min(RESERVED));
                    }
                    rows.labels.push(label);
                    if self.exact {
                        batch.append_exact(i, &mut rows.exact);
                    }
                }
                Err((_, Unusable::Null(_))) if self.labels.on_null == OnNull::Skip => {
                    rows.values.truncate(before);
                    rows.skipped += 1;
                }
                Err((column, Unusable::Null(message))) => {
                    return Err(error(column, format!("{message}; {}", self.way_out())));
                }
                Err((column, Unusable::Bad(message))) => return Err(error(column, message)),
            }
        }
        Ok(rows)
    }

    fn way_out(&self) -> &'static str {
        match self.features {
            Columns::Single(_) => SKIP,
            Columns::Table(_) => {
                "leave such rows out with on_null => 'skip', or let synthetic rows miss values too with on_null => 'impute'"
            }
        }
    }

    /// Adds the rows of a batch, as [`Decoder::decode`] takes it, to `profile`; rows that can't be used are left out.
    pub fn profile(&self, columns: &[ArrayRef], profile: &mut Profile) -> Result<()> {
        let (features, label) = split(columns)?;
        let labels = Label::from_array(&self.labels.name, label)?;
        let wanted = |label| matches!(self.labels.usable(label), Ok(Some(_)));
        let rows: Vec<usize> =
            labels.into_iter().enumerate().filter(|(_, l)| wanted(l.clone())).map(|(i, _)| i).collect();
        match &self.features {
            Columns::Single(decoder) => {
                let cells = decoder.features(&features[0])?;
                let mut values = vec![];
                for i in rows {
                    values.clear();
                    if let Ok(shape) = decoder.append(&cells, i, None, &mut values) {
                        profile.add(&[Seen::Numbers(Some((shape, &values)))]);
                    }
                }
                Ok(())
            }
            Columns::Table(decoder) => decoder.profile(features, &rows, profile),
        }
    }
}

/// The features and the label.
fn split(columns: &[ArrayRef]) -> Result<(&[ArrayRef], &ArrayRef)> {
    match columns.split_last() {
        Some((label, features)) if !features.is_empty() => Ok((features, label)),
        _ => Err(Error::Data(format!("{} columns, expected the features and the label", columns.len()))),
    }
}

const SKIP: &str = "leave such rows out with on_null => 'skip'";

impl Labels {
    /// The label; none where its row is left out; else what is wrong with it.
    fn usable(&self, label: Option<Label>) -> Result<Option<Label>, String> {
        match label {
            None if self.on_null == OnNull::Skip => Ok(None),
            None => Err(format!("NULL label; {SKIP}")),
            Some(Label::Int(v)) if v < 0 && self.negative_is_null => match self.on_null {
                OnNull::Skip => Ok(None),
                _ => Err(format!("label {v}: a negative Hugging Face label means that the row has none; {SKIP}")),
            },
            Some(label) if self.classes.as_ref().is_some_and(|classes| !classes.contains(&label)) => Ok(None),
            Some(label) => Ok(Some(label)),
        }
    }
}

/// The features of a batch, ready to be taken row by row.
enum Batch<'a> {
    Single { decoder: &'a CellDecoder, features: Features<'a>, known: Option<Shape> },
    Table(TableBatch<'a>),
}

impl Batch<'_> {
    /// Appends the numbers of row `i`; else the column at fault and why.
    fn append(&mut self, i: usize, out: &mut Vec<f32>) -> Result<Shape, (&str, Unusable)> {
        match self {
            Self::Single { decoder, features, known } => {
                let shape = decoder.append(features, i, *known, out).map_err(|e| (decoder.name.as_str(), e))?;
                *known = Some(shape);
                Ok(shape)
            }
            Self::Table(batch) => batch.append(i, out),
        }
    }

    /// Appends the bytes of the numbers of row `i`, which has just been appended, that an f32 can't hold.
    fn append_exact(&self, i: usize, out: &mut Vec<u8>) {
        match self {
            Self::Single { features, .. } => features.append_exact(i, out),
            Self::Table(batch) => batch.append_exact(i, out),
        }
    }
}

impl Features<'_> {
    /// See [`Batch::append_exact`]; in the order in which the column stores them.
    pub(super) fn append_exact(&self, i: usize, out: &mut Vec<u8>) {
        if let Self::Lists(lists) = self {
            lists.append_exact(i, out);
        }
    }
}

impl CellDecoder {
    /// A decoder of the `index`th feature.
    pub(super) fn new(layout: &Layout, index: usize, options: &Options) -> Result<Self> {
        let feature = &layout.features[index];
        let fixed = match layout.static_form(feature, options)? {
            Some(form) => Some(form),
            None => layout.shape_of(feature, options).map(|shape| (shape, Order::ChannelsFirst)),
        };
        Ok(Self {
            name: layout.name_of(feature).into(),
            image_size: options.image_size,
            range: options.ranges.as_ref().and_then(Ranges::list).map(|range| (range.low as f32, range.high as f32)),
            fixed,
            order: layout.orders[index].clone(),
        })
    }

    /// The shape that the next row must have.
    fn known(&self, expected: Option<Shape>) -> Option<Shape> {
        expected.or(self.fixed.map(|(shape, _)| shape))
    }

    pub(super) fn features<'a>(&self, array: &'a ArrayRef) -> Result<Features<'a>> {
        let (structs, bytes) = match array.as_struct_opt() {
            Some(picture) => (picture.nulls(), picture.column_by_name("bytes")),
            None => (None, Some(array)),
        };
        if let Some(bytes) = bytes.and_then(Bytes::of) {
            return Ok(Features::Pictures { structs, bytes });
        }
        let lists = Lists::read(array)?.map(|lists| Features::Lists(Box::new(lists)));
        lists.ok_or_else(|| {
            Error::column(&self.name, format!("a {} holds neither pictures nor lists of numbers", array.data_type()))
        })
    }

    /// Appends the numbers of row `i` and returns its shape, which must be `known`. Appends nothing to rows that
    /// `on_null` may skip.
    pub(super) fn append(
        &self,
        features: &Features<'_>,
        i: usize,
        known: Option<Shape>,
        out: &mut Vec<f32>,
    ) -> Result<Shape, Unusable> {
        let same = |shape: Shape| match known {
            Some(known) if known != shape => {
                let way_out = match (features, known) {
                    (Features::Pictures { .. }, Shape::Picture { channels, height, width }) => {
                        format!(
                            " (channels x height x width); make all alike with image_size => '{height}x{width}x{channels}'"
                        )
                    }
                    _ => "; keep rows of one size in a subquery".into(),
                };
                Err(Unusable::Bad(format!("a {shape} where a {known} is expected{way_out}")))
            }
            _ => Ok(shape),
        };
        match features {
            Features::Pictures { structs, bytes } => {
                if structs.is_some_and(|nulls| nulls.is_null(i)) {
                    return Err(Unusable::Null("NULL picture".into()));
                }
                let bytes = bytes.get(i).ok_or_else(|| Unusable::Null("picture whose bytes are NULL".into()))?;
                same(picture::decode(bytes, self.image_size, out).map_err(Unusable::Bad)?)
            }
            Features::Lists(lists) => {
                let (dims, numbers) = match lists.row(i) {
                    Row::Numbers { dims, levels, numbers } => {
                        (dims.into_iter().take(levels).collect::<Vec<_>>(), numbers)
                    }
                    Row::Null => return Err(Unusable::Null("NULL list, or NULL in a list".into())),
                    Row::Ragged => return Err(Unusable::Bad("the lists of one level have different lengths".into())),
                };
                let (shape, order) = self.form(&dims).map_err(Unusable::Bad)?;
                let shape = same(shape)?;
                if let Some(v) = numbers.iter().find(|v| !v.is_finite()) {
                    return Err(Unusable::Null(format!("{v} in a list; expected finite numbers")));
                }
                if let Some((low, high)) = self.range
                    && let Some(v) = numbers.iter().find(|v| !(low..=high).contains(*v))
                {
                    return Err(Unusable::Bad(format!(
                        "{v} is outside ranges => '{low},{high}'; widen it, or leave it out"
                    )));
                }
                append_channels_first(numbers, shape, order, out);
                Ok(shape)
            }
        }
    }

    /// Shape and order of a row of lists of the lengths `dims`.
    fn form(&self, dims: &[usize]) -> Result<(Shape, Order), String> {
        if let (Some((shape, order)), [n]) = (self.fixed, dims)
            && *n == shape.len()
        {
            return Ok((shape, order));
        }
        let (shape, order) = shape_of(dims, self.image_size)?;
        if dims.len() < 3 {
            return Ok((shape, order));
        }
        let known = self.fixed.map_or_else(|| *self.order.get_or_init(|| order), |(_, order)| order);
        if known == order {
            Ok((shape, order))
        } else {
            let place = if known == Order::ChannelsFirst { "first" } else { "last" };
            Err(format!(
                "lists of {dims:?} where other rows have their channels {place}; keep rows of one kind in a subquery"
            ))
        }
    }
}

/// A binary column of any layout.
pub(super) enum Bytes<'a> {
    Binary(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
}

impl<'a> Bytes<'a> {
    fn of(array: &'a ArrayRef) -> Option<Self> {
        match array.data_type() {
            DataType::Binary => Some(Self::Binary(array.as_binary())),
            DataType::LargeBinary => Some(Self::Large(array.as_binary())),
            DataType::BinaryView => Some(Self::View(array.as_binary_view())),
            _ => None,
        }
    }

    fn get(&self, i: usize) -> Option<&'a [u8]> {
        match self {
            Self::Binary(a) => a.is_valid(i).then(|| a.value(i)),
            Self::Large(a) => a.is_valid(i).then(|| a.value(i)),
            Self::View(a) => a.is_valid(i).then(|| a.value(i)),
        }
    }
}
