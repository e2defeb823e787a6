//! Threads and a memory limit flow in; a session that knows `distill(...)` and reads files by their path flows out.

use std::str::FromStr;
use std::sync::Arc;

use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::cli::failure::Outcome;
use crate::sql::ProgressListener;

/// How much memory queries may reserve.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct MemoryArgs {
    /// Most memory that the job may reserve, such as 500m or 2g. Beyond it the job fails and names who asked for more.
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<Size>,
}

/// Bytes, written as `512m` or `2g`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size(usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected a size such as 500m, 2g or 1.5GB, found '{text}'");
        let lower = text.trim().to_ascii_lowercase();
        let unit = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(unit);
        let factor = match unit {
            "" | "b" => 1u64,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(expected()),
        };
        let bytes = number.trim().parse::<f64>().map_err(|_| expected())? * factor as f64;
        if bytes >= 1.0 && bytes < usize::MAX as f64 { Ok(Self(bytes as usize)) } else { Err(expected()) }
    }
}

/// All cores, unless `threads` says otherwise.
pub(super) fn threads(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// A session with `partitions` partitions a plan.
pub(super) fn session(
    partitions: usize,
    memory: Option<MemoryArgs>,
    listener: Option<ProgressListener>,
) -> Outcome<SessionContext> {
    let mut config = SessionConfig::new().with_information_schema(true).with_target_partitions(partitions.max(1));
    config.options_mut().sql_parser.collect_spans = true;
    if let Some(listener) = listener {
        config = config.with_extension(Arc::new(listener));
    }
    let mut runtime = RuntimeEnvBuilder::new();
    if let Some(Size(bytes)) = memory.and_then(|m| m.memory_limit) {
        runtime = runtime.with_memory_limit(bytes, 1.0);
    }
    let ctx = SessionContext::new_with_config_rt(config, runtime.build_arc()?).enable_url_table();
    crate::register(&ctx)?;
    Ok(ctx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        let size = |text: &str| text.parse::<Size>().map(|s| s.0);
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("1.5 MiB"), Ok(3 << 19));
        assert_eq!(size("100"), Ok(100));
        for bad in ["", "g", "-1g", "2x", "0", "nan"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
