//! `method => 'ridge'`, soft labels, and extractors trained on the source's rows.

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type};

use crate::support::*;

fn table() -> datafusion::prelude::SessionContext {
    session_with_table("t", pictures(90, 3))
}

fn shares(batch: &RecordBatch) -> Vec<Vec<f32>> {
    let lists = batch.column_by_name("soft_label").unwrap().as_list::<i32>();
    (0..lists.len()).map(|row| lists.value(row).as_primitive::<Float32Type>().values().to_vec()).collect()
}

#[tokio::test]
async fn soft_labels_come_in_a_last_column_whose_largest_share_is_the_label() {
    let ctx = table();
    let query = format!("SELECT * FROM distill(t, ipc => 2, method => 'ridge', label_kind => 'soft', weight => 'w', {SMALL}, steps => 60)")
        .replace("steps => 2, ", "");
    let out = rows(&ctx, &query).await.unwrap();
    let schema = out.schema();
    let last = schema.field(schema.fields().len() - 1);
    assert_eq!((last.name().as_str(), last.is_nullable()), ("soft_label", false));
    assert!(matches!(last.data_type(), DataType::List(item) if *item.data_type() == DataType::Float32));
    assert_eq!(schema.field(schema.fields().len() - 2).name(), "w");
    for (shares, label) in shares(&out).iter().zip(ints(&out, "label")) {
        let own = shares[label as usize];
        assert!(shares.len() == 3 && (shares.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{shares:?}");
        assert!(shares.iter().all(|share| (0.0..=own).contains(share)), "{label} {shares:?}");
    }
    assert!(shares(&out).iter().flatten().any(|share| *share > 0.0 && *share < 1.0));
    // Of the columns that are asked for, only those come.
    let alone = rows(&ctx, &query.replace('*', "soft_label")).await.unwrap();
    assert_eq!(shares(&alone), shares(&out));
    let taken =
        "SELECT * FROM distill((SELECT image, label, nullif(label, 9) AS soft_label FROM t), label_kind => 'soft')";
    let e = message(&ctx, taken).await;
    assert!(e.contains("'label_kind'") && e.contains("soft_label"), "{e}");
}

#[tokio::test]
async fn a_ridge_needs_moments_which_the_job_takes_by_itself_and_stored_sketches_have_on_request() {
    let ctx = table();
    let explained =
        shown(&ctx, &format!("EXPLAIN SELECT * FROM distill(t, method => 'ridge', image_size => 8, {SMALL})")).await;
    let bytes = |text: &str| -> usize {
        let at = text.find("sketch_bytes_per_class=").unwrap() + "sketch_bytes_per_class=".len();
        text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let mean =
        shown(&ctx, &format!("EXPLAIN SELECT * FROM distill(t, method => 'mean', image_size => 8, {SMALL})")).await;
    // Two extractors of 8 x 6 x 6 features: half a square of 8 bytes each.
    assert_eq!(bytes(&explained) - bytes(&mean), 2 * 8 * (288 * 289 / 2));

    let agg = |options: &str| {
        format!(
            "(SELECT label, distill_sketch_agg(image, {{'extractors': 2, 'width': 8, 'depth': 1 {options}}}) AS s FROM t GROUP BY label)"
        )
    };
    let without =
        message(&ctx, &format!("SELECT * FROM distill({}, ipc => 2, method => 'ridge', steps => 5)", agg(""))).await;
    assert!(without.contains("needs second moments") && without.contains("moments => 'pooled'"), "{without}");
    let with = agg(", 'moments': 'class', 'moment_dim': 288");
    let stored = format!("SELECT label, image FROM distill({with}, ipc => 2, method => 'ridge', steps => 5)");
    let direct = "SELECT label, image FROM distill(t, ipc => 2, method => 'ridge', steps => 5, extractors => 2, width => 8, depth => 1)";
    assert_eq!(rows(&ctx, &stored).await.unwrap().columns(), rows(&ctx, direct).await.unwrap().columns());
}

#[tokio::test]
async fn extractors_are_trained_by_a_scan_of_their_own_and_the_rows_repeat_for_any_partitions() {
    let ctx = table();
    let query = format!("SELECT * FROM distill(t, ipc => 2, pool => 'trained', image_size => 8, {SMALL})")
        .replace("steps => 2", "steps => 40");
    let plan = shown(&ctx, &format!("EXPLAIN {query}")).await;
    assert!(plan.contains("scans=2 (sample, sketch)"), "{plan}");
    let trained = rows(&ctx, &query).await.unwrap();
    assert_eq!(trained.num_rows(), 6);
    let split = session_with(config().with_target_partitions(3));
    split.register_batch("t", pictures(90, 3)).unwrap();
    let spread = query.replace("(t,", "((SELECT * FROM t WHERE label < 1 UNION ALL SELECT * FROM t WHERE label >= 1),");
    assert_eq!(rows(&split, &spread).await.unwrap().columns(), trained.columns());
    let random = rows(&ctx, &query.replace("'trained'", "'random'")).await.unwrap();
    assert_ne!(random.columns(), trained.columns());
    let early = rows(&ctx, &query.replace("'trained'", "'early'")).await.unwrap();
    assert_ne!(early.columns(), trained.columns());

    let e = message(&ctx, "SELECT distill_sketch_agg(image, 'pool=trained') FROM t GROUP BY label").await;
    assert!(e.contains("distill pool create --pool trained"), "{e}");
    ctx.sql("SET distill.pool = 'trained'").await.unwrap();
    let e = message(&ctx, "SELECT distill_sketch_agg(image) FROM t GROUP BY label").await;
    assert!(e.contains("distill pool create --pool trained"), "{e}");
    let lists = session_with_table("n", numbers(30, 3));
    let e = message(&lists, "SELECT * FROM distill(n, pool => 'trained', ranges => '0,100')").await;
    assert!(e.contains("'pool'") && e.contains("for pictures"), "{e}");
}

#[tokio::test]
async fn a_teacher_of_all_real_rows_says_what_the_finished_rows_are() {
    let ctx = table();
    let query = |labels: &str| {
        format!(
            "SELECT * FROM distill(t, ipc => 2, label_kind => 'soft', soft_labels => '{labels}', {SMALL}, steps => 20)"
        )
        .replace("steps => 2, ", "")
    };
    let ridge = |labels: &str| query(labels).replace("ipc => 2", "ipc => 2, method => 'ridge'");
    let pixels = |batch: &RecordBatch| batch.column_by_name("image").unwrap().clone();
    // The rows are those of hard labels, by whichever method: the teacher has no say in them.
    let taught = rows(&ctx, &query("teacher")).await.unwrap();
    let hard =
        rows(&ctx, &query("learned").replace("label_kind => 'soft', soft_labels => 'learned', ", "")).await.unwrap();
    assert_eq!(&pixels(&taught), &pixels(&hard));
    for (shares, label) in shares(&taught).iter().zip(ints(&taught, "label")) {
        let own = shares[label as usize];
        assert!(shares.len() == 3 && (shares.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{shares:?}");
        assert!(shares.iter().all(|share| (0.0..=own).contains(share)), "{label} {shares:?}");
    }
    assert!(shares(&taught).iter().flatten().any(|share| *share > 0.0 && *share < 1.0));

    let (learned, both) = (rows(&ctx, &ridge("learned")).await.unwrap(), rows(&ctx, &ridge("both")).await.unwrap());
    assert_eq!(&pixels(&learned), &pixels(&both));
    assert_ne!(shares(&learned), shares(&both));
    // Mosaics, unrolled training and further passes go with it, and so does a set without a step.
    for more in [", mosaic => 2", ", unroll => 2", ", passes => 2"] {
        let more = query("teacher").replace(", steps => 20", &format!(", steps => 2{more}"));
        assert_eq!(rows(&ctx, &more).await.unwrap().num_rows(), 6, "{more}");
    }
    let start = query("teacher").replace("steps => 20", "steps => 0");
    assert!(shares(&rows(&ctx, &start).await.unwrap()).iter().flatten().any(|share| *share > 0.0 && *share < 1.0));

    for (more, parts) in [
        ("soft_labels => 'teacher'", ["'soft_labels'", "label_kind => 'soft'"]),
        ("soft_labels => 'teacher', label_kind => 'soft', moments => 'none'", ["'moments'", "teacher"]),
        ("soft_labels => 'both', label_kind => 'soft', method => 'mean'", ["'label_kind'", "'teacher'"]),
    ] {
        let e = message(&ctx, &format!("SELECT * FROM distill(t, {more})")).await;
        assert!(parts.iter().all(|part| e.contains(part)), "{more}: {e}");
    }
    let without = "(SELECT label, distill_sketch_agg(image, 'extractors=2 width=8') AS s FROM t GROUP BY label)";
    let e = message(
        &ctx,
        &format!(
            "SELECT * FROM distill({without}, ipc => 2, label_kind => 'soft', soft_labels => 'teacher', steps => 2)"
        ),
    )
    .await;
    assert!(e.contains("a teacher of soft labels needs second moments"), "{e}");
}
