//! A call of a hidden table function flows in, the session that is planning flows out.
//!
//! A relation planner sees names and settings, but not the session: the file formats, the object stores and the optimizer
//! that a source needs. A table function does. So the planner calls this one and takes the session out of what it returns.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{exec_datafusion_err, internal_datafusion_err, plan_datafusion_err};
use datafusion::datasource::{TableType, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;

/// The hidden table function's name.
pub(super) const FUNCTION: &str = "__distill_session";

/// The session in which `context` plans.
pub(super) fn planning_session(context: &dyn RelationPlannerContext) -> Result<SessionState> {
    let source = context.context_provider().get_table_function_source(FUNCTION, vec![])?;
    let provider = source_as_provider(&source)?;
    let handle = provider
        .downcast_ref::<SessionHandle>()
        .ok_or_else(|| internal_datafusion_err!("{FUNCTION} was registered by someone else"))?;
    Ok(handle.state.clone())
}

/// Waits for `future` inside synchronous planning, whatever runtime planning runs on, or none.
pub(super) fn block_on<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    use tokio::runtime::{Builder, Handle, RuntimeFlavor};
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| handle.block_on(future))
        }
        // A current-thread runtime can't run anything while this thread waits: a runtime of our own, on a thread of its own.
        _ => std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let runtime = Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .map_err(|e| exec_datafusion_err!("can't start a runtime to read the source's schema: {e}"))?;
                    runtime.block_on(future)
                })
                .join()
                .map_err(|_| internal_datafusion_err!("reading the source's schema panicked"))?
        }),
    }
}

/// The hidden table function.
#[derive(Debug)]
pub(super) struct SessionFunction;

impl TableFunctionImpl for SessionFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let state = args.session().as_any().downcast_ref::<SessionState>().ok_or_else(|| {
            plan_datafusion_err!("distill plans only in sessions of DataFusion itself (SessionContext)")
        })?;
        Ok(Arc::new(SessionHandle { state: state.clone() }))
    }
}

/// A table without columns that carries a session.
struct SessionHandle {
    state: SessionState,
}

impl std::fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionHandle").finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SessionHandle {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(EmptyExec::new(self.schema())))
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the tests stand in for callers that use them
mod tests {
    use super::*;

    async fn answer() -> Result<u32> {
        tokio::task::yield_now().await;
        tokio::task::spawn_blocking(|| 42).await.map_err(|e| exec_datafusion_err!("{e}"))
    }

    #[test]
    fn planning_can_wait_without_a_runtime() {
        assert_eq!(block_on(answer()).unwrap(), 42);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn planning_can_wait_on_a_current_thread_runtime() {
        assert_eq!(block_on(answer()).unwrap(), 42);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn planning_can_wait_on_a_multi_thread_runtime() {
        assert_eq!(tokio::spawn(async { block_on(answer()) }).await.unwrap().unwrap(), 42);
    }
}
