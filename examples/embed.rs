//! Teaches `distill(...)` to a `SessionContext` that is there already, and distils the digits with it, one row each:
//!
//! ```text
//! cargo run --release --example embed
//! ```

use datafusion::error::Result;
use datafusion::prelude::*;

const DIGITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.parquet");

#[tokio::main]
async fn main() -> Result<()> {
    let ctx = SessionContext::new();
    ctx.register_parquet("digits", DIGITS, ParquetReadOptions::default()).await?;

    datafusion_distill::register(&ctx)?;

    let small = ctx.sql("SELECT * FROM distill(digits, ipc => 1, width => 32, steps => 100)").await?.cache().await?;
    small.clone().select_columns(&["label"])?.show().await?;
    println!("{} rows, {}", small.clone().count().await?, small.schema().as_arrow());
    Ok(())
}
