//! Classes of different sizes: `rows`, `allocation` and `weight`.

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float64Type};

use crate::support::*;

/// Pictures of three classes, 60, 15 and 5 of them.
fn imbalanced() -> RecordBatch {
    let class = |i: usize| if i < 60 { 0 } else { 1 + usize::from(i >= 75) };
    pictures_of((0..80).map(|i| Some(png(class(i), i, 8))).collect(), (0..80).map(|i| Some(class(i) as i64)).collect())
}

fn call(options: &str) -> String {
    format!("SELECT * FROM distill(t, {options}, {SMALL})")
}

fn counts(batch: &RecordBatch) -> [usize; 3] {
    let labels = ints(batch, "label");
    [0, 1, 2].map(|class| labels.iter().filter(|label| **label == class).count())
}

#[tokio::test]
async fn rows_are_split_over_the_classes_as_asked() {
    let ctx = session_with_table("t", imbalanced());
    for (options, expected) in [
        ("rows => 16", [6, 5, 5]),
        ("rows => 16, allocation => 'equal'", [6, 5, 5]),
        ("rows => 16, allocation => 'proportional'", [12, 3, 1]),
        ("rows => 16, allocation => 'sqrt'", [9, 4, 3]),
        ("ipc => 4, allocation => 'proportional'", [9, 2, 1]),
        ("rows => 3, allocation => 'proportional'", [1, 1, 1]),
        ("rows => 16, allocation => 'proportional', init => 'noise'", [12, 3, 1]),
        ("rows => 16, allocation => 'proportional', method => 'mean'", [12, 3, 1]),
        // More rows than class 2 has real ones.
        ("rows => 30, allocation => 'equal'", [10, 10, 10]),
    ] {
        let out = rows(&ctx, &call(options)).await.unwrap();
        assert_eq!(counts(&out), expected, "{options}");
        assert!(ints(&out, "label").is_sorted());
    }
    let selected = "SELECT * FROM distill(t, rows => 16, allocation => 'proportional', method => 'k_means', extractors => 1, width => 8)";
    assert_eq!(counts(&rows(&ctx, selected).await.unwrap()), [12, 3, 1]);
}

#[tokio::test]
async fn weights_give_the_class_counts_back() {
    let ctx = session_with_table("t", imbalanced());
    let query = call("rows => 16, allocation => 'sqrt', weight => 'stands_for'");
    let out = rows(&ctx, &query).await.unwrap();
    let field = out.schema().field(3).clone();
    assert_eq!(
        (field.name().as_str(), field.data_type(), field.is_nullable()),
        ("stands_for", &DataType::Float64, false)
    );
    let weights = out.column(3).as_primitive::<Float64Type>().values().to_vec();
    let expected = [[60.0 / 9.0; 9].as_slice(), &[15.0 / 4.0; 4], &[5.0 / 3.0; 3]].concat();
    assert_eq!(weights, expected);
    // A projection above sees the column like any other.
    let sums = format!(
        "SELECT label, CAST(round(sum(stands_for)) AS BIGINT) AS n FROM ({query}) GROUP BY label ORDER BY label"
    );
    assert_eq!(ints(&rows(&ctx, &sums).await.unwrap(), "n"), [60, 15, 5]);
}

#[tokio::test]
async fn a_file_with_weights_describes_them_and_says_what_to_leave_out_to_be_a_source_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.parquet");
    let ctx = session_with_table("t", imbalanced());
    let query = call("rows => 16, weight => 'w'");
    rows(&ctx, &format!("COPY ({query}) TO '{}' STORED AS PARQUET", path.display())).await.unwrap();
    let frame = ctx.sql(&query).await.unwrap();
    let note: serde_json::Value = serde_json::from_str(&frame.schema().metadata()["huggingface"]).unwrap();
    assert_eq!(note["info"]["features"]["w"]["dtype"], "float64");
    let again = message(&ctx, &format!("SELECT * FROM distill('{}', ipc => 1, {SMALL})", path.display())).await;
    assert!(again.contains("column 'w': is NOT NULL") && again.contains("(SELECT image, label FROM ...)"), "{again}");
    let chosen =
        format!("SELECT label FROM distill((SELECT image, label FROM '{}'), ipc => 1, {SMALL})", path.display());
    let ctx = ctx.enable_url_table();
    assert_eq!(ints(&rows(&ctx, &chosen).await.unwrap(), "label"), [0, 1, 2]);
}

#[tokio::test]
async fn explain_shows_rows_allocation_and_weight() {
    let ctx = session_with_table("t", imbalanced());
    let plan = explained(&ctx, &call("rows => 16, allocation => 'sqrt', weight => 'w'"), "").await;
    assert!(plan.starts_with("DistillExec: source=table t, rows=16, allocation=sqrt, weight=w, method=auto"), "{plan}");
}

#[tokio::test]
async fn contradictions_and_impossible_splits_are_refused() {
    let ctx = session_with_table("t", imbalanced());
    for (options, part) in [
        ("rows => 2", "2 rows can't be split over 3 classes"),
        ("rows => 20, ipc => 2", "ipc is given too"),
        ("rows => 1", "option 'rows': expected a whole number from 2"),
        ("rows => 20, allocation => 'squrt'", "did you mean 'sqrt'?"),
        ("rows => 20, weight => 'id'", "option 'weight': the source has a column 'id'"),
    ] {
        let message = message(&ctx, &call(options)).await;
        assert!(message.contains(part), "{options}: {message}");
    }
    let message =
        message(&ctx, "SELECT * FROM distill(t, rows => 150, method => 'random', reservoir_per_class => 40)").await;
    assert!(
        message.contains("chooses 50 real rows of class 0") && message.contains("reservoir_per_class => 50"),
        "{message}"
    );
}

#[tokio::test]
async fn of_ipc_and_rows_an_argument_wins_over_the_sessions_default() {
    let ctx = session_with_table("t", imbalanced());
    rows(&ctx, "SET distill.ipc = 2").await.unwrap();
    assert_eq!(counts(&rows(&ctx, &call("rows => 9")).await.unwrap()), [3, 3, 3]);
    rows(&ctx, "SET distill.rows = 12").await.unwrap();
    assert_eq!(counts(&rows(&ctx, &call("ipc => 1")).await.unwrap()), [1, 1, 1]);
    assert_eq!(counts(&rows(&ctx, &call("seed => 1")).await.unwrap()), [4, 4, 4]);
}
