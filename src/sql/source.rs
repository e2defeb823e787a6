//! A path, glob or URL flows in, a logical plan that scans its files flows out; the files of any plan, too.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{TableReference, plan_datafusion_err, plan_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::Result;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableScan};
use datafusion::object_store::ObjectMeta;
use futures::TryStreamExt;

use crate::arrow::datatypes::SchemaRef;

/// Extensions that are read, with the name of the format.
const FORMATS: &[(&str, &str)] = &[
    ("parquet", "parquet"),
    ("csv", "csv"),
    ("json", "json"),
    ("jsonl", "json"),
    ("ndjson", "json"),
    ("arrow", "arrow"),
];

const EXPECTED: &str = "expected .parquet, .csv, .json or .arrow";

/// Whether a name that is no table ends like a file.
pub(super) fn looks_like_path(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, extension)| format_of(extension).is_some()) || name.contains('/')
}

fn format_of(extension: &str) -> Option<&'static str> {
    FORMATS.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known)).map(|(_, format)| *format)
}

/// Plans a scan of the files that `text` names; `job` is unique, so that all scans of one job list the files once, and
/// those of the next job list them anew.
pub(super) async fn open_files(state: &SessionState, text: &str, job: &str) -> Result<LogicalPlan> {
    let url = ListingTableUrl::parse(text)
        .map_err(|e| plan_datafusion_err!("'{text}' is neither a table nor a path: {}", e.strip_backtrace()))?
        .with_table_ref(table_ref(job));
    let store = state.runtime_env().object_store(&url).map_err(|_| {
        plan_datafusion_err!(
            "'{text}': no object store is registered for {}; register one with SessionContext::register_object_store, or \
             copy the files here",
            url.object_store()
        )
    })?;
    let local = url.scheme() == "file";
    let collection = url.is_collection();
    if local && url.get_glob().is_none() && !text.contains("://") && !Path::new(text).exists() {
        return plan_err!("'{text}': no such file or directory (and no table of that name)");
    }
    let files: Vec<ObjectMeta> = match url.list_all_files(state, store.as_ref(), "").await {
        Ok(files) => files.try_collect().await,
        Err(e) => Err(e),
    }
    .map_err(|e| plan_datafusion_err!("'{text}' can't be listed: {}", e.strip_backtrace()))?;
    let extension = extension(text, collection, &url, &files)?;
    let (suffix, format) = file_format(state, text, &extension)?;
    let readable = |f: &&ObjectMeta| f.location.as_ref().ends_with(suffix.as_str());
    if !files.iter().filter(readable).any(|f| f.size > 0) {
        return plan_err!("'{text}' is empty: there are no bytes in it");
    }

    let options = ListingOptions::new(format).with_file_extension(suffix);
    let mut config = ListingTableConfig::new(url).with_listing_options(options);
    if collection {
        config = config.infer_partitions_from_path(state).await?;
    }
    let config = config
        .infer_schema(state)
        .await
        .map_err(|e| plan_datafusion_err!("'{text}' can't be read: {}", e.strip_backtrace()))?;
    let table = ListingTable::try_new(config)?;
    LogicalPlanBuilder::scan(TableReference::bare(text), provider_as_source(Arc::new(table)), None)?.build()
}

/// The name under which the listings of a job's files are kept.
fn table_ref(job: &str) -> TableReference {
    TableReference::bare(format!("distill-{job}"))
}

/// Forgets which files `job` has found: a view plans once and runs its job each time it is read.
pub(super) fn forget_files(runtime: &RuntimeEnv, job: &str) -> Result<()> {
    match runtime.cache_manager.get_list_files_cache() {
        Some(cache) => cache.drop_table_entries(&table_ref(job)),
        None => Ok(()),
    }
}

/// The extension of the files to read: a file's own, a glob's own, `parquet` in a directory.
fn extension(text: &str, collection: bool, url: &ListingTableUrl, files: &[ObjectMeta]) -> Result<String> {
    let of = |name: &str| -> Option<String> {
        let (extension, compression) = ListingTableConfig::infer_file_extension_and_compression_type(name).ok()?;
        format_of(&extension)?;
        Some(compression.map_or(extension.clone(), |c| format!("{extension}.{c}")))
    };
    let Some(first) = files.iter().map(|f| f.location.as_ref()).min() else {
        return match url.get_glob() {
            Some(_) => plan_err!("'{text}': no file matches"),
            None if collection => plan_err!("'{text}': the directory is empty"),
            None => plan_err!("'{text}': no such file"),
        };
    };
    if let Some(glob) = url.get_glob() {
        let known = of(glob.as_str()).or_else(|| of(first));
        return known.ok_or_else(|| plan_datafusion_err!("'{text}': the format of {first} can't be told; {EXPECTED}"));
    }
    if !collection {
        return of(first).ok_or_else(|| plan_datafusion_err!("'{text}': the format can't be told; {EXPECTED}"));
    }
    if files.iter().any(|f| f.location.as_ref().ends_with(".parquet")) {
        return Ok("parquet".into());
    }
    match files.iter().find_map(|f| of(f.location.as_ref())) {
        Some(other) => {
            let directory = text.trim_end_matches('/');
            plan_err!("'{text}': the directory has no .parquet file; to read the others, write '{directory}/*.{other}'")
        }
        None => plan_err!("'{text}': the directory has no .parquet file"),
    }
}

/// The suffix of the files and the format that reads them.
fn file_format(state: &SessionState, text: &str, extension: &str) -> Result<(String, Arc<dyn FileFormat>)> {
    let (base, compression) = extension.split_once('.').map_or((extension, None), |(b, c)| (b, Some(c)));
    let name = format_of(base).unwrap_or(base);
    let factory = state
        .get_file_format_factory(name)
        .ok_or_else(|| plan_datafusion_err!("'{text}': this session can't read .{base} files; {EXPECTED}"))?;
    let settings: HashMap<String, String> =
        compression.map(|c| ("format.compression".to_string(), c.to_string())).into_iter().collect();
    let mut format = factory.create(state, &settings)?;
    if let Some(parquet) = (format.as_ref() as &dyn std::any::Any).downcast_ref::<ParquetFormat>() {
        // The output has the source's own types: text is not to become a view on the way.
        let options = parquet.options().clone();
        format = Arc::new(ParquetFormat::default().with_options(options).with_force_view_types(false));
    }
    Ok((format!(".{extension}"), format))
}

/// The files behind one scan of a plan.
#[derive(Clone, Debug)]
pub(super) struct Files {
    /// The files, sorted by path.
    pub(super) files: Vec<ObjectMeta>,
    /// The store's URL and how the files are read.
    pub(super) url: ListingTableUrl,
    /// How they are read.
    pub(super) options: ListingOptions,
    /// The columns of the files themselves; none if there are partition columns beside them.
    pub(super) schema: Option<SchemaRef>,
}

impl Files {
    /// The files that `scan` reads; `None` if it doesn't read files.
    pub(super) async fn of(state: &SessionState, scan: &TableScan) -> Result<Option<Self>> {
        let Ok(provider) = source_as_provider(&scan.source) else { return Ok(None) };
        let Some(table) = provider.downcast_ref::<ListingTable>() else { return Ok(None) };
        let options = table.options().clone();
        let mut files = vec![];
        for url in table.table_paths() {
            let store = state.runtime_env().object_store(url)?;
            let listed = url.list_all_files(state, store.as_ref(), &options.file_extension).await?;
            files.extend(listed.try_collect::<Vec<_>>().await?);
        }
        files.sort_by(|a, b| a.location.cmp(&b.location));
        files.dedup_by(|a, b| a.location == b.location);
        let Some(url) = table.table_paths().first().cloned() else { return Ok(None) };
        let schema = options.table_partition_cols.is_empty().then(|| provider.schema());
        Ok(Some(Self { files, url, options, schema }))
    }

    /// The schema of the first file with all metadata, where the format keeps any; DataFusion drops it while reading.
    pub(super) async fn first_schema(&self, state: &SessionState) -> Result<Option<SchemaRef>> {
        let Some(parquet) = (self.options.format.as_ref() as &dyn std::any::Any).downcast_ref::<ParquetFormat>() else {
            return Ok(None);
        };
        let Some(first) = self.files.iter().find(|f| f.size > 0) else { return Ok(None) };
        let store = state.runtime_env().object_store(&self.url)?;
        let format = ParquetFormat::default().with_options(parquet.options().clone()).with_skip_metadata(false);
        format.infer_schema(state, &store, std::slice::from_ref(first)).await.map(Some)
    }

    /// A file's path as a person would write it.
    pub(super) fn path(&self, file: &ObjectMeta) -> String {
        match self.url.scheme() {
            "file" => format!("/{}", file.location),
            _ => format!("{}{}", self.url.object_store().as_str(), file.location),
        }
    }
}

/// All scans of a plan, with the files behind each, in the plan's order.
pub(super) async fn scans(state: &SessionState, plan: &LogicalPlan) -> Result<Vec<(TableScan, Option<Files>)>> {
    let mut found = vec![];
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found.push(scan.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut out = Vec::with_capacity(found.len());
    for scan in found {
        let files = Files::of(state, &scan).await?;
        out.push((scan, files));
    }
    Ok(out)
}

/// Hex BLAKE3 of the plan and of the files it reads: path, size, time of change and tag.
pub(super) fn fingerprint(plan: &LogicalPlan, scans: &[(TableScan, Option<Files>)]) -> String {
    let mut hash = blake3::Hasher::new();
    hash.update(plan.display_indent_schema().to_string().as_bytes());
    for files in scans.iter().filter_map(|(_, files)| files.as_ref()) {
        hash.update(files.url.object_store().as_str().as_bytes());
        for file in &files.files {
            let tag = file.e_tag.as_deref().unwrap_or("");
            let line = format!("{}\0{}\0{}\0{tag}\n", file.location, file.size, file.last_modified.timestamp_millis());
            hash.update(line.as_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}
