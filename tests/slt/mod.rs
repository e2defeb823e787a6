//! Files of `tests/slt` flow in, in the format of sqllogictest; each statement and query in them does what it says.
//!
//! The part of the format that is understood: `statement ok`, `statement error REGEX`, `query TYPES [rowsort]` with the rows
//! after `----`, comments, and `$__TEST_DIR__`. White space between values doesn't count; a value of several lines is as many
//! lines. (The crate `sqllogictest` would bring a second version of rand, itertools and others.)

use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::SessionContext;
use regex::Regex;

use crate::support::*;

macro_rules! files {
    ($($name:ident),+ $(,)?) => {
        $(#[tokio::test] async fn $name() { run(stringify!($name)).await })+

        #[test]
        fn every_file_is_run() {
            let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slt")).unwrap();
            let names = folder.map(|f| f.unwrap().file_name().into_string().unwrap());
            let mut found: Vec<_> = names.filter(|name| name != "mod.rs").collect();
            found.sort();
            assert_eq!(found, [$(concat!(stringify!($name), ".slt")),+]);
        }
    };
}

files!(arguments, copy, errors, explain, names, prepared, settings, sources, union_aggregate, views);

/// Runs all records of a file in one session; tells all that don't hold.
async fn run(name: &str) {
    let path = format!("{}/tests/slt/{name}.slt", env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(&path).unwrap().replace("$__TEST_DIR__", dir.path().to_str().unwrap());
    let (ctx, lines) = (session(), text.lines().collect::<Vec<_>>());
    let (mut failures, mut at, mut records) = (vec![], 0, 0);
    while at < lines.len() {
        if lines[at].trim().is_empty() || lines[at].starts_with('#') {
            at += 1;
            continue;
        }
        let end = lines[at..].iter().position(|line| line.trim().is_empty()).map_or(lines.len(), |n| at + n);
        if let Err(why) = record(&ctx, lines[at], &lines[at + 1..end]).await {
            failures.push(format!("{path}:{}: {why}", at + 1));
        }
        (at, records) = (end, records + 1);
    }
    assert!(records > 0, "{path} is empty");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

async fn record(ctx: &SessionContext, head: &str, body: &[&str]) -> Result<(), String> {
    let (sql, expected) = match body.iter().position(|line| *line == "----") {
        Some(at) => (body[..at].join("\n"), &body[at + 1..]),
        None => (body.join("\n"), &[][..]),
    };
    let result = rows(ctx, &sql).await.map_err(|e| e.strip_backtrace());
    if head == "statement ok" {
        return result.map(|_| ());
    }
    if let Some(pattern) = head.strip_prefix("statement error") {
        let pattern = Regex::new(pattern.trim()).map_err(|e| e.to_string())?;
        return match result {
            Ok(batch) => Err(format!("expected an error, found {} rows", batch.num_rows())),
            Err(error) if pattern.is_match(&error) => Ok(()),
            Err(error) => Err(format!("expected an error like '{pattern}', found: {error}")),
        };
    }
    let words: Vec<&str> = head.split_whitespace().collect();
    let (types, sort) = match words[..] {
        ["query", types] => (types, false),
        ["query", types, "rowsort"] => (types, true),
        _ => return Err(format!("'{head}' is not understood")),
    };
    let batch = result?;
    let letters: String = batch.schema().fields().iter().map(|field| letter(field.data_type())).collect();
    if letters != types {
        return Err(format!("expected columns {types}, found {letters}"));
    }
    let mut found = shown_rows(&batch).map_err(|e| e.to_string())?;
    if sort {
        found.sort();
    }
    let found: Vec<String> = found.iter().flat_map(|row| row.lines().map(normal)).collect();
    let expected: Vec<String> = expected.iter().map(|line| normal(line)).collect();
    if found == expected {
        Ok(())
    } else {
        Err(format!("expected\n{}\nfound\n{}", expected.join("\n"), found.join("\n")))
    }
}

/// The letter of a column's type: integer, real, boolean, text, anything else.
fn letter(data_type: &DataType) -> char {
    match data_type {
        t if t.is_integer() => 'I',
        t if t.is_numeric() => 'R',
        DataType::Boolean => 'B',
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 'T',
        _ => '?',
    }
}

fn shown_rows(batch: &RecordBatch) -> Result<Vec<String>, datafusion::arrow::error::ArrowError> {
    let options = FormatOptions::default().with_null("NULL");
    let columns = batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let value = |i: usize, row: usize| match columns[i].value(row).to_string() {
        text if text.is_empty() && batch.column(i).is_valid(row) => "(empty)".to_string(),
        text => text,
    };
    Ok((0..batch.num_rows())
        .map(|row| (0..columns.len()).map(|i| value(i, row)).collect::<Vec<_>>().join(" "))
        .collect())
}

fn normal(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
