//! `distill_union_agg`: exact, whatever the order and the merge tree.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, StructArray};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion_distill::extract::{Pool, PoolRecipe};
use datafusion_distill::options::Options;
use datafusion_distill::rows::{Label, Rows, Shape};
use datafusion_distill::sketch::{self, ClassSketch, Sketcher};
use datafusion_distill::sql::distill_union_agg_udaf;

use crate::support::*;

fn options(seed: u64) -> Options {
    Options {
        extractors: Some(2),
        width: Some(8),
        depth: Some(1),
        frequencies: Some(4),
        seed,
        ipc: 1,
        ..Options::default()
    }
}

/// Sketches of single rows.
fn sketches(count: usize, seed: u64) -> StructArray {
    let shape = Shape::Vector { len: 3 };
    let recipe = PoolRecipe::choose(shape, (0.0, 10.0), &options(seed)).unwrap();
    let pool = Pool::build(&recipe, &candle_core::Device::Cpu).unwrap();
    let sketcher = Sketcher::new(Arc::new(pool), &options(seed)).unwrap();
    let one = |i: usize| {
        let values = (0..3).map(|j| ((i * 7 + j * 3) % 10) as f32).collect();
        let rows = Rows { shape, values, labels: vec![Label::Int(0)], exact: vec![], skipped: 0 };
        let mut out = vec![ClassSketch::empty(sketcher.header())];
        sketcher.fold(&rows, &[0], &mut out, &Default::default()).unwrap();
        out.remove(0)
    };
    sketch::to_array(sketcher.header(), &(0..count).map(one).collect::<Vec<_>>()).unwrap()
}

fn accumulator() -> Box<dyn Accumulator> {
    let udaf = distill_union_agg_udaf();
    let field = Arc::new(Field::new("sketch", sketch::data_type(), true));
    let schema = Schema::new(vec![field.clone()]);
    udaf.accumulator(AccumulatorArgs {
        return_field: field.clone(),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: "union",
        is_distinct: false,
        exprs: &[],
        expr_fields: &[field],
    })
    .unwrap()
}

fn part(all: &StructArray, start: usize, len: usize) -> ArrayRef {
    Arc::new(all.slice(start, len))
}

fn merged(parts: Vec<ArrayRef>) -> ScalarValue {
    let mut end = accumulator();
    for part in parts {
        let mut partial = accumulator();
        partial.update_batch(&[part]).unwrap();
        let state: Vec<ArrayRef> = partial.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
        end.merge_batch(&state).unwrap();
    }
    end.evaluate().unwrap()
}

#[test]
fn any_order_and_merge_tree_gives_the_same_bits() {
    let all = sketches(12, 0);
    let mut whole = accumulator();
    whole.update_batch(&[part(&all, 0, 12)]).unwrap();
    let expected = whole.evaluate().unwrap();
    assert!(whole.size() > 100);
    assert_eq!(merged(vec![part(&all, 0, 12)]), expected);
    assert_eq!(merged((0..12).rev().map(|i| part(&all, i, 1)).collect()), expected);
    assert_eq!(merged(vec![part(&all, 5, 7), part(&all, 0, 0), part(&all, 0, 5)]), expected);
}

#[test]
fn of_nothing_the_union_is_null() {
    assert!(accumulator().evaluate().unwrap().is_null());
    assert!(merged(vec![part(&sketches(1, 0), 0, 0)]).is_null());
}

#[test]
fn sketches_made_differently_are_refused() {
    let mut both = accumulator();
    both.update_batch(&[part(&sketches(1, 0), 0, 1)]).unwrap();
    let error = both.update_batch(&[part(&sketches(1, 1), 0, 1)]).unwrap_err().to_string();
    assert!(error.contains("seed 0") && error.contains("seed 1"), "{error}");
}

#[tokio::test]
async fn sql_unions_stored_sketches_by_group_and_refuses_other_columns() {
    let all = sketches(12, 0);
    let labels: ArrayRef = Arc::new(datafusion::arrow::array::Int64Array::from_iter_values((0..12).map(|i| i % 2)));
    let batch = datafusion::arrow::array::RecordBatch::try_from_iter([("c", labels), ("s", Arc::new(all) as ArrayRef)])
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sketches.parquet");
    write_parquet(&path, &batch);
    let ctx = session();
    ctx.register_parquet("k", path.to_str().unwrap(), Default::default()).await.unwrap();
    let out = rows(&ctx, "SELECT c, distill_union_agg(s)['count'] AS n FROM k GROUP BY c ORDER BY c").await.unwrap();
    assert_eq!(out.num_rows(), 2);
    assert_eq!(out.column(1).null_count(), 0);
    let refused = message(&ctx, "SELECT distill_union_agg(c) FROM k").await;
    assert!(refused.contains("takes one column of sketches"), "{refused}");
}
