//! Distils each so many rows of an Arrow IPC stream on standard input, and writes the synthetic rows as one on standard output:
//!
//! ```text
//! producer | cargo run --release --example stream -- --every 1000 --options 'ipc=1 width=32 steps=100' | consumer
//! ```
//!
//! README.md beside this file says more.

mod windows;

use std::error::Error;
use std::io::{stdin, stdout};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use clap::Parser;
use datafusion_distill::Options;

/// Distils each so many rows of an Arrow IPC stream from standard input to standard output.
#[derive(Parser)]
struct Arguments {
    /// Rows of a window.
    #[arg(long, value_name = "ROWS")]
    every: NonZeroUsize,
    /// Options of docs/options.md, name=value separated by spaces.
    #[arg(long, default_value = "", value_name = "TEXT")]
    options: String,
    /// Most memory to use, in MiB.
    #[arg(long, default_value = "1024", value_name = "MIB")]
    memory: usize,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stream: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let mut options = Options::default();
    options.set_text(&arguments.options)?;
    let limit = arguments.memory.saturating_mul(1 << 20);
    let done = windows::distill_windows(stdin().lock(), stdout().lock(), arguments.every, |builder| {
        builder.options(options).memory_limit(limit)
    })?;
    eprintln!("stream: {} rows in {} windows, {} synthetic rows", done.rows, done.windows, done.written);
    Ok(())
}
