//! A schema and the options flow in; which column is the label, which the feature, and why, flow out.

use crate::arrow::datatypes::SchemaRef;
use crate::error::{Error, Result, nearest_hint};
use crate::options::Options;
use crate::rows::hugging_face::HuggingFace;
use crate::rows::{Column, FeatureKind, Role};

/// Names that a label column may have, in any case, where Hugging Face metadata doesn't tell it.
const LABEL_NAMES: &[&str] = &["label", "labels", "target", "class", "y", "fine_label"];

/// One inference.
pub(super) struct Finder<'a> {
    schema: &'a SchemaRef,
    options: &'a Options,
    hugging_face: HuggingFace,
}

impl<'a> Finder<'a> {
    pub(super) fn new(schema: &'a SchemaRef, options: &'a Options) -> Self {
        Self { schema, options, hugging_face: HuggingFace::of(schema) }
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

    /// The feature column and why it is the feature.
    pub(super) fn feature(&self, label: usize) -> Result<(usize, String)> {
        match self.options.features.as_deref() {
            Some([name]) => {
                let column = self.named("features", name)?;
                if column == label {
                    return Err(Error::option(
                        "features",
                        format!("column '{name}' is the label; name another column"),
                    ));
                }
                return Ok((column, "option features".into()));
            }
            Some(several) => {
                return Err(Error::option(
                    "features",
                    format!(
                        "{} columns are named, one can be used; name one of them, or join columns of numbers into one list with make_array(a, b) in a subquery",
                        several.len()
                    ),
                ));
            }
            None => {}
        }
        let images = self.columns_where(|c| c != label && self.hugging_face.is_image(self.name(c)));
        let typed = self.columns_where(|c| c != label && FeatureKind::of(self.schema.field(c).data_type()).is_some());
        match (&images[..], &typed[..]) {
            ([one], _) => Ok((*one, "Hugging Face Image".into())),
            ([], [one]) => Ok((*one, format!("the only column of {}", self.kind(*one)?.described()))),
            ([], []) => Err(Error::Schema(format!(
                "no feature column: none holds pictures (a struct of bytes and path, or binary) or lists of numbers. Name it with \
                 features => ['...'], or join columns of numbers into one list with make_array(a, b) in a subquery. The columns are {}",
                self.all()
            ))),
            (several, _) if !several.is_empty() => Err(self.several("feature", "features => ['...']", several)),
            (_, several) => Err(self.several("feature", "features => ['...']", several)),
        }
    }

    fn several(&self, role: &str, option: &str, candidates: &[usize]) -> Error {
        Error::Schema(format!(
            "several columns could be the {role}: {}. Name one with {option}, or leave others out with exclude. The columns are {}",
            self.listing(candidates.iter().copied()),
            self.all()
        ))
    }

    /// How the feature column is stored.
    pub(super) fn kind(&self, feature: usize) -> Result<FeatureKind> {
        let field = self.schema.field(feature);
        FeatureKind::of(field.data_type()).ok_or_else(|| {
            Error::column(
                field.name(),
                format!(
                    "a {} can't be the feature, which is a struct of bytes and path, binary pictures or lists of numbers up to three \
                     deep; name another with features => ['...'], or convert it in a subquery",
                    field.data_type()
                ),
            )
        })
    }

    /// All columns with their roles.
    pub(super) fn columns(&self, label: (usize, String), feature: (usize, String)) -> Result<Vec<Column>> {
        for name in &self.options.exclude {
            self.named("exclude", name)?;
        }
        let role = |c: usize| match c {
            c if c == label.0 => (Role::Label, label.1.clone()),
            c if c == feature.0 => (Role::Feature, feature.1.clone()),
            c if self.excluded(c) => (Role::Excluded, "option exclude: NULL in the synthetic rows".into()),
            _ => (Role::Carried, "neither label nor feature: NULL in the synthetic rows".into()),
        };
        let columns = self.schema.fields().iter().enumerate().map(|(c, field)| {
            let (role, reason) = role(c);
            Column { name: field.name().clone(), role, reason }
        });
        Ok(columns.collect())
    }
}
