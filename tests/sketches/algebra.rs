//! `distill_difference`, `distill_distance` and `distill_describe` in SQL.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{Float64Type, Int64Type};
use datafusion::prelude::SessionContext;

use super::*;
use crate::support::*;

fn with_table(columns: &[(&str, &[ClassSketch])]) -> SessionContext {
    let ctx = session();
    ctx.register_batch("t", batch(&sketcher(0), columns)).unwrap();
    ctx
}

#[tokio::test]
async fn a_difference_in_sql_is_the_sketch_of_the_other_rows_also_after_a_trip_through_parquet() {
    let sketcher = sketcher(0);
    let [whole, part, rest] = [&[1, 2, 3, 4, 4][..], &[2, 4], &[1, 3, 4]].map(|rows| vec![sketch(&sketcher, rows)]);
    let ctx = with_table(&[("whole", &whole), ("part", &part)]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.parquet");
    rows(&ctx, &format!("COPY t TO '{}' STORED AS PARQUET", path.display())).await.unwrap();
    ctx.register_parquet("stored", path.to_str().unwrap(), Default::default()).await.unwrap();
    for table in ["t", "stored"] {
        let found = rows(&ctx, &format!("SELECT distill_difference(whole, part) AS s FROM {table}")).await.unwrap();
        let (header, found) = sketch::from_array(found.column(0).as_struct(), 0).unwrap();
        assert_eq!(&header, sketcher.header());
        assert_eq!((found.count, &found.members), (3, &rest[0].members));
    }
    let e = message(&ctx, "SELECT distill_difference(part, whole) FROM t").await;
    assert!(e.contains("it has 5 rows, the first 2"), "{e}");
    let e = message(&ctx, "SELECT distill_difference(whole, i) FROM t").await;
    assert!(e.contains("distill_difference takes 2 columns of sketches, found Int64"), "{e}");
    let nulls =
        rows(&ctx, "SELECT distill_difference(whole, NULL) IS NULL, distill_difference(NULL, whole) IS NULL FROM t");
    let nulls = nulls.await.unwrap();
    assert_eq!([0, 1].map(|i| nulls.column(i).as_boolean().value(0)), [false, true]);
}

/// Sums are looked at as they are added, several sketches at a time, and as they are subtracted: wherever a damaged one stands, it is named.
#[tokio::test]
async fn a_damaged_sum_is_found_at_any_place_of_a_column() {
    let sketcher = sketcher(0);
    let sketches: Vec<ClassSketch> = (0..8).map(|n| sketch(&sketcher, &[n, n + 50])).collect();
    for (place, forge) in (0..8).zip([i64::MAX, i64::MIN, 3 << 30, -(3 << 30)].into_iter().cycle()) {
        let mut damaged = sketches.clone();
        damaged[place].members[1].sin[15] = forge;
        let ctx = with_table(&[("s", &sketches), ("d", &damaged)]);
        for query in [
            "SELECT distill_union_agg(d ORDER BY i) FROM t".to_string(),
            "SELECT distill_difference(d, s) FROM t".to_string(),
            "SELECT distill_difference(s, d) FROM t".to_string(),
        ] {
            let e = message(&ctx, &query).await;
            let expected = format!("extractors[1].sin': sum 15 is {forge}, too large for 2 rows");
            assert!(e.contains(&expected), "{query}, {place}: {e}");
        }
        let whole = rows(&ctx, "SELECT distill_union_agg(s) AS s FROM t").await.unwrap();
        assert_eq!(sketch::from_array(whole.column(0).as_struct(), 0).unwrap().1.count, 16);
    }
}

#[tokio::test]
async fn a_distance_is_zero_or_chance_for_like_rows_and_far_for_others() {
    let sketcher = sketcher(0);
    let like: Vec<u8> = (0..200).collect();
    let a = [sketch(&sketcher, &like[..100]), sketch(&sketcher, &like[..100]), sketch(&sketcher, &[1])];
    let b = [sketch(&sketcher, &like[100..]), sketch(&sketcher, &[105; 100]), sketch(&sketcher, &[1, 2])];
    let ctx = with_table(&[("a", &a), ("b", &b)]);
    let out = rows(&ctx, "SELECT d['distance'] AS distance, d['chance'] AS chance FROM (SELECT i, distill_distance(a, b) AS d FROM t ORDER BY i)")
        .await
        .unwrap();
    let [distance, chance] = [0, 1].map(|i| out.column(i).as_primitive::<Float64Type>());
    assert!(distance.value(0) < chance.value(0), "{distance:?} {chance:?}");
    assert!(distance.value(1) > chance.value(1) && chance.value(1) > 0.0, "{distance:?} {chance:?}");
    assert!(distance.is_null(2));
}

#[tokio::test]
async fn a_description_says_what_a_sketch_is_of_and_what_it_was_made_with() {
    let sketcher = sketcher(0);
    let ctx = with_table(&[("s", &[sketch(&sketcher, &[1, 2, 2])])]);
    let out = rows(&ctx, "SELECT d['rows'], d['reservoir_rows'], d['frequencies'], d['shape'], d['pool'], d['label'] FROM (SELECT distill_describe(s) AS d FROM t)")
        .await
        .unwrap();
    let numbers = [0, 1, 2].map(|i| out.column(i).as_primitive::<Int64Type>().value(0));
    assert_eq!(numbers, [3, 2, 16]);
    assert_eq!(out.column(3).as_string::<i32>().value(0), "vector of 3");
    assert_eq!(out.column(4).as_string::<i32>().value(0), sketcher.header().pool);
    assert!(out.column(5).is_null(0));
}

#[tokio::test]
async fn sketches_made_differently_are_refused_with_both_values_named() {
    let (ours, theirs) = (sketcher(0), sketcher(1));
    let ctx = session();
    ctx.register_batch("a", batch(&ours, &[("s", &[sketch(&ours, &[1, 2])])])).unwrap();
    ctx.register_batch("b", batch(&theirs, &[("s", &[sketch(&theirs, &[1, 2])])])).unwrap();
    for query in [
        "SELECT distill_difference(a.s, b.s) FROM a, b",
        "SELECT distill_distance(a.s, b.s) FROM a, b",
        "SELECT distill_union_agg(s) FROM (SELECT s FROM a UNION ALL SELECT s FROM b)",
    ] {
        let e = message(&ctx, query).await;
        assert!(
            e.contains("frequency seed") && e.contains(&ours.header().pool) && e.contains(&theirs.header().pool),
            "{e}"
        );
    }
}
