use std::fs::File;

use datafusion_distill::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Folder, json, small_run};

#[test]
fn a_source_becomes_a_file_of_its_own_schema_with_ipc_rows_a_class() {
    let folder = Folder::new();
    let summary = folder.succeeds(small_run("train.parquet", "out.parquet"));
    assert!(summary.contains("out.parquet: 6 rows of 3 classes"), "{summary}");
    assert!(summary.contains("from 36 rows"), "{summary}");
    assert_eq!(folder.names(), ["out.parquet", "test.parquet", "train.parquet"]);

    let open = |name| ParquetRecordBatchReaderBuilder::try_new(File::open(folder.path(name)).unwrap()).unwrap();
    let (source, out) = (open("train.parquet"), open("out.parquet"));
    assert_eq!(source.schema().fields(), out.schema().fields());
    assert_eq!(out.schema().metadata()["huggingface"], source.schema().metadata()["huggingface"]);
    let note = json(&out.schema().metadata()["datafusion-distill"]);
    assert_eq!(note["options"]["ipc"], "2", "{note}");
    assert_eq!(out.metadata().file_metadata().num_rows(), 6);
}

#[test]
fn json_tells_what_the_job_did() {
    let folder = Folder::new();
    let report = json(&folder.succeeds([&small_run("train.parquet", "out.parquet")[..], &["--json"]].concat()));
    assert_eq!((&report["rows_in"], &report["rows_out"], &report["classes"]), (&36.into(), &6.into(), &3.into()));
    assert_eq!(report["options"]["ipc"], "2");
    assert_eq!(report["output_bytes"], std::fs::metadata(folder.path("out.parquet")).unwrap().len());
    for stage in ["decode", "extract", "sketch", "optimize", "total"] {
        assert!(report["cpu_seconds"][stage].as_f64().is_some_and(|s| s >= 0.0), "{stage}: {report}");
    }
    assert!(report["wall_seconds"].as_f64().is_some_and(|s| s > 0.0));
    assert!(report["source_fingerprint"].as_str().is_some_and(|f| !f.is_empty()), "{report}");
    if cfg!(target_os = "linux") {
        assert!(report["peak_memory_bytes"].as_u64().is_some_and(|b| b > 1 << 20));
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_with_any_number_of_threads() {
    let folder = Folder::new();
    let bytes = |name: &str, more: &[&str]| {
        folder.succeeds([&small_run("train.parquet", name)[..], more].concat());
        std::fs::read(folder.path(name)).unwrap()
    };
    let one = bytes("a.parquet", &["--threads", "1"]);
    assert!(one == bytes("b.parquet", &["--threads", "3"]));
    assert!(one != bytes("c.parquet", &["--seed", "1"]));
}

#[test]
fn rows_in_all_take_the_place_of_ipc_and_a_file_with_weights_can_be_used() {
    let folder = Folder::new();
    let job = ["run", "train.parquet", "-o", "out.parquet", "--extractors", "2", "--width", "8", "--method", "herding"];
    let rows = ["--rows", "7", "--allocation", "proportional", "--weight", "w", "--json"];
    let report = json(&folder.succeeds([&job[..], &rows].concat()));
    assert_eq!((&report["rows_out"], &report["classes"]), (&7.into(), &3.into()), "{report}");
    assert!(folder.succeeds(["inspect", "out.parquet"]).contains("left"));
    let quick = ["--network", "linear", "--epochs", "2", "--repeats", "1", "--augment", "none"];
    let table = folder.succeeds([&["evaluate", "out.parquet", "--test", "test.parquet"], &quick[..]].concat());
    assert!(table.contains("2 to 3"), "{table}");
    for (more, part) in
        [(&["--rows", "7", "--ipc", "1"][..], "cannot be used with '--ipc <N>'"), (&[], "<--ipc <N>|--rows <N>>")]
    {
        let output = folder.distill([&job[..], more].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.contains(part), "{error}");
    }
}

#[test]
fn rows_that_are_real_ones_are_told_from_made_ones() {
    let folder = Folder::new();
    let query = "(SELECT CAST(label AS DOUBLE) AS a, -label AS b, label FROM 'train.parquet')";
    let job = ["run", query, "-o", "chosen.parquet", "--ipc", "2", "--extractors", "2", "--width", "8"];
    let summary = folder.succeeds(job);
    assert!(summary.contains("6 rows of 3 classes, real ones, chosen by herding (auto), "), "{summary}");
    let note = |file: &str| json(&folder.succeeds(["inspect", file, "--json"]))["provenance"].clone();
    assert_eq!(note("chosen.parquet")["selection"], "herding (auto)");
    let report = json(&folder.succeeds([&job[..], &["--method", "random", "--overwrite", "--json"]].concat()));
    assert_eq!((&report["selection"], &note("chosen.parquet")["selection"]), (&"random".into(), &"random".into()));
    let mosaics = ["--ipc", "2", "--method", "random", "--mosaic", "2"];
    let summary = folder.succeeds([&["run", "train.parquet", "-o", "mosaics.parquet"], &mosaics[..]].concat());
    assert!(summary.contains("which decode to 24, packed of real ones, chosen by random, "), "{summary}");
    let made = json(&folder.succeeds([&small_run("train.parquet", "made.parquet")[..], &["--json"]].concat()));
    assert!(made["selection"].is_null() && note("made.parquet").get("selection").is_none(), "{made}");
}

#[test]
fn a_query_in_parentheses_is_a_source() {
    let folder = Folder::new();
    let summary = folder.succeeds(small_run("(SELECT * FROM 'train.parquet' WHERE label < 2)", "out.parquet"));
    assert!(summary.contains("4 rows of 2 classes"), "{summary}");
}

#[test]
fn quiet_says_nothing() {
    let folder = Folder::new();
    let output = folder.distill([&small_run("train.parquet", "out.parquet")[..], &["--quiet"]].concat());
    assert!(output.status.success());
    assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0), "{output:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_cancels_and_leaves_nothing_behind() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    let folder = Folder::new();
    let args = ["run", "train.parquet", "-o", "out.parquet", "--ipc", "2", "--extractors", "2", "--width", "8"];
    let mut child = folder
        .command([&args[..], &["--steps", "10000000"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The job is under way once its temporary file is there.
    while folder.names().len() == 2 {
        assert!(child.try_wait().unwrap().is_none(), "the job ended by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(folder.names()[0].starts_with(".out.parquet.tmp-"), "{:?}", folder.names());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(folder.names(), ["test.parquet", "train.parquet"]);
}

#[test]
fn pictures_that_hold_several_are_unpacked_and_evaluated_as_what_they_hold() {
    let folder = Folder::new();
    let options = ["--mosaic", "2", "--passes", "2"];
    let packed = folder.distill([&small_run("train.parquet", "packed.parquet")[..], &options].concat());
    let warned = String::from_utf8(packed.stderr).unwrap();
    assert!(packed.status.success(), "{warned}");
    // Once, however many passes there are.
    assert_eq!(warned.matches("leaves 4x4 pixels of each picture").count(), 1, "{warned}");
    let summary = String::from_utf8(packed.stdout).unwrap();
    assert!(summary.contains("packed.parquet: 6 rows of 3 classes, which decode to 24, "), "{summary}");
    let said = folder.succeeds(["unpack", "packed.parquet", "-o", "rows.parquet"]);
    assert!(said.contains("24 rows of 6 stored ones"), "{said}");
    let inspect = |file: &str| json(&folder.succeeds(["inspect", file, "--json"]));
    assert_eq!((&inspect("packed.parquet")["rows"], &inspect("rows.parquet")["rows"]), (&6.into(), &24.into()));
    assert_eq!(inspect("packed.parquet")["mosaic"], 2);
    let counts = |of: &serde_json::Value| (of["rows"].as_u64().unwrap(), of["decoded_rows"].as_u64().unwrap());
    assert_eq!([counts(&inspect("packed.parquet")), counts(&inspect("rows.parquet"))], [(6, 24), (24, 24)]);
    assert_eq!(counts(&inspect("packed.parquet")["classes"][0]), (2, 8));
    let shown = folder.succeeds(["inspect", "packed.parquet"]);
    assert!(shown.contains("6 rows, whose pictures hold 4 each and decode to 24, "), "{shown}");
    let run = small_run("train.parquet", "again.parquet");
    let run = json(&folder.succeeds([&run[..], &options, &["--json"]].concat()));
    assert_eq!((&run["rows_out"], &run["decoded_rows"]), (&6.into(), &24.into()), "{run}");
    // The names of classes came along.
    assert_eq!(inspect("rows.parquet")["classes"][2]["name"], "below");
    let args = ["--test", "test.parquet", "--network", "linear", "--epochs", "20", "--repeats", "1", "--json"];
    let report = |file: &str| json(&folder.succeeds([&["evaluate", file], &args[..]].concat()));
    let table = folder.succeeds([&["evaluate", "packed.parquet"], &args[..args.len() - 1]].concat());
    assert!(table.contains("24 in 6 stored"), "{table}");
    let (packed, unpacked) = (report("packed.parquet"), report("rows.parquet"));
    assert_eq!((&packed["rows"], &packed["stored_rows"]), (&24.into(), &6.into()));
    assert_eq!((&unpacked["rows"], &unpacked["stored_rows"]), (&24.into(), &24.into()));
    // The written pictures are rounded to 8 bits.
    let loss = |report: &serde_json::Value| report["losses"][0].as_f64().unwrap();
    assert!((loss(&packed) - loss(&unpacked)).abs() < 0.02, "{packed} {unpacked}");
    assert!(folder.fails(["unpack", "train.parquet", "-o", "x.parquet"]).contains("mosaic => 2"));
    assert!(!folder.path("x.parquet").exists());
}

#[test]
fn whole_pictures_beside_those_that_hold_several_are_counted_and_evaluated_as_what_they_are() {
    let folder = Folder::new();
    let soft = ["--mosaic", "2", "--mosaic-rows", "1", "--label-kind", "soft"];
    let summary = folder.succeeds([&small_run("train.parquet", "mixed.parquet")[..], &soft].concat());
    assert!(summary.contains("mixed.parquet: 6 rows of 3 classes, which decode to 15, "), "{summary}");
    let said = folder.succeeds(["unpack", "mixed.parquet", "-o", "rows.parquet"]);
    assert!(said.contains("15 rows of 6 stored ones"), "{said}");
    let described = json(&folder.succeeds(["inspect", "mixed.parquet", "--json"]));
    let counts = ["rows", "decoded_rows", "mosaic", "mosaic_rows"].map(|key| described[key].as_u64().unwrap());
    assert_eq!(counts, [6, 15, 2, 3]);
    assert_eq!(["rows", "decoded_rows"].map(|key| described["classes"][1][key].as_u64().unwrap()), [2, 5]);
    let shown = folder.succeeds(["inspect", "mixed.parquet"]);
    assert!(shown.contains("6 rows, 3 of which hold 4 pictures each, and which decode to 15, "), "{shown}");
    let args = ["--test", "test.parquet", "--network", "linear", "--epochs", "20", "--repeats", "1", "--json"];
    let report = |file: &str| json(&folder.succeeds([&["evaluate", file], &args[..]].concat()));
    let (mixed, unpacked) = (report("mixed.parquet"), report("rows.parquet"));
    assert_eq!((&mixed["rows"], &mixed["stored_rows"]), (&15.into(), &6.into()));
    assert_eq!((&unpacked["rows"], &unpacked["stored_rows"]), (&15.into(), &15.into()));
    let loss = |report: &serde_json::Value| report["losses"][0].as_f64().unwrap();
    assert!((loss(&mixed) - loss(&unpacked)).abs() < 0.02, "{mixed} {unpacked}");
    // Without the column it isn't known what they hold, and some rows may be left out.
    let blind =
        folder.fails([&["evaluate", "(SELECT image, label, soft_label FROM 'mixed.parquet')"], &args[..]].concat());
    assert!(blind.contains("column 'mosaic'") && blind.contains("select it too"), "{blind}");
    folder
        .succeeds([&small_run("train.parquet", "hard.parquet")[..], &["--mosaic", "2", "--mosaic-rows", "1"]].concat());
    let some = [&["evaluate", "hard.parquet", "--classes", "0,2"], &args[..]].concat();
    assert_eq!(json(&folder.succeeds(some))["rows"], 10);
    // Each kind of row starts from its own.
    let again = ["--ipc", "3", "--extractors", "2", "--width", "8", "--mosaic", "2", "--warm-start", "mixed.parquet"];
    let again = [&["run", "train.parquet", "-o", "again.parquet", "--steps", "2"], &again[..]].concat();
    let summary = folder.succeeds(again);
    assert!(summary.contains("9 rows of 3 classes, which decode to 27, "), "{summary}");
    // A baseline of as many rows as are stored.
    let beside = ["--baseline", "random", "--from", "train.parquet"];
    let beside = folder.succeeds([&["evaluate", "mixed.parquet"], &args[..args.len() - 1], &beside].concat());
    assert!(beside.contains("15 in 6 stored") && beside.contains("random"), "{beside}");
}
