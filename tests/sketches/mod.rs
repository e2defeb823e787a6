//! Sketches as values: added, taken back, compared, stored.

mod algebra;
mod as_source;
mod history;
mod pools;
mod sketch_agg;
mod stream;
mod windows;

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StructArray};
use datafusion_distill::extract::{Pool, PoolRecipe};
use datafusion_distill::options::Options;
use datafusion_distill::rows::{Label, Rows, Shape};
use datafusion_distill::sketch::{self, ClassSketch, Sketcher};

/// A small pool for vectors of three numbers from 0 to 10.
fn options(seed: u64) -> Options {
    Options {
        extractors: Some(2),
        width: Some(8),
        depth: Some(1),
        frequencies: Some(16),
        reservoir_per_class: Some(5),
        seed,
        ipc: 1,
        ..Options::default()
    }
}

fn sketcher(seed: u64) -> Sketcher {
    let recipe = PoolRecipe::choose(Shape::Vector { len: 3 }, (0.0, 10.0), &options(seed)).unwrap();
    let pool = Pool::build(&recipe, &candle_core::Device::Cpu).unwrap();
    Sketcher::new(Arc::new(pool), &options(seed)).unwrap()
}

/// The sketch of rows of three numbers, told by one number each.
fn sketch(sketcher: &Sketcher, rows: &[u8]) -> ClassSketch {
    let values = rows.iter().flat_map(|r| [r % 3, r % 5, r % 7]).map(f32::from).collect();
    let labels = vec![Label::Int(0); rows.len()];
    let decoded = Rows { shape: Shape::Vector { len: 3 }, values, labels, exact: vec![], skipped: 0 };
    let mut out = vec![ClassSketch::empty(sketcher.header())];
    sketcher.fold(&decoded, &vec![0; rows.len()], &mut out, &Default::default()).unwrap();
    out.remove(0)
}

/// A batch with a column `name` of sketches, and their numbers.
fn batch(sketcher: &Sketcher, columns: &[(&str, &[ClassSketch])]) -> RecordBatch {
    let number: ArrayRef =
        Arc::new(datafusion::arrow::array::Int64Array::from_iter_values(0..columns[0].1.len() as i64));
    let array = |s: &[ClassSketch]| -> ArrayRef { Arc::new(array(sketcher, s)) };
    let columns = columns.iter().map(|(name, sketches)| (*name, array(sketches)));
    RecordBatch::try_from_iter(std::iter::once(("i", number)).chain(columns)).unwrap()
}

fn array(sketcher: &Sketcher, sketches: &[ClassSketch]) -> StructArray {
    sketch::to_array(sketcher.header(), sketches).unwrap()
}
