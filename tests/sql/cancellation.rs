//! A dropped query stops within one micro-batch or one optimizer step: counted, not timed.
#![allow(clippy::await_holding_lock)] // the lock is what stops the job where the test wants it
#![allow(clippy::disallowed_methods)] // a raw task is what a careless caller drops

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use datafusion::prelude::SessionConfig;
use datafusion_distill::sql::{Event, ProgressListener};
use tokio::sync::mpsc;

use crate::support::*;

/// A configuration whose listener counts steps and slices, says when `wanted` comes, and then holds the job until released.
struct Watch {
    seen: Arc<AtomicUsize>,
    reached: mpsc::UnboundedReceiver<()>,
    release: Arc<Mutex<()>>,
}

fn watched(wanted: usize, counts: fn(&Event) -> bool) -> (SessionConfig, Watch) {
    let seen = Arc::new(AtomicUsize::new(0));
    let release = Arc::new(Mutex::new(()));
    let (tell, reached) = mpsc::unbounded_channel();
    let (seen_, release_) = (seen.clone(), release.clone());
    let listener = ProgressListener::new(move |event| {
        if counts(&event) && seen_.fetch_add(1, Ordering::SeqCst) + 1 == wanted {
            tell.send(()).ok();
            drop(release_.lock());
        }
    });
    let config = config().with_target_partitions(1).with_extension(Arc::new(listener));
    (config, Watch { seen, reached, release })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_dropped_while_optimizing_does_no_further_step() {
    let (config, mut watch) = watched(3, |event| matches!(event, Event::Step(_)));
    let ctx = session_with(config);
    ctx.register_batch("t", pictures(24, 3)).unwrap();
    let held = watch.release.lock().unwrap();
    let query = "SELECT * FROM distill(t, ipc => 1, extractors => 1, width => 8, depth => 1, steps => 100000, frequencies => 8)";
    let plan = ctx.sql(query).await.unwrap();
    let running = tokio::spawn(plan.collect());
    watch.reached.recv().await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    drop(held);
    // The worker looks at the flag after the step's event: it ends, and drops its sender.
    drop(ctx);
    while watch.reached.recv().await.is_some() {}
    assert_eq!(watch.seen.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_dropped_while_reading_folds_no_further_slice() {
    let (config, mut watch) = watched(2, |event| matches!(event, Event::Sketched { .. }));
    let ctx = session_with(config);
    ctx.register_batch("t", pictures(64 * 200, 2)).unwrap();
    let held = watch.release.lock().unwrap();
    let query = format!("SELECT * FROM distill(t, ipc => 1, threads => 1, {SMALL})");
    let running = tokio::spawn(ctx.sql(&query).await.unwrap().collect());
    watch.reached.recv().await.unwrap();
    running.abort();
    drop(held);
    assert!(running.await.unwrap_err().is_cancelled());
    drop(ctx);
    while watch.reached.recv().await.is_some() {}
    assert_eq!(watch.seen.load(Ordering::SeqCst), 2, "of 200 slices");
}

#[tokio::test]
async fn listeners_hear_of_every_row_and_step() {
    let rows_seen = Arc::new(AtomicUsize::new(0));
    let steps = Arc::new(AtomicUsize::new(0));
    let (rows_, steps_) = (rows_seen.clone(), steps.clone());
    let listener = ProgressListener::new(move |event| match event {
        Event::Sketched { rows } => {
            rows_.fetch_max(rows as usize, Ordering::SeqCst);
        }
        Event::Step(progress) => {
            assert!(progress.step <= progress.steps && progress.steps == 2);
            steps_.fetch_add(1, Ordering::SeqCst);
        }
    });
    let ctx = session_with(config().with_extension(Arc::new(listener)));
    ctx.register_batch("t", pictures(200, 2)).unwrap();
    rows(&ctx, &format!("SELECT * FROM distill(t, ipc => 1, {SMALL})")).await.unwrap();
    assert_eq!((rows_seen.load(Ordering::SeqCst), steps.load(Ordering::SeqCst)), (200, 2));
}
