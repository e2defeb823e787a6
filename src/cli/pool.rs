//! A source and options flow in, a file of frozen extractors flows out.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::PoolFlags;
use crate::cli::interrupt;
use crate::cli::session::{session, threads};
use crate::cli::usage::human_bytes;
use crate::error::Error;
use crate::sql::make_pool;

#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// Write the extractors for a source's rows into a file that --pool-file takes.
    #[command(after_help = "Examples:\n  \
        distill pool create train.parquet -o pool.safetensors --extractors 20 --seed 1\n  \
        distill pool create people.parquet -o pool.safetensors --ranges 'age=0..120, sex=female|male'")]
    Create(CreateArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct CreateArgs {
    /// Whose rows they are for: a Parquet file, a folder, a glob in quotes, a URL, or a query in parentheses.
    source: String,

    /// The safetensors file to write.
    #[arg(short, long, value_name = "OUT.safetensors")]
    output: PathBuf,

    /// Replace the output file if it exists.
    #[arg(long)]
    overwrite: bool,

    #[command(flatten)]
    options: PoolFlags,
}

pub(super) fn pool(command: PoolCommand, quiet: bool) -> Outcome {
    let PoolCommand::Create(args) = command;
    let options = args.options.options()?;
    if !args.overwrite && args.output.exists() {
        return Err(Failure::new(format!("'{}' exists already; --overwrite replaces it", args.output.display())));
    }
    let threads = threads(options.threads);
    let pool = interrupt::run(threads, async {
        let ctx = session(threads, None, None)?;
        Ok(make_pool(&ctx, &args.source, &options).await?)
    })?;
    pool.save(&args.output)?;
    if !quiet {
        let bytes = std::fs::metadata(&args.output).map_err(|e| Error::io(&args.output, e))?.len();
        let recipe = pool.recipe();
        writeln!(
            std::io::stdout(),
            "{}: {} extractors ({}, width {}, depth {}) for rows of {}, {}\nfingerprint {}",
            args.output.display(),
            recipe.extractors,
            recipe.network,
            recipe.width,
            recipe.depth,
            recipe.shape,
            human_bytes(bytes),
            pool.fingerprint()
        )?;
    }
    Ok(())
}
