//! Sources as SQL knows them flow in, their labelled rows, decoded alike and all in memory, flow out.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::common::Column;
use datafusion::prelude::{DataFrame, Expr, SessionContext};
use futures::TryStreamExt;

use crate::arrow::array::ArrayRef;
use crate::arrow::datatypes::SchemaRef;
use crate::arrow::record_batch::RecordBatch;
use crate::cli::failure::Outcome;
use crate::evaluate::Dataset;
use crate::options::{Curve, Options};
use crate::rows::{
    Decoder, Held, Label, Layout, MOSAIC, Profile, Rows, SOFT_LABEL, Shape, TableScaling, has_soft_labels,
    mosaic_sides, soft_labels, unpack_each,
};
use crate::sql;

/// Rows that are decoded at a time.
const BATCH: usize = 1024;

/// Reads all labelled rows of `sources`, each a path, directory, glob or URL, a table, or a query in parentheses. The roles of the columns
/// are those of the first one, which the others are read for; of a table, columns that have no values there are no features, nor are
/// the weights that a job added.
pub(super) async fn datasets(ctx: &SessionContext, sources: &[&str], options: &Options) -> Outcome<Vec<Dataset>> {
    let mut read = vec![];
    for source in sources {
        read.push((*source, sql::read(ctx, source).await?));
    }
    let Some((first, (_, schema))) = read.first() else { return Ok(vec![]) };
    let unweighted = without_added(schema, options);
    let layout = Layout::infer(schema, &unweighted)?;
    let options = match layout.single() {
        Some(_) => options.clone(),
        None => Options { features: Some(features(ctx, first, &layout, &unweighted).await?), ..options.clone() },
    };
    let mut opened = vec![];
    for (source, (frame, schema)) in read {
        opened.push(Source::open(source, frame, &schema, &options).await?);
    }
    let scaling = match layout.single() {
        Some(_) => None,
        None => {
            // Of all sources: the categories of each are known, and numbers keep their proportions, to be standardised later.
            let mut profile = Profile::new(&opened[0].layout);
            for source in &opened {
                for batch in &source.batches {
                    source.decoder.profile(batch.columns(), &mut profile)?;
                }
            }
            let options = Options { ranges: None, curve: Curve::Linear, ..options.clone() };
            Some(profile.scaling(&opened[0].layout, &options)?)
        }
    };
    opened.iter().map(|source| source.dataset(scaling.as_ref())).collect()
}

/// The options that leave out the column of weights that a job has added to rows of `schema`, unless they name it: it tells of the other rows of the
/// class, and the test rows don't have it.
fn without_added(schema: &SchemaRef, options: &Options) -> Options {
    let mut options = options.clone();
    let weight = sql::weight_column(schema).filter(|name| schema.column_with_name(name).is_some());
    if let Some(weight) = weight {
        let named = options.features.iter().flatten().chain(&options.exclude).chain(&options.label);
        if !named.into_iter().any(|name| *name == weight) {
            options.exclude.push(weight);
        }
    }
    options
}

/// The features of a table that have values in `source`.
async fn features(ctx: &SessionContext, source: &str, layout: &Layout, options: &Options) -> Outcome<Vec<String>> {
    let (frame, schema) = sql::read(ctx, source).await?;
    let opened = Source::open(source, frame, &schema, options).await?;
    let empty = |position: usize| opened.batches.iter().all(|b| b.column(position).null_count() == b.num_rows());
    let named = layout.features.iter().enumerate().filter(|(position, _)| !empty(*position));
    Ok(named.map(|(_, feature)| layout.name_of(feature).to_string()).collect())
}

/// One source, read.
struct Source {
    name: String,
    layout: Layout,
    decoder: Decoder,
    /// The features, then the label.
    batches: Vec<RecordBatch>,
    /// The soft labels of each batch, where there are any.
    soft: Vec<ArrayRef>,
    /// Pictures in each stored one of each batch, per side.
    sides: Vec<Vec<usize>>,
}

impl Source {
    async fn open(name: &str, frame: DataFrame, schema: &SchemaRef, options: &Options) -> Outcome<Self> {
        let layout = Layout::infer(schema, options)?;
        let decoder = Decoder::new(&layout, options)?;
        let column = |name: &str| Expr::Column(Column::from_name(name));
        let mut columns: Vec<Expr> =
            layout.projection().into_iter().map(|i| column(layout.schema.field(i).name())).collect();
        let count = columns.len();
        let is_feature = layout.features.iter().any(|feature| layout.name_of(feature) == SOFT_LABEL);
        let has_soft = has_soft_labels(schema) && !is_feature;
        let held = layout.single().map_or(Ok(Held::Same(1)), |feature| Held::of(schema, feature.column))?;
        columns.extend(has_soft.then(|| column(SOFT_LABEL)));
        columns.extend(matches!(held, Held::Column(_)).then(|| column(MOSAIC)));
        let read: Vec<RecordBatch> = frame.select(columns)?.execute_stream().await?.try_collect().await?;
        let (mut batches, mut soft, mut sides, mut first_row) = (vec![], vec![], vec![], 0);
        for batch in read {
            soft.extend(has_soft.then(|| batch.column(count).clone()));
            sides.push(match held {
                Held::Column(_) => mosaic_sides(name, first_row, batch.column(count + usize::from(has_soft)))?,
                Held::Same(side) => vec![side; batch.num_rows()],
            });
            first_row += batch.num_rows() as u64;
            batches.push(batch.project(&(0..count).collect::<Vec<_>>())?);
        }
        Ok(Self { name: name.into(), layout, decoder, batches, soft, sides })
    }

    /// Its rows, as numbers that a network can be trained on.
    fn dataset(&self, scaling: Option<&TableScaling>) -> Outcome<Dataset> {
        let place = format!("{}, ", self.name);
        let (mut batches, mut shape, mut first_row): (Vec<Rows>, _, u64) = (vec![], None, 0);
        let (mut stored, mut pictures): (BTreeMap<Label, usize>, Vec<Vec<usize>>) = (BTreeMap::new(), vec![]);
        for (batch, sides) in self.batches.iter().zip(&self.sides) {
            pictures.push(sides.iter().map(|side| side * side).collect());
            let mut start = 0;
            // By itself each run of rows that hold as many pictures: which of a batch are left out isn't told.
            for run in sides.chunk_by(|a, b| a == b).flat_map(|run| run.chunks(BATCH)) {
                let (part, at) = (batch.slice(start, run.len()), first_row + start as u64);
                start += run.len();
                let rows = self.decoder.decode(part.columns(), scaling, shape, &place, at)?;
                if rows.is_empty() {
                    continue;
                }
                shape = Some(rows.shape);
                rows.labels.iter().for_each(|label| *stored.entry(label.clone()).or_default() += 1);
                batches.push(match scaling {
                    None => decoded(rows, run[0])?,
                    Some(table) => Rows {
                        shape: Shape::Vector { len: table.input_len() },
                        values: table.scale(&rows.values),
                        ..rows
                    },
                });
            }
            first_row += batch.num_rows() as u64;
        }
        let skipped: u64 = batches.iter().map(|rows| rows.skipped).sum();
        // The classes are those of the labels, ascending.
        let set = Dataset::from_rows(&self.name, batches)?.with_stored(stored.into_values().collect());
        if self.soft.is_empty() {
            return Ok(set);
        }
        if skipped > 0 {
            let message = format!("{}: {skipped} rows have no label or feature, and yet soft labels", self.name);
            return Err(crate::Error::Data(message).into());
        }
        let mut shares = vec![];
        for (column, pictures) in self.soft.iter().zip(&pictures) {
            shares.extend(soft_labels(&self.name, column, set.classes.len(), pictures)?);
        }
        Ok(set.with_soft_labels(shares))
    }
}

/// `rows`, each of which holds `side` pictures a side, as the pictures that they hold.
fn decoded(rows: Rows, side: usize) -> Outcome<Rows> {
    let values = unpack_each(&rows.values, rows.shape, &vec![side; rows.len()])?;
    let labels = rows.labels.iter().flat_map(|label| std::iter::repeat_n(label.clone(), side * side)).collect();
    Ok(Rows { values, labels, ..rows })
}

/// The size of `source` where it is a single file.
pub(super) fn file_bytes(source: &str) -> Option<u64> {
    let metadata = std::fs::metadata(Path::new(source)).ok()?;
    metadata.is_file().then_some(metadata.len())
}
