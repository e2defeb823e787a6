//! A path flows in; a file that is there whole or not at all flows out.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file being written under another name in the folder of its final place; dropped without [`Beside::finish`] it is removed.
pub(super) struct Beside {
    path: PathBuf,
    temporary: PathBuf,
    finished: bool,
}

impl Beside {
    /// Creates `.NAME.tmp-PID` beside `path`. An existing `path` is refused unless `overwrite`.
    pub(super) fn create(path: &Path, overwrite: bool) -> Result<(Self, File)> {
        let Some(name) = path.file_name() else {
            return Err(Error::Data(format!("'{}' is not the name of a file to write", path.display())));
        };
        if path.is_dir() {
            return Err(Error::Data(format!("'{}' is a folder; give the name of a file to write", path.display())));
        }
        if !overwrite && path.exists() {
            return Err(Error::Data(format!("'{}' exists already; --overwrite replaces it", path.display())));
        }
        let temporary = path.with_file_name(format!(".{}.tmp-{}", name.to_string_lossy(), std::process::id()));
        let file = File::create(&temporary).map_err(|e| Error::io(path, e))?;
        Ok((Self { path: path.into(), temporary, finished: false }, file))
    }

    /// Puts the whole file in its place and gives its size in bytes.
    pub(super) fn finish(mut self, file: File) -> Result<u64> {
        file.sync_all().map_err(|e| Error::io(&self.temporary, e))?;
        let bytes = file.metadata().map_err(|e| Error::io(&self.temporary, e))?.len();
        drop(file);
        fs::rename(&self.temporary, &self.path).map_err(|e| Error::io(&self.path, e))?;
        self.finished = true;
        Ok(bytes)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if !self.finished {
            // Nobody to tell if this fails; the name says what it is.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_appears_when_it_is_finished_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.parquet");
        let (beside, mut file) = Beside::create(&path, false).unwrap();
        file.write_all(b"abc").unwrap();
        assert!(!path.exists());
        assert_eq!(beside.finish(file).unwrap(), 3);
        assert_eq!(names(folder.path()), ["out.parquet"]);
        assert!(Beside::create(&path, false).err().unwrap().to_string().contains("--overwrite"));
    }

    #[test]
    fn what_is_not_finished_leaves_nothing_and_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.parquet");
        fs::write(&path, "old").unwrap();
        drop(Beside::create(&path, true).unwrap());
        assert_eq!(names(folder.path()), ["out.parquet"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
