//! Statements flow in, a file of them flows out that outlives the shell; and back, when they are looked for.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Most statements that are kept.
const KEPT: usize = 1_000;

/// The variable that names the file; empty, nothing is kept.
const VARIABLE: &str = "DISTILL_HISTORY";

/// The statements so far, oldest first, and the one that is looked at.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: Vec<String>,
    /// A position in `entries`; their number while none is looked at.
    at: usize,
    /// What was typed before one was looked at.
    draft: String,
}

impl History {
    /// Reads `file`; one that isn't there has nothing in it.
    pub(super) fn load(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(|e| Error::io(file, e))?,
        };
        let all: Vec<String> = text.lines().map(from_line).collect();
        let entries = all[all.len().saturating_sub(KEPT)..].to_vec();
        if all.len() > 2 * KEPT {
            let kept: String = entries.iter().map(|entry| to_line(entry)).collect();
            fs::write(file, kept).map_err(|e| Error::io(file, e))?;
        }
        Ok(Self { at: entries.len(), entries, draft: String::new() })
    }

    /// Adds `entry` at the end, and to `file` at once: a shell that is killed, or another beside it, loses nothing.
    pub(super) fn add(&mut self, entry: &str, file: Option<&Path>) -> Result<()> {
        let new = self.entries.last().is_none_or(|last| last != entry);
        if new {
            self.entries.push(entry.into());
        }
        self.at = self.entries.len();
        match file {
            Some(file) if new => append(file, &to_line(entry)).map_err(|e| Error::io(file, e)),
            _ => Ok(()),
        }
    }

    /// The entry before the one looked at; `typed` is what stands in the line now.
    pub(super) fn older(&mut self, typed: &str) -> Option<&str> {
        if self.at == self.entries.len() {
            self.draft = typed.into();
        }
        self.at = self.at.checked_sub(1)?;
        self.entries.get(self.at).map(String::as_str)
    }

    /// The entry after the one looked at; after the last, what had been typed.
    pub(super) fn newer(&mut self) -> Option<&str> {
        if self.at == self.entries.len() {
            return None;
        }
        self.at += 1;
        Some(self.entries.get(self.at).unwrap_or(&self.draft))
    }
}

/// Statements may hold what their author alone should read: so may the file.
fn append(file: &Path, line: &str) -> io::Result<()> {
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(line.as_bytes())
}

/// One line of the file: line ends and backslashes are written as `\\n` and `\\\\`.
fn to_line(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n") + "\n"
}

fn from_line(line: &str) -> String {
    let mut entry = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => entry.push(chars.next().map_or('\\', |c| if c == 'n' { '\n' } else { c })),
            c => entry.push(c),
        }
    }
    entry
}

/// The file that this process keeps the history in; `None` to keep none.
pub(super) fn history_file() -> Option<PathBuf> {
    locate(std::env::consts::OS, |name| std::env::var_os(name))
}

/// `$DISTILL_HISTORY`, else a file in the folder where `os` keeps the state of programs between runs.
fn locate(os: &str, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(file) = variable(VARIABLE) {
        return (!file.is_empty()).then(|| file.into());
    }
    let folder = |name| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let state = match os {
        "windows" => folder("LOCALAPPDATA")?,
        "macos" => folder("HOME")?.join("Library/Application Support"),
        // The XDG base directory specification: a relative path is to be ignored.
        _ => match folder("XDG_STATE_HOME").filter(|f| f.is_absolute()) {
            Some(folder) => folder,
            None => folder("HOME")?.join(".local/state"),
        },
    };
    Some(state.join("distill").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn located(os: &str, variables: &[(&str, &str)]) -> Option<String> {
        let file = locate(os, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))?;
        Some(file.to_str().unwrap().replace('\\', "/"))
    }

    #[test]
    fn statements_of_several_lines_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/history");
        let entries = ["SELECT 1;", "SELECT '\\n',\n  2;", "\\d"];
        let mut history = History::load(&file).unwrap();
        for entry in entries.iter().chain([&entries[2]]) {
            history.add(entry, Some(&file)).unwrap();
        }
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 3, "the same again is one entry");
        assert_eq!(History::load(&file).unwrap().entries, entries);
        fs::write(&file, [0xff, 0xfe]).unwrap();
        assert!(History::load(&file).unwrap_err().to_string().contains("new/history"));
    }

    #[test]
    fn a_long_history_loses_its_oldest_entries() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("history");
        fs::write(&file, (0..=2 * KEPT).map(|i| format!("{i}\n")).collect::<String>()).unwrap();
        let history = History::load(&file).unwrap();
        assert_eq!((history.entries.len(), history.entries[0].as_str()), (KEPT, "1001"));
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), KEPT);
    }

    #[test]
    fn looking_back_and_forth_ends_at_what_was_typed() {
        let mut history = History::default();
        assert_eq!(history.older("x"), None);
        assert_eq!(history.newer(), None);
        for entry in ["a", "b"] {
            history.add(entry, None).unwrap();
        }
        assert_eq!(history.older("typed"), Some("b"));
        assert_eq!(history.older("b"), Some("a"));
        assert_eq!(history.older("a"), None);
        assert_eq!(history.newer(), Some("b"));
        assert_eq!(history.newer(), Some("typed"));
        assert_eq!(history.newer(), None);
    }

    #[test]
    fn the_history_is_where_the_system_keeps_state_unless_a_variable_says_where() {
        let home = ("HOME", "/home/ann");
        for (os, variables, expected) in [
            ("linux", &[home][..], Some("/home/ann/.local/state/distill/history")),
            ("linux", &[home, ("XDG_STATE_HOME", "/state")], Some("/state/distill/history")),
            ("linux", &[home, ("XDG_STATE_HOME", "state")], Some("/home/ann/.local/state/distill/history")),
            ("macos", &[home], Some("/home/ann/Library/Application Support/distill/history")),
            ("windows", &[("LOCALAPPDATA", "C:/Local")], Some("C:/Local/distill/history")),
            ("linux", &[home, ("DISTILL_HISTORY", "/elsewhere/h")], Some("/elsewhere/h")),
            ("linux", &[home, ("DISTILL_HISTORY", "")], None),
            ("linux", &[], None),
        ] {
            assert_eq!(located(os, variables).as_deref(), expected, "{os} {variables:?}");
        }
    }
}
