//! Batches of a source flow in, what has to be known of its columns before they can be scaled flows out.
//!
//! A profile is additive, like a sketch: ranges, category counts, and a sample of rows chosen by a hash of their content. Any
//! order, split and merge tree of the same rows give the same profile.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::options::{Declared, Options, Ranges};
use crate::rows::table::{
    CategoryScaling, ColumnScaling, CurveScaling, MAX_CATEGORIES, NumberScaling, NumbersScaling, TableScaling,
};
use crate::rows::{FeatureKind, Label, Layout, Shape};

/// Rows of the sample.
const SAMPLE: usize = 4096;
/// Most distinct numbers of a column that are listed: synthetic rows then have no others.
const MOST_VALUES: usize = 64;

/// What the rows seen so far tell of the feature columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// One entry a feature.
    pub columns: Vec<ColumnProfile>,
    /// The sampled rows, smallest hash first.
    sample: Vec<Sampled>,
}

/// What is known of one column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnProfile {
    /// Of one number a row.
    Number {
        /// The lowest and the highest finite number; none yet.
        range: Option<(f32, f32)>,
        /// The distinct numbers as bits that sort like them; none: too many.
        values: Option<BTreeSet<u32>>,
    },
    /// The categories.
    Category(BTreeSet<Label>),
    /// Of lists or pictures.
    Numbers {
        /// The shape of the first row; none yet.
        shape: Option<Shape>,
        /// The lowest and the highest finite number; none yet.
        range: Option<(f32, f32)>,
    },
}

/// One row of the sample.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Sampled {
    hash: [u8; 16],
    copies: u64,
    /// One entry a column of one number; none where it is missing.
    numbers: Vec<Option<f32>>,
}

/// What one row adds.
pub(in crate::rows) enum Seen<'a> {
    /// A number, or none.
    Number(Option<f32>),
    /// A category, or none.
    Category(Option<&'a Label>),
    /// A list's or a picture's numbers, or none that can be used.
    Numbers(Option<(Shape, &'a [f32])>),
}

/// Bits that sort as the numbers do.
fn sortable(v: f32) -> u32 {
    let bits = (v + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn from_sortable(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

fn widen(range: &mut Option<(f32, f32)>, low: f32, high: f32) {
    *range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
}

impl Profile {
    /// Of no rows.
    pub fn new(layout: &Layout) -> Self {
        let column = |kind: &FeatureKind| match kind {
            FeatureKind::Number => ColumnProfile::Number { range: None, values: Some(BTreeSet::new()) },
            FeatureKind::Category => ColumnProfile::Category(BTreeSet::new()),
            _ => ColumnProfile::Numbers { shape: None, range: None },
        };
        Self { columns: layout.features.iter().map(|f| column(&f.kind)).collect(), sample: vec![] }
    }

    /// Adds a row: one entry a column.
    pub(in crate::rows) fn add(&mut self, row: &[Seen<'_>]) {
        let mut hash = blake3::Hasher::new_derive_key("datafusion-distill profile 1");
        let mut numbers = vec![];
        for (column, seen) in self.columns.iter_mut().zip(row) {
            match (column, seen) {
                (ColumnProfile::Number { range, values }, Seen::Number(number)) => {
                    numbers.push(*number);
                    hash.update(&number.map_or([255; 4], |v| (v + 0.0).to_le_bytes()));
                    let Some(number) = *number else { continue };
                    widen(range, number, number);
                    if let Some(set) = values {
                        set.insert(sortable(number));
                        if set.len() > MOST_VALUES {
                            *values = None;
                        }
                    }
                }
                (ColumnProfile::Category(values), Seen::Category(Some(value))) => {
                    hash.update(value.to_string().as_bytes());
                    hash.update(&[0]);
                    if values.len() <= MAX_CATEGORIES && !values.contains(*value) {
                        values.insert((*value).clone());
                    }
                }
                (ColumnProfile::Numbers { shape, range }, Seen::Numbers(Some((own, values)))) => {
                    // Shapes may differ from row to row here: the scan that follows will tell, by file and row.
                    *shape = Some(shape.map_or(*own, |s| s.max(*own)));
                    values.iter().filter(|v| v.is_finite()).for_each(|v| widen(range, *v, *v));
                }
                _ => {}
            }
        }
        if !numbers.is_empty() {
            let mut key = [0; 16];
            key.copy_from_slice(&hash.finalize().as_bytes()[..16]);
            self.offer(Sampled { hash: key, copies: 1, numbers });
        }
    }

    fn offer(&mut self, row: Sampled) {
        match self.sample.binary_search_by(|kept| kept.hash.cmp(&row.hash)) {
            Ok(at) => self.sample[at].copies += row.copies,
            Err(at) if at < SAMPLE => {
                self.sample.truncate(SAMPLE - 1);
                self.sample.insert(at, row);
            }
            Err(_) => {}
        }
    }

    /// Adds the rows of another profile of the same columns.
    pub fn merge(&mut self, other: Profile) {
        for (to, from) in self.columns.iter_mut().zip(other.columns) {
            match (to, from) {
                (ColumnProfile::Number { range, values }, ColumnProfile::Number { range: r, values: v }) => {
                    if let Some((low, high)) = r {
                        widen(range, low, high);
                    }
                    *values = match (values.take(), v) {
                        (Some(a), Some(b)) => Some(a.into_iter().chain(b).collect()),
                        _ => None,
                    };
                    if values.as_ref().is_some_and(|set| set.len() > MOST_VALUES) {
                        *values = None;
                    }
                }
                (ColumnProfile::Category(values), ColumnProfile::Category(more)) => values.extend(more),
                (ColumnProfile::Numbers { shape, range }, ColumnProfile::Numbers { shape: s, range: r }) => {
                    *shape = (*shape).max(s);
                    if let Some((low, high)) = r {
                        widen(range, low, high);
                    }
                }
                _ => {}
            }
        }
        other.sample.into_iter().for_each(|row| self.offer(row));
    }

    /// The range of the numbers of the one list column of a source that is no table.
    pub fn range(&self) -> Option<(f32, f32)> {
        match &self.columns[..] {
            [ColumnProfile::Numbers { range, .. }] => *range,
            _ => None,
        }
    }

    /// How the columns of a table are scaled.
    ///
    /// Fails with [`Error::Column`] for columns without values, with a single value where the range is declared otherwise, or with too many categories.
    pub fn scaling(&self, layout: &Layout, options: &Options) -> Result<TableScaling> {
        let mut columns = vec![];
        let mut number = 0;
        for (feature, profile) in layout.features.iter().zip(&self.columns) {
            let name = layout.name_of(feature).to_string();
            let missing = layout.may_miss(feature, options);
            let declared = options.ranges.as_ref().and_then(|ranges| ranges.column(&name));
            match profile {
                ColumnProfile::Number { range, values } => {
                    let whole = layout.schema.field(feature.column).data_type().is_integer();
                    let values = values.iter().flatten().map(|v| from_sortable(*v)).collect();
                    let range = declared_range(&name, declared)?.or(*range);
                    let (low, high) = range.ok_or_else(|| no_values(&name))?;
                    let sample = self.sorted_sample(number);
                    number += 1;
                    let curve = CurveScaling::fit(options.curve, low, high, &sample);
                    let values: Vec<f32> = if declared.is_some() { vec![] } else { values };
                    columns.push(ColumnScaling::Number(NumberScaling {
                        name: name.clone(),
                        low,
                        high,
                        curve,
                        whole,
                        values,
                    }));
                    if missing {
                        columns.push(ColumnScaling::Missing { name });
                    }
                }
                ColumnProfile::Category(found) => {
                    let values = match declared {
                        Some(Declared::Categories(values)) => declared_categories(layout, feature.column, values)?,
                        Some(Declared::Numbers(_)) => {
                            return Err(Error::option(
                                "ranges",
                                format!("column '{name}' holds categories; declare them as '{name}=a|b|c'"),
                            ));
                        }
                        None => found.iter().cloned().collect(),
                    };
                    if values.is_empty() {
                        return Err(no_values(&name));
                    }
                    if values.len() > MAX_CATEGORIES {
                        return Err(Error::column(
                            &name,
                            format!(
                                "more than {MAX_CATEGORIES} categories; is it an id or free text? Leave it out with exclude => ['{name}'], or make it coarser in a subquery"
                            ),
                        ));
                    }
                    columns.push(ColumnScaling::Category(CategoryScaling { name, values, missing }));
                }
                ColumnProfile::Numbers { shape, range } => {
                    let shape = layout.shape_of(feature, options).or(*shape).ok_or_else(|| no_values(&name))?;
                    let (low, high) =
                        if feature.kind.is_picture() { (0.0, 255.0) } else { range.ok_or_else(|| no_values(&name))? };
                    columns.push(ColumnScaling::Numbers(NumbersScaling { name, shape, low, high }));
                }
            }
        }
        Ok(TableScaling { columns })
    }

    /// The scaling of a table whose columns are all declared, so that no scan has to find it; `None`: one has to.
    pub fn declared(layout: &Layout, options: &Options) -> Result<Option<TableScaling>> {
        let Some(ranges @ Ranges::Columns(_)) = &options.ranges else { return Ok(None) };
        if layout.features.iter().any(|f| ranges.column(layout.name_of(f)).is_none()) {
            return Ok(None);
        }
        Self::new(layout).scaling(layout, options).map(Some)
    }

    /// A scaling with the columns that a table's will have, but nothing known of their values; for sizes. `None` where lists have no known length.
    pub fn outline(layout: &Layout, options: &Options) -> Option<TableScaling> {
        let mut columns = vec![];
        for feature in &layout.features {
            let name = layout.name_of(feature).to_string();
            let missing = layout.may_miss(feature, options);
            match feature.kind {
                FeatureKind::Number => {
                    let curve = CurveScaling::Linear { center: 0.0, unit: 1.0 };
                    let number =
                        NumberScaling { name: name.clone(), low: 0.0, high: 1.0, curve, whole: false, values: vec![] };
                    columns.push(ColumnScaling::Number(number));
                    columns.extend(missing.then_some(ColumnScaling::Missing { name }));
                }
                FeatureKind::Category => {
                    let values = vec![Label::Bool(false)];
                    columns.push(ColumnScaling::Category(CategoryScaling { name, values, missing }));
                }
                _ => {
                    let shape = layout.shape_of(feature, options)?;
                    columns.push(ColumnScaling::Numbers(NumbersScaling { name, shape, low: 0.0, high: 1.0 }));
                }
            }
        }
        Some(TableScaling { columns })
    }

    /// The sampled numbers of the `index`th column of one number, ascending, with their copies.
    fn sorted_sample(&self, index: usize) -> Vec<(f32, f64)> {
        let mut sample: Vec<(f32, f64)> =
            self.sample.iter().filter_map(|row| Some(((*row.numbers.get(index)?)?, row.copies as f64))).collect();
        sample.sort_by(|a, b| a.0.total_cmp(&b.0));
        sample
    }
}

fn no_values(name: &str) -> Error {
    Error::column(name, format!("has no values; leave it out with exclude => ['{name}']"))
}

fn declared_range(name: &str, declared: Option<&Declared>) -> Result<Option<(f32, f32)>> {
    match declared {
        None => Ok(None),
        Some(Declared::Numbers(range)) => Ok(Some((range.low as f32, range.high as f32))),
        Some(Declared::Categories(_)) => Err(Error::option(
            "ranges",
            format!("column '{name}' holds numbers; declare them as '{name}=low..high', or name it in categorical"),
        )),
    }
}

/// Declared categories as values of the column's type, ascending.
fn declared_categories(layout: &Layout, column: usize, values: &[String]) -> Result<Vec<Label>> {
    let field = layout.schema.field(column);
    let one = |text: &String| {
        Label::parse(text, field.data_type()).ok_or_else(|| {
            Error::option(
                "ranges",
                format!("'{text}' can't be a value of column '{}', a {}", field.name(), field.data_type()),
            )
        })
    };
    values.iter().map(one).collect::<Result<BTreeSet<_>>>().map(|set| set.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::arrow::datatypes::{DataType, Field, Schema};

    fn layout() -> Layout {
        let fields = [("x", DataType::Float32), ("c", DataType::Utf8), ("label", DataType::Int64)];
        let fields: Vec<Field> = fields.into_iter().map(|(n, t)| Field::new(n, t, true)).collect();
        Layout::infer(&Arc::new(Schema::new(fields)), &Options::default()).unwrap()
    }

    fn profile(rows: &[(Option<f32>, u8)]) -> Profile {
        let mut profile = Profile::new(&layout());
        for (x, c) in rows {
            let label = Label::Text(format!("c{c}"));
            profile.add(&[Seen::Number(*x), Seen::Category(Some(&label))]);
        }
        profile
    }

    proptest! {
        #[test]
        fn any_order_and_any_split_give_the_same_profile_and_json_keeps_it(
            rows in prop::collection::vec((prop::option::of(-50f32..50.0), 0u8..5), 0..90),
            cut in 0usize..90,
        ) {
            let whole = profile(&rows);
            let cut = cut.min(rows.len());
            let mut merged = profile(&rows[cut..]);
            merged.merge(profile(&rows[..cut]));
            prop_assert_eq!(&merged, &whole);
            let json = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), whole);
        }
    }

    #[test]
    fn few_numbers_and_categories_are_listed_many_are_not() {
        let few = profile(&[(Some(2.0), 1), (Some(-1.0), 0), (None, 1), (Some(2.0), 1)]);
        let scaling = few.scaling(&layout(), &Options::default()).unwrap();
        let ColumnScaling::Number(number) = &scaling.columns[0] else { panic!("{scaling:?}") };
        assert_eq!((number.low, number.high, &number.values[..]), (-1.0, 2.0, &[-1.0, 2.0][..]));
        let ColumnScaling::Category(category) = &scaling.columns[1] else { panic!("{scaling:?}") };
        assert_eq!(category.values, ["c0", "c1"].map(|c| Label::Text(c.into())));
        let many = profile(&(0..100).map(|i| (Some(i as f32), 0)).collect::<Vec<_>>());
        let scaling = many.scaling(&layout(), &Options::default()).unwrap();
        assert!(matches!(&scaling.columns[0], ColumnScaling::Number(n) if n.values.is_empty() && n.high == 99.0));
    }

    #[test]
    fn too_many_categories_and_columns_without_values_are_named() {
        let mut profile = Profile::new(&layout());
        for i in 0..=MAX_CATEGORIES {
            profile.add(&[Seen::Number(Some(1.0)), Seen::Category(Some(&Label::Int(i as i64)))]);
        }
        let e = profile.scaling(&layout(), &Options::default()).unwrap_err().to_string();
        assert!(e.contains("column 'c': more than 1000 categories") && e.contains("exclude => ['c']"), "{e}");
        let e = Profile::new(&layout()).scaling(&layout(), &Options::default()).unwrap_err().to_string();
        assert!(e.contains("column 'x': has no values"), "{e}");
    }

    #[test]
    fn declared_columns_need_no_scan() {
        let mut options = Options::default();
        let declare = |options: &mut Options, text: &str| {
            options.set("ranges", &crate::options::Value::Text(text.into())).unwrap();
            Profile::declared(&layout(), options)
        };
        assert_eq!(declare(&mut options, "x=0..1").unwrap(), None);
        let scaling = declare(&mut options, "x=0..1,c=b|a").unwrap().unwrap();
        let ColumnScaling::Category(category) = &scaling.columns[1] else { panic!("{scaling:?}") };
        assert_eq!(category.values, ["a", "b"].map(|c| Label::Text(c.into())));
        let e = declare(&mut options, "x=a|b,c=a|b").unwrap_err().to_string();
        assert!(e.contains("column 'x' holds numbers"), "{e}");
    }
}
