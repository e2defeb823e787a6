use super::{Folder, json, small_run};

#[test]
fn roles_and_classes_are_shown_with_their_names() {
    let folder = Folder::new();
    let shown = folder.succeeds(["inspect", "train.parquet"]);
    let line = |start: &str| shown.lines().find(|l| l.starts_with(start)).unwrap_or_else(|| panic!("{start}: {shown}"));
    assert!(shown.starts_with("train.parquet: 36 rows"), "{shown}");
    assert!(line("image").contains("feature"), "{shown}");
    assert!(line("label").contains("label"), "{shown}");
    assert!(line("1 right").ends_with("12"), "{shown}");
    assert!(!shown.contains("distilled by"), "{shown}");
}

#[test]
fn json_holds_the_provenance_of_distilled_rows() {
    let folder = Folder::new();
    folder.succeeds(small_run("train.parquet", "out.parquet"));
    let shown = json(&folder.succeeds(["inspect", "out.parquet", "--json"]));
    assert_eq!(shown["rows"], 6);
    assert_eq!(shown["provenance"]["options"]["width"], "8", "{shown}");
    assert_eq!(shown["classes"][2]["name"], "below");
    assert_eq!(shown["columns"][1]["role"], "label");
}

#[test]
fn a_contact_sheet_has_a_row_a_class() {
    let folder = Folder::new();
    folder.succeeds(["inspect", "train.parquet", "-o", "sheet.png", "--columns", "4"]);
    let sheet = image::open(folder.path("sheet.png")).unwrap();
    // A border and a gap of 4; names of up to 5 letters of 8; 4 pictures of 32, 3 of them below each other.
    assert_eq!((sheet.width(), sheet.height()), (4 + 5 * 8 + 4 + 4 * 36, 4 + 3 * 36));
    assert_eq!(folder.names(), ["sheet.png", "test.parquet", "train.parquet"]);
}

#[test]
fn a_file_without_roles_is_described_all_the_same() {
    let folder = Folder::new();
    folder.succeeds(["sql", "-c", "COPY (SELECT 1 AS a, 'x' AS b) TO 'plain.parquet' STORED AS PARQUET"]);
    let shown = folder.succeeds(["inspect", "plain.parquet"]);
    assert!(shown.contains("roles can't be told"), "{shown}");
    let error = folder.fails(["inspect", "plain.parquet", "-o", "sheet.png"]);
    assert!(error.contains("label"), "{error}");
}
