//! `unroll => N`: steps through the training of small networks, after the others.

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;

use crate::support::*;

#[tokio::test]
async fn pictures_go_on_from_where_the_other_steps_left_them() {
    let ctx = session_with_table("t", pictures(90, 3));
    let made =
        async |more: &str| rows(&ctx, &format!("SELECT * FROM distill(t, ipc => 2, {SMALL}{more})")).await.unwrap();
    let (without, with) = (made("").await, made(", unroll => 3").await);
    assert_ne!(without.columns(), with.columns());
    assert_eq!(with, made(", unroll => 3").await, "the same seed, the same bytes");
    assert_eq!((with.schema().fields(), ints(&with, "label")), (without.schema().fields(), vec![0, 0, 1, 1, 2, 2]));
    assert_ne!(with, made(", unroll => 3, unroll_width => 8").await);
    // Given steps leave nothing open.
    assert_eq!(without.columns(), made(", unroll => 0").await.columns());
    for more in [", unroll => 2, mosaic => 2", ", unroll => 2, label_kind => 'soft'", ", unroll => 2, experts => 2"] {
        assert_eq!(made(more).await.num_rows(), 6, "{more}");
    }
}

#[tokio::test]
async fn sketches_in_place_of_rows_give_the_same() {
    let ctx = session_with_table("t", pictures(90, 3));
    let options = "extractors => 2, width => 8, depth => 1";
    let agg =
        "SELECT label, distill_sketch_agg(image, {'extractors': 2, 'width': 8, 'depth': 1}) FROM t GROUP BY label";
    let from = async |source: &str| {
        let query = format!("SELECT label, image FROM distill({source}, ipc => 2, steps => 2, unroll => 3, {options})");
        rows(&ctx, &query).await.unwrap()
    };
    assert_eq!(from("t").await.columns(), from(&format!("({agg})")).await.columns());
}

#[tokio::test]
async fn what_is_left_open_ends_with_unrolled_training_if_the_sketch_keeps_enough_rows() {
    let ctx = session_with_table("t", pictures(30, 3));
    let steps = async |more: &str| {
        let call = format!("distill(t, ipc => 1, extractors => 1, width => 8, depth => 1, frequencies => 8{more})");
        let plan = shown(&ctx, &format!("EXPLAIN ANALYZE SELECT * FROM {call}")).await;
        let (_, rest) = plan.split_once("steps=").unwrap_or_else(|| panic!("{plan}"));
        let rest = rest.split_once("metrics").map_or(rest, |(_, metrics)| metrics);
        let (_, rest) = rest.split_once("steps=").unwrap_or_else(|| panic!("{plan}"));
        rest.split([',', ']']).next().unwrap().trim().to_string()
    };
    assert_eq!(steps("").await, "1.80 K");
    assert_eq!(steps(", steps => 5, unroll => 2, experts => 1").await, "7");
    assert_eq!(steps(", reservoir_per_class => 100").await, "1.00 K");
    assert_eq!(steps(", method => 'characteristic'").await, "1.00 K");
    // What comes before it may be made with less; a sketch that is kept may be for anything.
    for (options, extractors) in [("", 4), (", unroll => 0", 16), (", steps => 5", 16), (", extractors => 5", 5)] {
        let plan = shown(&ctx, &format!("EXPLAIN SELECT * FROM distill(t, ipc => 1{options})")).await;
        assert!(plan.contains(&format!("extractors={extractors},")), "{options}: {plan}");
    }
    for (options, told) in [
        ("ipc => 1", "unroll=800, seed"),
        ("ipc => 5", "unroll=280, experts=8, seed"),
        ("ipc => 5, experts => 0", "unroll=800, experts=0, seed"),
        ("ipc => 1, steps => 5, unroll_width => 8", "steps=5, unroll=800, unroll_width=8, seed"),
        ("ipc => 1, steps => 5", "steps=5, seed"),
        ("ipc => 5, unroll => 3, experts => 2", "unroll=3, experts=2, seed"),
        ("ipc => 1, unroll => 0", "unroll=0, seed"),
        ("ipc => 51", "by method, seed"),
        ("rows => 9", "by method, seed"),
        ("ipc => 1, method => 'herding'", "none, seed"),
    ] {
        let plan = shown(&ctx, &format!("EXPLAIN SELECT * FROM distill(t, {options})")).await;
        assert!(plan.contains(told), "{options}: {plan}");
    }
    let kept = "SELECT distill_sketch_agg(image, 'ipc=1 frequencies=8 width=8') AS s FROM t GROUP BY label";
    let kept = rows(&ctx, &format!("SELECT max(CAST(distill_describe(s)['extractors'] AS BIGINT)) AS n FROM ({kept})"))
        .await
        .unwrap();
    assert_eq!(ints(&kept, "n"), [16]);
}

#[tokio::test]
async fn lists_tables_and_chosen_rows_have_none() {
    let ctx = session_with_table("t", numbers(60, 3));
    let e = message(&ctx, "SELECT * FROM distill(t, ipc => 1, unroll => 3)").await;
    assert!(e.contains("'unroll'") && e.contains("pictures") && e.contains("vector of"), "{e}");
    for name in ["experts", "unroll_width"] {
        let e = message(&ctx, &format!("SELECT * FROM distill(t, ipc => 1, {name} => 8)")).await;
        assert!(e.contains(&format!("'{name}'")) && e.contains("pictures") && e.contains("vector of"), "{e}");
    }
    let e = message(&ctx, "SELECT * FROM distill(t, ipc => 1, unroll_width => 30)").await;
    assert!(e.contains("'unroll_width'") && e.contains("a multiple of 8, found 30"), "{e}");
    let e = message(&ctx, "SELECT * FROM distill(t, ipc => 1, method => 'herding', unroll => 3)").await;
    assert!(e.contains("'unroll'") && e.contains("chooses real rows"), "{e}");
    let count = rows(&ctx, "SELECT count(*) AS n FROM distill(t, ipc => 1, steps => 1, unroll => 0)").await.unwrap();
    assert_eq!(count.column(0).as_primitive::<Int64Type>().value(0), 3);
}
