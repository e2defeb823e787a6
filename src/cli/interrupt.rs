//! A job flows in; its result, or the signal that ended it, flows out.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::cli::failure::{Failure, Outcome};

/// How long a cancelled job may take to notice: more than one optimizer step of the largest job.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `job` on a runtime of `threads` workers until it is done or the process is asked to stop; then the job is dropped, which
/// cancels it and removes what it had begun to write. A second signal ends the process at once.
pub(super) fn run<T>(threads: usize, job: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = runtime(threads)?;
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

/// A runtime for jobs that come one after the other.
pub(super) struct Jobs(Runtime);

impl Jobs {
    /// With `threads` workers.
    pub(super) fn new(threads: usize) -> Outcome<Self> {
        Ok(Self(runtime(threads)?))
    }

    /// Runs `job` until it is done or Ctrl-C cancels it, and only it. From the first call on Ctrl-C doesn't end the process.
    pub(super) fn run<T>(&self, job: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        self.0.block_on(async {
            tokio::select! {
                biased;
                () = interrupt() => Err(Failure::Interrupted(130)),
                outcome = job => outcome,
            }
        })
    }

    /// Waits for what cancelled jobs have left to remove.
    pub(super) fn finish(self) {
        self.0.shutdown_timeout(PATIENCE);
    }
}

fn runtime(threads: usize) -> Outcome<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(threads.max(1)).enable_all().build()?)
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
    interrupt().await;
    130
}

/// Waits for Ctrl-C; for ever, where the system doesn't tell.
async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
