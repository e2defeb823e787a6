//! `mosaic => 2`: pictures that hold four, beside whole ones, and `unpack(...)`, which writes them out.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{Float32Type, Float64Type};
use datafusion_distill::rows::{Mosaic, Shape, mosaic_side, sides_of, unpack_each};

use crate::support::*;

const SHAPE: Shape = Shape::Picture { channels: 1, height: 8, width: 8 };

fn table() -> datafusion::prelude::SessionContext {
    session_with_table("t", pictures(90, 3))
}

/// The grey values of all rows' pictures.
fn pixels(batch: &RecordBatch) -> Vec<f32> {
    let bytes = batch.column_by_name("image").unwrap().as_struct().column_by_name("bytes").unwrap().as_binary::<i32>();
    let grey = |png: &[u8]| image::load_from_memory(png).unwrap().into_luma8().into_raw();
    bytes.iter().flat_map(|png| grey(png.unwrap())).map(f32::from).collect()
}

fn side(batch: &RecordBatch) -> usize {
    mosaic_side(batch.schema().field_with_name("image").unwrap())
}

#[tokio::test]
async fn stored_pictures_hold_four_each_and_unpack_writes_these() {
    let ctx = table();
    let call = format!("distill(t, ipc => 2, mosaic => 2, {SMALL})");
    let plan = explained(&ctx, &format!("SELECT * FROM {call}"), "").await;
    assert!(plan.contains("ipc=2, mosaic=2, decoded_ipc=8"), "{plan}");
    let in_all = format!("SELECT * FROM distill(t, rows => 6, mosaic => 2, {SMALL})");
    let plan = explained(&ctx, &in_all, "").await;
    assert!(plan.contains("rows=6, mosaic=2") && !plan.contains("decoded"), "{plan}");
    let stored = rows(&ctx, &format!("SELECT * FROM {call}")).await.unwrap();
    assert_eq!((stored.num_rows(), side(&stored)), (6, 2));
    let unpacked = rows(&ctx, &format!("SELECT * FROM unpack({call})")).await.unwrap();
    assert_eq!((unpacked.num_rows(), side(&unpacked)), (24, 1));
    let types = |batch: &RecordBatch| batch.schema().fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    assert_eq!(types(&unpacked), types(&stored));
    let labels: Vec<i64> = ints(&stored, "label").into_iter().flat_map(|label| [label; 4]).collect();
    assert_eq!(ints(&unpacked, "label"), labels);
    let expected = Mosaic::new(2, SHAPE).unwrap().unwrap().unpack(&pixels(&stored));
    assert!(pixels(&unpacked).iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 0.5));
    // Columns, filters and limits around it are those of any relation.
    let some = format!("SELECT label AS l FROM unpack({call}) WHERE label = 1 LIMIT 3");
    assert_eq!(ints(&rows(&ctx, &some).await.unwrap(), "l"), [1; 3]);
    let plain = rows(&ctx, &format!("SELECT * FROM distill(t, ipc => 2, {SMALL})")).await.unwrap();
    assert_eq!(side(&plain), 1);
}

#[tokio::test]
async fn real_rows_are_packed_too_each_a_quarter_of_a_picture() {
    let ctx = table();
    let query = |more: &str| format!("SELECT * FROM distill(t, method => 'random', {more})");
    let packed = rows(&ctx, &query("ipc => 2, mosaic => 2")).await.unwrap();
    let chosen = rows(&ctx, &query("ipc => 8")).await.unwrap();
    let expected = Mosaic::new(2, SHAPE).unwrap().unwrap().pack(&pixels(&chosen));
    assert!(pixels(&packed).iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 0.5));
    assert_eq!(ints(&packed, "label"), [0, 0, 1, 1, 2, 2]);
}

#[tokio::test]
async fn beyond_two_rows_a_class_the_others_are_whole_and_a_column_says_which() {
    let ctx = table();
    let call = format!("distill(t, ipc => 3, mosaic => 2, weight => 'w', {SMALL})");
    let plan = explained(&ctx, &format!("SELECT * FROM {call}"), "").await;
    assert!(plan.contains("ipc=3, mosaic=2, decoded_ipc=9"), "{plan}");
    let stored = rows(&ctx, &format!("SELECT * FROM {call}")).await.unwrap();
    let names: Vec<String> = stored.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names[names.len() - 2..], ["w", "mosaic"]);
    let sides = [2, 2, 1].repeat(3);
    assert_eq!(
        (sides_of("small", &stored.schema(), &stored).unwrap(), side(&stored)),
        (sides.clone(), 1),
        "no note of all rows"
    );
    let unpacked = rows(&ctx, &format!("SELECT * FROM unpack({call})")).await.unwrap();
    assert!(unpacked.column_by_name("mosaic").is_none());
    assert_eq!(ints(&unpacked, "label"), [[0; 9], [1; 9], [2; 9]].concat());
    let expected = unpack_each(&pixels(&stored), SHAPE, &sides).unwrap();
    assert!(pixels(&unpacked).iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 0.5));
    let weights = unpacked.column_by_name("w").unwrap().as_primitive::<Float64Type>().values().to_vec();
    assert_eq!(weights, [vec![2.5; 8], vec![10.0]].concat().repeat(3));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.parquet");
    let path = path.to_str().unwrap();
    rows(&ctx, &format!("COPY (SELECT * FROM {call}) TO '{path}' STORED AS PARQUET")).await.unwrap();
    let of_file = rows(&ctx, &format!("SELECT * FROM unpack('{path}')")).await.unwrap();
    assert_eq!((pixels(&of_file), ints(&of_file, "label")), (pixels(&unpacked), ints(&unpacked, "label")));
    // A query keeps the column; without it nothing says what pictures hold.
    let some = format!("SELECT * FROM unpack((SELECT * FROM {call} WHERE mosaic = 1))");
    assert_eq!(ints(&rows(&ctx, &some).await.unwrap(), "label"), [0, 1, 2]);
    let e = message(&ctx, &format!("SELECT * FROM unpack((SELECT image, label FROM {call}))")).await;
    assert!(e.contains("column 'image'") && e.contains("column 'mosaic'") && e.contains("select it too"), "{e}");
    let wrong = format!(
        "SELECT * FROM unpack((SELECT image, label, arrow_cast(label * 9, 'UInt8') AS mosaic FROM {call}), mosaic => 2)"
    );
    let e = message(&ctx, &wrong).await;
    assert!(e.contains("column 'mosaic'") && e.contains("row 0") && e.contains("found 0"), "{e}");
    let null = format!("SELECT * FROM unpack((SELECT image, nullif(label, 1) AS label, mosaic FROM {call}))");
    let e = message(&ctx, &null).await;
    assert!(e.contains("row 3") && e.contains("NULL label"), "{e}");
    let shown = shown(&ctx, &format!("EXPLAIN SELECT * FROM unpack({call})")).await;
    assert!(shown.contains("UnpackExec: rows_each=by mosaic"), "{shown}");
    // All of them, or none, on request: then the column has nothing to say.
    for (mosaic_rows, pictures, held) in [(3, 36, 2), (0, 9, 1)] {
        let call = call.replace("mosaic => 2", &format!("mosaic => 2, mosaic_rows => {mosaic_rows}"));
        let same = rows(&ctx, &format!("SELECT * FROM {call}")).await.unwrap();
        let in_all: usize = sides_of("small", &same.schema(), &same).unwrap().iter().map(|side| side * side).sum();
        assert_eq!((in_all, side(&same), same.column_by_name("mosaic").is_none()), (pictures, held, true));
    }
    let taken =
        format!("SELECT * FROM distill((SELECT *, nullif(label, 9) AS mosaic FROM t), ipc => 3, mosaic => 2, {SMALL})");
    let e = message(&ctx, &taken).await;
    assert!(e.contains("adds a column 'mosaic'") && e.contains("exclude"), "{e}");
    // Where all hold several, or one, a column of that name is the source's own.
    let own = format!(
        "SELECT * FROM distill((SELECT *, arrow_cast(nullif(label, 9), 'UInt8') AS mosaic FROM t), ipc => 2, mosaic => 2, {SMALL})"
    );
    assert_eq!(rows(&ctx, &format!("SELECT * FROM unpack(({own}))")).await.unwrap().num_rows(), 24);
}

#[tokio::test]
async fn of_real_rows_too_some_are_packed_and_the_others_whole() {
    let ctx = table();
    let query = |more: &str| format!("SELECT * FROM distill(t, method => 'random', {more})");
    let stored = rows(&ctx, &query("ipc => 3, mosaic => 2, mosaic_rows => 1")).await.unwrap();
    let chosen = rows(&ctx, &query("ipc => 6")).await.unwrap();
    let expected = Mosaic::new(2, SHAPE).unwrap().unwrap().pack_each(&pixels(&chosen), &[2, 1, 1].repeat(3));
    assert!(pixels(&stored).iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 0.5));
    assert_eq!(ints(&stored, "label"), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[tokio::test]
async fn classes_of_other_sizes_have_as_many_mosaics_as_their_rows_allow_and_each_picture_labels() {
    let ctx = table();
    let source = "(SELECT * FROM t WHERE label < 2 OR id < 12)";
    let call = format!(
        "distill({source}, rows => 9, allocation => 'proportional', mosaic => 2, label_kind => 'soft', {SMALL}, passes => 2)"
    );
    let source = rows(&ctx, &format!("SELECT label, count(*) AS n FROM {source} GROUP BY label ORDER BY label")).await;
    let counts = ints(&source.unwrap(), "n");
    assert!(counts[0] > counts[2], "{counts:?}");
    let stored = rows(&ctx, &format!("SELECT * FROM {call}")).await.unwrap();
    let (labels, sides) = (ints(&stored, "label"), sides_of("small", &stored.schema(), &stored).unwrap());
    let expected: Vec<usize> = labels
        .chunk_by(|a, b| a == b)
        .flat_map(|class| (0..class.len()).map(|row| if row < 2 { 2 } else { 1 }))
        .collect();
    assert!(sides == expected && sides.contains(&1), "{labels:?} {sides:?}");
    let lists = stored.column_by_name("soft_label").unwrap().as_list::<i32>();
    for (row, side) in sides.iter().enumerate() {
        assert_eq!(lists.value(row).len(), 3 * side * side);
    }
    let unpacked = rows(&ctx, &format!("SELECT * FROM unpack({call})")).await.unwrap();
    let each = unpacked.column_by_name("soft_label").unwrap().as_list::<i32>();
    assert!((0..each.len()).all(|row| each.value(row).len() == 3));
    assert_eq!(each.len(), sides.iter().map(|side| side * side).sum::<usize>());
}

#[tokio::test]
async fn soft_labels_are_those_of_each_picture_and_weights_are_shared_among_them() {
    let ctx = table();
    let call = format!("distill(t, ipc => 1, mosaic => 2, label_kind => 'soft', weight => 'w', {SMALL}, steps => 60)")
        .replace("steps => 2, ", "");
    let shares = |batch: &RecordBatch| -> Vec<Vec<f32>> {
        let lists = batch.column_by_name("soft_label").unwrap().as_list::<i32>();
        (0..lists.len()).map(|row| lists.value(row).as_primitive::<Float32Type>().values().to_vec()).collect()
    };
    let weights =
        |batch: &RecordBatch| batch.column_by_name("w").unwrap().as_primitive::<Float64Type>().values().to_vec();
    let stored = rows(&ctx, &format!("SELECT * FROM {call}")).await.unwrap();
    let unpacked = rows(&ctx, &format!("SELECT * FROM unpack({call})")).await.unwrap();
    assert!(shares(&stored).iter().all(|shares| shares.len() == 12));
    assert_eq!(shares(&unpacked).concat(), shares(&stored).concat());
    for (shares, label) in shares(&unpacked).iter().zip(ints(&unpacked, "label")) {
        let own = shares[label as usize];
        assert!(shares.len() == 3 && (shares.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{shares:?}");
        assert!(shares.iter().all(|share| (0.0..=own).contains(share)), "{label} {shares:?}");
    }
    assert_eq!((weights(&stored), weights(&unpacked)), (vec![30.0; 3], vec![7.5; 12]));
}

#[tokio::test]
async fn a_file_says_what_its_pictures_hold_and_what_does_not_can_be_told() {
    let ctx = table();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("small.parquet");
    let path = path.to_str().unwrap();
    let call = format!("distill(t, ipc => 1, mosaic => 2, {SMALL})");
    rows(&ctx, &format!("COPY (SELECT * FROM {call}) TO '{path}' STORED AS PARQUET")).await.unwrap();
    let direct = rows(&ctx, &format!("SELECT * FROM unpack({call})")).await.unwrap();
    let of_file = rows(&ctx, &format!("SELECT * FROM unpack('{path}')")).await.unwrap();
    assert_eq!(pixels(&of_file), pixels(&direct));
    // What was computed has lost the note.
    ctx.register_parquet("stored", path, Default::default()).await.unwrap();
    let query = "(SELECT named_struct('bytes', image['bytes'], 'path', image['path']) AS image, label FROM stored)";
    assert!(message(&ctx, &format!("SELECT * FROM unpack({query})")).await.contains("mosaic => 2"));
    let told = rows(&ctx, &format!("SELECT * FROM unpack({query}, mosaic => 2)")).await.unwrap();
    assert_eq!(told.num_rows(), 12);
    let e = message(&ctx, "SELECT * FROM unpack(t)").await;
    assert!(e.contains("column 'image'") && e.contains("mosaic => 2"), "{e}");
    assert!(shown(&ctx, &format!("EXPLAIN SELECT * FROM unpack('{path}')")).await.contains("UnpackExec: rows_each=4"));
}

#[tokio::test]
async fn what_is_no_picture_or_too_small_is_refused_by_name() {
    let ctx = table();
    ctx.register_batch("n", numbers(30, 3)).unwrap();
    for (query, parts) in [
        ("SELECT * FROM distill(t, mosaic => 9)", ["'mosaic'", "8"]),
        (&format!("SELECT * FROM distill(t, mosaic => 5, {SMALL})"), ["'mosaic'", "10x10"]),
        (&format!("SELECT * FROM distill(n, mosaic => 2, {SMALL})"), ["'mosaic'", "vector of 4"]),
        ("SELECT * FROM distill((SELECT 1 AS a, 2 AS b, 'x' AS label), mosaic => 2)", ["'mosaic'", "table"]),
        ("SELECT * FROM unpack()", ["no source", "unpack(source)"]),
        ("SELECT * FROM unpack(t, ipc => 2)", ["ipc", "is not an argument"]),
        ("SELECT * FROM unpack(t, mosaic => 'x')", ["'mosaic'", "x"]),
        ("SELECT * FROM unpack((SELECT 1 AS a, 2 AS b, 'x' AS label), mosaic => 2)", ["pictures", "unpack"]),
        (
            "SELECT * FROM distill((SELECT label, distill_sketch_agg(image, 'ipc=1 extractors=2 width=8 reservoir_per_class=3') AS s FROM t GROUP BY label), ipc => 1, mosaic => 2)",
            ["reservoir_per_class => 4", "mosaic"],
        ),
    ] {
        let e = message(&ctx, query).await;
        assert!(parts.iter().all(|part| e.contains(part)), "{query}: {e}");
    }
}
