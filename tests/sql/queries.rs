//! `distill` inside larger statements: several calls, CTEs, views, prepared statements, parameters.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::stats::Precision;
use datafusion::physical_plan::{StatisticsArgs, StatisticsContext};
use datafusion_distill::sql::{Event, ProgressListener};

use crate::support::*;

fn call(options: &str) -> String {
    format!("distill(t, {SMALL}, {options})")
}

#[tokio::test]
async fn two_calls_of_one_query_have_options_of_their_own() {
    let ctx = session_with_table("t", pictures(24, 3));
    let query = format!(
        "SELECT a.label, count(*) AS n FROM {} AS a JOIN {} AS b ON a.label = b.label GROUP BY a.label ORDER BY a.label",
        call("ipc => 1"),
        call("ipc => 3, classes => ['zero', 'two']")
    );
    let joined = rows(&ctx, &query).await.unwrap();
    assert_eq!((ints(&joined, "label"), ints(&joined, "n")), (vec![0, 2], vec![3, 3]));
    let query = format!("SELECT label FROM {} UNION ALL SELECT label FROM {}", call("ipc => 1"), call("ipc => 2"));
    assert_eq!(rows(&ctx, &query).await.unwrap().num_rows(), 9);
}

#[tokio::test]
async fn a_cte_that_is_used_twice_runs_twice_and_gives_the_same_rows() {
    let steps = Arc::new(AtomicUsize::new(0));
    let steps_ = Arc::clone(&steps);
    let listener = ProgressListener::new(move |event| {
        if let Event::Step(_) = event {
            steps_.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ctx = session_with(config().with_extension(Arc::new(listener)));
    ctx.register_batch("t", pictures(24, 3)).unwrap();
    let count = async |query: &str| {
        let query = format!("WITH d AS (SELECT * FROM {}) {query}", call("ipc => 1"));
        let n = ints(&rows(&ctx, &query).await.unwrap(), "n");
        (n, steps.swap(0, Ordering::SeqCst))
    };
    assert_eq!(count("SELECT count(*) AS n FROM d").await, (vec![3], 2));
    let twice = "SELECT count(*) AS n FROM d AS a JOIN d AS b ON a.image['bytes'] = b.image['bytes']";
    assert_eq!(count(twice).await, (vec![3], 4));

    // Stored, it runs once.
    rows(&ctx, &format!("CREATE TABLE d AS SELECT * FROM {}", call("ipc => 1"))).await.unwrap();
    assert_eq!(steps.swap(0, Ordering::SeqCst), 2);
    rows(&ctx, twice).await.unwrap();
    assert_eq!(steps.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_view_runs_the_job_when_it_is_read() {
    let ctx = session_with_table("t", pictures(24, 3));
    rows(&ctx, &format!("CREATE VIEW v AS SELECT image, label FROM {}", call("ipc => 2"))).await.unwrap();
    let counts = rows(&ctx, "SELECT label, count(*) AS n FROM v GROUP BY label ORDER BY label").await.unwrap();
    assert_eq!((ints(&counts, "label"), ints(&counts, "n")), (vec![0, 1, 2], vec![2, 2, 2]));
    let again = rows(&ctx, &format!("SELECT label FROM distill(v, ipc => 1, {SMALL})")).await.unwrap();
    assert_eq!(ints(&again, "label"), [0, 1, 2]);
    let plan = explained(&ctx, "SELECT label FROM v", "").await;
    insta::assert_snapshot!(plan.lines().next().unwrap(), @"DistillExec: source=table t, ipc=2, method=auto, steps=2, seed=0, roles=[image: feature (Hugging Face Image), label: label (Hugging Face ClassLabel with 3 names), id: carried (neither label nor feature: NULL in the synthetic rows)]");
}

#[tokio::test]
async fn a_prepared_statement_may_distill_but_not_with_parameters() {
    let ctx = session_with_table("t", pictures(24, 3));
    rows(&ctx, &format!("PREPARE p AS SELECT label FROM {}", call("ipc => 1"))).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ints(&rows(&ctx, "EXECUTE p").await.unwrap(), "label"), [0, 1, 2]);
    }
    // Around the call they are the query's own business.
    rows(&ctx, &format!("PREPARE q(BIGINT) AS SELECT label FROM {} WHERE label >= $1", call("ipc => 1")))
        .await
        .unwrap();
    assert_eq!(ints(&rows(&ctx, "EXECUTE q(1)").await.unwrap(), "label"), [1, 2]);
    for (source, options, subject) in [
        ("t", "ipc => $1", "option 'ipc'"),
        ("t", "ipc => $1 + 1", "option 'ipc'"),
        ("t", "classes => ['zero', $1]", "option 'classes'"),
        ("(SELECT * FROM t WHERE id > $1)", "ipc => 1", "distill: its source"),
        ("$1", "ipc => 1", "distill: its source"),
    ] {
        let query = format!("PREPARE r AS SELECT * FROM distill({source}, {SMALL}, {options})");
        let message = message(&ctx, &query).await;
        let expected = format!("{subject} has the parameter $1; write the value");
        assert!(message.contains(&expected), "{query}: {message}");
    }
}

#[tokio::test]
async fn the_optimizer_is_told_how_many_rows_exactly_by_rows_and_about_where_classes_are_known() {
    let ctx = session_with_table("t", pictures(24, 3));
    ctx.register_batch("n", numbers(12, 2)).unwrap();
    rows(&ctx, "SET datafusion.explain.show_statistics = true").await.unwrap();
    for (query, expected) in [
        ("distill((SELECT image, label < 1 AS label FROM t), ipc => 2)", "Rows=Inexact(4)"),
        ("distill(n, ipc => 2, classes => ['class 0', 'class 1'])", "Rows=Inexact(4)"),
        ("distill(n, ipc => 2)", "Rows=Absent"),
        ("distill(n, rows => 7)", "Rows=Exact(7)"),
    ] {
        let plan = explained(&ctx, &format!("SELECT * FROM {query}"), "").await;
        let line = plan.lines().find(|line| line.contains("DistillExec")).unwrap();
        assert!(line.contains(expected), "{query}: {line}");
    }
    let (_dir, path) = train();
    let plan = explained(&ctx, &format!("SELECT * FROM distill('{path}', ipc => 5)"), "").await;
    assert!(plan.lines().any(|line| line.contains("DistillExec") && line.contains("Rows=Inexact(15)")), "{plan}");
    // A class without rows: the estimate was too high, the count isn't.
    let query =
        format!("SELECT count(*) AS n FROM distill(n, ipc => 1, classes => ['class 0', 'class 1', 'x'], {SMALL})");
    assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "n"), [2]);
}

#[tokio::test]
async fn exact_statistics_are_those_that_cannot_be_wrong() {
    let ctx = session_with_table("t", pictures(24, 3));
    let of = async |columns: &str, options: &str| {
        let query = format!("SELECT {columns} FROM {}", call(options));
        let plan = ctx.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
        StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new()).unwrap()
    };
    use Precision::{Absent, Exact, Inexact};

    let rows = of("*", "rows => 7, weight => 'w'").await;
    let nulls: Vec<_> = rows.column_statistics.iter().map(|c| c.null_count).collect();
    assert_eq!(rows.num_rows, Exact(7));
    // The picture, the label, the id (which is NULL in all rows), the weight.
    assert_eq!(nulls, [Absent, Inexact(0), Inexact(7), Inexact(0)]);
    let bytes: Vec<_> = rows.column_statistics.iter().map(|c| c.byte_size).collect();
    assert_eq!((rows.total_byte_size, bytes), (Absent, vec![Absent, Exact(56), Exact(56), Exact(56)]));
    assert_eq!(of("label, id", "rows => 7").await.total_byte_size, Exact(112));

    let ipc = of("*", "ipc => 2, weight => 'w'").await;
    let nulls: Vec<_> = ipc.column_statistics.iter().map(|c| c.null_count).collect();
    assert_eq!(ipc.num_rows, Inexact(6), "a class may have no row");
    assert_eq!(nulls, [Absent, Exact(0), Inexact(6), Exact(0)]);
    assert_eq!(ipc.column_statistics[1].distinct_count, Inexact(3));
}

#[tokio::test]
async fn a_count_runs_the_job_and_shows_its_errors() {
    let ctx = session_with_table("t", pictures(24, 3));
    ctx.register_batch("one", pictures(24, 1)).unwrap();
    let query = |count: &str, from: &str, table: &str| {
        let call = format!("distill({table}, {SMALL}, rows => 7)");
        format!("SELECT {count} AS n FROM {}", from.replace("CALL", &call))
    };
    for (count, from, n) in [
        ("count(*)", "CALL", 7),
        ("count(label)", "CALL", 7),
        ("count(id)", "CALL", 0),
        ("count(*)", "(SELECT label FROM CALL LIMIT 3)", 3),
        ("count(*)", "(SELECT label FROM CALL ORDER BY label)", 7),
        ("count(*)", "(SELECT label FROM CALL UNION ALL SELECT label FROM CALL)", 14),
        ("count(*)", "CALL CROSS JOIN (VALUES (1), (2))", 14),
    ] {
        assert_eq!(ints(&rows(&ctx, &query(count, from, "t")).await.unwrap(), "n"), [n], "{count} FROM {from}");
        let message = message(&ctx, &query(count, from, "one")).await;
        assert!(message.contains("one class only"), "{count} FROM {from}: {message}");
    }
}
