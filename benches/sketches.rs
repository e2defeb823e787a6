//! Stored sketches flow in, as columns of Arrow structs; how fast they are read, added up and taken back flows out, in GB/s, beside a plain sum of all numbers in the
//! same arrays by Arrow's own kernel. One thread, the functions that SQL calls.
//!
//!     cargo bench --bench sketches
//!
//! 256 sketches of one class, more than fits most caches, of rows of 784 numbers (16 extractors, 1,024 frequencies), with the 64 rows that each keeps and with none. Bytes
//! are those of the numbers that move: of the input, and of a difference of both its columns and of what comes out, which is as large as one.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use datafusion::arrow::compute::{concat, sum};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Int64Type, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF, ColumnarValue, ScalarFunctionArgs, ScalarUDF};
use datafusion::prelude::SessionContext;
use datafusion_distill::random::{normal, stream};
use datafusion_distill::sketch::SketchColumn;
use datafusion_distill::{sketch, sql};

/// As in the command `distill`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SKETCHES: usize = 256;
const ROWS: usize = 72;
/// Numbers in a row.
const LENGTH: usize = 784;

/// Sketches of [`ROWS`] rows each, all of one class.
fn sketches(options: &str) -> ArrayRef {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ctx = SessionContext::new();
    datafusion_distill::register(&ctx).expect("a session that knows distill");
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let schema = Schema::new(vec![
        Field::new("part", DataType::Int64, false),
        Field::new("label", DataType::Int64, false),
        Field::new("x", DataType::FixedSizeList(item.clone(), LENGTH as i32), false),
    ]);
    let row = |n: usize| normal(&mut stream(n as u64, "bench"), LENGTH);
    let numbers: Vec<f32> = (0..SKETCHES * ROWS).flat_map(row).collect();
    let lists = datafusion::arrow::array::FixedSizeListArray::new(item, LENGTH as i32, Arc::new(floats(numbers)), None);
    let ints = |get: fn(usize) -> i64| {
        let values: datafusion::arrow::array::Int64Array = (0..SKETCHES * ROWS).map(|n| Some(get(n))).collect();
        Arc::new(values) as ArrayRef
    };
    let columns = vec![ints(|n| (n / ROWS) as i64), ints(|_| 0), Arc::new(lists)];
    let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("columns of the schema");
    let query = format!("SELECT distill_sketch_agg(x, '{options}') AS s FROM t GROUP BY part, label");
    let batches = runtime.block_on(async {
        ctx.register_batch("t", batch)?;
        ctx.sql(&query).await?.collect().await
    });
    let batches = batches.expect("sketches");
    let columns: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(0).as_ref()).collect();
    concat(&columns).expect("one column of sketches")
}

fn floats(values: Vec<f32>) -> datafusion::arrow::array::Float32Array {
    values.into()
}

/// All arrays of numbers in `array`.
fn numbers(array: &ArrayRef, found: &mut Vec<ArrayRef>) {
    match array.data_type() {
        DataType::Int64 | DataType::Float32 => found.push(array.clone()),
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| numbers(column, found)),
        DataType::LargeList(_) => numbers(array.as_list::<i64>().values(), found),
        _ => {}
    }
}

fn plain_sum(arrays: &[ArrayRef]) -> (i64, f32) {
    arrays.iter().fold((0, 0.0), |(ints, floats), array| match array.data_type() {
        DataType::Int64 => (ints.wrapping_add(sum(array.as_primitive::<Int64Type>()).unwrap_or(0)), floats),
        _ => (ints, floats + sum(array.as_primitive::<Float32Type>()).unwrap_or(0.0)),
    })
}

fn accumulator(union: &AggregateUDF, field: &FieldRef) -> Box<dyn Accumulator> {
    let schema = Schema::new(vec![field.clone()]);
    let args = AccumulatorArgs {
        return_field: field.clone(),
        schema: &schema,
        ignore_nulls: false,
        order_bys: &[],
        is_reversed: false,
        name: "union",
        is_distinct: false,
        exprs: &[],
        expr_fields: std::slice::from_ref(field),
    };
    union.accumulator(args).expect("an accumulator of sketches")
}

fn call(function: &ScalarUDF, field: &FieldRef, columns: [&ArrayRef; 2]) -> ArrayRef {
    let args = ScalarFunctionArgs {
        args: columns.map(|column| ColumnarValue::Array(column.clone())).to_vec(),
        arg_fields: vec![field.clone(); 2],
        number_rows: columns[0].len(),
        return_field: field.clone(),
        config_options: Arc::new(ConfigOptions::default()),
    };
    function.invoke_with_args(args).and_then(|value| value.into_array(columns[0].len())).expect("a column of sketches")
}

fn bench(criterion: &mut Criterion) {
    let (union, difference) = (sql::distill_union_agg_udaf(), sql::distill_difference_udf());
    let field: FieldRef = Arc::new(Field::new("s", sketch::data_type(), true));
    for (name, reservoir) in [("sums", 0), ("sums-and-rows", 64)] {
        let options =
            format!("extractors=16 frequencies=1024 ranges=''-8,8'' reservoir_per_class={reservoir} init=noise seed=1");
        let parts = sketches(&options);
        let mut arrays = vec![];
        numbers(&parts, &mut arrays);
        let bytes: usize = arrays.iter().map(|a| a.len() * a.data_type().primitive_width().unwrap_or(0)).sum();
        println!("{name}: {SKETCHES} sketches, {:.1} MB of numbers", bytes as f64 / 1e6);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(20);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function("plain Arrow sum", |b| b.iter(|| plain_sum(&arrays)));
        let structs: &StructArray = parts.as_struct();
        group.bench_function("read", |b| {
            b.iter(|| {
                let mut column = SketchColumn::new(structs);
                (0..SKETCHES).map(|row| column.read(row, None).expect("a sketch").count).sum::<u64>()
            });
        });
        group.bench_function("read, with the hash of every kept row", |b| {
            b.iter(|| {
                (0..SKETCHES).map(|row| sketch::from_array(structs, row).expect("a sketch").1.count).sum::<u64>()
            });
        });
        let added = |times: usize| {
            let mut accumulator = accumulator(&union, &field);
            (0..times)
                .for_each(|_| accumulator.update_batch(std::slice::from_ref(&parts)).expect("sketches that add up"));
            accumulator.evaluate().expect("their sum")
        };
        group.bench_function("union", |b| b.iter(|| added(1)));
        // Each sketch is taken back from one that it is part of: from the sum of all.
        let whole = added(1).to_array_of_size(SKETCHES).expect("a column of the sum");
        group.throughput(Throughput::Bytes(3 * bytes as u64));
        group.bench_function("difference", |b| b.iter(|| call(&difference, &field, [&whole, &parts])));
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
