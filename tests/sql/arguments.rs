//! What may stand between the parentheses.

use crate::support::*;

fn call(source: &str, options: &str) -> String {
    format!("SELECT * FROM distill({source}, {SMALL}, {options})")
}

#[tokio::test]
async fn wrong_arguments_are_refused_with_what_to_do() {
    let ctx = session_with_table("t", pictures(12, 3));
    for (query, part) in [
        ("distill(t, icp => 2)", "unknown option 'icp' (did you mean 'ipc'?)"),
        ("distill(t, colour => 'x')", "unknown option 'colour'"),
        ("distill(t, ipc = 2)", "'ipc = 2' is a comparison; write ipc => 2"),
        ("distill(t, 2)", "'2' has no name"),
        ("distill(t, ipc => 1, ipc => 2)", "argument 'ipc' is given twice"),
        ("distill(t, source => 'u')", "argument 'source' is given twice"),
        ("distill()", "has no source"),
        ("distill(ipc => 1)", "has no source"),
        ("distill(5)", "'5' is not a source"),
        ("distill(*)", "is not an argument"),
        ("distill(t, ipc => 0)", "option 'ipc': expected a whole number from 1"),
        ("distill(t, ipc => 'many')", "option 'ipc': expected a whole number"),
        ("distill(t, ipc => 1.5)", "option 'ipc': expected a whole number"),
        ("distill(t, ipc => now())", "option 'ipc'"),
        ("distill(t, ipc => random())", "expected a constant"),
        ("distill(t, ipc => DATE '2020-01-01')", "expected a number, text or a list"),
        ("distill(t, method => mean)", "write text in single quotes: method => 'mean'"),
        ("distill(t, method => 'meen')", "did you mean 'mean'?"),
        ("distill(t, reservoir_per_class => 1, ipc => 2)", "reservoir_per_class"),
        ("distill(t, label => 'nope')", "nope"),
        ("distill(u)", "u' not found"),
        ("distill(train.parquet)", "a path is written in single quotes: 'train.parquet'"),
        ("distill((SELECT image, label, id, id AS label FROM t))", "label"),
        ("distill((SELECT * FROM t AS a JOIN t AS b ON a.id = b.id))", "two columns of the source are named 'image'"),
        ("distill((SELECT * FROM t WHERE id > $1))", "parameter $1"),
    ] {
        let message = message(&ctx, &format!("SELECT * FROM {query}")).await;
        assert!(message.contains(part), "{query}: {message}");
    }
}

#[tokio::test]
async fn an_error_points_to_its_place_in_the_query() {
    let ctx = session_with_table("t", pictures(12, 3));
    for (query, line, column) in [
        ("SELECT * FROM distill(t, icp => 2)", 1, 26),
        ("SELECT *\nFROM distill(t,\n  ipc => 0)", 3, 10),
        ("SELECT * FROM distill(t, ipc => 1, 7)", 1, 36),
        ("SELECT * FROM distill('nowhere.parquet')", 1, 23),
        ("SELECT * FROM distill(t, label => 'nope')", 1, 15),
    ] {
        let error = failure(&ctx, query).await;
        let span = error.diagnostic().and_then(|d| d.span).unwrap_or_else(|| panic!("{query}: {error} has no place"));
        assert_eq!((span.start.line, span.start.column), (line, column), "{query}");
    }
}

#[tokio::test]
async fn the_source_cannot_refer_to_the_query_around_it() {
    let ctx = session_with_table("t", pictures(12, 3));
    let query = "SELECT * FROM t AS o, LATERAL (SELECT * FROM distill((SELECT * FROM t WHERE t.id > o.id))) AS d";
    let message = message(&ctx, query).await;
    assert!(message.contains("can't refer to"), "{message}");
}

#[tokio::test]
async fn values_may_be_constant_expressions_lists_and_null() {
    let ctx = session_with_table("t", pictures(12, 3));
    for (options, count) in [
        ("ipc => 1 + 1", 6),
        ("ipc => CAST('2' AS INT)", 6),
        ("ipc => NULL, classes => ['zero', 'one']", 20),
        ("ipc := 2, classes => make_array(0, 2)", 4),
        ("ipc => 2, label => 'la' || 'bel', classes => '0,1'", 4),
        ("IPC => 2, on_null => 'SKIP'", 6),
    ] {
        let batch = rows(&ctx, &call("t", options)).await.unwrap();
        assert_eq!(batch.num_rows(), count, "{options}");
    }
}
