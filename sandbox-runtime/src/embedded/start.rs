//! Starting a container, and signals to its process 1.

use std::os::fd::{AsFd, OwnedFd};

use rustix::process::Signal;
use sandbox_core::{ContainerId, Error, ErrorKind, Result};

use super::Machine;
use super::gvisor::bundle;
use super::process::Process;
use super::record::Record;
use super::tried;

impl Machine {
    /// Starts a container.
    pub(super) fn start(&self, id: &ContainerId, stream: Option<&OwnedFd>) -> Result<()> {
        let (_, directory) = self.store.container(id)?;
        let Some(record) = Record::read(&directory)? else {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no container {id}")));
        };
        if record.first.is_some() {
            return Err(Error::new(ErrorKind::Engine, format!("container {id} was started before")));
        }
        let mut request = self.launcher.request(&record, &directory);
        if let Some(program) = &record.gvisor {
            // Where it finds nothing there, gVisor mounts memory of its own, which the limit of the disk does not bound.
            if request.tmpfs.iter().all(|tmpfs| tmpfs.target != b"/tmp") {
                request.files.push((b"/tmp/.sandbox".to_vec(), Vec::new()));
            }
            request.bundle = Some(bundle(program, &request, &directory)?);
        }
        let started = self.launcher.launch(&request, stream.map(AsFd::as_fd)).map_err(|failure| {
            // What a trial has shown may be so no more.
            tried::forget(&self.store, &self.circumstances);
            failure.error
        })?;
        let first = Process::find(started.pid)
            .map_err(|error| Error::io(format!("cannot look at process {}", started.pid), error))?
            // It has ended already; a start that nobody has tells it from one that is to come.
            .unwrap_or(Process { pid: started.pid, start: 0 });
        Record { first: Some(first), loop_device: started.loop_device, ..record }.write(&directory)
    }

    /// Sends a signal to a container's process 1; one that does not run is none.
    pub(super) fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let (_, directory) = self.store.container(id)?;
        let first = Record::read(&directory)?.and_then(|record| record.first);
        first
            .map_or(Ok(()), |first| first.signal(signal))
            .map_err(|error| Error::io(format!("cannot signal container {id}"), error))
    }
}
