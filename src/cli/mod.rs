//! A command line flows in, SQL or library calls flow out.

mod beside;
mod complete;
mod evaluate;
mod failure;
mod flags;
mod history;
mod inspect;
mod interrupt;
mod line;
mod pool;
mod progress;
mod read;
mod run;
mod session;
mod sheet;
mod shell;
mod sql;
mod statements;
mod table;
mod unpack;
mod usage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Distil a labelled table into a few synthetic rows per class that are worth training on in its place.
///
/// The source is anything that SQL can name: a Parquet file, a folder or glob of them, a URL, a query. What comes out is a
/// Parquet file of the same schema with `--ipc` rows per class.
#[derive(Parser)]
#[command(
    name = "distill",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Examples:\n  \
        distill run train.parquet -o small.parquet --ipc 10\n  \
        distill evaluate small.parquet --test test.parquet --baseline random,herding --from train.parquet\n  \
        distill inspect small.parquet -o sheet.png\n  \
        distill sql -c \"SELECT label, count(*) FROM 'train.parquet' GROUP BY label\""
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Say nothing but errors: no progress, no summary, no warnings.
    #[arg(short, long, global = true, display_order = 900)]
    quiet: bool,

    /// Log what happens to standard error; -vv for more. RUST_LOG, where set, decides alone.
    #[arg(short, long, global = true, display_order = 900, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Distil a source into a Parquet file.
    Run(run::RunArgs),
    /// Run SQL statements, among them `SELECT * FROM distill('train.parquet', ipc => 10)`; on a terminal, a shell.
    Sql(sql::SqlArgs),
    /// Train fresh networks on a file and report their accuracy on test rows.
    Evaluate(evaluate::EvaluateArgs),
    /// Make a file of frozen extractors, written once and used every night.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Write the pictures that the pictures of a file hold (option mosaic), a row each.
    Unpack(unpack::UnpackArgs),
    /// Show what is in a Parquet file: roles of the columns, classes, where it comes from, pictures.
    Inspect(inspect::InspectArgs),
}

/// Runs the command with the process's arguments.
pub fn main() -> ExitCode {
    keep_candle_to_one_thread();
    let cli = Cli::parse();
    log_to_stderr(cli.verbose, cli.quiet);
    let done = match cli.command {
        Command::Run(args) => run::run(args, cli.quiet),
        Command::Sql(args) => sql::sql(args, cli.quiet),
        Command::Evaluate(args) => evaluate::evaluate(args, cli.quiet),
        Command::Pool(command) => pool::pool(command, cli.quiet),
        Command::Unpack(args) => unpack::unpack(args, cli.quiet),
        Command::Inspect(args) => inspect::inspect(args, cli.quiet),
    };
    done.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

/// candle's element-wise operations have threads of their own, which wait in a loop for the next one: beside the kernels' threads they would take
/// cores from them, and `--threads` wouldn't bound them.
fn keep_candle_to_one_thread() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: the first thing that the process does, when it has no other thread that could read the environment.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
}

fn log_to_stderr(verbose: u8, quiet: bool) {
    use tracing_subscriber::EnvFilter;

    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "warn,datafusion_distill=info",
        (false, _) => "info,datafusion_distill=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Fails only where a subscriber is installed already: then that one decides.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().try_init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
