//! The feature columns of a table flow in, raw rows flow out; or what a profile wants to know of them.

use std::cmp::Ordering;

use crate::arrow::array::{Array, ArrayRef, AsArray, Float32Array};
use crate::arrow::compute::cast;
use crate::arrow::datatypes::{DataType, Float32Type};
use crate::error::{Error, Result};
use crate::options::{OnNull, Options};
use crate::rows::decode::{CellDecoder, Features, Unusable};
use crate::rows::exact;
use crate::rows::table::profile::{Profile, Seen};
use crate::rows::table::{CategoryScaling, ColumnScaling, NumberScaling, NumbersScaling, TableScaling};
use crate::rows::{FeatureKind, Label, Layout, Shape};

/// Decodes the feature columns of one table.
#[derive(Debug)]
pub(in crate::rows) struct TableDecoder {
    /// One entry a feature.
    columns: Vec<Column>,
    /// Whether rows may miss values, where the scaling knows what to do with them.
    impute: bool,
}

#[derive(Debug)]
struct Column {
    name: String,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Number,
    Category,
    Cells(CellDecoder),
}

impl TableDecoder {
    pub(in crate::rows) fn new(layout: &Layout, options: &Options) -> Result<Self> {
        let column = |(index, feature): (usize, &crate::rows::Feature)| {
            let kind = match feature.kind {
                FeatureKind::Number => Kind::Number,
                FeatureKind::Category => Kind::Category,
                _ => Kind::Cells(CellDecoder::new(layout, index, options)?),
            };
            Ok(Column { name: layout.name_of(feature).into(), kind })
        };
        let columns = layout.features.iter().enumerate().map(column).collect::<Result<_>>()?;
        Ok(Self { columns, impute: options.on_null == OnNull::Impute })
    }

    /// The columns of a batch, ready to be taken row by row.
    pub(in crate::rows) fn batch<'a>(
        &'a self,
        features: &'a [ArrayRef],
        scaling: &'a TableScaling,
    ) -> Result<TableBatch<'a>> {
        let mut scalings = scaling.columns.iter().peekable();
        let mut cells = vec![];
        for (column, array) in self.columns.iter().zip(features) {
            let own = scalings.next().filter(|s| s.name() == column.name);
            let flagged = scalings.next_if(|s| matches!(s, ColumnScaling::Missing { .. })).is_some();
            cells.push(match (&column.kind, own) {
                (Kind::Number, Some(ColumnScaling::Number(scaling))) => Cells::Numbers {
                    name: &column.name,
                    scaling,
                    numbers: numbers(array)?,
                    exact: exact::Bytes::of(array),
                    flagged,
                },
                (Kind::Category, Some(ColumnScaling::Category(scaling))) => {
                    Cells::Codes { scaling, codes: codes(&column.name, array, &scaling.values)? }
                }
                (Kind::Cells(decoder), Some(ColumnScaling::Numbers(scaling))) => {
                    Cells::Pictures { decoder, scaling, features: decoder.features(array)? }
                }
                _ => return Err(self.misfit(scaling)),
            });
        }
        if cells.len() != self.columns.len() || scalings.next().is_some() {
            return Err(self.misfit(scaling));
        }
        Ok(TableBatch { cells, impute: self.impute, shape: Shape::Vector { len: scaling.raw_len() } })
    }

    fn misfit(&self, scaling: &TableScaling) -> Error {
        let mut there: Vec<&str> = scaling.columns.iter().map(ColumnScaling::name).collect();
        there.dedup();
        let here: Vec<&str> = self.columns.iter().map(|c| c.name.as_str()).collect();
        Error::Pool(format!(
            "its scaling is for the feature columns {}, these are {}; name the same with features => [...], or make the pool anew",
            there.join(", "),
            here.join(", ")
        ))
    }

    /// Adds `rows` of a batch to `profile`.
    pub(in crate::rows) fn profile(&self, features: &[ArrayRef], rows: &[usize], profile: &mut Profile) -> Result<()> {
        enum Look<'a> {
            Numbers(Float32Array),
            Labels(Vec<Option<Label>>),
            Pictures(&'a CellDecoder, Features<'a>),
        }
        let mut looks = vec![];
        for (column, array) in self.columns.iter().zip(features) {
            looks.push(match &column.kind {
                Kind::Number => Look::Numbers(numbers(array)?),
                Kind::Category => Look::Labels(Label::from_array(&column.name, array)?),
                Kind::Cells(decoder) => Look::Pictures(decoder, decoder.features(array)?),
            });
        }
        let mut buffers = vec![vec![]; looks.len()];
        for &i in rows {
            let shapes: Vec<Option<Shape>> = looks
                .iter()
                .zip(&mut buffers)
                .map(|(look, buffer)| match look {
                    Look::Pictures(decoder, cells) => {
                        buffer.clear();
                        decoder.append(cells, i, None, buffer).ok()
                    }
                    _ => None,
                })
                .collect();
            let seen: Vec<Seen<'_>> = looks
                .iter()
                .zip(&buffers)
                .zip(shapes)
                .map(|((look, buffer), shape)| match look {
                    Look::Numbers(numbers) => Seen::Number(number(numbers, i)),
                    Look::Labels(labels) => Seen::Category(labels[i].as_ref()),
                    Look::Pictures(..) => Seen::Numbers(shape.map(|shape| (shape, buffer.as_slice()))),
                })
                .collect();
            profile.add(&seen);
        }
        Ok(())
    }
}

fn numbers(array: &ArrayRef) -> Result<Float32Array> {
    Ok(cast(array, &DataType::Float32)?.as_primitive::<Float32Type>().clone())
}

/// The number, if there is one and it is finite.
fn number(numbers: &Float32Array, i: usize) -> Option<f32> {
    numbers.is_valid(i).then(|| numbers.value(i)).filter(|v| v.is_finite())
}

/// What a cell of categories holds.
enum Code {
    Missing,
    At(f32),
    Unknown(String),
}

/// The positions of an array's categories among `values`, which are ascending.
fn codes(name: &str, array: &ArrayRef, values: &[Label]) -> Result<Vec<Code>> {
    // Text, the common case, is looked up where it lies.
    let text = |v: Option<&str>| {
        let Some(v) = v else { return Code::Missing };
        let order = |label: &Label| match label {
            Label::Text(t) => t.as_str().cmp(v),
            _ => Ordering::Less,
        };
        values.binary_search_by(order).map_or_else(|_| Code::Unknown(v.into()), |at| Code::At(at as f32))
    };
    let label = |v: Option<Label>| match v {
        None => Code::Missing,
        Some(v) => values.binary_search(&v).map_or_else(|_| Code::Unknown(v.to_string()), |at| Code::At(at as f32)),
    };
    Ok(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().iter().map(text).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(text).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(text).collect(),
        _ => Label::from_array(name, array)?.into_iter().map(label).collect(),
    })
}

/// One batch of a table.
pub(in crate::rows) struct TableBatch<'a> {
    cells: Vec<Cells<'a>>,
    impute: bool,
    shape: Shape,
}

enum Cells<'a> {
    /// `flagged`: a flag follows each number.
    Numbers {
        name: &'a str,
        scaling: &'a NumberScaling,
        numbers: Float32Array,
        /// The numbers' own bytes, where an f32 can't hold them.
        exact: Option<exact::Bytes>,
        flagged: bool,
    },
    Codes {
        scaling: &'a CategoryScaling,
        codes: Vec<Code>,
    },
    Pictures {
        decoder: &'a CellDecoder,
        scaling: &'a NumbersScaling,
        features: Features<'a>,
    },
}

impl TableBatch<'_> {
    /// Appends the bytes of the numbers of row `i`, a row that can be used, that an f32 can't hold.
    pub(in crate::rows) fn append_exact(&self, i: usize, out: &mut Vec<u8>) {
        for cells in &self.cells {
            match cells {
                Cells::Numbers { exact: Some(exact), .. } => exact.append(i, i + 1, out),
                Cells::Pictures { features, .. } => features.append_exact(i, out),
                Cells::Numbers { exact: None, .. } | Cells::Codes { .. } => {}
            }
        }
    }

    /// Appends the raw numbers of row `i`; else the column at fault and why.
    pub(in crate::rows) fn append(&self, i: usize, out: &mut Vec<f32>) -> Result<Shape, (&str, Unusable)> {
        for cells in &self.cells {
            match cells {
                Cells::Numbers { name, scaling, numbers, flagged, .. } => match number(numbers, i) {
                    Some(v) if v < scaling.low || v > scaling.high => {
                        let message = format!(
                            "{v} is outside {} to {}, the range that the column's scaling was made for; widen it (ranges, or a new pool \
                             file), or leave such rows out in a subquery",
                            scaling.low, scaling.high
                        );
                        return Err((name, Unusable::Bad(message)));
                    }
                    Some(v) => {
                        out.push(v);
                        out.extend(flagged.then_some(0.0));
                    }
                    None if self.impute && *flagged => out.extend([scaling.middle(), 1.0]),
                    None => return Err((name, Unusable::Null("NULL, NaN or infinite".into()))),
                },
                Cells::Codes { scaling, codes } => match &codes[i] {
                    Code::At(at) => out.push(*at),
                    Code::Missing if self.impute && scaling.missing => out.push(scaling.values.len() as f32),
                    Code::Missing => return Err((&scaling.name, Unusable::Null("NULL".into()))),
                    Code::Unknown(value) => {
                        let message = format!(
                            "'{value}' is none of the categories that the column's scaling was made for; add it (ranges, or a new pool \
                             file), or leave such rows out in a subquery"
                        );
                        return Err((&scaling.name, Unusable::Bad(message)));
                    }
                },
                Cells::Pictures { decoder, scaling, features } => {
                    decoder.append(features, i, Some(scaling.shape), out).map_err(|e| (decoder.name.as_str(), e))?;
                }
            }
        }
        Ok(self.shape)
    }
}
