//! The stream that is a container's standard input and output.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::query_parameters::AttachContainerOptionsBuilder;
use futures_util::StreamExt as _;
use sandbox_core::{ContainerId, Error, Result};
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::UnixStream;

use super::error::{Answer, within};
use super::{Engine, INSPECT};

impl Engine {
    /// Attaches to a container that does not run yet.
    pub(crate) async fn attach(&self, container: &ContainerId) -> Result<OwnedFd> {
        let options = AttachContainerOptionsBuilder::new().stream(true).stdin(true).stdout(true).build();
        let attached = self.docker.attach_container(container.as_str(), Some(options));
        let attached = within(&self.endpoint, INSPECT, "attach to the container", attached).await;
        let attached = attached.map_err(Answer::into_error)?;
        let cannot = |error| Error::io("cannot make a stream to the container", error);
        let (ours, theirs) = StdUnixStream::pair().map_err(cannot)?;
        theirs.set_nonblocking(true).map_err(cannot)?;
        let theirs = UnixStream::from_std(theirs).map_err(cannot)?;
        #[expect(clippy::disallowed_methods, reason = "it ends with the stream, or with the container")]
        tokio::spawn(carry(attached, theirs));
        Ok(ours.into())
    }
}

/// Moves bytes both ways until either side has ended.
async fn carry(attached: AttachContainerResults, stream: UnixStream) {
    let AttachContainerResults { mut output, mut input } = attached;
    let (mut read, mut write) = stream.into_split();
    let down = copy(&mut read, &mut input);
    let up = async {
        while let Some(Ok(log)) = output.next().await {
            // What is said on standard error is for people.
            if let LogOutput::StdOut { message } = log
                && write.write_all(&message).await.is_err()
            {
                return;
            }
        }
    };
    tokio::select! {
        _ = down => {}
        () = up => {}
    }
}
