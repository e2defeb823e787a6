//! A job's options and source flow in, the note about them that travels in the output's schema metadata flows out.

use serde_json::{Map, Value, json};

use crate::arrow::datatypes::Schema;
use crate::options::Options;

/// The key of the note in the schema metadata, and so in the Parquet file's.
pub const PROVENANCE_KEY: &str = "datafusion-distill";

/// The name of the column of weights that `distill` added to rows of this schema (option `weight`), as their note says.
pub fn weight_column(schema: &Schema) -> Option<String> {
    let note: Value = serde_json::from_str(schema.metadata().get(PROVENANCE_KEY)?).ok()?;
    Some(note["options"]["weight"].as_str()?.to_string())
}

/// How the rows of this schema were chosen, `herding` or `herding (auto)`, if they are real ones or mosaics of such, as their note says.
pub fn selection(schema: &Schema) -> Option<String> {
    let note: Value = serde_json::from_str(schema.metadata().get(PROVENANCE_KEY)?).ok()?;
    Some(note["selection"].as_str()?.to_string())
}

/// The note: version, seed, options that differ from the defaults, source and its fingerprint; and of rows that are real ones, as those of a `table` are where
/// `method` is left open, how they were chosen; JSON.
///
/// `threads` is left out: it doesn't change the result, and the same result must have the same bytes.
pub(super) fn provenance(options: &Options, table: bool, source: &str, fingerprint: &str) -> String {
    let changed: Map<String, Value> = options
        .changed()
        .into_iter()
        .filter(|(name, _)| *name != "threads" && *name != "seed")
        .map(|(name, value)| (name.to_string(), Value::String(value)))
        .collect();
    let mut note = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "seed": options.seed,
        "options": changed,
        "source": { "name": source, "fingerprint": fingerprint },
    });
    let method = options.clone().automatic(table).method;
    if method.selects() {
        note["selection"] = method.chosen_from(options.method).into();
    }
    note.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Method;

    #[test]
    fn the_note_says_what_was_changed_but_not_what_does_not_matter() {
        let options = Options { ipc: 7, seed: 3, threads: Some(2), ..Options::default() };
        let note = |options: &Options, table| -> Value {
            serde_json::from_str(&provenance(options, table, "train.parquet", "abc")).unwrap()
        };
        let chosen = Options { method: Method::Random, ..Options::default() };
        assert_eq!(note(&options, true)["selection"], "herding (auto)");
        assert_eq!(note(&chosen, false)["selection"], "random");
        let note = note(&options, false);
        assert_eq!((&note["seed"], note.get("selection")), (&3.into(), None));
        assert_eq!(note["options"], json!({ "ipc": "7" }));
        assert_eq!(note["source"], json!({ "name": "train.parquet", "fingerprint": "abc" }));
    }
}
