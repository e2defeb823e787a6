//! A running job's events flow in, calls of the embedder's listener flow out.

use std::fmt;
use std::sync::Arc;

use datafusion::execution::TaskContext;

use crate::synthesize::Progress;

/// Something that happened in a running job.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// So many rows have been folded into the sketches of the pass that runs, see option `passes`.
    Sketched {
        /// Rows, over all partitions.
        rows: u64,
    },
    /// The optimizer has done a step; or, where real rows are chosen, a class.
    Step(Progress),
}

/// What to call for each [`Event`], on the job's thread that it happens on; set it as an extension of the session's configuration:
///
/// ```
/// use std::sync::Arc;
/// use datafusion::prelude::*;
/// use datafusion_distill::sql::ProgressListener;
///
/// let listener = ProgressListener::new(|event| println!("{event:?}"));
/// let ctx = SessionContext::new_with_config(SessionConfig::new().with_extension(Arc::new(listener)));
/// datafusion_distill::register(&ctx).unwrap();
/// ```
pub struct ProgressListener(Box<dyn Fn(Event) + Send + Sync>);

impl ProgressListener {
    /// A listener that calls `call`, which should return soon: the job waits for it.
    pub fn new(call: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Box::new(call))
    }
}

impl fmt::Debug for ProgressListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProgressListener").finish_non_exhaustive()
    }
}

/// The session's listener, if it has one.
#[derive(Clone, Debug)]
pub(super) struct Notify(Option<Arc<ProgressListener>>);

impl Notify {
    pub(super) fn of(context: &TaskContext) -> Self {
        Self(context.session_config().get_extension::<ProgressListener>())
    }

    pub(super) fn send(&self, event: Event) {
        if let Some(listener) = &self.0 {
            (listener.0)(event);
        }
    }
}
