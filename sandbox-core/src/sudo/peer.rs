//! Who called: only processes of a sandbox are heard.

use std::io;

use tokio::net::UnixStream;

/// Refuses a caller that is not in a process namespace below this process's own: the host's own processes have no business
/// here, and everything in a sandbox has such a one (`pid_namespaces(7)`).
pub(super) fn check(caller: &UnixStream) -> io::Result<()> {
    let denied = || io::Error::new(io::ErrorKind::PermissionDenied, "the caller is in no sandbox");
    // Who has ended, or cannot be seen from here, has the number 0.
    let pid = caller.peer_cred()?.pid().filter(|pid| *pid > 0).ok_or_else(denied)?;
    let depth = |process: &str| depth(&std::fs::read_to_string(format!("/proc/{process}/status"))?);
    if depth(&pid.to_string())? > depth("self")? { Ok(()) } else { Err(denied()) }
}

/// In how many process namespaces a process has a number, by its status (proc(5), `NSpid`).
fn depth(status: &str) -> io::Result<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.map(|numbers| numbers.split_whitespace().count()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_of_the_host_is_refused() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(check(&one).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(depth("Name:\tx\nNSpid:\t5\t1\n").unwrap(), 2);
        assert!(depth("Name:\tx\n").is_err());
    }
}
