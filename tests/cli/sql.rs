use std::io::Write;
use std::process::Stdio;

use super::Folder;

#[test]
fn statements_run_in_turn_and_results_are_printed() {
    let folder = Folder::new();
    let text = "CREATE TABLE t AS SELECT label, count(*) AS n FROM 'train.parquet' GROUP BY label; SELECT * FROM t ORDER BY label";
    let table = "\
+-------+----+
| label | n  |
+-------+----+
| 0     | 12 |
| 1     | 12 |
| 2     | 12 |
+-------+----+
";
    assert_eq!(folder.succeeds(["sql", "-c", text]), table);
    assert_eq!(folder.succeeds(["sql", "-c", text, "--format", "csv"]), "label,n\n0,12\n1,12\n2,12\n");
    let json = "{\"label\":0,\"n\":12}\n{\"label\":1,\"n\":12}\n{\"label\":2,\"n\":12}\n";
    assert_eq!(folder.succeeds(["sql", "-c", text, "--format", "json"]), json);

    std::fs::write(folder.path("job.sql"), text).unwrap();
    assert_eq!(folder.succeeds(["sql", "-f", "job.sql"]), table);

    let mut child = folder.command(["sql"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap(), table);
}

#[test]
fn distill_is_a_relation_and_its_pictures_are_shown_by_their_size() {
    let folder = Folder::new();
    let text = "SELECT * FROM distill('train.parquet', ipc => 1, extractors => 1, width => 8, steps => 2)";
    let table = folder.succeeds(["sql", "-c", text]);
    assert_eq!(table.lines().count(), 7, "{table}");
    assert!(table.contains(" bytes, path: }"), "{table}");
}

#[test]
fn copy_writes_a_file_that_inspect_understands() {
    let folder = Folder::new();
    let text = "COPY (SELECT * FROM distill('train.parquet', ipc => 1, extractors => 1, width => 8, steps => 2)) TO 'out.parquet' STORED AS PARQUET";
    folder.succeeds(["sql", "-c", text]);
    let shown = folder.succeeds(["inspect", "out.parquet"]);
    assert!(shown.contains("out.parquet: 3 rows") && shown.contains("options.ipc"), "{shown}");
}

#[test]
fn errors_tell_line_and_column_of_the_whole_text() {
    let folder = Folder::new();
    let error = folder.fails(["sql", "-c", "SELECT 1;\nSELECT * FROM distill('train.parquet', icp => 1)"]);
    assert!(error.contains("did you mean 'ipc'"), "{error}");
    assert!(error.contains("line 2, column 40"), "{error}");
    let error = folder.fails(["sql", "-c", "SELEC 1"]);
    assert!(error.contains("Line: 1, Column: 1"), "{error}");
}

#[test]
fn settings_are_the_defaults_of_later_statements() {
    let folder = Folder::new();
    let text = "SET distill.ipc = 3; SHOW distill.ipc";
    assert!(folder.succeeds(["sql", "-c", text]).contains("| distill.ipc | 3     |"));
}

#[test]
fn an_empty_text_is_an_error() {
    let error = Folder::new().fails(["sql", "-c", " ; "]);
    assert!(error.contains("no statement"), "{error}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    let text = "SELECT * FROM generate_series(1, 100000)";
    let mut child = folder
        .command(["sql", "--format", "csv", "-c", text])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
