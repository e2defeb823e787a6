//! A URL flows in, the bytes behind it, fetched from the session's object store while a query is planned, flow out.

use std::sync::Arc;

use datafusion::common::plan_datafusion_err;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::object_store::ObjectStoreExt;

use super::session::block_on;
use crate::options::{Options, PoolBytes};

/// Fetches `pool_file`, where it is a URL: extractors are built where nothing can wait for a store.
pub(super) fn pool_file(runtime: &Arc<RuntimeEnv>, options: &mut Options) -> Result<()> {
    let Some(url) = options.pool_file.as_ref().filter(|path| path.contains("://")).cloned() else { return Ok(()) };
    let failed = |e: &dyn std::fmt::Display| plan_datafusion_err!("option 'pool_file': '{url}' can't be read: {e}");
    let parsed = ListingTableUrl::parse(&url).map_err(|e| failed(&e.strip_backtrace()))?;
    let store = runtime.object_store(&parsed).map_err(|_| {
        plan_datafusion_err!(
            "option 'pool_file': '{url}': no object store is registered for {}; register one with SessionContext::register_object_store",
            parsed.object_store().as_str()
        )
    })?;
    let bytes = block_on(async {
        let found = store.get(parsed.prefix()).await.map_err(|e| failed(&e))?;
        found.bytes().await.map_err(|e| failed(&e))
    })?;
    options.pool_bytes = Some(PoolBytes(Arc::new(bytes.to_vec())));
    Ok(())
}
