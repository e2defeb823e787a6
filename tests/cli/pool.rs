use super::{Folder, small_run};

const SMALL: [&str; 6] = ["--extractors", "2", "--width", "8", "--seed", "3"];

#[test]
fn a_pool_is_written_once_and_gives_the_rows_that_its_seed_gives() {
    let folder = Folder::new();
    let create = |output| [&["pool", "create", "train.parquet", "-o", output], &SMALL[..]].concat();
    let said = folder.succeeds(create("pool.safetensors"));
    assert!(
        said.contains("2 extractors (convnet, width 8")
            && said.contains("1x8x8 picture")
            && said.contains("fingerprint "),
        "{said}"
    );
    folder.succeeds(create("again.safetensors"));
    let bytes = |name| std::fs::read(folder.path(name)).unwrap();
    assert_eq!(bytes("pool.safetensors"), bytes("again.safetensors"));
    let e = folder.fails(create("pool.safetensors"));
    assert!(e.contains("exists already; --overwrite"), "{e}");

    let by_seed = [small_run("train.parquet", "seed.parquet"), vec!["--seed", "3"]].concat();
    folder.succeeds(by_seed);
    folder.succeeds([
        "run",
        "train.parquet",
        "-o",
        "pool.parquet",
        "--ipc",
        "2",
        "--steps",
        "5",
        "--seed",
        "3",
        "--pool-file",
        "pool.safetensors",
    ]);
    let picture = |file| folder.succeeds(["sql", "-c", &format!("SELECT image FROM '{file}'")]);
    assert_eq!(picture("pool.parquet"), picture("seed.parquet"));
}

#[test]
fn a_pool_for_lists_is_scaled_by_a_scan_and_one_for_no_rows_is_an_error() {
    let folder = Folder::new();
    let lists = "(SELECT make_array(value, value % 7, 1.5) AS x, value % 2 AS y FROM generate_series(3, 40))";
    let said = folder.succeeds(["pool", "create", lists, "-o", "p.safetensors", "--width", "8", "--extractors", "1"]);
    assert!(said.contains("vector of 3"), "{said}");
    let e = folder.fails(["pool", "create", "(SELECT * FROM 'train.parquet' WHERE label > 7)", "-o", "q.safetensors"]);
    assert!(e.contains("no rows"), "{e}");
    let e = folder.fails(["pool", "create", "train.parquet", "-o", "q.safetensors", "--network", "mlp"]);
    assert!(e.contains("'mlp' is for lists of numbers"), "{e}");
    assert!(!folder.names().contains(&"q.safetensors".to_string()));
}
