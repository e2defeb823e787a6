//! A schema and the options flow in; the source's layout flows out: the role of each column, and what types, metadata
//! and options tell of its rows.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use crate::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use crate::error::{Error, Result, nearest_hint};
use crate::options::{Encoding, OnNull, Options, Ranges};
use crate::rows::form::{self, Order};
use crate::rows::hugging_face::HuggingFace;
use crate::rows::label::sql_name;
use crate::rows::roles::Finder;
use crate::rows::{Label, Shape};

/// What a column is to the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The class.
    Label,
    /// What the synthetic rows are made of.
    Feature,
    /// Neither; NULL in the synthetic rows.
    Carried,
    /// Left out by `exclude`; not in the synthetic rows.
    Excluded,
}

/// One column with its role and the reason for it.
#[derive(Clone, Debug)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Why, as EXPLAIN shows it.
    pub reason: String,
}

/// How a feature column stores its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// `struct<bytes: binary, path: string>`, as Hugging Face stores pictures.
    PictureStruct,
    /// PNG or JPEG in a bare binary column.
    PictureBinary,
    /// A list (of lists) of numbers; FixedSizeList, List, LargeList, `arrow.fixed_shape_tensor`.
    Numbers,
    /// One number a row: integer, float or decimal.
    Number,
    /// One of a few values a row: text, boolean, a dictionary, or an integer that `categorical` names.
    Category,
}

impl FeatureKind {
    /// The kind of a column of pictures or lists, told by its type; `None` for any other.
    pub fn of(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Struct(fields) if fields.len() == 2 => {
                let holds = |name: &str, test: fn(&DataType) -> bool| {
                    fields.iter().any(|f| f.name() == name && test(f.data_type()))
                };
                (holds("bytes", is_binary) && holds("path", is_text)).then_some(Self::PictureStruct)
            }
            t if is_binary(t) => Some(Self::PictureBinary),
            t => form::nesting(t).map(|_| Self::Numbers),
        }
    }

    /// Whether it holds pictures in a picture format.
    pub fn is_picture(&self) -> bool {
        matches!(self, Self::PictureStruct | Self::PictureBinary)
    }

    /// The kind of a column of a table that has one value a row, told by its type; `None` for any other.
    pub fn of_scalar(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Self::Category),
            DataType::Dictionary(_, value) => Self::of_scalar(value).map(|_| Self::Category),
            t if t.is_numeric() => Some(Self::Number),
            _ => None,
        }
    }

    /// Whether a row has one value of it.
    pub fn is_scalar(&self) -> bool {
        matches!(self, Self::Number | Self::Category)
    }

    pub(super) fn described(&self) -> &'static str {
        match self {
            Self::PictureStruct => "pictures (a struct of bytes and path)",
            Self::PictureBinary => "pictures (binary)",
            Self::Numbers => "lists of numbers",
            Self::Number => "numbers",
            Self::Category => "categories",
        }
    }
}

fn is_binary(t: &DataType) -> bool {
    matches!(t, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_text(t: &DataType) -> bool {
    matches!(t, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null)
}

/// One column that the synthetic rows are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its position in the schema.
    pub column: usize,
    /// How it is stored.
    pub kind: FeatureKind,
}

/// What a look at the source's first rows and files tells beside its schema.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Rows looked at; 0: none.
    pub rows: usize,
    /// Columns of text or whole numbers that have nearly as many distinct values as rows.
    pub near_unique: BTreeSet<String>,
    /// Columns of text that are UUIDs.
    pub uuids: BTreeSet<String>,
    /// Columns that come from the names of folders (`day=1/`).
    pub partitions: BTreeSet<String>,
}

/// The roles of all columns of a source.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The source's schema, metadata included.
    pub schema: SchemaRef,
    /// One entry a column, in the schema's order.
    pub columns: Vec<Column>,
    /// The label's position in `schema`.
    pub label: usize,
    /// The features, in the schema's order: one column of pictures or lists, or the columns of a table.
    pub features: Vec<Feature>,
    /// The names of a Hugging Face ClassLabel, by label value.
    pub class_names: Option<Vec<String>>,
    /// The order of the numbers in lists of three levels whose type doesn't tell it: set by the decoder's first row, read
    /// by the encoder, shared by the clones of one layout. One entry a feature.
    pub(super) orders: Vec<Arc<OnceLock<Order>>>,
}

impl Layout {
    /// [`Layout::infer_with`] without hints.
    pub fn infer(schema: &SchemaRef, options: &Options) -> Result<Self> {
        Self::infer_with(schema, options, &Hints::default())
    }

    /// Finds label and features, from the options, the Hugging Face metadata, the names, the types and `hints`.
    ///
    /// Fails with [`Error::Option`] for options that name no column or unknown classes, with [`Error::Schema`] where
    /// none or several columns could be label or feature, with [`Error::Column`] for types that can't be either.
    pub fn infer_with(schema: &SchemaRef, options: &Options, hints: &Hints) -> Result<Self> {
        let finder = Finder::new(schema, options, hints);
        let (label, label_reason) = finder.label()?;
        let found = finder.features(label)?;
        let label_field = schema.field(label);
        Label::check_type(label_field.name(), label_field.data_type())?;
        let layout = Self {
            schema: schema.clone(),
            columns: finder.columns((label, label_reason), &found)?,
            label,
            orders: found.iter().map(|_| Arc::default()).collect(),
            features: found.into_iter().map(|found| found.feature).collect(),
            class_names: HuggingFace::of(schema).class_names(label_field.name()),
        };
        layout.check(options)?;
        layout.classes(options)?;
        Ok(layout)
    }

    /// Refuses options that don't suit the features.
    fn check(&self, options: &Options) -> Result<()> {
        let single = self.single();
        if let (Some(Ranges::List(_)), Some(feature)) = (&options.ranges, single)
            && feature.kind.is_picture()
        {
            let name = self.name_of(feature);
            let message = format!("column '{name}' holds pictures, which always go from 0 to 255; leave it out");
            return Err(Error::option("ranges", message));
        }
        let scalars = || self.features.iter().filter(|f| f.kind.is_scalar()).map(|f| self.name_of(f));
        match &options.ranges {
            Some(Ranges::List(range)) if single.is_none() => {
                let name = scalars().next().unwrap_or("column");
                let message = format!(
                    "'{range}' is for one list column, this is a table; write '{name}={}..{}'",
                    range.low, range.high
                );
                return Err(Error::option("ranges", message));
            }
            Some(Ranges::Columns(columns)) => {
                if let Some((name, _)) = columns.iter().find(|(name, _)| scalars().all(|scalar| scalar != name)) {
                    let hint = nearest_hint(name, scalars());
                    let message = format!("'{name}' is no feature column of numbers or categories{hint}");
                    return Err(Error::option("ranges", message));
                }
            }
            _ => {}
        }
        if options.on_null == OnNull::Impute && single.is_some() {
            let message = "'impute' is for tables; pictures and lists are whole or left out: use 'skip'";
            return Err(Error::option("on_null", message));
        }
        for feature in &self.features {
            self.static_form(feature, options)?;
        }
        Ok(())
    }

    /// Of the `index`th feature, where it is lists of three levels whose type doesn't tell it and a row has been decoded: whether its
    /// channels are innermost.
    pub(crate) fn channels_last(&self, index: usize) -> Option<bool> {
        self.orders.get(index)?.get().map(|order| *order == Order::ChannelsLast)
    }

    /// Says it before any row is decoded.
    pub(crate) fn set_channels_last(&self, index: usize, channels_last: bool) {
        if let Some(order) = self.orders.get(index) {
            order.get_or_init(|| if channels_last { Order::ChannelsLast } else { Order::ChannelsFirst });
        }
    }

    /// Whether a column of lists has one level.
    pub(crate) fn is_flat(&self, feature: &Feature) -> bool {
        form::nesting(self.schema.field(feature.column).data_type()).is_some_and(|(levels, _)| levels == 1)
    }

    /// The label column's name.
    pub fn label_name(&self) -> &str {
        self.schema.field(self.label).name()
    }

    /// The name of a feature column.
    pub fn name_of(&self, feature: &Feature) -> &str {
        self.schema.field(feature.column).name()
    }

    /// The one column of pictures or lists that is all of the features; `None`: a table.
    pub fn single(&self) -> Option<&Feature> {
        match &self.features[..] {
            [feature] if !feature.kind.is_scalar() => Some(feature),
            _ => None,
        }
    }

    /// What the job reads: the positions in `schema` of the features, then of the label.
    pub fn projection(&self) -> Vec<usize> {
        self.features.iter().map(|f| f.column).chain([self.label]).collect()
    }

    /// The positions in `schema` of the columns that the synthetic rows have: all but those of `exclude`.
    pub fn output_columns(&self) -> impl Iterator<Item = usize> + '_ {
        let kept = |(_, column): &(usize, &Column)| column.role != Role::Excluded;
        self.columns.iter().enumerate().filter(kept).map(|(position, _)| position)
    }

    /// The label's position among [`Layout::output_columns`].
    pub fn output_label(&self) -> usize {
        self.output_columns().take_while(|c| *c != self.label).count()
    }

    /// The schema of the synthetic rows: the source's, but for `exclude` and `encoding => 'tensor'`.
    ///
    /// There a column of pictures becomes `List<List<List<Float32>>>`, the lists being channels, rows of pixels and
    /// pixels from the outside in, so that the column itself tells the shape to any reader, this crate included. Its
    /// Hugging Face feature becomes `Sequence` of `Sequence` of `Sequence` of `Value` float32. Columns of lists keep their exact type.
    ///
    /// Fails with [`Error::Column`] for columns that are NOT NULL, but neither label nor feature: the synthetic rows have no value for them.
    pub fn output_schema(&self, options: &Options) -> Result<SchemaRef> {
        self.check_nullable()?;
        let mut fields: Vec<FieldRef> = self.schema.fields().to_vec();
        let mut metadata = self.schema.metadata().clone();
        for feature in self.features.iter().filter(|f| options.encoding == Encoding::Tensor && f.kind.is_picture()) {
            let field = self.schema.field(feature.column);
            let mut notes = field.metadata().clone();
            notes.retain(|key, _| !key.starts_with("ARROW:extension:"));
            let tensor = Field::new(field.name(), tensor_type(), field.is_nullable()).with_metadata(notes);
            fields[feature.column] = Arc::new(tensor);
            metadata = HuggingFace::of_metadata(&metadata).with_tensor(&metadata, field.name());
        }
        for column in self.columns.iter().filter(|c| c.role == Role::Excluded) {
            metadata = HuggingFace::of_metadata(&metadata).without(&metadata, &column.name);
        }
        let fields: Vec<FieldRef> = self.output_columns().map(|c| Arc::clone(&fields[c])).collect();
        Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
    }

    fn check_nullable(&self) -> Result<()> {
        let empty = |(field, column): &(&FieldRef, &Column)| column.role == Role::Carried && !field.is_nullable();
        let Some((field, _)) = self.schema.fields().iter().zip(&self.columns).find(empty) else { return Ok(()) };
        let name = field.name();
        let needed: Vec<String> =
            self.projection().into_iter().map(|c| sql_name(self.schema.field(c).name())).collect();
        Err(Error::column(
            name,
            format!(
                "is NOT NULL, but neither label nor feature, so the synthetic rows have no value for it; leave it out of the output with \
                 exclude => ['{name}'], make it a feature, or take the needed columns alone as the source: (SELECT {} FROM ...)",
                needed.join(", ")
            ),
        ))
    }

    /// The shape of a row's features where schema and options alone tell it (fixed-size lists, tensors, Hugging Face arrays,
    /// `image_size` with channels for pictures, `image_size` for flat lists; tables without pictures and lists of unknown length).
    pub fn static_shape(&self, options: &Options) -> Option<Shape> {
        match self.single() {
            Some(feature) => self.shape_of(feature, options),
            None => {
                let lens = self.features.iter().map(|f| match f.kind {
                    FeatureKind::Category => Some(1),
                    FeatureKind::Number => Some(1 + usize::from(self.may_miss(f, options))),
                    _ => self.shape_of(f, options).map(Shape::len),
                });
                Some(Shape::Vector { len: lens.sum::<Option<usize>>()? })
            }
        }
    }

    /// Whether rows may miss the number or category of a feature column: it has NULLs, or NaN, and `on_null` takes them.
    pub(super) fn may_miss(&self, feature: &Feature, options: &Options) -> bool {
        let field = self.schema.field(feature.column);
        options.on_null == OnNull::Impute
            && feature.kind.is_scalar()
            && (field.is_nullable() || field.data_type().is_floating())
    }

    /// The shape of a row of a column of pictures or lists.
    pub(super) fn shape_of(&self, feature: &Feature, options: &Options) -> Option<Shape> {
        match (&feature.kind, options.image_size) {
            (FeatureKind::Numbers, _) => self.static_form(feature, options).ok().flatten().map(|(shape, _)| shape),
            (_, Some(size)) => {
                size.channels.map(|channels| Shape::Picture { channels, height: size.height, width: size.width })
            }
            (_, None) => None,
        }
    }

    /// Shape and order of a list column's rows, where its type and the options tell them.
    pub(super) fn static_form(&self, feature: &Feature, options: &Options) -> Result<Option<(Shape, Order)>> {
        if feature.kind != FeatureKind::Numbers {
            return Ok(None);
        }
        let field = self.schema.field(feature.column);
        let declared = HuggingFace::of(&self.schema).array_dims(field.name());
        form::static_form(field, declared, options.image_size).map_err(|message| Error::column(field.name(), message))
    }

    /// The lowest and highest value a feature's number can take, where type and options alone tell it (pictures and
    /// bytes: 0 and 255; `ranges`). `None`: a scan must find it; of tables too.
    pub fn static_range(&self, options: &Options) -> Option<(f32, f32)> {
        let feature = self.single()?;
        let field = self.schema.field(feature.column);
        let declared = options.ranges.as_ref().and_then(Ranges::list);
        match (&feature.kind, declared, form::nesting(field.data_type())) {
            (FeatureKind::Numbers, Some(range), _) => Some((range.low as f32, range.high as f32)),
            (FeatureKind::Numbers, None, Some((_, DataType::UInt8))) => Some((0.0, 255.0)),
            (FeatureKind::Numbers, None, _) => None,
            (_, _, _) => Some((0.0, 255.0)),
        }
    }

    /// The label's Hugging Face name, or its value.
    pub fn class_name(&self, label: &Label) -> String {
        match (label, &self.class_names) {
            (Label::Int(value), Some(names)) => usize::try_from(*value).ok().and_then(|i| names.get(i)).cloned(),
            _ => None,
        }
        .unwrap_or_else(|| label.to_string())
    }

    /// The labels that the option `classes` keeps, given as Hugging Face names or as label values; `None`: all.
    ///
    /// Fails with [`Error::Option`] for what can't be a label of the column.
    pub fn classes(&self, options: &Options) -> Result<Option<BTreeSet<Label>>> {
        let Some(classes) = &options.classes else { return Ok(None) };
        classes.iter().map(|class| self.class(class)).collect::<Result<_>>().map(Some)
    }

    fn class(&self, text: &str) -> Result<Label> {
        let data_type = self.schema.field(self.label).data_type();
        let names = self.class_names.as_deref().unwrap_or_default();
        if let Some(value) = names.iter().position(|name| name == text) {
            return Ok(Label::Int(value as i64));
        }
        let named = |label: &Label| match label {
            Label::Int(value) if !names.is_empty() => usize::try_from(*value).is_ok_and(|v| v < names.len()),
            _ => true,
        };
        Label::parse(text, data_type).filter(named).ok_or_else(|| {
            let hint = match data_type {
                _ if !names.is_empty() => nearest_hint(text, names.iter().map(String::as_str)),
                DataType::Boolean => "; expected true or false".into(),
                _ => "; expected a whole number".into(),
            };
            Error::option("classes", format!("'{text}' is not a class of column '{}'{hint}", self.label_name()))
        })
    }
}

/// The type of a picture column under `encoding => 'tensor'`.
pub(super) fn tensor_type() -> DataType {
    (0..3).fold(DataType::Float32, |inner, _| DataType::List(Arc::new(Field::new("item", inner, true))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ImageSize, Range};

    const MNIST: &str = r#"{"info":{"features":{"image":{"_type":"Image"},"id":{"dtype":"int64","_type":"Value"},
        "label":{"names":["zero","one","two"],"_type":"ClassLabel"}}}}"#;

    fn picture() -> DataType {
        let fields = [Field::new("bytes", DataType::Binary, true), Field::new("path", DataType::Utf8, true)];
        DataType::Struct(fields.into_iter().collect())
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", item, true)))
    }

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        Arc::new(Schema::new(columns.iter().map(|(n, t)| Field::new(*n, t.clone(), true)).collect::<Vec<_>>()))
    }

    fn mnist() -> SchemaRef {
        let plain = schema(&[("image", picture()), ("id", DataType::Int64), ("label", DataType::Int64)]);
        let metadata = [("huggingface".to_string(), MNIST.to_string()), ("origin".to_string(), "NIST".to_string())];
        Arc::new(plain.as_ref().clone().with_metadata(metadata.into()))
    }

    fn failure(schema: &SchemaRef, options: &Options) -> String {
        Layout::infer(schema, options).unwrap_err().to_string()
    }

    #[test]
    fn hugging_face_metadata_tells_roles_names_and_reasons() {
        let layout = Layout::infer(&mnist(), &Options::default()).unwrap();
        let told: Vec<_> = layout.columns.iter().map(|c| (c.name.as_str(), c.role, c.reason.as_str())).collect();
        let carried = "neither label nor feature: NULL in the synthetic rows";
        assert_eq!(
            told,
            [
                ("image", Role::Feature, "Hugging Face Image"),
                ("id", Role::Carried, carried),
                ("label", Role::Label, "Hugging Face ClassLabel with 3 names")
            ]
        );
        assert_eq!(layout.class_name(&Label::Int(2)), "two");
        assert_eq!(layout.class_name(&Label::Int(7)), "7");
        assert_eq!(layout.static_range(&Options::default()), Some((0.0, 255.0)));
    }

    #[test]
    fn names_and_types_tell_roles_without_metadata() {
        for (name, data_type, kind) in [
            ("Label", picture(), FeatureKind::PictureStruct),
            ("TARGET", DataType::BinaryView, FeatureKind::PictureBinary),
            ("y", list(list(list(DataType::Float16))), FeatureKind::Numbers),
            ("fine_label", list(DataType::Decimal128(5, 2)), FeatureKind::Numbers),
        ] {
            let layout =
                Layout::infer(&schema(&[("x", data_type), (name, DataType::Utf8)]), &Options::default()).unwrap();
            assert_eq!((layout.single(), layout.label), (Some(&Feature { column: 0, kind }), 1));
            assert_eq!(layout.columns[1].reason, format!("named '{name}'"));
        }
    }

    #[test]
    fn options_come_before_metadata() {
        let options = Options { label: Some("id".into()), exclude: vec!["label".into()], ..Default::default() };
        let layout = Layout::infer(&mnist(), &options).unwrap();
        assert_eq!(layout.columns[2].role, Role::Excluded);
        assert_eq!((layout.label_name(), layout.class_names.as_ref()), ("id", None));
    }

    #[test]
    fn soft_labels_of_a_job_before_are_no_candidate() {
        let columns = [("x", picture()), ("y", DataType::Int64), ("soft_label", list(DataType::Float32))];
        let layout = Layout::infer(&schema(&columns), &Options::default()).unwrap();
        assert_eq!(layout.features.iter().map(|f| f.column).collect::<Vec<_>>(), [0]);
        // Nor where all else is a table's.
        let columns = [("x", DataType::Float64), ("y", DataType::Int64), ("soft_label", list(DataType::Float32))];
        let layout = Layout::infer(&schema(&columns), &Options::default()).unwrap();
        assert_eq!(layout.features.iter().map(|f| f.column).collect::<Vec<_>>(), [0]);
        let named = Options { features: Some(vec!["soft_label".into()]), ..Options::default() };
        assert_eq!(Layout::infer(&schema(&columns), &named).unwrap().features[0].column, 2);
    }

    #[test]
    fn none_or_several_candidates_list_the_columns_and_the_option() {
        let o = Options::default();
        let e = failure(&schema(&[("x", list(DataType::Int8)), ("kind", DataType::Utf8)]), &o);
        assert!(e.contains("no label column") && e.contains("label => ") && e.contains("kind (Utf8)"), "{e}");
        let e = failure(&schema(&[("x", picture()), ("y", DataType::Utf8), ("class", DataType::Int8)]), &o);
        assert!(e.contains("several") && e.contains("y (Utf8), class (Int8)") && e.contains("Struct of bytes"), "{e}");
        let e = failure(&schema(&[("a", DataType::Date32), ("y", DataType::Utf8)]), &o);
        assert!(
            e.contains("no feature column") && e.contains("features => ['...']") && e.contains("a (Date32)"),
            "{e}"
        );
        let e = failure(&schema(&[("a", picture()), ("b", DataType::Binary), ("y", DataType::Utf8)]), &o);
        assert!(e.contains("several columns could be the feature: a (Struct of bytes and path), b (Binary)"), "{e}");
        let both = r#"{"info":{"features":{"a":{"names":["u"],"_type":"ClassLabel"},"b":{"names":["v"],"_type":"ClassLabel"}}}}"#;
        let two =
            schema(&[("x", picture()), ("a", DataType::Int64), ("b", DataType::Int64), ("label", DataType::Int64)]);
        let two = two.as_ref().clone().with_metadata([("huggingface".to_string(), both.to_string())].into());
        let e = failure(&Arc::new(two), &o);
        assert!(e.contains("several columns could be the label: a (Int64), b (Int64)"), "{e}");
    }

    #[test]
    fn options_that_fit_no_column_name_the_nearest() {
        let o = Options::default();
        let features = |names: &[&str]| Some(names.iter().map(|n| n.to_string()).collect());
        for (options, part) in [
            (Options { label: Some("lable".into()), ..o.clone() }, "did you mean 'label'"),
            (Options { features: features(&["pixels"]), ..o.clone() }, "expected one of image, id, label"),
            (Options { features: features(&["image", "image"]), ..o.clone() }, "is named twice"),
            (Options { on_null: OnNull::Impute, ..o.clone() }, "'impute' is for tables"),
            (Options { features: features(&["id"]), label: Some("id".into()), ..o.clone() }, "is the label"),
            (Options { exclude: vec!["imag".into()], ..o.clone() }, "did you mean 'image'"),
            (Options { label: Some("id".into()), exclude: vec!["id".into()], ..o.clone() }, "left out by exclude"),
            (Options { label: Some("image".into()), exclude: vec!["label".into()], ..o.clone() }, "no feature column"),
            (Options { ranges: Some(Ranges::List(Range { low: 0.0, high: 1.0 })), ..o.clone() }, "holds pictures"),
            (Options { classes: features(&["one", "tow"]), ..o.clone() }, "did you mean 'two'"),
            (Options { classes: features(&["3"]), ..o.clone() }, "not a class of column 'label'"),
        ] {
            let e = failure(&mnist(), &options);
            assert!(e.contains(part), "{e}");
        }
    }

    #[test]
    fn classes_are_names_or_values() {
        let options = Options { classes: Some(vec!["two".into(), "0".into()]), ..Default::default() };
        let layout = Layout::infer(&mnist(), &options).unwrap();
        assert_eq!(layout.classes(&options).unwrap(), Some([Label::Int(0), Label::Int(2)].into()));
    }

    #[test]
    fn a_float_label_and_a_carried_column_that_is_not_null_are_errors_with_a_way_out() {
        let o = Options::default();
        let e = failure(&schema(&[("x", picture()), ("y", DataType::Float64)]), &o);
        assert!(e.contains("CAST(y AS BIGINT)"), "{e}");
        let mut fields = mnist().fields().to_vec();
        fields[1] = Arc::new(Field::new("id", DataType::Int64, false));
        let layout = Layout::infer(&Arc::new(Schema::new(fields)), &o).unwrap();
        let e = layout.output_schema(&o).unwrap_err().to_string();
        assert!(e.contains("column 'id'") && e.contains("(SELECT image, label FROM ...)"), "{e}");
    }

    #[test]
    fn tensor_encoding_changes_the_picture_column_and_its_hugging_face_feature_alone() {
        let layout = Layout::infer(&mnist(), &Options::default()).unwrap();
        assert_eq!(layout.output_schema(&Options::default()).unwrap(), mnist());
        let tensor = layout.output_schema(&Options { encoding: Encoding::Tensor, ..Default::default() }).unwrap();
        assert_eq!(tensor.field(0).data_type(), &list(list(list(DataType::Float32))));
        assert_eq!(tensor.fields()[1..], mnist().fields()[1..]);
        assert_eq!(tensor.metadata()["origin"], "NIST");
        let json: serde_json::Value = serde_json::from_str(&tensor.metadata()["huggingface"]).unwrap();
        let features = &json["info"]["features"];
        assert_eq!(features["label"]["names"][1], "one");
        assert_eq!(features["image"]["_type"], "Sequence");
        assert_eq!(features["image"]["feature"]["feature"]["feature"]["dtype"], "float32");
        let again = Layout::infer(&tensor, &Options::default()).unwrap();
        assert_eq!(again.features, [Feature { column: 0, kind: FeatureKind::Numbers }]);
    }

    #[test]
    fn static_shapes_and_ranges_come_from_types_metadata_and_image_size() {
        let fixed = |item, n| DataType::FixedSizeList(Arc::new(Field::new("item", item, true)), n);
        let vector = |len| Some(Shape::Vector { len });
        let grey = |height, width| Some(Shape::Picture { channels: 1, height, width });
        let size = |channels| Some(ImageSize { height: 8, width: 8, channels });
        let bytes = Some((0.0, 255.0));
        for (data_type, image_size, shape, range) in [
            (fixed(DataType::UInt8, 64), None, vector(64), bytes),
            (fixed(DataType::UInt8, 64), size(None), grey(8, 8), bytes),
            (fixed(fixed(DataType::Float32, 5), 4), None, grey(4, 5), None),
            (list(DataType::Int64), None, None, None),
            (list(DataType::Int64), size(None), grey(8, 8), None),
            (list(list(DataType::UInt8)), size(None), None, bytes),
            (picture(), size(None), None, bytes),
            (picture(), size(Some(1)), grey(8, 8), bytes),
        ] {
            let options = Options { image_size, ..Default::default() };
            let layout = Layout::infer(&schema(&[("x", data_type), ("y", DataType::Utf8)]), &options).unwrap();
            assert_eq!((layout.static_shape(&options), layout.static_range(&options)), (shape, range));
        }
        let wrong = schema(&[("x", fixed(DataType::UInt8, 65)), ("y", DataType::Utf8)]);
        let e = failure(&wrong, &Options { image_size: size(None), ..Default::default() });
        assert!(e.contains("column 'x'") && e.contains("65 numbers"), "{e}");
    }
}
