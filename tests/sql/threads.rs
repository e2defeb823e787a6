//! The job's work runs on threads of its own, as many as it may have.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use datafusion::arrow::array::RecordBatch;
use datafusion_distill::sql::{Event, ProgressListener};

use crate::support::*;

#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    ids: HashSet<ThreadId>,
    sketched: usize,
    steps: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn rows_are_sketched_and_optimized_on_the_jobs_threads_and_never_on_the_engines() {
    for threads in [1, 2] {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let seen_ = Arc::clone(&seen);
        let listener = ProgressListener::new(move |event| {
            let mut seen = seen_.lock().unwrap();
            seen.names.insert(thread::current().name().unwrap_or("none").to_string());
            seen.ids.insert(thread::current().id());
            match event {
                Event::Sketched { .. } => seen.sketched += 1,
                Event::Step(_) => seen.steps += 1,
            }
        });
        let ctx = session_with(config().with_batch_size(64).with_extension(Arc::new(listener)));
        ctx.register_batch("t", pictures(64 * 12, 3)).unwrap();
        rows(&ctx, &format!("SELECT * FROM distill(t, ipc => 1, threads => {threads}, {SMALL})")).await.unwrap();
        let seen = seen.lock().unwrap();
        assert!(seen.sketched >= 2 && seen.steps == 2, "{} slices, {} steps", seen.sketched, seen.steps);
        let own: BTreeSet<String> = (0..threads).map(|i| format!("distill-{i}")).collect();
        assert!(seen.names.is_subset(&own), "{:?}", seen.names);
        assert!(seen.ids.len() <= threads, "{:?}", seen.ids);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn calls_that_run_at_once_share_the_threads_that_they_ask_for() {
    for threads in [1, 2] {
        // All threads of every pool that something runs on, whether they had work or not.
        let alive = Arc::new(Mutex::new(HashSet::new()));
        let steps = Arc::new(Mutex::new(0));
        let (alive_, steps_) = (Arc::clone(&alive), Arc::clone(&steps));
        let listener = ProgressListener::new(move |event| {
            let of_this_pool = rayon::broadcast(|_| thread::current().id());
            alive_.lock().unwrap().extend(of_this_pool);
            *steps_.lock().unwrap() += usize::from(matches!(event, Event::Step(_)));
        });
        let ctx = session_with(config().with_batch_size(64).with_extension(Arc::new(listener)));
        ctx.register_batch("t", pictures(64 * 6, 3)).unwrap();
        let call = |seed| format!("SELECT * FROM distill(t, ipc => 2, seed => {seed}, threads => {threads}, {SMALL})");
        let both = rows(&ctx, &format!("({}) UNION ALL ({})", call(1), call(2))).await.unwrap();
        assert_eq!(alive.lock().unwrap().len(), threads);
        assert_eq!(*steps.lock().unwrap(), 4);

        let text =
            |batch: &RecordBatch| (0..batch.num_rows()).map(|i| format!("{:?}", batch.slice(i, 1).columns())).collect();
        let mut alone: Vec<String> = vec![];
        for seed in [1, 2] {
            let out: Vec<String> = text(&rows(&ctx, &call(seed)).await.unwrap());
            alone.extend(out);
        }
        let mut together: Vec<String> = text(&both);
        alone.sort();
        together.sort();
        assert!(alone == together, "side by side the rows differ");
    }
}
