//! A file that the log goes to: turned over at a size, begun anew when it has been moved away.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What is looked at of a file for its last lines, in bytes.
const TAIL_MAX: u64 = 1 << 20;

/// See the module's documentation. What cannot be written is dropped: a full disk is not to stop the broker.
pub(super) struct LogFile {
    path: PathBuf,
    /// The size in bytes at which a new file is begun; 0 is never.
    rotation_size: u64,
    /// The older files that are kept, one at least.
    rotation_count: u32,
    /// None while it cannot be opened.
    open: Option<OpenFile>,
}

struct OpenFile {
    file: File,
    size: u64,
    /// Device and inode.
    identity: (u64, u64),
}

impl LogFile {
    /// Opens or makes the file.
    pub(super) fn open(path: &Path, rotation_size: u64, rotation_count: u32) -> io::Result<Self> {
        let open = Some(OpenFile::append(path)?);
        Ok(Self { path: path.to_owned(), rotation_size, rotation_count, open })
    }

    /// Appends lines of the log.
    pub(super) fn write(&mut self, lines: &[u8]) {
        self.follow_name();
        let full = |open: &OpenFile| open.size > 0 && open.size + lines.len() as u64 > self.rotation_size;
        if self.rotation_size > 0 && self.open.as_ref().is_some_and(full) {
            self.rotate();
        }
        if let Some(open) = &mut self.open
            && open.file.write_all(lines).is_ok()
        {
            open.size += lines.len() as u64;
        }
    }

    /// Makes the file the newest of the older ones and begins another.
    pub(super) fn rotate(&mut self) {
        let older = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        // A gap among them is no failure.
        for number in (1..self.rotation_count).rev() {
            let _ = std::fs::rename(older(number - 1), older(number));
        }
        let _ = std::fs::rename(&self.path, older(0));
        self.reopen();
    }

    /// Begins another file when this one has been renamed or removed, as tools that look after logs do.
    fn follow_name(&mut self) {
        let named = std::fs::metadata(&self.path).ok().map(|found| (found.dev(), found.ino()));
        if self.open.as_ref().map(|open| open.identity) != named || named.is_none() {
            self.reopen();
        }
    }

    fn reopen(&mut self) {
        self.open = OpenFile::append(&self.path).ok();
    }
}

impl OpenFile {
    fn append(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let found = file.metadata()?;
        Ok(Self { file, size: found.len(), identity: (found.dev(), found.ino()) })
    }
}

/// The last lines of a file of the log, `count` at most, as far as they lie in its last MiB.
pub(super) fn tail(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_MAX)))?;
    let mut end = Vec::new();
    file.take(TAIL_MAX).read_to_end(&mut end)?;
    let text = String::from_utf8_lossy(&end);
    // The first one may have lost its beginning.
    let cut = usize::from(size > TAIL_MAX);
    let lines: Vec<&str> = text.lines().skip(cut).collect();
    Ok(lines[lines.len().saturating_sub(count)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("warren-log-file-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn contents(directory: &Path) -> Vec<(String, String)> {
        let mut found: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
            .collect();
        found.sort();
        found
    }

    fn texts(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_file_is_turned_over_at_its_size_and_the_oldest_is_dropped() {
        let directory = directory("size");
        let mut file = LogFile::open(&directory.join("log"), 10, 2).unwrap();
        for line in ["one 4\n", "two\n", "three\n", "four\n", "longer than a file may be\n", "six\n"] {
            file.write(line.as_bytes());
        }
        // "one 4\ntwo\n" has 10 bytes; with "three\n" it would be more.
        let expected = [("log", "six\n"), ("log.0", "longer than a file may be\n"), ("log.1", "four\n")];
        assert_eq!(contents(&directory), texts(&expected));
    }

    #[test]
    fn a_file_that_was_begun_earlier_goes_on() {
        let directory = directory("append");
        LogFile::open(&directory.join("log"), 10, 2).unwrap().write(b"before\n");
        let mut file = LogFile::open(&directory.join("log"), 10, 2).unwrap();
        file.write(b"ab\n");
        assert_eq!(contents(&directory), texts(&[("log", "before\nab\n")]));
        file.write(b"c\n");
        assert_eq!(contents(&directory), texts(&[("log", "c\n"), ("log.0", "before\nab\n")]));
    }

    #[test]
    fn a_file_that_was_moved_or_removed_is_begun_anew() {
        let directory = directory("moved");
        let path = directory.join("log");
        let mut file = LogFile::open(&path, 0, 1).unwrap();
        file.write(b"first\n");
        std::fs::rename(&path, directory.join("moved")).unwrap();
        file.write(b"second\n");
        assert_eq!(contents(&directory), texts(&[("log", "second\n"), ("moved", "first\n")]));
        std::fs::remove_dir_all(&directory).unwrap();
        file.write(b"nowhere to go\n");
        std::fs::create_dir_all(&directory).unwrap();
        file.write(b"third\n");
        assert_eq!(contents(&directory), texts(&[("log", "third\n")]));
    }

    #[test]
    fn the_last_lines_are_those_of_the_last_mebibyte() {
        let directory = directory("tail");
        let path = directory.join("log");
        let mut file = LogFile::open(&path, 0, 1).unwrap();
        assert!(tail(&path, 10).unwrap().is_empty());
        for line in ["a\n", "b\n", "c\n"] {
            file.write(line.as_bytes());
        }
        assert_eq!(tail(&path, 2).unwrap(), ["b", "c"]);
        assert_eq!(tail(&path, 10).unwrap(), ["a", "b", "c"]);
        file.write(&[b'x'; TAIL_MAX as usize]);
        file.write(b"\nlast\n");
        assert_eq!(tail(&path, 10).unwrap(), ["last"], "what has no beginning is left out");
    }

    #[test]
    fn on_request_it_is_turned_over_at_any_size() {
        let directory = directory("request");
        let mut file = LogFile::open(&directory.join("log"), 0, 3).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            file.write(line.as_bytes());
            file.rotate();
        }
        let expected = [("log", ""), ("log.0", "c\n"), ("log.1", "b\n"), ("log.2", "a\n")];
        assert_eq!(contents(&directory), texts(&expected));
    }
}
