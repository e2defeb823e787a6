//! A batch of labels and sketches from elsewhere flows in; the sum of the sketches of each class flows out.

use crate::arrow::array::{Array, ArrayRef, AsArray};
use crate::arrow::compute::{CastOptions, cast_with_options};
use crate::arrow::record_batch::RecordBatch;
use crate::arrow::util::display::FormatOptions;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::rows::{Label, Layout};
use crate::sketch::{self, Sketches};

/// Labels that don't fit are errors, not NULLs.
const STRICT: CastOptions<'static> = CastOptions { safe: false, format_options: FormatOptions::new() };

/// The sketches of `batch` for a stream of `layout`; none where there are none.
pub(super) fn read(batch: &RecordBatch, layout: &Layout, options: &Options) -> Result<Option<Sketches>> {
    let column = sketches(batch)?;
    let structs = batch.column(column).as_struct();
    let labels = Label::from_array(layout.label_name(), &labels(batch, column, layout)?)?;
    let kept = layout.classes(options)?;
    let mut all: Option<Sketches> = None;
    for (row, label) in labels.into_iter().enumerate().filter(|(row, _)| structs.is_valid(*row)) {
        let wrong = |found: &str| {
            Error::column(layout.label_name(), format!("row {row} of the sketches: {found}; leave the sketch out"))
        };
        let label = label.ok_or_else(|| wrong("a sketch whose label is NULL"))?;
        if let (Label::Int(number), Some(_)) = (&label, &layout.class_names)
            && *number < 0
        {
            return Err(wrong(&format!("label {number}, by which a Hugging Face ClassLabel says that rows have none")));
        }
        if kept.as_ref().is_some_and(|kept| !kept.contains(&label)) {
            continue;
        }
        let (header, sketch) = sketch::from_array(structs, row)?;
        all.get_or_insert_with(|| Sketches::new(header.clone())).add(label, &header, sketch)?;
    }
    Ok(all)
}

/// The position of the one column of sketches.
fn sketches(batch: &RecordBatch) -> Result<usize> {
    let schema = batch.schema();
    let found: Vec<usize> =
        (0..batch.num_columns()).filter(|i| sketch::is_sketch(schema.field(*i).data_type())).collect();
    let names = |of: &[usize]| of.iter().map(|i| schema.field(*i).name().as_str()).collect::<Vec<_>>().join(", ");
    match &found[..] {
        [one] => Ok(*one),
        [] => {
            let all: Vec<usize> = (0..batch.num_columns()).collect();
            Err(Error::Sketch(format!(
                "none of the columns {} holds sketches, which a snapshot or distill_sketch_agg makes; rows are pushed, not merged",
                names(&all)
            )))
        }
        several => Err(Error::Sketch(format!(
            "several columns hold sketches: {}; select one of them and its label",
            names(several)
        ))),
    }
}

/// The labels beside the sketches, in the type of the stream's.
fn labels(batch: &RecordBatch, sketch: usize, layout: &Layout) -> Result<ArrayRef> {
    let name = layout.label_name();
    let others: Vec<usize> = (0..batch.num_columns()).filter(|i| *i != sketch).collect();
    let named = others.iter().find(|i| batch.schema().field(**i).name() == name);
    let position = match (named, &others[..]) {
        (Some(named), _) | (None, [named]) => *named,
        _ => {
            return Err(Error::column(
                name,
                format!("isn't among the {} columns beside the sketches; select label and sketch", others.len()),
            ));
        }
    };
    let (found, expected) = (batch.column(position), layout.schema.field(layout.label).data_type());
    cast_with_options(found, expected, &STRICT).map_err(|e| {
        Error::column(
            name,
            format!("labels of type {} beside the sketches aren't a {expected}: {e}", found.data_type()),
        )
    })
}
