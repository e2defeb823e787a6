//! A schema and the options flow in; which column is the label, which the feature, and why, flow out.

use crate::arrow::datatypes::SchemaRef;
use crate::error::{Error, Result, nearest_hint};
use crate::options::Options;
use crate::rows::hugging_face::HuggingFace;
use crate::rows::{Column, Feature, FeatureKind, Hints, Role, SOFT_LABEL, has_soft_labels};

/// Names that a label column may have, in any case, where Hugging Face metadata doesn't tell it.
const LABEL_NAMES: &[&str] = &["label", "labels", "target", "class", "y", "fine_label"];

/// One inference.
pub(super) struct Finder<'a> {
    schema: &'a SchemaRef,
    options: &'a Options,
    hints: &'a Hints,
    hugging_face: HuggingFace,
}

/// A feature and why it is one.
pub(super) struct Found {
    pub(super) feature: Feature,
    reason: String,
}

impl<'a> Finder<'a> {
    pub(super) fn new(schema: &'a SchemaRef, options: &'a Options, hints: &'a Hints) -> Self {
        Self { schema, options, hints, hugging_face: HuggingFace::of(schema) }
    }

    fn name(&self, column: usize) -> &str {
        self.schema.field(column).name()
    }

    fn excluded(&self, column: usize) -> bool {
        self.options.exclude.iter().any(|e| e == self.name(column))
    }

    /// The column that `option` names.
    fn named(&self, option: &str, name: &str) -> Result<usize> {
        let column = self.schema.fields().iter().position(|f| f.name() == name).ok_or_else(|| {
            let hint = nearest_hint(name, self.schema.fields().iter().map(|f| f.name().as_str()));
            Error::option(option, format!("there is no column '{name}'{hint}"))
        })?;
        if option != "exclude" && self.excluded(column) {
            return Err(Error::option(
                option,
                format!("column '{name}' is left out by exclude; leave it out of one of the two"),
            ));
        }
        Ok(column)
    }

    /// The columns for which `test` holds, those excluded left out.
    fn columns_where(&self, test: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..self.schema.fields().len()).filter(|c| !self.excluded(*c) && test(*c)).collect()
    }

    /// All columns with their types, for error messages.
    fn listing(&self, columns: impl IntoIterator<Item = usize>) -> String {
        let one = |c: usize| {
            let data_type = self.schema.field(c).data_type();
            let shown = match FeatureKind::of(data_type) {
                Some(FeatureKind::PictureStruct) => "Struct of bytes and path".into(),
                _ => data_type.to_string(),
            };
            format!("{} ({shown})", self.name(c))
        };
        columns.into_iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn all(&self) -> String {
        self.listing(0..self.schema.fields().len())
    }

    /// The label column and why it is the label.
    pub(super) fn label(&self) -> Result<(usize, String)> {
        if let Some(name) = &self.options.label {
            return Ok((self.named("label", name)?, "option label".into()));
        }
        let asked_as_feature = |c: usize| self.options.features.iter().flatten().any(|f| f == self.name(c));
        let free = |c: &usize| !asked_as_feature(*c);
        let class_labels = self.columns_where(|c| free(&c) && self.hugging_face.is_class_label(self.name(c)));
        let named = self.columns_where(|c| free(&c) && LABEL_NAMES.contains(&self.name(c).to_lowercase().as_str()));
        match (&class_labels[..], &named[..]) {
            ([one], _) => {
                let names = self.hugging_face.class_names(self.name(*one));
                let names = names.map_or(String::new(), |n| format!(" with {} names", n.len()));
                Ok((*one, format!("Hugging Face ClassLabel{names}")))
            }
            ([], [one]) => Ok((*one, format!("named '{}'", self.name(*one)))),
            ([], []) => Err(Error::Schema(format!(
                "no label column: none is a Hugging Face ClassLabel or named {}. Name it with label => '...'. The columns are {}",
                LABEL_NAMES.join(", "),
                self.all()
            ))),
            (several, _) if !several.is_empty() => Err(self.several("label", "label => '...'", several)),
            (_, several) => Err(self.several("label", "label => '...'", several)),
        }
    }

    /// The feature columns, in the schema's order, each with the reason.
    pub(super) fn features(&self, label: usize) -> Result<Vec<Found>> {
        for name in &self.options.categorical {
            self.check_categorical(self.named("categorical", name)?, label)?;
        }
        if let Some(names) = &self.options.features {
            return self.asked(names, label);
        }
        let images = self.columns_where(|c| c != label && self.hugging_face.is_image(self.name(c)));
        // Soft labels are lists of numbers too; who means them as a feature names them.
        let soft = |c: usize| self.name(c) == SOFT_LABEL && has_soft_labels(self.schema);
        let is_feature = |c: usize| FeatureKind::of(self.schema.field(c).data_type()).is_some();
        let typed = self.columns_where(|c| c != label && is_feature(c) && !soft(c));
        let (one, reason) = match (&images[..], &typed[..]) {
            ([one], _) => (*one, "Hugging Face Image".to_string()),
            ([], [one]) => (*one, format!("the only column of {}", self.kind(*one)?.described())),
            ([], []) => return self.table(label),
            (several, _) if !several.is_empty() => {
                return Err(self.several("feature", "features => ['...']", several));
            }
            (_, several) => return Err(self.several("feature", "features => ['...']", several)),
        };
        Ok(vec![Found { feature: Feature { column: one, kind: self.kind(one)? }, reason }])
    }

    /// The columns that the option `features` names.
    fn asked(&self, names: &[String], label: usize) -> Result<Vec<Found>> {
        let mut columns = vec![];
        for name in names {
            let column = self.named("features", name)?;
            if column == label {
                return Err(Error::option("features", format!("column '{name}' is the label; name another column")));
            }
            if columns.contains(&column) {
                return Err(Error::option("features", format!("column '{name}' is named twice")));
            }
            columns.push(column);
        }
        columns.sort_unstable();
        let found = |column| {
            Ok(Found { feature: Feature { column, kind: self.kind(column)? }, reason: "option features".into() })
        };
        columns.into_iter().map(found).collect()
    }

    /// The columns of a table that are features unless told otherwise.
    fn table(&self, label: usize) -> Result<Vec<Found>> {
        let mut found = vec![];
        for column in self.columns_where(|c| c != label && self.no_feature(c).is_none()) {
            let kind = self.kind(column)?;
            let reason = match kind {
                FeatureKind::Category if self.is_categorical(column) => "category, option categorical",
                FeatureKind::Category => "category",
                _ => "number",
            };
            found.push(Found { feature: Feature { column, kind }, reason: reason.into() });
        }
        if found.is_empty() {
            return Err(Error::Schema(format!(
                "no feature column: none holds pictures (a struct of bytes and path, or binary), lists of numbers, numbers or categories                  that aren't ids or dates. Name them with features => ['...']. The columns are {}",
                self.all()
            )));
        }
        Ok(found)
    }

    /// Why a column of a table is not a feature by itself; `None`: it is one.
    fn no_feature(&self, column: usize) -> Option<String> {
        let (field, hints) = (self.schema.field(column), self.hints);
        let name = field.name();
        let data_type = field.data_type();
        if self.is_categorical(column) {
            return None;
        }
        if hints.partitions.contains(name) {
            return Some("a partition of the folders".into());
        }
        let extension = field.metadata().get("ARROW:extension:name").map(String::as_str);
        if extension == Some("arrow.uuid") || hints.uuids.contains(name) {
            return Some("UUIDs".into());
        }
        if data_type.is_temporal() {
            return Some(format!("a {data_type}"));
        }
        let near_unique = hints.near_unique.contains(name);
        let lower = name.to_lowercase();
        let is_id = lower == "id" || lower.ends_with("_id");
        match FeatureKind::of_scalar(data_type) {
            // Without a look at the rows the name has to do.
            Some(_) if is_id && data_type.is_integer() && (near_unique || hints.rows == 0) => Some("an id".into()),
            Some(FeatureKind::Category) if near_unique => {
                Some("text with a value of its own in nearly every row".into())
            }
            Some(_) => None,
            None => Some(format!("a {data_type}")),
        }
    }

    fn is_categorical(&self, column: usize) -> bool {
        self.options.categorical.iter().any(|c| c == self.name(column))
    }

    fn check_categorical(&self, column: usize, label: usize) -> Result<()> {
        let field = self.schema.field(column);
        let fits =
            field.data_type().is_integer() || FeatureKind::of_scalar(field.data_type()) == Some(FeatureKind::Category);
        let message = match fits {
            _ if column == label => format!("column '{}' is the label; leave it out", field.name()),
            true => return Ok(()),
            false => format!("column '{}' is a {}; expected whole numbers or text", field.name(), field.data_type()),
        };
        Err(Error::option("categorical", message))
    }

    fn several(&self, role: &str, option: &str, candidates: &[usize]) -> Error {
        Error::Schema(format!(
            "several columns could be the {role}: {}. Name one with {option}, or leave others out with exclude. The columns are {}",
            self.listing(candidates.iter().copied()),
            self.all()
        ))
    }

    /// How a feature column is stored.
    fn kind(&self, feature: usize) -> Result<FeatureKind> {
        let field = self.schema.field(feature);
        if self.is_categorical(feature) {
            return Ok(FeatureKind::Category);
        }
        let kind = FeatureKind::of(field.data_type()).or_else(|| FeatureKind::of_scalar(field.data_type()));
        kind.ok_or_else(|| {
            Error::column(
                field.name(),
                format!(
                    "a {} can't be a feature, which is a struct of bytes and path, binary pictures, lists of numbers up to three                      deep, a number, text or a boolean; leave it out of features, or convert it in a subquery",
                    field.data_type()
                ),
            )
        })
    }

    /// All columns with their roles.
    pub(super) fn columns(&self, label: (usize, String), features: &[Found]) -> Result<Vec<Column>> {
        for name in &self.options.exclude {
            self.named("exclude", name)?;
        }
        let carried = |c: usize| {
            let why = self.no_feature(c).filter(|_| features.iter().all(|f| f.feature.kind.is_scalar()));
            format!("{}: NULL in the synthetic rows", why.unwrap_or_else(|| "neither label nor feature".into()))
        };
        let role = |c: usize| match features.iter().find(|f| f.feature.column == c) {
            _ if c == label.0 => (Role::Label, label.1.clone()),
            Some(found) => (Role::Feature, found.reason.clone()),
            None if self.excluded(c) => (Role::Excluded, "option exclude: not in the output".into()),
            None => (Role::Carried, carried(c)),
        };
        let columns = self.schema.fields().iter().enumerate().map(|(c, field)| {
            let (role, reason) = role(c);
            Column { name: field.name().clone(), role, reason }
        });
        Ok(columns.collect())
    }
}
