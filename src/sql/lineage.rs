//! A logical plan and its files' footers flow in, the schema with the metadata that reading drops flows out.
//!
//! DataFusion reads Parquet without its schema metadata, on purpose. The Hugging Face features, which say what the
//! columns are, live there; so each output column is traced to the file column it comes from, and that file's metadata
//! is put back, for the columns that are still there and under the names they have now.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, TableScan};
use serde_json::{Map, Value};

use super::source::Files;
use crate::arrow::datatypes::{Field, Schema, SchemaRef};

/// The key under which Hugging Face keeps the features of a file.
const HUGGINGFACE: &str = "huggingface";

/// The schema of `plan` with the metadata of its source files.
pub(super) async fn schema_with_metadata(
    state: &SessionState,
    plan: &LogicalPlan,
    scans: &[(TableScan, Option<Files>)],
) -> Result<SchemaRef> {
    let schema = plan.schema().as_arrow();
    let mut footers: HashMap<usize, SchemaRef> = HashMap::new();
    for (i, (_, files)) in scans.iter().enumerate() {
        if let Some(files) = files
            && let Some(footer) = files.first_schema(state).await?
        {
            footers.insert(i, footer);
        }
    }

    // For each column: the schema it comes from, and its name there. A column that was computed comes from none, though it may be
    // named like one that does.
    let (own, none) = (Arc::new(schema.clone()), Arc::new(Schema::empty()));
    let origins: Vec<(SchemaRef, String)> = (0..schema.fields().len())
        .map(|i| {
            let Some((scan, name)) = origin(plan, i) else { return (Arc::clone(&none), String::new()) };
            let footer = scans.iter().position(|(s, _)| s == scan).and_then(|at| footers.get(&at));
            match footer {
                Some(footer) => (Arc::clone(footer), name),
                None => (Arc::clone(&own), schema.field(i).name().clone()),
            }
        })
        .collect();

    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .zip(&origins)
        .enumerate()
        .map(|(i, (field, (from, name)))| {
            let mut metadata = from.field_with_name(name).map(|f| f.metadata().clone()).unwrap_or_default();
            metadata.extend(field.metadata().clone());
            // Every file has a value of its folders' names, but a synthetic row stands in no folder.
            let nullable = field.is_nullable() || is_partition(plan, i, scans);
            field.as_ref().clone().with_metadata(metadata).with_nullable(nullable)
        })
        .collect();

    let mut metadata = schema.metadata().clone();
    if let (LogicalPlan::TableScan(_), Some((footer, _))) = (plan, origins.first()) {
        for (key, value) in footer.metadata() {
            metadata.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    match huggingface(&fields, &origins) {
        Some(features) => metadata.insert(HUGGINGFACE.into(), features),
        None => metadata.remove(HUGGINGFACE),
    };
    Ok(Arc::new(Schema::new_with_metadata(fields, metadata)))
}

/// Whether output column `index` of `plan` comes from the names of folders (`day=1/`).
fn is_partition(plan: &LogicalPlan, index: usize, scans: &[(TableScan, Option<Files>)]) -> bool {
    origin(plan, index).is_some_and(|(scan, name)| {
        let files = scans.iter().filter(|(s, _)| s == scan).filter_map(|(_, files)| files.as_ref());
        files.flat_map(|f| &f.options.table_partition_cols).any(|(partition, _)| *partition == name)
    })
}

/// The Hugging Face note for `fields`: the original text if all of its features are still there under their names.
fn huggingface(fields: &[Field], origins: &[(SchemaRef, String)]) -> Option<String> {
    let mut features = Map::new();
    let mut first: Option<(&String, Value)> = None;
    for (field, (from, name)) in fields.iter().zip(origins) {
        let Some(text) = from.metadata().get(HUGGINGFACE) else { continue };
        let Ok(note) = serde_json::from_str::<Value>(text) else { continue };
        if let Some(feature) = note.pointer("/info/features").and_then(|f| f.get(name)) {
            features.insert(field.name().clone(), feature.clone());
            first.get_or_insert((text, note));
        }
    }
    let (text, mut note) = first?;
    let slot = note.pointer_mut("/info/features")?;
    if slot.as_object() == Some(&features) {
        return Some(text.clone());
    }
    *slot = Value::Object(features);
    Some(note.to_string())
}

/// The scan and the name of the column there that output column `index` of `plan` is an unchanged copy of.
fn origin(plan: &LogicalPlan, index: usize) -> Option<(&TableScan, String)> {
    match plan {
        LogicalPlan::TableScan(scan) => Some((scan, scan.projected_schema.field(index).name().clone())),
        LogicalPlan::Projection(projection) => {
            let mut expr = projection.expr.get(index)?;
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            let Expr::Column(column) = expr else { return None };
            origin(&projection.input, position(&projection.input, column)?)
        }
        LogicalPlan::Join(join) => {
            let (relation, field) = join.schema.qualified_field(index);
            let column = Column::new(relation.cloned(), field.name());
            match position(&join.left, &column) {
                Some(i) => origin(&join.left, i),
                None => origin(&join.right, position(&join.right, &column)?),
            }
        }
        LogicalPlan::Union(union) => origin(union.inputs.first()?, index),
        LogicalPlan::Filter(node) => origin(&node.input, index),
        LogicalPlan::Sort(node) => origin(&node.input, index),
        LogicalPlan::Limit(node) => origin(&node.input, index),
        LogicalPlan::Repartition(node) => origin(&node.input, index),
        LogicalPlan::SubqueryAlias(node) => origin(&node.input, index),
        LogicalPlan::Distinct(Distinct::All(input)) => origin(input, index),
        _ => None,
    }
}

fn position(plan: &LogicalPlan, column: &Column) -> Option<usize> {
    plan.schema().maybe_index_of_column(column)
}
