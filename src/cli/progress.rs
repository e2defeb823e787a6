//! Events of a running job flow in, a line that moves on a terminal flows out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::sql::{Event, ProgressListener};

/// The progress of a distillation; draws nothing where standard error is no terminal.
#[derive(Clone)]
pub(super) struct JobProgress {
    bar: ProgressBar,
    rows: Arc<AtomicU64>,
    optimizing: Arc<AtomicBool>,
}

impl JobProgress {
    pub(super) fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::no_length() };
        bar.set_style(style("{spinner} {human_pos} rows read and sketched, {per_sec}, {elapsed}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, rows: Arc::default(), optimizing: Arc::default() }
    }

    /// The listener that keeps it up to date.
    pub(super) fn listener(&self) -> ProgressListener {
        let progress = self.clone();
        ProgressListener::new(move |event| progress.on(event))
    }

    /// Rows read and sketched so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Clears the line.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn on(&self, event: Event) {
        match event {
            Event::Sketched { rows } => {
                // Partitions report out of order; the count only grows.
                let before = self.rows.fetch_max(rows, Ordering::Relaxed);
                if !self.optimizing.load(Ordering::Relaxed) {
                    self.bar.set_position(before.max(rows));
                }
            }
            Event::Step(progress) => {
                if !self.optimizing.swap(true, Ordering::Relaxed) {
                    self.bar.set_style(style(match progress.loss {
                        Some(_) => "optimizing {wide_bar} step {human_pos} of {human_len}, loss {msg}, {eta} left",
                        None => "choosing rows {wide_bar} class {human_pos} of {human_len}, {eta} left",
                    }));
                    self.bar.set_length(progress.steps as u64);
                    self.bar.set_position(0);
                    self.bar.reset_eta();
                }
                self.bar.set_position(progress.step as u64);
                self.bar.set_message(progress.loss.map_or_else(String::new, |loss| format!("{loss:.4}")));
            }
        }
    }
}

/// A bar over all epochs of all networks of an evaluation.
pub(super) fn evaluation_bar(quiet: bool, epochs: usize) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(epochs as u64) };
    bar.set_style(style("{msg} {wide_bar} {eta} left"));
    bar
}

fn style(template: &str) -> ProgressStyle {
    // The templates above are constants and well-formed; a plain bar would do no harm.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthesize::Progress;

    #[test]
    fn rows_count_up_whatever_order_partitions_report_in() {
        let progress = JobProgress::new(true);
        [10, 30, 20].into_iter().for_each(|rows| progress.on(Event::Sketched { rows }));
        progress.on(Event::Step(Progress { step: 1, steps: 5, loss: Some(0.5) }));
        assert_eq!(progress.rows(), 30);
        assert_eq!(
            (progress.bar.position(), progress.bar.length(), progress.bar.message()),
            (1, Some(5), "0.5000".into())
        );
    }
}
