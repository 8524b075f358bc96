//! `--audit FILE`: every event as a line of JSON, written before its effect.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sandbox_core::{Envelope, Error, EventSink};

use crate::failure::{Failure, Result};

/// Appends events to a file, one line each; lines of several sandboxes may share it.
#[derive(Debug)]
pub(crate) struct Audit {
    file: File,
    path: PathBuf,
}

impl Audit {
    /// Opens the file, which is made with mode 0600 if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        let file =
            file.map_err(|error| Failure::io(format!("cannot open the audit file {}", path.display()), error))?;
        Ok(Self { file, path: path.to_owned() })
    }
}

impl EventSink for Audit {
    /// A line goes out in one write, at the file's end as it is then (`O_APPEND`, open(2)), so that lines never mix.
    fn record(&self, envelope: &Envelope) -> sandbox_core::Result<()> {
        let refused = |error| Error::io(format!("cannot write the audit file {}", self.path.display()), error);
        let mut line = serde_json::to_vec(envelope).map_err(|error| refused(error.into()))?;
        line.push(b'\n');
        match (&self.file).write(&line) {
            Ok(written) if written == line.len() => Ok(()),
            Ok(_) => Err(refused(std::io::ErrorKind::StorageFull.into())),
            Err(error) => Err(refused(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use sandbox_core::{ErrorKind, Event, SandboxId};

    use super::*;

    fn envelope() -> Envelope {
        let event = Event::Executing { program: "ls".to_owned() };
        Envelope { sandbox: SandboxId::random().unwrap(), sequence: 7, time: 1, event }
    }

    #[test]
    fn lines_are_appended_to_a_private_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        for _ in 0..2 {
            Audit::open(&path).unwrap().record(&envelope()).unwrap();
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["event"], &lines[0]["program"]), (&"executing".into(), &"ls".into()));
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let audit = Audit::open(Path::new("/dev/full")).unwrap();
        assert_eq!(audit.record(&envelope()).unwrap_err().kind(), ErrorKind::Exhausted);
    }
}
