//! `SET distill.name = value` flows in, the session's default [`Options`] flow out.

use std::any::Any;

use datafusion::common::config::{ConfigEntry, ConfigExtension, ExtensionOptions};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};

use crate::options::{Options, Value};

/// The session's defaults for the arguments of `distill`, as the settings `distill.*`.
#[derive(Clone, Debug, Default)]
pub struct DistillConfig {
    /// The defaults.
    pub options: Options,
}

impl DistillConfig {
    /// The defaults of a session; those of the crate where it has none.
    pub fn of(config: &ConfigOptions) -> Options {
        config.extensions.get::<DistillConfig>().map(|c| c.options.clone()).unwrap_or_default()
    }
}

impl ConfigExtension for DistillConfig {
    const PREFIX: &'static str = "distill";
}

// Written by hand: the entries that `extensions_options!` makes lack the prefix, and `SHOW distill.ipc` doesn't find them.
impl ExtensionOptions for DistillConfig {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let value = match value.trim() {
            "" => Value::Null,
            text if text.eq_ignore_ascii_case("null") || text.eq_ignore_ascii_case("default") => Value::Null,
            text => Value::Text(text.into()),
        };
        self.options.set(key, &value).map_err(|e| DataFusionError::Configuration(format!("distill.{key}: {e}")))
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        self.options
            .entries()
            .map(|(name, value, description)| ConfigEntry {
                key: format!("{}.{name}", Self::PREFIX),
                value,
                description,
            })
            .collect()
    }
}
