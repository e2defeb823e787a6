//! A command line with SQL, a file of it or a terminal flows in, the results flow to standard output.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use datafusion::prelude::SessionContext;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::session::{MemoryArgs, session, threads};
use crate::cli::statements::{Format, execute, statements};
use crate::cli::{interrupt, shell};
use crate::error::Error;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    distill sql -c \"SELECT * FROM distill('train.parquet', ipc => 10)\"\n  \
    distill sql -c \"COPY (SELECT * FROM distill('train.parquet', ipc => 10)) TO 'small.parquet' STORED AS PARQUET\"\n  \
    distill sql -c \"EXPLAIN SELECT * FROM distill((SELECT * FROM 'train.parquet' WHERE label < 5))\"\n  \
    distill sql -f job.sql --format csv\n  \
    distill sql")]
pub(super) struct SqlArgs {
    /// Statements to run, separated by semicolons. May be given several times. Files are named in single quotes: FROM 'train.parquet'.
    #[arg(short, long = "command", value_name = "SQL", conflicts_with = "file")]
    command: Vec<String>,

    /// A file with statements to run. Without -c and -f a shell opens on a terminal; else they are read from standard input.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// How results are printed. A table shortens binary values and long lists; csv and json don't.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,

    /// CPU threads, for queries and for `distill`. Default: all cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    #[command(flatten)]
    memory: MemoryArgs,
}

pub(super) fn sql(args: SqlArgs, quiet: bool) -> Outcome {
    let threads = threads(args.threads.map(usize::from));
    if args.command.is_empty() && args.file.is_none() && io::stdin().is_terminal() && io::stdout().is_terminal() {
        return shell::shell(threads, args.open(threads), args.format, quiet);
    }
    let text = args.text()?;
    interrupt::run(threads, async {
        let ctx = args.open(threads).await?;
        let statements = statements(&ctx, &text)?;
        if statements.is_empty() {
            return Err(Failure::new("nothing to run: the SQL text has no statement"));
        }
        for statement in statements {
            execute(&ctx, statement, args.format).await?;
        }
        Ok(())
    })
}

impl SqlArgs {
    async fn open(&self, threads: usize) -> Outcome<SessionContext> {
        let ctx = session(threads, Some(self.memory), None)?;
        if self.threads.is_some() {
            ctx.sql(&format!("SET distill.threads = {threads}")).await?;
        }
        Ok(ctx)
    }

    fn text(&self) -> Outcome<String> {
        if !self.command.is_empty() {
            return Ok(self.command.join(";\n"));
        }
        if let Some(path) = &self.file {
            return Ok(std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?);
        }
        if io::stdin().is_terminal() {
            return Err(Failure::new(
                "nothing to run; give statements with -c \"SELECT ...\", a file with -f FILE, or pipe them to standard \
                 input (a shell needs a terminal to write to, too)",
            ));
        }
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        Ok(text)
    }
}
