//! Keys of a terminal flow in, results of the statements that they make flow out, until there are no more keys.

use std::future::Future;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use console::Term;
use datafusion::prelude::SessionContext;

use crate::cli::complete::{complete, quoted};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::history::{History, history_file};
use crate::cli::interrupt::Jobs;
use crate::cli::line::{Line, Press, end_of};
use crate::cli::statements::{Format, execute, is_complete, statements};

const PROMPT: &str = "distill> ";
const CONTINUED: &str = "      -> ";

const HELP: &str = "\
A statement ends with a semicolon and may have several lines. Files are named in single quotes:
  SELECT * FROM 'train.parquet' LIMIT 3;
  SELECT * FROM distill('train.parquet', ipc => 10);
  EXPLAIN SELECT * FROM distill('train.parquet', ipc => 10);
  SET distill.seed = 1;
\\d       the tables
\\?       this help
\\q       the end; so does Ctrl-D
Up, Down earlier statements
Tab      completes keywords, tables, settings after SET, and options inside distill(
Ctrl-C   drops what is typed, or cancels the statement that runs
";

const TABLES: &str = "SELECT table_schema AS schema, table_name AS name, table_type AS type FROM \
                      information_schema.tables WHERE table_schema <> 'information_schema' ORDER BY 1, 2";

/// Reads statements and runs them, in the session that `open` gives, until Ctrl-D or `\q`.
pub(super) fn shell(
    threads: usize,
    open: impl Future<Output = Outcome<SessionContext>>,
    format: Format,
    quiet: bool,
) -> Outcome {
    let jobs = Jobs::new(threads)?;
    let ctx = jobs.run(open)?;
    let mut keys = Keys::new(ctx.clone(), quiet);
    if !quiet {
        println!("distill {}; \\? for help", env!("CARGO_PKG_VERSION"));
    }
    loop {
        let text = match keys.read()? {
            Read::Statement(text) => text,
            Read::Nothing => continue,
            Read::End => break,
        };
        let done = match command(&text) {
            Some(Ok(Command::Quit)) => break,
            Some(Ok(Command::Help)) => io::stdout().write_all(HELP.as_bytes()).map_err(Failure::from),
            Some(Ok(Command::Tables)) => jobs.run(run(&ctx, TABLES, format, true)),
            Some(Err(failure)) => Err(failure),
            None => jobs.run(run(&ctx, &text, format, quiet)),
        };
        match done {
            Ok(()) => {}
            Err(Failure::Closed) => break,
            Err(failure) => {
                let _ = failure.report(); // its exit code is for a command that ends here
            }
        }
    }
    jobs.finish();
    Ok(())
}

/// What was typed.
enum Read {
    /// One or more whole statements, or a command.
    Statement(String),
    /// White space, or what Ctrl-C dropped.
    Nothing,
    /// Ctrl-D, or the terminal has gone.
    End,
}

/// The terminal, as far as it is typed on.
struct Keys {
    term: Term,
    ctx: SessionContext,
    history: History,
    /// Where the history is kept; `None` to keep none.
    file: Option<PathBuf>,
    quiet: bool,
}

impl Keys {
    fn new(ctx: SessionContext, quiet: bool) -> Self {
        let mut keys =
            Self { term: Term::buffered_stdout(), ctx, history: History::default(), file: history_file(), quiet };
        match keys.file.as_deref().map_or_else(|| Ok(History::default()), History::load) {
            Ok(history) => keys.history = history,
            Err(error) => keys.without_history(&error),
        }
        keys
    }

    /// Goes on without a file, and says so once: that is no reason not to work.
    fn without_history(&mut self, error: &crate::Error) {
        self.file = None;
        if !self.quiet {
            eprintln!("warning: statements aren't kept for the next shell: {error}");
        }
    }

    /// Reads lines up to the semicolon that ends a statement, or one line with a command.
    fn read(&mut self) -> Outcome<Read> {
        let mut text = String::new();
        loop {
            match self.line(&text)? {
                Read::Statement(line) => text += &line,
                // The first Ctrl-D in the middle of a statement drops it, as Ctrl-C does.
                Read::End if text.is_empty() => return Ok(Read::End),
                Read::End | Read::Nothing => return Ok(Read::Nothing),
            }
            if text.trim().is_empty() {
                return Ok(Read::Nothing);
            }
            if text.starts_with('\\') || is_complete(&text) {
                if let Err(error) = self.history.add(text.trim(), self.file.as_deref()) {
                    self.without_history(&error);
                }
                return Ok(Read::Statement(text));
            }
            text.push('\n');
        }
    }

    /// Reads one line, which follows the lines `before`.
    fn line(&mut self, before: &str) -> io::Result<Read> {
        let prompt = if before.is_empty() { PROMPT } else { CONTINUED };
        let mut line = Line::default();
        let mut row = self.draw(prompt, &line, 0)?;
        loop {
            let key = match self.term.read_key_raw() {
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(Read::End),
                key => key?,
            };
            match line.press(&key) {
                Press::Ignored => continue,
                Press::Edited => {}
                Press::Clear => {
                    self.term.clear_screen()?;
                    row = 0;
                }
                Press::Older => match self.history.older(line.text()) {
                    Some(entry) => line.replace(entry),
                    None => continue,
                },
                Press::Newer => match self.history.newer() {
                    Some(entry) => line.replace(entry),
                    None => continue,
                },
                Press::Complete => {
                    let text = format!("{before}{}", line.text());
                    let (start, candidates) = complete(&text, before.len() + line.cursor(), &tables(&self.ctx));
                    let candidates = line.complete(start.saturating_sub(before.len()), candidates);
                    if !candidates.is_empty() {
                        self.leave(prompt, &line, row)?;
                        self.term.write_line(&candidates.join("  "))?;
                        row = 0;
                    }
                }
                Press::Enter => {
                    self.leave(prompt, &line, row)?;
                    self.term.flush()?;
                    return Ok(Read::Statement(line.text().into()));
                }
                end @ (Press::Interrupt | Press::End) => {
                    self.leave(prompt, &line, row)?;
                    self.term.flush()?;
                    return Ok(if end == Press::End { Read::End } else { Read::Nothing });
                }
            }
            row = self.draw(prompt, &line, row)?;
        }
    }

    /// Draws the line in place of what was drawn before, whose cursor was on row `row` of it; the cursor's row now.
    fn draw(&self, prompt: &str, line: &Line, row: usize) -> io::Result<usize> {
        let columns = usize::from(self.term.size().1).max(1);
        let until_cursor = end_of(&format!("{prompt}{}", &line.text()[..line.cursor()]), columns);
        let all = format!("{prompt}{}", line.text());
        let end = end_of(&all, columns);
        self.term.move_cursor_up(row)?;
        self.term.clear_to_end_of_screen()?;
        self.term.write_str(&all)?;
        if end.1 == 0 && !all.ends_with('\n') {
            self.term.write_str("\n")?; // terminals wait at the end of a full row
        }
        self.term.move_cursor_up(end.0 - until_cursor.0)?;
        self.term.write_str("\r")?;
        self.term.move_cursor_right(until_cursor.1)?;
        self.term.flush()?;
        Ok(until_cursor.0)
    }

    /// Puts the terminal's cursor below the line.
    fn leave(&self, prompt: &str, line: &Line, row: usize) -> io::Result<()> {
        let columns = usize::from(self.term.size().1).max(1);
        let end = end_of(&format!("{prompt}{}", line.text()), columns);
        self.term.move_cursor_down(end.0.saturating_sub(row))?;
        self.term.write_line("")
    }
}

/// A line for the shell itself.
#[derive(Debug, PartialEq)]
enum Command {
    Quit,
    Help,
    Tables,
}

/// The command that `text` is, if it is one.
fn command(text: &str) -> Option<Outcome<Command>> {
    let name = text.trim_start().strip_prefix('\\')?.trim_end_matches([';', ' ', '\t', '\n']);
    Some(match name {
        "q" => Ok(Command::Quit),
        "?" | "h" => Ok(Command::Help),
        "d" => Ok(Command::Tables),
        other => Err(Failure::new(format!("'\\{other}' is no command; expected \\d, \\q or \\? for help"))),
    })
}

async fn run(ctx: &SessionContext, text: &str, format: Format, quiet: bool) -> Outcome {
    for statement in statements(ctx, text)? {
        let begin = Instant::now();
        let rows = execute(ctx, statement, format).await?;
        if !quiet {
            writeln!(io::stdout(), "{}", timing(rows, begin.elapsed()))?;
        }
    }
    Ok(())
}

/// `3 rows in 0.12 s`.
fn timing(rows: Option<usize>, time: Duration) -> String {
    let what = match rows {
        None => "done".to_string(),
        Some(1) => "1 row".to_string(),
        Some(n) => format!("{n} rows"),
    };
    format!("{what} in {:.2} s", time.as_secs_f64())
}

/// The tables of the session's own catalog, as SQL names them.
fn tables(ctx: &SessionContext) -> Vec<String> {
    let config = ctx.copied_config();
    let default = &config.options().catalog;
    let Some(catalog) = ctx.catalog(&default.default_catalog) else { return vec![] };
    let mut names = vec![];
    for schema in catalog.schema_names().into_iter().filter(|name| name != "information_schema") {
        for table in catalog.schema(&schema).map(|s| s.table_names()).unwrap_or_default() {
            names.push(match schema == default.default_schema {
                true => quoted(&table),
                false => format!("{}.{}", quoted(&schema), quoted(&table)),
            });
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_timed() {
        let time = Duration::from_millis(124);
        assert_eq!(
            [None, Some(0), Some(1), Some(3)].map(|rows| timing(rows, time)),
            ["done in 0.12 s", "0 rows in 0.12 s", "1 row in 0.12 s", "3 rows in 0.12 s"]
        );
    }

    #[test]
    fn a_line_with_a_backslash_is_a_command() {
        assert_eq!(command("\\q").unwrap().unwrap(), Command::Quit);
        assert_eq!(command(" \\d ;").unwrap().unwrap(), Command::Tables);
        assert_eq!(command("\\?").unwrap().unwrap(), Command::Help);
        let Err(Failure::Failed { messages, .. }) = command("\\x").unwrap() else { panic!() };
        assert_eq!(messages, ["'\\x' is no command; expected \\d, \\q or \\? for help"]);
        assert!(command("SELECT '\\q';").is_none());
    }

    #[tokio::test]
    async fn tables_of_other_schemas_are_named_with_theirs() {
        let ctx = SessionContext::new();
        for sql in ["CREATE TABLE t AS SELECT 1", "CREATE SCHEMA s", "CREATE TABLE s.\"U\" AS SELECT 1"] {
            ctx.sql(sql).await.unwrap().collect().await.unwrap();
        }
        let mut names = tables(&ctx);
        names.sort();
        assert_eq!(names, ["s.\"U\"", "t"]);
    }
}
