use super::{Folder, json};

const QUICK: [&str; 8] = ["--network", "linear", "--epochs", "40", "--repeats", "2", "--augment", "none"];

#[test]
fn a_file_and_its_baselines_are_reported_in_a_table() {
    let folder = Folder::new();
    let more = ["--baseline", "random,herding,k_center,k-means", "--from", "train.parquet", "--ipc", "2"];
    let table = folder.succeeds([&["evaluate", "train.parquet", "--test", "test.parquet"], &QUICK[..], &more].concat());
    assert!(table.starts_with("linear, 2 networks, recipe dc, 40 epochs, 18 test rows"), "{table}");
    let cells = |name: &str| -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {table}"));
        line.split_whitespace().map(str::to_string).collect()
    };
    assert_eq!(cells("train.parquet")[1..3], ["36", "12"]);
    for baseline in ["random", "herding", "k_center", "k_means"] {
        assert_eq!(cells(baseline)[1..4], ["6", "2", "-"], "{baseline}");
    }
}

#[test]
fn json_lines_hold_each_networks_accuracy_and_repeat_for_a_seed() {
    let folder = Folder::new();
    let args = [&["evaluate", "train.parquet", "--test", "test.parquet", "--json"], &QUICK[..]].concat();
    let report = |more: &[&str]| json(&folder.succeeds([&args[..], more].concat()));
    let one = report(&["--threads", "1"]);
    assert_eq!(one["accuracies"].as_array().map(Vec::len), Some(2), "{one}");
    assert!(one["mean"].as_f64().is_some_and(|a| a > 0.9), "{one}");
    assert_eq!(one["bytes"], std::fs::metadata(folder.path("train.parquet")).unwrap().len());
    assert_eq!(one["losses"], report(&["--threads", "3"])["losses"]);
    assert_ne!(one["losses"], report(&["--seed", "1"])["losses"]);
    let idc = report(&["--recipe", "idc"]);
    assert_eq!((&one["recipe"], &idc["recipe"]), (&"dc".into(), &"idc".into()));
    assert_ne!(one["losses"], idc["losses"]);
    assert_eq!(idc["losses"], report(&["--recipe", "idc", "--batch", "64"])["losses"]);
}

#[test]
fn queries_are_sources_and_missing_classes_are_told() {
    let folder = Folder::new();
    let train = "(SELECT * FROM 'train.parquet' WHERE label < 2)";
    let output = folder.distill([&["evaluate", train, "--test", "test.parquet"], &QUICK[..]].concat());
    let (table, warning) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success() && table.contains("24"), "{table}{warning}");
    assert!(warning.contains("lacks 1 of the test set's classes ('2'): 6 test rows"), "{warning}");
}

#[test]
fn what_does_not_suit_the_rows_is_an_error() {
    let folder = Folder::new();
    let base = ["evaluate", "train.parquet", "--test", "test.parquet"];
    for (more, part) in [
        (["--network", "resnet1"], "did you mean 'resnet18'"),
        (["--augment", "crop_flop"], "did you mean 'flip'"),
        (["--recipe", "icd"], "did you mean 'idc'"),
        (["--label", "klass"], "klass"),
        (["--image-size", "4x4x2"], "image_size"),
    ] {
        let output = folder.distill([&base[..], &more].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(part) && !error.contains("panicked"), "{error}");
    }
}

#[test]
fn tables_are_evaluated_by_the_categories_of_all_files_and_without_columns_that_are_empty() {
    let folder = Folder::new();
    let table = "SELECT i AS n, i % 3 AS a, concat('c', i % 4) AS c, CASE WHEN i >= 0 THEN arrow_cast(i, 'Date32') END AS day, CAST(i % 2 AS BIGINT) AS label \
                 FROM (SELECT CAST(value AS INT) AS i FROM generate_series(0, 199))";
    let copy = format!("COPY ({table}) TO 'people.parquet' STORED AS PARQUET");
    folder.succeeds(["sql", "-c", &copy]);
    let run = [
        "run",
        "people.parquet",
        "-o",
        "small.parquet",
        "--ipc",
        "3",
        "--width",
        "16",
        "--steps",
        "5",
        "--extractors",
        "2",
    ];
    folder.succeeds(run);
    // The day is NULL in the small file, and few of the categories need be there.
    let base =
        ["evaluate", "small.parquet", "--test", "people.parquet", "--baseline", "random", "--from", "people.parquet"];
    let table = folder.succeeds([&base[..], &["--network", "mlp", "--epochs", "3", "--repeats", "1"]].concat());
    assert!(
        table.contains("mlp, 1 network, recipe dc, 3 epochs, 200 test rows") && table.contains("random"),
        "{table}"
    );
}

#[test]
fn the_weights_that_a_job_adds_are_no_feature() {
    let folder = Folder::new();
    let table = "SELECT i % 7 AS n, i % 5 AS m, CAST(i % 2 AS BIGINT) AS label FROM (SELECT CAST(value AS INT) AS i FROM generate_series(0, 99))";
    folder.succeeds(["sql", "-c", &format!("COPY ({table}) TO 'people.parquet' STORED AS PARQUET")]);
    folder.succeeds([
        "run",
        "people.parquet",
        "-o",
        "small.parquet",
        "--ipc",
        "5",
        "--method",
        "random",
        "--weight",
        "share",
    ]);
    // The test rows have no such column.
    let base = ["evaluate", "small.parquet", "--test", "people.parquet"];
    let quick = ["--network", "linear", "--epochs", "3", "--repeats", "1"];
    let table = folder.succeeds([&base[..], &quick].concat());
    assert!(table.contains("linear, 1 network, recipe dc, 3 epochs, 100 test rows"), "{table}");
    // Who names it gets it, or an error.
    let error = folder.fails([&base[..], &quick, &["--features", "n,share"]].concat());
    assert!(error.contains("share"), "{error}");
}

#[test]
fn soft_labels_are_trained_on_and_are_no_feature() {
    let folder = Folder::new();
    let run = ["run", "train.parquet", "-o", "soft.parquet", "--ipc", "2", "--extractors", "2", "--width", "8"];
    folder.succeeds([&run[..], &["--method", "ridge", "--label-kind", "soft", "--steps", "40"]].concat());
    let report = |source: &str| {
        let args = [&["evaluate", source, "--test", "test.parquet", "--json"], &QUICK[..]].concat();
        json(&folder.succeeds(args))
    };
    let soft = report("soft.parquet");
    assert_eq!((&soft["rows"], soft["warnings"].as_array().map(Vec::len)), (&6.into(), Some(0)), "{soft}");
    // The same rows by their hard labels are another training set.
    let hard = report("(SELECT image, label FROM 'soft.parquet')");
    assert_ne!(soft["losses"], hard["losses"]);
    let e = folder.fails(
        [&["evaluate", "(SELECT * FROM 'soft.parquet' WHERE label < 2)", "--test", "test.parquet"], &QUICK[..]]
            .concat(),
    );
    assert!(e.contains("soft_label") && e.contains("2 classes") && e.contains("3 numbers"), "{e}");
}

#[test]
fn a_trained_pool_is_written_by_pool_create() {
    let folder = Folder::new();
    let create = ["pool", "create", "train.parquet", "-o", "p.safetensors", "--pool", "trained", "--extractors", "4"];
    let said = folder.succeeds([&create[..], &["--width", "8"]].concat());
    assert!(said.contains("4 extractors (convnet, width 8"), "{said}");
    let run =
        ["run", "train.parquet", "-o", "rows.parquet", "--ipc", "1", "--steps", "5", "--pool-file", "p.safetensors"];
    folder.succeeds(run.to_vec());
}
