//! A job flows in; its result, or the signal that ended it, flows out.

use std::future::Future;
use std::time::Duration;

use crate::cli::failure::{Failure, Outcome};

/// How long a cancelled job may take to notice: more than one optimizer step of the largest job.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `job` on a runtime of `threads` workers until it is done or the process is asked to stop; then the job is dropped, which
/// cancels it and removes what it had begun to write. A second signal ends the process at once.
pub(super) fn run<T>(threads: usize, job: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            // The signals first, and in this order: they are asked for before the job begins anything that has to be removed.
            biased;
            code = signal() => {
                #[allow(clippy::disallowed_methods)] // outlives the job on purpose
                tokio::spawn(async { std::process::exit(i32::from(signal().await)) });
                Err(Failure::Interrupted(code))
            }
            outcome = job => outcome,
        }
    });
    runtime.shutdown_timeout(PATIENCE);
    outcome
}

/// Waits for Ctrl-C or a request to terminate; gives the exit code that a shell expects: 128 and the signal's number.
async fn signal() -> u8 {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        {
            return tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    130
}
