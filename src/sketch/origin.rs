//! The source's layout flows in; what a sketch remembers of it, so that synthetic rows can be written as the source's rows are, flows out.

use std::sync::Arc;

use crate::arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use crate::error::{Error, Result};
use crate::extract::{PoolRecipe, Scaling};
use crate::options::{ImageSize, OnNull, Options};
use crate::rows::table::ColumnScaling;
use crate::rows::{FeatureKind, Layout, Shape};
use crate::sketch::schema_bytes;

/// Where the rows of a sketch come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The source's columns, metadata included.
    pub schema: SchemaRef,
    /// The feature columns, in the schema's order.
    pub features: Vec<OriginFeature>,
    /// The label column; `None`: the column beside the sketch.
    pub label: Option<String>,
    /// The names of a Hugging Face ClassLabel, by label value.
    pub label_names: Option<Vec<String>>,
}

/// A feature column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginFeature {
    /// The column's name.
    pub name: String,
    /// Of lists of three levels whose type doesn't tell it: whether the channels are innermost.
    pub channels_last: Option<bool>,
}

impl Origin {
    /// That of rows of `layout`, some of which have been decoded.
    pub fn of(layout: &Layout) -> Self {
        let features = layout.features.iter().enumerate();
        Self {
            schema: layout.schema.clone(),
            features: features
                .map(|(i, f)| OriginFeature { name: layout.name_of(f).into(), channels_last: layout.channels_last(i) })
                .collect(),
            label: Some(layout.label_name().into()),
            label_names: layout.class_names.clone(),
        }
    }

    /// The same of rows whose label isn't known: without column `label` of the layout, which stands for it.
    pub fn without_label(layout: &Layout) -> Self {
        let fields: Vec<FieldRef> = layout
            .schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != layout.label)
            .map(|(_, f)| f.clone())
            .collect();
        let schema = Arc::new(Schema::new_with_metadata(fields, layout.schema.metadata().clone()));
        Self { schema, label: None, label_names: None, ..Self::of(layout) }
    }

    /// The type of the label column, as Arrow writes it.
    pub fn label_type(&self) -> Option<String> {
        let field = self.schema.field_with_name(self.label.as_deref()?).ok()?;
        Some(field.data_type().to_string())
    }

    pub(super) fn schema_bytes(&self) -> Vec<u8> {
        schema_bytes::write(&self.schema)
    }

    /// Refuses an origin whose rows don't belong with those of this one; of two that differ in other columns or in metadata, keeps
    /// the one that says the label's names, else the one with the smaller bytes: the same one in any order.
    pub fn join(&mut self, other: &Origin) -> Result<()> {
        if self == other {
            return Ok(());
        }
        let columns = |origin: &Origin| {
            let names = origin
                .features
                .iter()
                .map(|f| (f.name.as_str(), f.channels_last))
                .chain(origin.label.iter().map(|l| (l.as_str(), None)));
            let shown = names.map(|(name, channels_last)| {
                let data_type =
                    origin.schema.field_with_name(name).map(|f| f.data_type().to_string()).unwrap_or_default();
                let order = match channels_last {
                    Some(true) => ", channels last",
                    Some(false) => ", channels first",
                    None => "",
                };
                format!("{name} ({data_type}{order})")
            });
            let shown: Vec<_> = shown.collect();
            let label = if origin.label.is_some() { " as label" } else { ", no label" };
            format!("{}{label}", shown.join(", "))
        };
        let (here, there) = (columns(self), columns(other));
        let advice = "sketch the same columns, of the same types";
        if here != there {
            return Err(Error::Sketch(format!(
                "these sketches don't merge: columns {here} here, {there} there; {advice}"
            )));
        }
        if let (Some(here), Some(there)) = (&self.label_names, &other.label_names)
            && here != there
        {
            let (here, there) = (here.join(", "), there.join(", "));
            return Err(Error::Sketch(format!(
                "these sketches don't merge: the label's names are {here} here, {there} there; make the files' ClassLabel the same"
            )));
        }
        let order = |origin: &Origin| (origin.label_names.is_none(), origin.schema_bytes());
        if order(other) < order(self) {
            *self = other.clone();
        }
        Ok(())
    }

    /// The layout of the source's rows, and `options` with what it takes to write such rows; `label` is the column beside the sketches, which
    /// is the label where the origin doesn't say it.
    ///
    /// Fails where the schema and the recipe don't fit together.
    pub fn layout(&self, recipe: &PoolRecipe, label: &Field, options: &Options) -> Result<(Layout, Options)> {
        let mut fields: Vec<FieldRef> = self.schema.fields().to_vec();
        let label_name = match &self.label {
            Some(name) => name,
            None => {
                if self.schema.field_with_name(label.name()).is_err() {
                    fields.push(Arc::new(label.clone()));
                }
                label.name()
            }
        };
        let schema = Arc::new(Schema::new_with_metadata(fields, self.schema.metadata().clone()));
        let mut options = Options {
            label: Some(label_name.clone()),
            features: Some(self.features.iter().map(|f| f.name.clone()).collect()),
            categorical: vec![],
            image_size: None,
            ranges: None,
            on_null: OnNull::Error,
            ..options.clone()
        };
        if let Scaling::Table(table) = &recipe.scaling {
            for column in &table.columns {
                match column {
                    ColumnScaling::Category(c) => options.categorical.push(c.name.clone()),
                    ColumnScaling::Missing { .. } => options.on_null = OnNull::Impute,
                    _ => {}
                }
            }
            if !table.missing().is_empty() {
                options.on_null = OnNull::Impute;
            }
        }
        let first = Layout::infer(&schema, &options)?;
        if let (Some(feature), Shape::Picture { channels, height, width }) = (first.single(), recipe.shape)
            && feature.kind == FeatureKind::Numbers
            && first.is_flat(feature)
        {
            options.image_size = Some(ImageSize { height, width, channels: Some(channels) });
        }
        let layout = Layout::infer(&schema, &options)?;
        for (i, feature) in self.features.iter().enumerate() {
            if let Some(channels_last) = feature.channels_last {
                layout.set_channels_last(i, channels_last);
            }
        }
        self.check(&layout, recipe, &options)?;
        Ok((layout, options))
    }

    /// Whether rows of `layout` are what the recipe's extractors take.
    fn check(&self, layout: &Layout, recipe: &PoolRecipe, options: &Options) -> Result<()> {
        let fits = match (&recipe.scaling, layout.single()) {
            (Scaling::Affine(_), Some(feature)) => match layout.static_shape(options) {
                Some(shape) => shape == recipe.shape,
                None => !feature.kind.is_picture() || matches!(recipe.shape, Shape::Picture { .. }),
            },
            (Scaling::Table(table), None) => {
                let mut columns: Vec<&str> = table.columns.iter().map(|c| c.name()).collect();
                columns.dedup();
                columns.iter().copied().eq(layout.features.iter().map(|f| layout.name_of(f)))
            }
            _ => false,
        };
        if fits {
            Ok(())
        } else {
            Err(Error::Sketch("its source's columns aren't those that its scaling is for; make it again".into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::datatypes::DataType;
    use crate::sketch::test_header;

    const NAMES: &str = r#"{"info":{"features":{"y":{"names":["no","yes"],"_type":"ClassLabel"}}}}"#;

    fn list(levels: usize) -> DataType {
        (0..levels).fold(DataType::Float32, |t, _| DataType::new_list(t, true))
    }

    /// That of a source of lists `x` with a label `y` and other columns.
    fn origin(x: DataType, others: &[&str], names: bool) -> Origin {
        let fields =
            [("x", x), ("y", DataType::Int64)].into_iter().chain(others.iter().map(|n| (*n, DataType::Date32)));
        let schema = Schema::new(fields.map(|(name, t)| Field::new(name, t, true)).collect::<Vec<_>>());
        let metadata = if names { [("huggingface".to_string(), NAMES.to_string())].into() } else { Default::default() };
        Origin::of(&Layout::infer(&Arc::new(schema.with_metadata(metadata)), &Options::default()).unwrap())
    }

    #[test]
    fn of_origins_that_belong_together_the_same_one_is_kept_in_any_order() {
        let all = [
            origin(list(1), &["day"], false),
            origin(list(1), &[], false),
            origin(list(1), &["day"], true),
            origin(list(1), &[], true),
        ];
        let joined = |order: &[usize]| {
            let mut sum = all[order[0]].clone();
            order[1..].iter().for_each(|i| sum.join(&all[*i]).unwrap());
            sum
        };
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1], [1, 3, 0, 2]] {
            assert_eq!(joined(&order), joined(&[0, 1, 2, 3]));
            assert_eq!(joined(&order).label_names.unwrap(), ["no", "yes"]);
        }
    }

    #[test]
    fn other_features_labels_names_and_orders_are_refused_with_both_values() {
        let refused = |change: fn(&mut Origin)| {
            let mut other = origin(list(1), &["day"], true);
            change(&mut other);
            origin(list(1), &["day"], true).join(&other).unwrap_err().to_string()
        };
        type Change = fn(&mut Origin);
        let cases: [(Change, [&str; 2]); 5] = [
            (|o| o.label = None, ["y (Int64) as label here", "no label there"]),
            (|o| o.label = Some("day".into()), ["y (Int64) as label", "day (Date32) as label"]),
            (|o| *o = super::tests::origin(list(2), &["day"], true), ["List(Float32)", "List(List(Float32))"]),
            (|o| o.features[0].channels_last = Some(true), ["x (List(Float32))", "channels last"]),
            (|o| o.label_names = Some(vec!["yes".into(), "no".into()]), ["no, yes here", "yes, no there"]),
        ];
        for (change, parts) in cases {
            let e = refused(change);
            assert!(parts.iter().all(|part| e.contains(part)), "{parts:?}: {e}");
        }
    }

    #[test]
    fn a_layout_needs_the_rows_that_the_recipe_is_for() {
        let recipe = test_header().recipe;
        let beside = Field::new("kind", DataType::Utf8, true);
        let layout = |origin: Origin| origin.layout(&recipe, &beside, &Options::default());
        let (found, options) = layout(origin(list(1), &["day"], true)).unwrap();
        assert_eq!((found.label_name(), options.label.as_deref()), ("y", Some("y")));
        let unlabelled = Origin { label: None, ..origin(list(1), &["day"], true) };
        assert_eq!(layout(unlabelled).unwrap().0.label_name(), "kind");
        for other in [DataType::Binary, DataType::Float32, DataType::new_fixed_size_list(DataType::Int8, 5, true)] {
            let e = layout(origin(other, &[], true)).unwrap_err().to_string();
            assert!(e.contains("aren't those that its scaling is for"), "{e}");
        }
    }
}
