//! `StreamDistiller`: what SQL makes of a table's rows, of batches as they come.

use std::ops::ControlFlow;

use datafusion::arrow::array::{AsArray, Float32Array, Int64Array, ListArray, StringArray, new_null_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion_distill::Error;
use datafusion_distill::stream::{StreamDistiller, StreamDistillerBuilder};

use super::sketch_agg::inside;
use super::*;
use crate::support::*;

const SMALL_TEXT: &str = "extractors=2 width=8 depth=1 frequencies=8 ipc=1";

fn builder(batch: &RecordBatch, more: &str) -> StreamDistillerBuilder {
    let mut options = Options::default();
    options.set_text(SMALL_TEXT).unwrap();
    options.steps = (!more.contains("herding")).then_some(2);
    options.set_text(more).unwrap();
    StreamDistiller::builder(batch.schema()).options(options).threads(2)
}

fn stream(batch: &RecordBatch, more: &str) -> StreamDistiller {
    builder(batch, more).build().unwrap()
}

/// The arguments of `distill` that say what [`builder`] does.
fn named(more: &str) -> String {
    let steps = if more.contains("herding") { "" } else { "steps=2 " };
    // A blank before each name ends the value before; there is none of these inside a value.
    let pairs = format!("{SMALL_TEXT} {steps}{more}").replace(", ", ",");
    let quoted = pairs.split_whitespace().map(|pair| match pair.split_once('=') {
        Some((name, value)) => format!("{name} => '{}'", value.trim_matches('\'')),
        None => panic!("{pair}"),
    });
    quoted.collect::<Vec<_>>().join(", ")
}

/// What `stream` makes of `batch`, cut into batches of `rows` rows.
fn snapshot(mut stream: StreamDistiller, batch: &RecordBatch, rows: usize) -> RecordBatch {
    for start in (0..batch.num_rows()).step_by(rows) {
        stream.push(&batch.slice(start, rows.min(batch.num_rows() - start))).unwrap();
    }
    stream.snapshot().unwrap()
}

fn people() -> RecordBatch {
    let age: ArrayRef = Arc::new(Float32Array::from_iter_values((0..90).map(|i| (i * 7 % 50) as f32)));
    let sex: ArrayRef = Arc::new(StringArray::from_iter_values((0..90).map(|i| if i % 3 == 0 { "a" } else { "b" })));
    let y: ArrayRef = Arc::new(Int64Array::from_iter_values((0..90).map(|i| i % 2)));
    RecordBatch::try_from_iter([("age", age), ("sex", sex), ("y", y)]).unwrap()
}

/// Pictures as lists of three levels, whose type doesn't tell where the channels are: `sizes` from the outside in.
fn nested(rows: usize, sizes: [usize; 3], bad: bool) -> RecordBatch {
    let [a, b, c] = sizes;
    let values = Float32Array::from_iter_values((0..rows * a * b * c).map(|i| (i * 31 % 97) as f32));
    let lists = |values: ArrayRef, len: usize| -> ArrayRef {
        let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_repeated_length(len, values.len() / len), values, None))
    };
    let pictures = lists(lists(lists(Arc::new(values), c), b), a);
    let labels: ArrayRef = Arc::new(Int64Array::from_iter(
        (0..rows).map(|i| if bad && i + 1 == rows { None } else { Some((i % 2) as i64) }),
    ));
    RecordBatch::try_from_iter([("x", pictures), ("label", labels)]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_what_sql_makes_of_the_same_rows_bit_for_bit() {
    let ranges = "ranges='age=0..50, sex=a|b'";
    for (batch, feature, label, more) in [
        (pictures(200, 3), "image", "label", String::new()),
        (pictures(200, 3), "image", "label", "seed=5 moments=class".into()),
        (numbers(200, 3), "features", "label", "ranges='0,20'".into()),
        (people(), "age, sex", "y", format!("{ranges} method=characteristic")),
        (people(), "sex, age", "y", format!("{ranges} method=herding")),
    ] {
        let ctx = session_with_table("t", batch.clone());
        let text = format!("{SMALL_TEXT} {more}").replace('\'', "''");
        let call = format!("distill_sketch_agg({feature}, '{text}')");
        let query = format!("SELECT {label}, {call} AS sketch FROM t GROUP BY {label} ORDER BY {label}");
        let expected = rows(&ctx, &query).await.unwrap();
        let inner = inside(&ctx, &format!("SELECT * FROM distill(t, {})", named(&more))).await;
        for (batch_rows, threads) in [(200, 1), (64, 2), (7, 3)] {
            let stream = builder(&batch, &more).threads(threads).build().unwrap();
            let found = snapshot(stream, &batch, batch_rows);
            assert_eq!(found.columns(), expected.columns(), "{more}, batches of {batch_rows}");
            assert_eq!(found.columns(), inner.columns(), "{more}, batches of {batch_rows}");
            assert_eq!(found.schema().field(1), expected.schema().field(1));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_rows_are_those_of_distill_in_the_sources_schema() {
    for (batch, more) in [
        (pictures(60, 3), ""),
        (numbers(60, 3), "ranges='0,20' weight=w"),
        (people(), "ranges='age=0..50, sex=a|b' method=herding"),
    ] {
        let ctx = session_with_table("t", batch.clone());
        let expected = rows(&ctx, &format!("SELECT * FROM distill(t, {})", named(more))).await.unwrap();
        let mut stream = stream(&batch, more);
        stream.push(&batch).unwrap();
        let found = stream.distill().unwrap();
        assert_eq!(found.columns(), expected.columns());
        assert_eq!(found.schema(), stream.output_schema());
        assert_eq!(
            found.schema().fields()[..3.min(batch.num_columns())],
            batch.schema().fields()[..3.min(batch.num_columns())]
        );
        // The sketch is still there.
        assert_eq!(stream.distill().unwrap(), found);
    }
    let hugging = stream(&pictures(3, 3), "").output_schema();
    assert_eq!(hugging.metadata()["huggingface"], FEATURES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sketches_of_workers_and_of_sql_merge_in_any_order() {
    let batch = pictures(90, 3);
    let all = snapshot(stream(&batch, ""), &batch, 90);
    let [a, b] = [(0, 40), (40, 50)].map(|(start, rows)| snapshot(stream(&batch, ""), &batch.slice(start, rows), 20));
    let (mut left, mut right) = (stream(&batch, ""), stream(&batch, ""));
    left.push(&batch.slice(0, 40)).unwrap();
    left.merge(&b).unwrap();
    // One that has seen no row.
    right.merge(&b).unwrap();
    right.merge(&a).unwrap();
    assert_eq!(left.snapshot().unwrap(), all);
    assert_eq!(right.snapshot().unwrap(), all);
    assert_eq!((right.rows(), right.classes()), (90, 3));
    assert_eq!(left.distill().unwrap(), right.distill().unwrap());

    let ctx = session_with_table("t", batch.slice(40, 50));
    ctx.register_batch("a", a.clone()).unwrap();
    let text = SMALL_TEXT.replace("steps=2 ", "");
    let sql = format!(
        "SELECT distill_sketch_agg(image, '{text}') AS s, arrow_cast(label, 'Int16') AS label FROM t GROUP BY label"
    );
    let mut stream = stream(&batch, "");
    stream.merge(&a).unwrap();
    stream.merge(&rows(&ctx, &sql).await.unwrap()).unwrap();
    assert_eq!(stream.snapshot().unwrap(), all);
    let union = format!(
        "SELECT label, distill_union_agg(s) AS sketch FROM (SELECT label, sketch AS s FROM a UNION ALL SELECT label, s FROM ({sql})) GROUP BY label ORDER BY label"
    );
    assert_eq!(rows(&ctx, &union).await.unwrap().columns(), all.columns());
    let distilled = rows(&ctx, "SELECT * FROM distill(a, ipc => 1, steps => 2)").await.unwrap();
    assert_eq!(distilled.num_rows(), 3);
}

#[test]
fn pooled_second_moments_are_kept_once_and_their_sum_is_that_of_all_rows() {
    let batch = pictures(90, 3);
    let sum = |stream: &StreamDistiller| {
        let snapshot = stream.snapshot().unwrap();
        let sketches = (0..3).map(|row| sketch::from_array(snapshot.column(1).as_struct(), row).unwrap().1);
        let sketches: Vec<ClassSketch> = sketches.collect();
        let holders = sketches.iter().filter(|s| s.moment_rows > 0).count();
        (
            sketches
                .into_iter()
                .reduce(|mut a, b| {
                    a.merge(&b).unwrap();
                    a
                })
                .unwrap(),
            holders,
        )
    };
    let mut whole = stream(&batch, "moments=pooled");
    whole.push(&batch).unwrap();
    let (mut parts, mut merged) = (whole.like().unwrap(), whole.like().unwrap());
    for (start, rows) in [(80, 10), (0, 30), (30, 50)] {
        let part = batch.slice(start, rows);
        parts.push(&part).unwrap();
        merged.merge(&snapshot(whole.like().unwrap(), &part, rows)).unwrap();
    }
    let (expected, holders) = sum(&whole);
    assert_eq!((expected.moment_rows, holders), (90, 1));
    assert_eq!(sum(&parts), (expected.clone(), 1));
    assert_eq!(sum(&merged).0, expected);
}

#[test]
fn a_bad_batch_leaves_the_sketch_as_it_was_and_the_next_one_is_taken_up() {
    let good = pictures(60, 3);
    let mut bytes: Vec<_> = (0..200).map(|i| Some(png(i % 3, i, 8))).collect();
    bytes[150] = Some(b"no picture".to_vec());
    let undecodable = pictures_of(bytes, (0..200).map(|i| Some(i % 3)).collect());
    let other_size = pictures_of(vec![Some(png(0, 0, 8)), Some(png(1, 0, 9))], vec![Some(0), Some(1)]);
    let no_label = pictures_of(vec![Some(png(0, 0, 8)), Some(png(1, 0, 8))], vec![Some(0), None]);
    let labels: Vec<_> = (0..10_001).map(Some).collect();
    let ids = pictures_of(vec![Some(png(0, 0, 8)); 10_001], labels);
    let other_columns = numbers(3, 3);
    // Without any row, and with some.
    for start in [None, Some(good.clone())] {
        let mut stream = self::stream(&good, "");
        start.iter().for_each(|batch| assert_eq!(stream.push(batch).unwrap(), 60));
        let before = stream.snapshot().unwrap();
        for (bad, parts) in [
            (&undecodable, ["row", "image"]),
            (&other_size, ["row", "9x9"]),
            (&no_label, ["label", "on_null"]),
            (&ids, ["10000 distinct labels", "is it an id"]),
            (&other_columns, ["expected image", "found features"]),
        ] {
            let e = stream.push(bad).unwrap_err().to_string();
            assert!(parts.iter().all(|part| e.contains(part)), "{parts:?}: {e}");
            assert_eq!(stream.snapshot().unwrap(), before, "{e}");
        }
        stream.push(&good).unwrap();
        let mut expected = stream.like().unwrap();
        start.iter().for_each(|batch| assert_eq!(expected.push(batch).unwrap(), 60));
        expected.push(&good).unwrap();
        assert_eq!(stream.snapshot().unwrap(), expected.snapshot().unwrap());
    }
    // The row is counted from the first that was pushed.
    let mut stream = stream(&good, "");
    stream.push(&good).unwrap();
    let e = stream.push(&undecodable).unwrap_err().to_string();
    assert!(e.contains("stream, row 210,"), "{e}");
}

#[test]
fn a_bad_first_batch_does_not_tell_the_order_of_nested_lists() {
    let last = nested(8, [8, 8, 3], true);
    let first = nested(8, [3, 8, 8], false);
    let mut stream = stream(&last, "ranges='0,100'");
    stream.push(&last).unwrap_err();
    assert_eq!(stream.push(&first).unwrap(), 8);
    assert_eq!(stream.distill().unwrap().column(0).as_list::<i32>().value(0).len(), 3);
    // A merge tells it, and a refused one doesn't.
    let snapshot = stream.snapshot().unwrap();
    let mut other = stream.like().unwrap();
    other.merge(&snapshot).unwrap();
    assert_eq!(other.distill().unwrap(), stream.distill().unwrap());
    let mut seeded = self::stream(&last, "ranges='0,100' seed=3");
    seeded.merge(&snapshot).unwrap_err();
    assert_eq!(seeded.push(&nested(8, [8, 8, 3], false)).unwrap(), 8);
}

#[test]
fn a_bad_merge_adds_nothing_and_names_both_values() {
    let batch = pictures(60, 3);
    let good = snapshot(stream(&batch, ""), &batch, 60);
    let seeded = snapshot(stream(&batch, "seed=3"), &batch, 60);
    let column = |batch: &RecordBatch, i: usize| batch.column(i).clone();
    let made =
        |label: ArrayRef, sketches: ArrayRef| RecordBatch::try_from_iter([("label", label), ("s", sketches)]).unwrap();
    let mixed = concat_batches(&good.schema(), [&good.slice(0, 2), &seeded.slice(2, 1)]).unwrap();
    let no_label = made(Arc::new(Int64Array::from(vec![Some(0), None, Some(2)])), column(&good, 1));
    let negative = made(Arc::new(Int64Array::from(vec![0, -1, 2])), column(&good, 1));
    let text = made(Arc::new(StringArray::from(vec!["0", "one", "2"])), column(&good, 1));
    for start in [None, Some(batch.clone())] {
        let mut stream = stream(&batch, "");
        start.iter().for_each(|batch| assert_eq!(stream.push(batch).unwrap(), 60));
        let before = stream.snapshot().unwrap();
        for (bad, parts) in [
            (&seeded, ["frequency seed 0 here", "3 there"]),
            (&mixed, ["frequency seed", "3"]),
            (&no_label, ["row 1 of the sketches", "NULL"]),
            (&negative, ["row 1 of the sketches", "-1"]),
            (&text, ["labels of type Utf8", "Int64"]),
            (&batch, ["none of the columns image, label, id holds sketches", "pushed"]),
        ] {
            let e = stream.merge(bad).unwrap_err().to_string();
            assert!(parts.iter().all(|part| e.contains(part)), "{parts:?}: {e}");
            assert_eq!(stream.snapshot().unwrap(), before, "{e}");
        }
        // Sketches that are NULL, and labels in another type, are fine.
        let nulls = new_null_array(&sketch::data_type(), 3);
        stream.merge(&made(column(&good, 0), nulls)).unwrap();
        assert_eq!(stream.snapshot().unwrap(), before);
        let labels: ArrayRef = Arc::new(StringArray::from(vec!["0", "1", "2"]));
        stream.merge(&made(labels, column(&good, 1))).unwrap();
        assert_eq!(stream.rows(), before.num_rows() as u64 * 20 + 60);
    }
}

#[test]
fn ten_times_the_rows_take_no_more_memory_and_a_window_forgets_the_one_before() {
    let batch = pictures(128, 2);
    let mut stream = stream(&batch, "");
    let empty = stream.bytes();
    stream.push(&batch).unwrap();
    let once = stream.bytes();
    assert!(empty == 0 && once > 10_000, "{empty}, {once}");
    for _ in 0..9 {
        stream.push(&batch).unwrap();
    }
    assert_eq!((stream.bytes(), stream.rows()), (once, 1280));
    stream.clear();
    assert!(stream.bytes() < once && stream.bytes() > 0);
    assert_eq!((stream.rows(), stream.snapshot().unwrap().num_rows()), (0, 0));
    assert!(stream.distill().unwrap_err().to_string().contains("no rows"));
    let window = pictures(40, 2);
    stream.push(&window).unwrap();
    assert_eq!(stream.snapshot().unwrap(), snapshot(stream.like().unwrap(), &window, 40));
}

#[test]
fn memory_beyond_the_limit_is_refused_before_it_is_used() {
    let batch = pictures(60, 3);
    let mut tight = builder(&batch, "").memory_limit(10_000).build().unwrap();
    let e = tight.push(&batch).unwrap_err().to_string();
    assert!(e.contains("the extractors") && e.contains("limit of 10000") && e.contains("fewer extractors"), "{e}");
    assert_eq!(tight.bytes(), 0);
    // Room for a few classes.
    let mut stream = builder(&batch, "").memory_limit(6_000_000).build().unwrap();
    stream.push(&batch).unwrap();
    let before = stream.snapshot().unwrap();
    let ids = pictures_of(vec![Some(png(0, 0, 8)); 100], (0..100).map(Some).collect());
    let e = stream.push(&ids).unwrap_err().to_string();
    assert!(e.contains("classes of column 'label'") && e.contains("limit of 6000000"), "{e}");
    assert_eq!(stream.snapshot().unwrap(), before);
    assert!(stream.bytes() < 6_000_000);
    stream.distill().unwrap();
}

#[test]
fn what_cannot_be_streamed_is_refused_when_it_is_built() {
    for (batch, more, parts) in [
        (numbers(3, 3), "", ["'ranges'", "read once"]),
        (people(), "", ["'ranges'", "age=0..100"]),
        (pictures(3, 3), "warm_start=y.parquet", ["'warm_start'", "leave it out"]),
        (pictures(3, 3), "input=sketches", ["'input'", "merge"]),
        (pictures(3, 3), "label=kind", ["kind", "label"]),
        (pictures(3, 3), "device=cuda:9", ["device", "cuda:9"]),
    ] {
        let e = builder(&batch, more).build().unwrap_err().to_string();
        assert!(parts.iter().all(|part| e.contains(part)), "{more}: {e}");
    }
    let options = Options { pool_file: Some("none.safetensors".into()), ..Options::default() };
    let e = StreamDistiller::builder(pictures(3, 3).schema()).options(options).build().unwrap_err().to_string();
    assert!(e.contains("none.safetensors"), "{e}");
    let one_class = pictures(10, 1);
    let mut stream = stream(&one_class, "");
    stream.push(&one_class).unwrap();
    assert!(stream.distill().unwrap_err().to_string().contains("at least two classes"));
}

#[test]
fn rows_that_options_leave_out_are_not_counted_and_an_observer_breaks_off() {
    let bytes = (0..30).map(|i| (i != 4).then(|| png(i % 3, i, 8))).collect();
    let batch = pictures_of(bytes, (0..30).map(|i| Some(i % 3)).collect());
    let mut stream = stream(&batch, "on_null=skip classes=zero,one steps=50");
    assert_eq!(stream.push(&batch).unwrap(), 19);
    assert_eq!((stream.rows(), stream.classes()), (19, 2));
    let mut steps = 0;
    let mut observer = |_| {
        steps += 1;
        if steps == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(stream.distill_observed(&mut observer), Err(Error::Cancelled)));
    assert_eq!(steps, 3);
    assert_eq!(stream.distill().unwrap().num_rows(), 2);
    assert_eq!(stream.schema().field(1).data_type(), &DataType::Int64);
}
