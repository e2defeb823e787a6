//! A thread pool flows in, the CPU time its threads have used flows out.

use std::time::Duration;

use cpu_time::ThreadTime;

/// CPU time that the threads of `pool` have used since they began.
///
/// Waits until every thread of the pool is free to answer: call it before and after a job, not inside one.
pub(super) fn pool_time(pool: &rayon::ThreadPool) -> Duration {
    pool.broadcast(|_| thread_time()).into_iter().sum()
}

/// CPU time that the current thread has used since it began; nothing where the system doesn't tell.
pub(super) fn thread_time() -> Duration {
    ThreadTime::try_now().map(|t| t.as_duration()).unwrap_or_default()
}
