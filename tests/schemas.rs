//! What others read without our code, and the table of options, are in step with the code. To write them anew:
//!
//!     UPDATE_SCHEMAS=1 cargo test --release schemas

use std::path::PathBuf;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion_distill::evaluate::{Report, TrainingRecipe};
use datafusion_distill::options::{Kind, Options, SPECS};
use datafusion_distill::sketch;
use serde_json::{Map, Value, json};

/// Holds the file at `path`, from the crate's root, against `expected`; writes it where `UPDATE_SCHEMAS` is set.
fn in_step(path: &str, expected: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&file, expected).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is out of step; write it anew: UPDATE_SCHEMAS=1 cargo test --release schemas");
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

/// The default of each option, as text; none where it is chosen from the rows or left out.
fn defaults() -> Vec<Option<String>> {
    Options::default().entries().map(|(_, value, _)| value).collect()
}

#[test]
fn the_json_schema_of_the_options() {
    let properties: Map<String, Value> = SPECS
        .iter()
        .zip(defaults())
        .map(|(spec, default)| {
            let mut property = match spec.kind {
                Kind::Integer => json!({"type": "integer"}),
                Kind::Number => json!({"type": "number"}),
                Kind::Text => json!({"type": "string"}),
                Kind::List => json!({"type": "array", "items": {"type": "string"}}),
                Kind::Choice(values) => json!({"type": "string", "enum": values}),
            };
            property["description"] = spec.doc.into();
            if let Some(text) = default {
                property["default"] = match spec.kind {
                    Kind::Integer | Kind::Number => serde_json::from_str(&text).unwrap(),
                    _ => text.into(),
                };
            }
            (spec.name.to_string(), property)
        })
        .collect();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Options of distill",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    in_step("schemas/options.json", &pretty(&schema));
}

#[test]
fn the_table_of_options_in_the_docs() {
    let path = "docs/options.md";
    let text = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let header = "| option | takes | default | what |\n|---|---|---|---|\n";
    let (before, _) = text.split_once(header).expect("docs/options.md has the table");
    let rows: String = SPECS
        .iter()
        .zip(defaults())
        .map(|(spec, default)| {
            let takes = match spec.kind {
                Kind::Integer => "whole number".into(),
                Kind::Number => "number".into(),
                Kind::Text => "text".into(),
                Kind::List => "list".into(),
                Kind::Choice(values) => values.iter().map(|v| format!("`'{v}'`")).collect::<Vec<_>>().join(", "),
            };
            let default = default.map_or(String::new(), |d| format!("`{d}`"));
            format!("| `{}` | {takes} | {default} | {} |\n", spec.name, spec.doc)
        })
        .collect();
    in_step(path, &format!("{before}{header}{rows}"));
}

#[test]
fn the_readme_counts_the_options() {
    let readme = std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let count = format!("all {} are in [docs/options.md]", SPECS.len());
    assert!(readme.contains(&count), "README.md should say: {count}");
}

/// A type as JSON: its name, and its children's.
fn type_of(data_type: &DataType) -> Value {
    match data_type {
        DataType::Struct(fields) => json!({"struct": fields.iter().map(|f| field_of(f)).collect::<Vec<_>>()}),
        DataType::LargeList(item) => json!({"large_list": field_of(item)}),
        other => other.to_string().into(),
    }
}

fn field_of(field: &Field) -> Value {
    json!({"name": field.name(), "type": type_of(field.data_type()), "nullable": field.is_nullable()})
}

#[test]
fn the_arrow_schema_of_a_sketch() {
    let schema = json!({
        "title": "A sketch of one class",
        "description": "One Arrow struct a class. What the fields hold is in the documentation of the module sketch; sums are exact integers.",
        "format": sketch::FORMAT,
        "type": type_of(&sketch::data_type()),
    });
    in_step("schemas/sketch.json", &pretty(&schema));
}

/// The JSON Schema of values like `sample`, in which every optional part is there.
fn schema_like(sample: &Value, optional: &[&str]) -> Value {
    match sample {
        Value::Object(fields) => {
            let properties: Map<String, Value> = fields
                .iter()
                .map(|(name, value)| {
                    let mut property = schema_like(value, &[]);
                    if optional.contains(&name.as_str()) {
                        property["type"] = json!([property["type"], "null"]);
                    }
                    (name.clone(), property)
                })
                .collect();
            json!({"type": "object", "properties": properties, "required": fields.keys().collect::<Vec<_>>()})
        }
        Value::Array(items) => json!({"type": "array", "items": schema_like(&items[0], &[])}),
        Value::String(_) => json!({"type": "string"}),
        Value::Number(n) if n.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer"}),
        other => panic!("{other} isn't part of a report"),
    }
}

#[test]
fn the_json_schema_of_a_report() {
    let report = Report {
        name: "small.parquet".into(),
        network: "convnet".into(),
        recipe: TrainingRecipe::Dc,
        rows: 10,
        stored_rows: 10,
        rows_per_class: (1, 1),
        bytes: Some(3000),
        accuracies: vec![0.5],
        losses: vec![1.5],
        mean: 0.5,
        deviation: Some(0.1),
        standard_error: Some(0.1),
        cpu_seconds: 1.5,
        warnings: vec!["".into()],
    };
    let mut schema = schema_like(&serde_json::to_value(report).unwrap(), &["bytes", "deviation", "standard_error"]);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "A line of distill evaluate --json".into();
    in_step("schemas/report.json", &pretty(&schema));
}
