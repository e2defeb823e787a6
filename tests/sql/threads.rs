//! The job's work runs on threads of its own, as many as it may have.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

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
