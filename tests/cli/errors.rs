use super::{Folder, small_run};

#[test]
fn a_missing_source_is_named_and_nothing_is_written() {
    let folder = Folder::new();
    let error = folder.fails(small_run("nowhere.parquet", "out.parquet"));
    assert!(error.starts_with("error: ") && error.contains("'nowhere.parquet'"), "{error}");
    assert!(!error.contains("SQL"), "the user wrote no SQL: {error}");
    assert_eq!(folder.names(), ["test.parquet", "train.parquet"]);
}

#[test]
fn option_values_are_checked_before_anything_is_read() {
    let folder = Folder::new();
    for (flags, part) in [
        (&["--ipc", "0"][..], "option 'ipc': expected a whole number from 1"),
        (&["--ipc", "2", "--method", "characterstic"], "did you mean 'characteristic'"),
        (&["--ipc", "2", "--learning-rate", "-1"], "option 'learning_rate'"),
    ] {
        let error = folder.fails([&["run", "nowhere.parquet", "-o", "out.parquet"], flags].concat());
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_existing_output_is_kept_unless_overwriting_is_asked_for() {
    let folder = Folder::new();
    std::fs::write(folder.path("out.parquet"), "mine").unwrap();
    let error = folder.fails(small_run("train.parquet", "out.parquet"));
    assert!(error.contains("--overwrite"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.path("out.parquet")).unwrap(), "mine");
    folder.succeeds([&small_run("train.parquet", "out.parquet")[..], &["--overwrite"]].concat());
    assert!(std::fs::metadata(folder.path("out.parquet")).unwrap().len() > 4);
}

#[test]
fn a_file_that_is_no_parquet_is_an_error_that_names_it() {
    let folder = Folder::new();
    std::fs::write(folder.path("text.parquet"), "not Parquet at all").unwrap();
    for args in [&["inspect", "text.parquet"][..], &["evaluate", "text.parquet", "--test", "test.parquet"]] {
        let error = folder.fails(args);
        assert!(error.contains("text.parquet"), "{error}");
    }
    let error = folder.fails(small_run("text.parquet", "out.parquet"));
    assert!(error.contains("text.parquet"), "{error}");
}

#[test]
fn a_flag_that_does_not_exist_is_told_with_the_nearest() {
    let folder = Folder::new();
    let output = folder.distill(["run", "train.parquet", "-o", "out.parquet", "--ipc", "1", "--exractors", "2"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("--extractors"), "{error}");
}
