//! `passes => N`: further scans, by extractors that were trained on the synthetic rows.

use std::sync::{Arc, Mutex};

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::SessionContext;
use datafusion_distill::sql::{Event, ProgressListener};

use crate::support::*;

fn table() -> SessionContext {
    session_with_table("t", pictures(90, 3))
}

async fn made(ctx: &SessionContext, more: &str) -> RecordBatch {
    rows(ctx, &format!("SELECT * FROM distill(t, ipc => 2, {SMALL}{more})")).await.unwrap()
}

#[tokio::test]
async fn each_pass_goes_on_from_the_rows_before_and_repeats_for_any_partitions_and_threads() {
    let ctx = table();
    let [one, two, three] = ["", ", passes => 2", ", passes => 3"];
    let (one, two, three) = (made(&ctx, one).await, made(&ctx, two).await, made(&ctx, three).await);
    assert_eq!((ints(&two, "label"), two.schema().fields()), (ints(&one, "label"), one.schema().fields()));
    assert!(one.columns() != two.columns() && two.columns() != three.columns());
    assert_eq!(made(&ctx, ", passes => 1").await.columns(), one.columns());
    let split = session_with(config().with_target_partitions(2));
    split.register_batch("t", pictures(90, 3)).unwrap();
    let union = "(SELECT * FROM t WHERE label < 1 UNION ALL SELECT * FROM t WHERE label >= 1)";
    for threads in [1, 3] {
        let query = format!("SELECT * FROM distill({union}, ipc => 2, {SMALL}, passes => 3, threads => {threads})");
        assert_eq!(rows(&split, &query).await.unwrap().columns(), three.columns());
    }
    assert_ne!(made(&ctx, ", passes => 2, seed => 5").await.columns(), two.columns());
}

#[tokio::test]
async fn it_goes_with_mosaics_soft_labels_trained_pools_every_loss_and_unrolled_training() {
    let ctx = table();
    for more in [
        ", mosaic => 2",
        ", label_kind => 'soft'",
        ", label_kind => 'soft', mosaic => 2, unroll => 2",
        ", pool => 'trained', image_size => 8",
        ", pool => 'early'",
        ", method => 'ridge'",
        ", augment => 'flip_crop'",
        ", init => 'noise'",
        ", kept_extractors => 3",
        ", learned_frequencies => 4",
        ", layers => 'all', sizes => 'mixed'",
        ", terms => 'characteristic=1,calibration=0.1'",
        ", label_kind => 'soft', soft_labels => 'both'",
    ] {
        let (one, two) = (made(&ctx, more).await, made(&ctx, &format!("{more}, passes => 2")).await);
        assert_eq!((two.num_rows(), ints(&two, "label")), (6, ints(&one, "label")), "{more}");
        assert_ne!(one.columns(), two.columns(), "{more}");
    }
}

#[tokio::test]
async fn a_pool_file_is_for_the_first_pass_and_says_how_many_extractors_the_others_have() {
    let ctx = table();
    let options = datafusion_distill::options::Options {
        extractors: Some(3),
        width: Some(8),
        depth: Some(1),
        seed: 4,
        ..Default::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.safetensors");
    datafusion_distill::sql::make_pool(&ctx, "t", &options).await.unwrap().save(&path).unwrap();
    let call = format!("distill(t, ipc => 2, steps => 3, frequencies => 8, pool_file => '{}'", path.display());
    let of = async |more: &str| rows(&ctx, &format!("SELECT * FROM {call}{more})")).await.unwrap();
    let (one, two) = (of("").await, of(", passes => 2").await);
    assert!(one.columns() != two.columns() && two.num_rows() == 6);
    let plan = shown(&ctx, &format!("EXPLAIN SELECT * FROM {call}, passes => 2)")).await;
    assert_eq!(plan.matches("extractors=3").count() + plan.matches("extractors=known at run").count(), 2, "{plan}");
}

#[tokio::test]
async fn explain_shows_the_passes_and_scans_and_analyze_counts_all_of_them() {
    let (_dir, path) = train();
    let ctx = session();
    let query = format!("SELECT * FROM distill('{path}', ipc => 1, passes => 3, unroll => 2, {SMALL})");
    let plan = explained(&ctx, &query, "").await;
    assert!(plan.contains("unroll=2, passes=3, seed=0"), "{plan}");
    assert!(plan.contains("scans=3 (sketch x 3)"), "{plan}");
    assert!(plan.contains("pass=2 of 3") && plan.contains("pass=3 of 3"), "{plan}");
    assert_eq!(plan.matches("DataSourceExec").count(), 3, "{plan}");
    let trained = explained(&ctx, &query.replace("passes", "pool => 'trained', passes"), "").await;
    assert!(trained.contains("scans=4 (sample, sketch x 3)"), "{trained}");
    assert_eq!(trained.matches("DataSourceExec").count(), 4, "{trained}");
    let analyzed = shown(&ctx, &format!("EXPLAIN ANALYZE {query}")).await;
    assert_eq!(analyzed.matches("rows_sketched=48").count(), 3, "{analyzed}");
    // Two steps each, and two of unrolled training in the last.
    assert!(analyzed.contains("steps=8"), "{analyzed}");
    assert!(analyzed.contains("classes=3"), "{analyzed}");
}

#[tokio::test]
async fn progress_counts_the_steps_of_all_passes() {
    let seen = Arc::new(Mutex::new(vec![]));
    let steps = Arc::clone(&seen);
    let listener = ProgressListener::new(move |event| {
        if let Event::Step(progress) = event {
            steps.lock().unwrap().push((progress.step, progress.steps));
        }
    });
    let ctx = session_with(config().with_extension(Arc::new(listener)));
    ctx.register_batch("t", pictures(90, 3)).unwrap();
    made(&ctx, ", passes => 2, unroll => 1").await;
    assert_eq!(*seen.lock().unwrap(), [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
}

#[tokio::test]
async fn all_scans_of_a_job_read_the_files_that_there_were_when_it_began() {
    let (dir, path) = train();
    let folder = dir.path().to_str().unwrap().to_string();
    let more = dir.path().join("more.parquet");
    let added = more.clone();
    // A file that appears while the first pass steps.
    let listener = ProgressListener::new(move |event| {
        if matches!(event, Event::Step(_)) && !added.exists() {
            write_parquet(&added, &pictures(30, 3));
        }
    });
    let ctx = session_with(config().with_extension(Arc::new(listener)));
    let query = |source: &str| format!("SELECT label, image FROM distill('{source}', ipc => 1, passes => 2, {SMALL})");
    let while_growing = rows(&ctx, &query(&format!("{folder}/*.parquet"))).await.unwrap();
    assert!(more.exists());
    assert_eq!(while_growing.columns(), rows(&ctx, &query(&path)).await.unwrap().columns());
}

#[derive(Debug)]
struct Stream(RecordBatch);

impl PartitionStream for Stream {
    fn schema(&self) -> &datafusion::arrow::datatypes::SchemaRef {
        self.0.schema_ref()
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.0.clone();
        let batches = futures::stream::repeat_with(move || Ok(batch.clone()));
        Box::pin(RecordBatchStreamAdapter::new(self.0.schema(), batches))
    }
}

#[tokio::test]
async fn what_can_be_read_only_once_or_is_not_optimized_is_refused_with_the_way_out() {
    let ctx = table();
    ctx.register_batch("n", numbers(30, 3)).unwrap();
    let batch = pictures(12, 3);
    let stream = StreamingTable::try_new(batch.schema(), vec![Arc::new(Stream(batch))]).unwrap();
    ctx.register_table("s", Arc::new(stream.with_infinite_table(true))).unwrap();
    let sketches = "(SELECT label, distill_sketch_agg(image, 'extractors=2 width=8') AS s FROM t GROUP BY label)";
    for (query, parts) in [
        (format!("SELECT * FROM distill({sketches}, ipc => 1, passes => 2)"), ["has sketches", "leave it out"]),
        (
            format!("SELECT * FROM distill((SELECT * FROM s LIMIT 30), ipc => 1, passes => 2, {SMALL})"),
            ["reads a stream", "to a file or a table"],
        ),
        ("SELECT * FROM distill(t, method => 'herding', passes => 2)".into(), ["chooses real rows", "leave it out"]),
        ("SELECT * FROM distill(t, passes => 2, steps => 0)".into(), ["steps => 0", "leave one of them out"]),
        (format!("SELECT * FROM distill(n, passes => 2, {SMALL})"), ["is for pictures", "vector of 4"]),
        ("SELECT * FROM distill((SELECT 1 AS a, 2 AS b, 'x' AS label), passes => 2)".into(), ["pictures", "a table"]),
        ("SELECT * FROM distill(t, passes => 17)".into(), ["1 to 16", "17"]),
    ] {
        let e = message(&ctx, &query).await;
        assert!(e.contains("'passes'") && parts.iter().all(|part| e.contains(part)), "{query}: {e}");
    }
}
