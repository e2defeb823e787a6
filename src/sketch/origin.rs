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
    pub(super) fn join(&mut self, other: &Origin) -> Result<()> {
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
        self.check(&layout, recipe)?;
        Ok((layout, options))
    }

    /// Whether rows of `layout` are what the recipe's extractors take.
    fn check(&self, layout: &Layout, recipe: &PoolRecipe) -> Result<()> {
        let fits = match (&recipe.scaling, layout.single()) {
            (Scaling::Affine(_), Some(_)) => true,
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
