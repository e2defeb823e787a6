//! What EXPLAIN shows, and that the plan reads no more than it needs.

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlanProperties;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionContext, col};
use futures::StreamExt;

use crate::support::*;

#[tokio::test]
async fn explain_shows_roles_extractors_bytes_and_scans() {
    let (dir, path) = train();
    let ctx = session();
    let query = format!("SELECT * FROM distill('{path}', ipc => 1, {SMALL})");
    insta::assert_snapshot!(explained(&ctx, &query, dir.path().to_str().unwrap()).await, @r"
    DistillExec: source=/.../train.parquet, ipc=1, method=auto, steps=2, seed=0, roles=[image: feature (Hugging Face Image), label: label (Hugging Face ClassLabel with 3 names), id: carried (neither label nor feature: NULL in the synthetic rows)]
      CoalescePartitionsExec
        AggregateExec: mode=FinalPartitioned, gby=[class@0 as class], aggr=[sketch]
          RepartitionExec: partitioning=Hash([class@0], 3), input_partitions=3
            AggregateExec: mode=Partial, gby=[class@0 as class], aggr=[sketch]
              RepartitionExec: partitioning=RoundRobinBatch(3), input_partitions=1
                ExtractExec: rows=1x8x8 picture, network=convnet, extractors=2, width=8, depth=1, features=288, frequencies=8, sketch_bytes_per_class=149264, micro_batch=64, scans=1
                  DataSourceExec: file_groups={1 group: [[.../train.parquet]]}, projection=[image, label], file_type=parquet
    ");
}

#[tokio::test]
async fn projection_and_filter_inside_the_source_reach_the_parquet_reader() {
    let (dir, path) = train();
    let ctx = session();
    ctx.register_parquet("t", &path, Default::default()).await.unwrap();
    let query = format!("SELECT id FROM distill((SELECT * FROM t WHERE label < 2), ipc => 1, {SMALL}) WHERE id > 3");
    insta::assert_snapshot!(explained(&ctx, &query, dir.path().to_str().unwrap()).await, @r"
    FilterExec: id@0 > 3
      RepartitionExec: partitioning=RoundRobinBatch(3), input_partitions=1
        DistillExec: source=the query, ipc=1, method=auto, steps=2, seed=0, roles=[image: feature (Hugging Face Image), label: label (Hugging Face ClassLabel with 3 names), id: carried (neither label nor feature: NULL in the synthetic rows)]
          CoalescePartitionsExec
            AggregateExec: mode=FinalPartitioned, gby=[class@0 as class], aggr=[sketch]
              RepartitionExec: partitioning=Hash([class@0], 3), input_partitions=3
                AggregateExec: mode=Partial, gby=[class@0 as class], aggr=[sketch]
                  ExtractExec: rows=known at run, network=known at run, extractors=known at run, width=known at run, depth=known at run, features=known at run, frequencies=8, sketch_bytes_per_class=known at run, micro_batch=64, scans=1
                    FilterExec: label@1 < 2
                      RepartitionExec: partitioning=RoundRobinBatch(3), input_partitions=1
                        DataSourceExec: file_groups={1 group: [[.../train.parquet]]}, projection=[image, label], file_type=parquet, predicate=label@1 < 2 AND label@1 < 2, pruning_predicate=label_null_count@1 != row_count@2 AND label_min@0 < 2 AND label_null_count@1 != row_count@2 AND label_min@0 < 2, required_guarantees=[]
    ");
}

#[tokio::test]
async fn numbers_of_unknown_range_take_two_scans() {
    let ctx = session_with_table("n", numbers(12, 2));
    let query = format!("SELECT * FROM distill(n, ipc => 1, {SMALL})");
    insta::assert_snapshot!(explained(&ctx, &query, "").await, @r"
    DistillExec: source=table n, ipc=1, method=auto, steps=2, seed=0, roles=[features: feature (the only column of lists of numbers), label: label (named 'label')]
      CoalescePartitionsExec
        AggregateExec: mode=FinalPartitioned, gby=[class@0 as class], aggr=[sketch]
          RepartitionExec: partitioning=Hash([class@0], 3), input_partitions=3
            AggregateExec: mode=Partial, gby=[class@0 as class], aggr=[sketch]
              RepartitionExec: partitioning=RoundRobinBatch(3), input_partitions=1
                ExtractExec: rows=vector of 4, network=mlp, extractors=2, width=8, depth=1, features=8, frequencies=8, sketch_bytes_per_class=6928, micro_batch=64, scans=2 (profile, sketch)
                  DataSourceExec: partitions=1, partition_sizes=[1]
                  ProfileExec: columns=[features]
                    DataSourceExec: partitions=1, partition_sizes=[1]
    ");
    let query = format!("SELECT * FROM distill(n, ipc => 1, ranges => '0,20', {SMALL})");
    assert!(explained(&ctx, &query, "").await.contains("scans=1"));
}

#[tokio::test]
async fn a_union_of_many_is_read_by_as_few_streams_as_the_session_has_partitions() {
    let ctx = session_with_table("n", numbers(12, 2));
    let union = ["SELECT * FROM n"; 20].join(" UNION ALL ");
    let query = format!("SELECT * FROM distill(({union}), ipc => 1, {SMALL})");
    let plan = ctx.sql(&query).await.unwrap().create_physical_plan().await.unwrap();
    let (mut streams, mut open) = (vec![], vec![plan]);
    while let Some(node) = open.pop() {
        if ["ExtractExec", "ProfileExec"].contains(&node.name()) {
            streams.push((node.name().to_string(), node.output_partitioning().partition_count()));
        }
        open.extend(node.children().into_iter().cloned());
    }
    streams.sort();
    assert_eq!(streams, [("ExtractExec".into(), 3), ("ProfileExec".into(), 3)]);
}

#[tokio::test]
async fn the_logical_plan_is_a_scan_and_the_alias_names_its_columns() {
    let ctx = session_with_table("t", pictures(12, 3));
    let query = format!("SELECT d.b FROM distill(t, ipc => 1, {SMALL}) AS d(a, b, c) ORDER BY d.b");
    let plan = ctx.sql(&query).await.unwrap().into_optimized_plan().unwrap();
    insta::assert_snapshot!(plan.display_indent(), @r"
    Sort: d.b ASC NULLS LAST
      SubqueryAlias: d
        Projection: distill.label AS b
          TableScan: distill projection=[label]
    ");
    let query = format!("SELECT distill.label FROM distill(t, ipc => 1, {SMALL})");
    assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "label"), [0, 1, 2]);
}

#[tokio::test]
async fn rows_come_sorted_by_label_so_that_order_by_sorts_nothing() {
    let ctx = session_with_table("t", pictures(12, 3));
    let query = format!("SELECT * FROM distill(t, ipc => 1, {SMALL}) ORDER BY label");
    let plan = explained(&ctx, &query, "").await;
    assert!(!plan.contains("SortExec"), "{plan}");
}

#[tokio::test]
async fn explain_does_not_run_the_job_and_says_what_it_cannot_know() {
    let ctx = session_with_table("t", pictures_of(vec![None, None], vec![Some(0), Some(0)]));
    let query = format!("SELECT * FROM distill((SELECT * FROM t WHERE id > 0), ipc => 1, {SMALL})");
    let plan = explained(&ctx, &query, "").await;
    assert!(plan.contains("sketch_bytes_per_class=known at run"), "{plan}");
}

#[tokio::test]
async fn explain_analyze_tells_rows_times_and_memory() {
    let ctx = session_with_table("t", pictures(48, 3));
    let query = format!("EXPLAIN ANALYZE SELECT * FROM distill(t, ipc => 1, {SMALL})");
    let text = shown(&ctx, &query).await;
    for metric in [
        "rows_read=48",
        "rows_sketched=48",
        "rows_skipped=0",
        "decode_time=",
        "extract_time=",
        "sketch_time=",
        "optimize_time=",
        "steps=2",
        "classes=3",
        "peak_reserved=",
    ] {
        assert!(text.contains(metric), "{metric} in {text}");
    }
}

#[derive(Debug)]
struct Endless(RecordBatch);

impl PartitionStream for Endless {
    fn schema(&self) -> &SchemaRef {
        self.0.schema_ref()
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.0.clone();
        let batches = futures::stream::repeat_with(move || Ok(batch.clone()));
        Box::pin(RecordBatchStreamAdapter::new(self.0.schema(), batches))
    }
}

fn endless() -> SessionContext {
    let ctx = session();
    let batch = pictures(12, 3);
    let table = StreamingTable::try_new(batch.schema(), vec![Arc::new(Endless(batch))]).unwrap();
    ctx.register_table("s", Arc::new(table.with_infinite_table(true))).unwrap();
    ctx
}

#[tokio::test]
async fn an_endless_stream_is_refused_unless_it_is_limited() {
    let ctx = endless();
    let refused = message(&ctx, &format!("SELECT * FROM distill(s, ipc => 1, {SMALL})")).await;
    assert!(refused.contains("table s is an endless stream") && refused.contains("LIMIT"), "{refused}");
    let query = format!("SELECT label FROM distill((SELECT * FROM s LIMIT 30), ipc => 1, {SMALL})");
    assert_eq!(ints(&rows(&ctx, &query).await.unwrap(), "label"), [0, 1, 2]);
}

#[tokio::test]
async fn a_sketch_of_an_endless_stream_is_refused_unless_it_is_limited() {
    let ctx = endless();
    let call = "distill_sketch_agg(image, 'extractors=2 width=8 depth=1 frequencies=8')";
    for (query, function) in [
        (format!("SELECT {call} FROM s"), "distill_sketch_agg"),
        (format!("SELECT label, count(*), {call} AS s FROM s WHERE id > 3 GROUP BY label"), "distill_sketch_agg"),
        (format!("SELECT label FROM distill((SELECT label, {call} AS s FROM s GROUP BY label))"), "distill_sketch_agg"),
        (
            format!("SELECT distill_union_agg(p.k) FROM s, (SELECT {call} AS k FROM (SELECT * FROM s LIMIT 3)) AS p"),
            "distill_union_agg",
        ),
    ] {
        let refused = message(&ctx, &query).await;
        assert!(refused.contains("endless stream") && refused.contains("LIMIT 100000"), "{query}: {refused}");
        assert!(refused.contains(function) || refused.contains("distill:"), "{query}: {refused}");
    }
    for limited in ["SELECT * FROM s LIMIT 30", "SELECT image, label FROM s WHERE label >= 0 LIMIT 30 OFFSET 2"] {
        let query = format!("SELECT label, ({call})['count'] AS n FROM ({limited}) GROUP BY label ORDER BY label");
        let found = rows(&ctx, &query).await.unwrap();
        assert_eq!((ints(&found, "label"), ints(&found, "n")), (vec![0, 1, 2], vec![10; 3]));
    }
}

/// A batch a day, for ever: 12 pictures, whose `id` is the day.
#[derive(Debug)]
struct Days(RecordBatch);

impl PartitionStream for Days {
    fn schema(&self) -> &SchemaRef {
        self.0.schema_ref()
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batch = self.0.clone();
        let days = futures::stream::iter(0..).map(move |day| {
            let columns =
                vec![batch.column(0).clone(), batch.column(1).clone(), Arc::new(Int64Array::from(vec![day; 12]))];
            Ok(RecordBatch::try_new(batch.schema(), columns)?)
        });
        Box::pin(RecordBatchStreamAdapter::new(self.0.schema(), days))
    }
}

#[tokio::test]
async fn groups_that_end_are_sketched_while_the_stream_goes_on() {
    let ctx = session_with(config().with_target_partitions(1).with_batch_size(12));
    let batch = pictures(12, 3);
    let table = StreamingTable::try_new(batch.schema(), vec![Arc::new(Days(batch))]).unwrap();
    let table = table.with_infinite_table(true).with_sort_order(vec![col("id").sort(true, false)]);
    ctx.register_table("s", Arc::new(table)).unwrap();
    let call = "distill_sketch_agg(image, 'extractors=2 width=8 depth=1 frequencies=8')";
    let query = format!("SELECT id AS day, label, ({call})['count'] AS n FROM s GROUP BY id, label");
    let mut days = ctx.sql(&query).await.unwrap().execute_stream().await.unwrap();
    let first = days.next().await.unwrap().unwrap();
    assert!(first.num_rows() >= 3);
    assert!(ints(&first, "n").iter().all(|n| *n == 4), "{first:?}");
    assert_eq!(ints(&first, "day")[..3], [0; 3]);
}
