//! A row that can't be used, found somewhere in a parallel scan, flows in; the first such row of the source, by file and
//! number, flows out.
//!
//! Partitions, batches and repartitioning tear rows away from their files, and which bad row is met first is chance. So the
//! error path, and only it, reads the source again in order, one file after the other.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::listing::{ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::object_store::ObjectMeta;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;

use super::job::Job;
use super::source::{Files, scans};
use crate::error::Error;
use crate::extract::Scaling;
use crate::rows::Shape;

/// Finds the first bad row of a source.
#[derive(Clone)]
pub(super) struct Locator {
    state: SessionState,
    input: LogicalPlan,
}

impl std::fmt::Debug for Locator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Locator").finish_non_exhaustive()
    }
}

impl Locator {
    /// A locator for `input`, the source projected to what the job reads.
    pub(super) fn new(state: &SessionState, input: LogicalPlan) -> Self {
        let mut state = state.clone();
        state.config_mut().options_mut().execution.target_partitions = 1;
        Self { state, input }
    }

    /// The source's first bad row in place of `found`; `found` itself if reading again finds none.
    pub(super) async fn first_bad_row(&self, job: &Arc<Job>, scaling: Option<Arc<Scaling>>, found: Error) -> Error {
        match self.search(job, scaling).await {
            Ok(Some(first)) => first,
            Ok(None) | Err(_) => found,
        }
    }

    async fn search(&self, job: &Arc<Job>, scaling: Option<Arc<Scaling>>) -> Result<Option<Error>> {
        let scaling = &scaling;
        let mut shape = None;
        if let Some((files, schema)) = self.files_in_order().await? {
            let counted = if self.has_filter() { " (rows after WHERE)" } else { "" };
            for file in &files.files {
                let place = match files.files.len() {
                    1 if super::source::looks_like_path(&job.source) => job.source.clone(),
                    _ => files.path(file),
                };
                let plan = self.over_one_file(&files, &schema, file)?;
                if let Some(error) = self.read(job, &plan, scaling, &mut shape, &format!("{place}{counted}, ")).await? {
                    return Ok(Some(error));
                }
            }
            return Ok(None);
        }
        self.read(job, &self.input, scaling, &mut shape, &format!("{}, ", job.source)).await
    }

    /// The files, if the source is one scan of files with nothing but projections and filters above it.
    async fn files_in_order(&self) -> Result<Option<(Files, crate::arrow::datatypes::SchemaRef)>> {
        let mut node = &self.input;
        loop {
            node = match node {
                LogicalPlan::Projection(n) => &n.input,
                LogicalPlan::Filter(n) => &n.input,
                LogicalPlan::SubqueryAlias(n) => &n.input,
                LogicalPlan::TableScan(_) => break,
                _ => return Ok(None),
            };
        }
        let Some((_, Some(files))) = scans(&self.state, node).await?.into_iter().next() else { return Ok(None) };
        let schema = files.schema.clone();
        Ok(schema.map(|schema| (files, schema)))
    }

    fn has_filter(&self) -> bool {
        self.input.exists(|node| Ok(matches!(node, LogicalPlan::Filter(_)))).unwrap_or(true)
    }

    /// The source's plan over `file` alone.
    fn over_one_file(
        &self,
        files: &Files,
        schema: &crate::arrow::datatypes::SchemaRef,
        file: &ObjectMeta,
    ) -> Result<LogicalPlan> {
        let mut url = files.url.get_url().clone();
        url.set_path(&format!("/{}", file.location));
        let config = ListingTableConfig::new(ListingTableUrl::try_new(url, None)?)
            .with_listing_options(files.options.clone())
            .with_schema(Arc::clone(schema));
        let source = provider_as_source(Arc::new(ListingTable::try_new(config)?));
        let replaced = self.input.clone().transform_up(|node| {
            Ok(match node {
                LogicalPlan::TableScan(mut scan) => {
                    scan.source = Arc::clone(&source);
                    Transformed::yes(LogicalPlan::TableScan(scan))
                }
                other => Transformed::no(other),
            })
        })?;
        Ok(replaced.data)
    }

    /// Reads `plan` in order up to its first bad row.
    async fn read(
        &self,
        job: &Arc<Job>,
        plan: &LogicalPlan,
        scaling: &Option<Arc<Scaling>>,
        shape: &mut Option<Shape>,
        place: &str,
    ) -> Result<Option<Error>> {
        let plan = self.state.create_physical_plan(plan).await?;
        let mut stream = execute_stream(plan, self.state.task_ctx())?;
        let mut first_row = 0;
        while let Some(batch) = stream.next().await.transpose()? {
            let count = batch.num_rows() as u64;
            let (job_, place, expected, scaling) = (Arc::clone(job), place.to_string(), *shape, scaling.clone());
            let decoded = job.run(move || job_.decode(&batch, scaling.as_deref(), expected, &place, first_row)).await;
            match decoded {
                Ok(rows) if !rows.is_empty() => *shape = Some(rows.shape),
                Ok(_) => {}
                Err(error @ Error::Row { .. }) => return Ok(Some(error)),
                Err(error) => return Err(error.into()),
            }
            first_row += count;
        }
        Ok(None)
    }
}
