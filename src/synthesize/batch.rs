//! Synthetic rows flow in; a batch in the source's schema flows out.

use crate::arrow::datatypes::SchemaRef;
use crate::arrow::record_batch::RecordBatch;
use crate::error::{Error, Result};
use crate::extract::Scaling;
use crate::options::Options;
use crate::rows::{self, Layout};
use crate::synthesize::Synthetic;

/// The schema of [`Synthetic::into_batch`]: the source's, as [`Layout::output_schema`] changes it, and the columns that options add.
pub fn output_schema(layout: &Layout, options: &Options) -> Result<SchemaRef> {
    let weighted = rows::with_weight_column(&layout.output_schema(options)?, options)?;
    let Some(feature) = layout.single() else {
        if options.mosaic > 1 {
            let message = format!("{} packs pictures; the rows are those of a table", options.mosaic);
            return Err(Error::option("mosaic", message));
        }
        return rows::with_soft_label_column(&weighted, options);
    };
    let told = rows::with_mosaic_column(&weighted, options)?;
    let labelled = rows::with_soft_label_column(&told, options)?;
    // A note at the column tells of all rows; where they differ, a column of its own does.
    Ok(match options.mixes_mosaics() {
        true => rows::told_by_column(&labelled, layout.name_of(feature)),
        false if options.mosaic_rows == Some(0) => rows::with_mosaic(&labelled, layout.name_of(feature), 1),
        false => rows::with_mosaic(&labelled, layout.name_of(feature), options.mosaic),
    })
}

impl Synthetic {
    /// The rows as a batch of `schema`, which is [`output_schema`] with any metadata; `layout` is the one that the real rows were decoded with, `scaling` that
    /// of the sketches' recipe.
    pub fn into_batch(
        self,
        layout: &Layout,
        options: &Options,
        scaling: &Scaling,
        schema: &SchemaRef,
    ) -> Result<RecordBatch> {
        let table = scaling.table();
        let batch = rows::encode_exact(layout, options, table, self.shape, &self.values, &self.labels, &self.exact)?;
        let mut columns = batch.columns().to_vec();
        columns.extend(options.weight.is_some().then(|| rows::weight_array(self.weights)));
        columns.extend(options.mixes_mosaics().then(|| rows::mosaic_array(&self.sides)));
        if let Some(soft) = self.soft {
            let pictures: Vec<usize> = self.sides.iter().map(|side| side * side).collect();
            columns.push(rows::soft_label_array(soft.shares, soft.classes, &pictures)?);
        }
        Ok(RecordBatch::try_new(schema.clone(), columns)?)
    }
}
