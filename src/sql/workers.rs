//! A number of threads flows in; worker threads flow out, which all jobs of a session that ask for as many share, in turn.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::common::DataFusionError;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::error::{Error, Result};

/// The workers of one session, by their number. It belongs to the session's planner; the threads end with the last job that uses them.
#[derive(Debug, Default)]
pub(super) struct WorkerPools(Mutex<BTreeMap<usize, Weak<Workers>>>);

impl WorkerPools {
    /// `threads` workers: those that another job has started, else new ones.
    pub(super) fn get(&self, threads: usize) -> Result<Arc<Workers>> {
        let mut pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(workers) = pools.get(&threads).and_then(Weak::upgrade) {
            return Ok(workers);
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("distill-{i}"))
            .build()
            .map_err(|e| Error::option("threads", format!("{threads} threads can't be started: {e}")))?;
        let workers = Arc::new(Workers { pool, turn: Arc::default() });
        pools.retain(|_, workers| workers.strong_count() > 0);
        pools.insert(threads, Arc::downgrade(&workers));
        Ok(workers)
    }
}

/// Threads on which one job at a time works.
///
/// In turn, not side by side: a thread of a rayon pool that waits inside one job's loop would take up another job's work, however
/// long, and only then go on; and the CPU time of a job could not be told from that of the others.
#[derive(Debug)]
pub(super) struct Workers {
    pool: ThreadPool,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What a job holds while its work runs.
pub(super) type Turn = Arc<OwnedMutexGuard<()>>;

impl Workers {
    /// The threads.
    pub(super) fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    /// Runs `work` on the threads, and keeps the `turn` until it is done, even if nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.pool.spawn(move || {
            // A panic in a rayon job would end the process.
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let message = format!("distill panicked, please report it: {text}");
                Err(Error::Query(Box::new(DataFusionError::Internal(message))))
            });
            // Before the answer: who waits for it would be the first to take the next turn.
            drop(turn);
            let _ = answer.send(result); // nobody waits any more where the query was dropped
        });
        answered.await.unwrap_or(Err(Error::Cancelled))
    }
}

/// One job's place in the queue for its workers. Its partitions work side by side: they share the job's turn.
#[derive(Debug, Default)]
pub(super) struct Place(tokio::sync::Mutex<Weak<OwnedMutexGuard<()>>>);

impl Place {
    /// The turn that this job has, or its next one: first come, first served.
    pub(super) async fn turn(&self, workers: &Workers) -> Turn {
        let mut own = self.0.lock().await;
        if let Some(turn) = own.upgrade() {
            return turn;
        }
        let turn = Arc::new(Arc::clone(&workers.turn).lock_owned().await);
        *own = Arc::downgrade(&turn);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_ask_for_as_many_threads_share_them_and_the_last_one_ends_them() {
        let pools = WorkerPools::default();
        let (one, other) = (pools.get(2).unwrap(), pools.get(2).unwrap());
        assert!(Arc::ptr_eq(&one, &other) && one.pool().current_num_threads() == 2);
        let three = pools.get(3).unwrap();
        assert_eq!((three.pool().current_num_threads(), pools.0.lock().unwrap().len()), (3, 2));
        drop((one, other));
        let _four = pools.get(4).unwrap();
        assert_eq!(pools.0.lock().unwrap().keys().copied().collect::<Vec<_>>(), [3, 4]);
    }

    #[tokio::test]
    async fn a_job_shares_its_turn_with_itself_and_waits_for_that_of_another() {
        let workers = WorkerPools::default().get(1).unwrap();
        let (one, other) = (Place::default(), Place::default());
        let (first, second) = (one.turn(&workers).await, one.turn(&workers).await);
        assert!(Arc::ptr_eq(&first, &second));
        let mut waiting = Box::pin(other.turn(&workers));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(first);
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(second);
        // One that waits goes before one that comes back.
        let mut again = Box::pin(one.turn(&workers));
        assert!(futures::poll!(&mut again).is_pending());
        let turn = waiting.await;
        assert!(futures::poll!(&mut again).is_pending());
        drop(turn);
        again.await;
    }
}
