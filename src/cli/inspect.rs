//! A Parquet file flows in; what is in it, for people or programs, flows out, with pictures if asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::arrow::datatypes::SchemaRef;
use crate::cli::beside::Beside;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::ReadFlags;
use crate::cli::usage::{human_bytes, human_count};
use crate::cli::{sheet, table};
use crate::error::Error;
use crate::options::Options;
use crate::parquet::arrow::ProjectionMask;
use crate::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use crate::rows::{Decoder, Label, Layout, MOSAIC, Role, Shape, has_mosaic_column, mosaic_side, mosaic_sides};
use crate::sql::PROVENANCE_KEY;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    distill inspect small.parquet\n  \
    distill inspect small.parquet -o sheet.png\n  \
    distill inspect train.parquet --json")]
pub(super) struct InspectArgs {
    /// The Parquet file.
    file: PathBuf,

    /// Draw a contact sheet, one row of pictures a class with its name, into this PNG file.
    #[arg(short, long, value_name = "SHEET.png")]
    output: Option<PathBuf>,

    /// Replace the sheet if it exists.
    #[arg(long, requires = "output")]
    overwrite: bool,

    /// Most pictures of a class on the sheet.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    columns: u16,

    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ReadFlags,
}

pub(super) fn inspect(args: InspectArgs, quiet: bool) -> Outcome {
    let options = args.reading.options()?;
    let file = Inspected::open(&args.file)?;
    let layout = Layout::infer(&file.schema, &options);
    let sides = file.sides()?;
    let classes = layout.as_ref().ok().map(|layout| file.classes(layout, &sides)).transpose()?;
    let mut out = std::io::stdout();
    let described = file.described(&args.file, layout.as_ref(), classes.as_ref(), &sides);
    if args.json {
        writeln!(out, "{described}")?;
    } else if !quiet {
        write!(out, "{}", text(&described))?;
    }
    if let Some(path) = &args.output {
        let rows = file.pictures(&layout?, &options, usize::from(args.columns), &args.file)?;
        let (beside, mut png) = Beside::create(path, args.overwrite)?;
        sheet::draw(&rows)?.write_to(&mut std::io::BufWriter::new(&mut png), image::ImageFormat::Png)?;
        beside.finish(png)?;
        if !(args.json || quiet) {
            writeln!(out, "\n{}: {} classes drawn", path.display(), rows.len())?;
        }
    }
    Ok(())
}

/// Rows by label, and the pictures that these hold.
type Classes = BTreeMap<Option<Label>, (u64, u64)>;

/// Pictures a side that a file's rows hold.
enum Sides {
    /// As many, all of them.
    Same(usize),
    /// Those of each row.
    Each(Vec<usize>),
}

impl Sides {
    fn of(&self, row: usize) -> usize {
        match self {
            Self::Same(side) => *side,
            Self::Each(sides) => sides.get(row).copied().unwrap_or(1),
        }
    }

    fn most(&self) -> usize {
        match self {
            Self::Same(side) => *side,
            Self::Each(sides) => sides.iter().max().copied().unwrap_or(1),
        }
    }

    /// Pictures that `rows` rows, which are all, hold.
    fn pictures(&self, rows: i64) -> i64 {
        match self {
            Self::Same(side) => rows.saturating_mul(side.pow(2) as i64),
            Self::Each(sides) => sides.iter().map(|side| side.pow(2) as i64).sum(),
        }
    }

    /// Rows of `rows` that hold several.
    fn mosaics(&self, rows: i64) -> i64 {
        match self {
            Self::Same(side) => {
                if *side > 1 {
                    rows
                } else {
                    0
                }
            }
            Self::Each(sides) => sides.iter().filter(|side| **side > 1).count() as i64,
        }
    }
}

struct Inspected {
    path: PathBuf,
    schema: SchemaRef,
    rows: i64,
    row_groups: usize,
    bytes: u64,
    provenance: Option<String>,
}

impl Inspected {
    fn open(path: &Path) -> Outcome<Self> {
        let builder = Self::builder(path)?;
        let bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        let footer = builder.metadata().file_metadata();
        let note = footer.key_value_metadata().into_iter().flatten().find(|note| note.key == PROVENANCE_KEY);
        let schema = builder.schema().clone();
        let provenance = note.and_then(|n| n.value.clone()).or_else(|| schema.metadata().get(PROVENANCE_KEY).cloned());
        let (rows, row_groups) = (footer.num_rows(), builder.metadata().num_row_groups());
        Ok(Self { path: path.into(), schema, rows, row_groups, bytes, provenance })
    }

    fn builder(path: &Path) -> Outcome<ParquetRecordBatchReaderBuilder<File>> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if file.metadata().map_err(|e| Error::io(path, e))?.is_dir() {
            return Err(Failure::new(format!("{} is a folder; inspect takes one Parquet file", path.display())));
        }
        ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|e| Failure::new(format!("{} can't be read as Parquet: {e}", path.display())))
    }

    /// Reads the columns at `positions` of the schema, in the schema's order.
    fn read(&self, positions: &[usize]) -> Outcome<ParquetRecordBatchReader> {
        let builder = Self::builder(&self.path)?;
        let mask = ProjectionMask::roots(builder.parquet_schema(), positions.iter().copied());
        Ok(builder.with_projection(mask).with_batch_size(1024).build()?)
    }

    /// Rows by label, and the pictures that these hold, as many a side as `sides` says; `None` is NULL.
    fn classes(&self, layout: &Layout, sides: &Sides) -> Outcome<Classes> {
        let mut counts = Classes::new();
        let mut row = 0;
        for batch in self.read(&[layout.label])? {
            for label in Label::from_array(layout.label_name(), batch?.column(0))? {
                let (rows, pictures) = counts.entry(label).or_default();
                *rows += 1;
                *pictures += sides.of(row).pow(2) as u64;
                row += 1;
            }
        }
        Ok(counts)
    }

    /// Pictures a side that each row holds, as a column says, or a note of all.
    fn sides(&self) -> Outcome<Sides> {
        if !has_mosaic_column(&self.schema) {
            return Ok(Sides::Same(self.schema.fields().iter().map(|field| mosaic_side(field)).max().unwrap_or(1)));
        }
        let mut sides = vec![];
        for batch in self.read(&[self.schema.index_of(MOSAIC).map_err(Error::from)?])? {
            let first_row = sides.len() as u64;
            sides.extend(mosaic_sides(&self.path.display().to_string(), first_row, batch?.column(0))?);
        }
        Ok(Sides::Each(sides))
    }

    /// Name and first pictures of each class.
    fn pictures(&self, layout: &Layout, options: &Options, most: usize, path: &Path) -> Outcome<Vec<sheet::Row>> {
        let Some(feature) = layout.single() else {
            return Err(Failure::new(format!("{}: a table without pictures can't be drawn", path.display())));
        };
        let decoder = Decoder::new(layout, options)?;
        // The reader keeps the schema's order, whatever order the columns are asked for in.
        let order = if feature.column < layout.label { [0, 1] } else { [1, 0] };
        let place = format!("{}, ", path.display());
        let (mut shape, mut first_row) = (None, 0);
        let mut pictures: BTreeMap<Label, Vec<Vec<f32>>> = BTreeMap::new();
        for batch in self.read(&[feature.column, layout.label])? {
            let batch = batch?;
            let columns = order.map(|i| batch.column(i).clone());
            let rows = decoder.decode(&columns, None, shape, &place, first_row)?;
            first_row += batch.num_rows() as u64;
            for i in 0..rows.len() {
                shape = Some(rows.shape);
                let kept = pictures.entry(rows.labels[i].clone()).or_default();
                if kept.len() < most {
                    kept.push(rows.row(i).to_vec());
                }
            }
        }
        let Some(Shape::Picture { channels, height, width }) = shape else {
            return Err(Failure::new(match shape {
                Some(other) => format!(
                    "{}: column '{}' holds a {other}, which is no picture; --image-size HxW reads it as one",
                    path.display(),
                    layout.name_of(feature)
                ),
                None => format!("{}: no rows to draw", path.display()),
            }));
        };
        let (low, high) = layout.static_range(options).unwrap_or_else(|| {
            let values = pictures.values().flatten().flatten();
            values.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
        });
        let scale = 255.0 / (high - low).max(f32::MIN_POSITIVE);
        let byte = |v: f32| ((v - low) * scale).round().clamp(0.0, 255.0) as u8;
        let picture = |values: &Vec<f32>| {
            image::RgbImage::from_fn(width as u32, height as u32, |x, y| {
                let at = |channel: usize| {
                    byte(values[(channel.min(channels - 1) * height + y as usize) * width + x as usize])
                };
                image::Rgb([at(0), at(1), at(2)])
            })
        };
        Ok(pictures
            .iter()
            .map(|(label, rows)| sheet::Row {
                name: layout.class_name(label),
                pictures: rows.iter().map(picture).collect(),
            })
            .collect())
    }

    fn described(
        &self,
        path: &Path,
        layout: Result<&Layout, &Error>,
        classes: Option<&Classes>,
        sides: &Sides,
    ) -> Value {
        let columns: Vec<Value> = self
            .schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, field)| {
                let column = layout.ok().and_then(|layout| layout.columns.get(i));
                json!({
                    "name": field.name(),
                    "type": field.data_type().to_string(),
                    "nullable": field.is_nullable(),
                    "role": column.map(|c| match c.role {
                        Role::Label => "label",
                        Role::Feature => "feature",
                        Role::Carried => "carried",
                        Role::Excluded => "excluded",
                    }),
                    "reason": column.map(|c| c.reason.clone()),
                })
            })
            .collect();
        let class = |(label, (rows, pictures)): (&Option<Label>, &(u64, u64))| {
            let name = match (label, layout) {
                (Some(label), Ok(layout)) => Some(layout.class_name(label)),
                _ => None,
            };
            json!({ "label": label, "name": name, "rows": rows, "decoded_rows": pictures })
        };
        let provenance =
            self.provenance.as_deref().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        json!({
            "file": path.display().to_string(),
            "bytes": self.bytes,
            "rows": self.rows,
            "decoded_rows": sides.pictures(self.rows),
            "row_groups": self.row_groups,
            "mosaic": sides.most(),
            "mosaic_rows": sides.mosaics(self.rows),
            "columns": columns,
            "roles_unknown": layout.err().map(ToString::to_string),
            "classes": classes.map(|classes| classes.iter().map(class).collect::<Vec<_>>()),
            "provenance": provenance,
        })
    }
}

/// Most classes that the text lists.
const CLASSES_SHOWN: usize = 100;

fn text(described: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let known = |value: &Value| if value.is_null() { "-".into() } else { word(value) };
    let list = |key: &str| described[key].as_array().cloned().unwrap_or_default();
    let count = |value: &Value| human_count(value.as_u64().unwrap_or(0));
    let mut out = format!(
        "{}: {} rows{}, {}\n\n",
        word(&described["file"]),
        count(&described["rows"]),
        match described["mosaic"].as_u64().unwrap_or(1) {
            0 | 1 => String::new(),
            side => {
                let decoded = count(&described["decoded_rows"]);
                let mosaics = &described["mosaic_rows"];
                let held = if *mosaics == described["rows"] {
                    format!("whose pictures hold {} each and", side * side)
                } else {
                    format!("{} of which hold {} pictures each, and which", count(mosaics), side * side)
                };
                format!(", {held} decode to {decoded}")
            }
        },
        human_bytes(described["bytes"].as_u64().unwrap_or(0))
    );

    let columns: Vec<Vec<String>> =
        list("columns").iter().map(|c| ["name", "role", "type", "reason"].map(|key| known(&c[key])).to_vec()).collect();
    out += &table::left_aligned(&["column", "role", "type", "because"], &columns);
    if let Some(why) = described["roles_unknown"].as_str() {
        out += &format!("\nroles can't be told: {why}\n");
    }

    let classes = list("classes");
    if !classes.is_empty() {
        let rows: Vec<Vec<String>> = classes
            .iter()
            .take(CLASSES_SHOWN)
            .map(|c| {
                let label = if c["label"].is_null() { "NULL".into() } else { word(&c["label"]) };
                let name = c["name"].as_str().filter(|name| *name != label);
                vec![name.map_or_else(|| label.clone(), |name| format!("{label} {name}")), count(&c["rows"])]
            })
            .collect();
        out += &format!("\n{}", table::aligned(&["class", "rows"], &rows));
        if classes.len() > CLASSES_SHOWN {
            out += &format!("... and {} more\n", classes.len() - CLASSES_SHOWN);
        }
    }

    match &described["provenance"] {
        Value::Null => {}
        Value::Object(note) => {
            out += "\ndistilled by datafusion-distill\n";
            let rows: Vec<Vec<String>> = note
                .iter()
                .flat_map(|(key, value)| match value {
                    Value::Object(inner) => inner.iter().map(|(k, v)| vec![format!("{key}.{k}"), word(v)]).collect(),
                    other => vec![vec![key.clone(), word(other)]],
                })
                .collect();
            let lines = table::left_aligned(&["", ""], &rows);
            out += lines.split_once('\n').map_or("", |(_, rest)| rest);
        }
        other => out += &format!("\ndistilled by datafusion-distill: {}\n", word(other)),
    }
    out
}
