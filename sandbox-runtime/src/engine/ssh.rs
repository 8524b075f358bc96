//! An engine behind `ssh`: the user's own program, keys and settings, and the engine's own command at the other end.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::endpoint::SshEndpoint;
use super::error::one_line;

/// Starts `ssh`, whose standard input and output are then the connection. It asks nobody anything: keys that need a word
/// belong into an agent (ssh-agent(1)).
pub(super) fn dial(endpoint: &SshEndpoint) -> io::Result<Dialed> {
    let mut child = Command::new("ssh")
        .args(arguments(endpoint))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let complaints = child.stderr.take();
    Ok(Dialed { input: Some(input), output, complaints, complaint: Vec::new(), _child: child })
}

/// What follows the host is said to a shell there, so each word of it was checked when the address was read.
fn arguments(endpoint: &SshEndpoint) -> Vec<std::ffi::OsString> {
    let SshEndpoint { user, host, port, socket, settings } = endpoint;
    let mut words: Vec<std::ffi::OsString> = Vec::new();
    if let Some(file) = settings {
        words.extend(["-F".into(), file.into()]);
    }
    words.extend(["-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"].map(Into::into));
    if let Some(user) = user {
        words.extend(["-l".into(), user.into()]);
    }
    if let Some(port) = port {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    words.extend(["--".into(), host.into(), "docker".into()]);
    if let Some(socket) = socket {
        words.extend(["--host".into(), format!("unix://{socket}").into()]);
    }
    words.extend(["system".into(), "dial-stdio".into()]);
    words
}

/// A connection through a running `ssh`, which ends with it.
pub(super) struct Dialed {
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// What `ssh` says until the engine has said something; afterwards nobody listens.
    complaints: Option<ChildStderr>,
    complaint: Vec<u8>,
    _child: Child,
}

impl Dialed {
    /// Reads on until `ssh` has said why it ended.
    fn poll_complaint(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        while let Some(complaints) = &mut self.complaints {
            let mut bytes = [0; 512];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(complaints).poll_read(cx, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() && self.complaint.len() < MOST => {
                    self.complaint.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => self.complaints = None,
            }
        }
        let why = one_line(&String::from_utf8_lossy(&self.complaint));
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, format!("ssh ended and said: {why}")))
    }
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.output).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                self.complaints = None;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(())) if self.complaints.is_some() => self.poll_complaint(cx).map(Err),
            other => other,
        }
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The end of what is said is the end of the pipe, which closing alone makes.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

/// The most bytes that are kept of what `ssh` says.
const MOST: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Endpoint;

    #[test]
    fn the_host_is_never_taken_for_an_option() {
        let endpoint: Endpoint = "ssh://me@there:2222/run/docker.sock".parse().unwrap();
        let Endpoint::Ssh(ssh) = endpoint.with_ssh_settings("/my/settings") else { panic!("it is one of ssh") };
        let words = arguments(&ssh);
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let expected = "-F /my/settings -T -o BatchMode=yes -o ConnectTimeout=10 -l me -p 2222 -- there docker --host \
                        unix:///run/docker.sock system dial-stdio";
        assert_eq!(words.join(" "), expected);
    }
}
