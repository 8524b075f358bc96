//! The host's end of a stream that carries the channel, where no descriptor can be passed.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;

use sandbox_guest::relay::{Relay, Side};
use tokio::net::UnixStream;

use crate::{Error, Result};

/// Makes a channel that is carried over a stream. What carries it is a thread that ends with the channel or the
/// stream, whichever is first, and closes the other.
pub(crate) fn relayed(stream: OwnedFd) -> Result<UnixStream> {
    let cannot = |error| Error::io("cannot relay the guest's channel", error);
    let (ours, theirs) = StdUnixStream::pair().map_err(cannot)?;
    ours.set_nonblocking(true).map_err(cannot)?;
    let output = stream.try_clone().map_err(cannot)?;
    let relay = Relay::new(Side::Host, stream, output, theirs.into()).map_err(cannot)?;
    let carry = move || {
        // Why it broke off is of no use to anybody: the channel closes, and that is the sandbox's end.
        let _ = relay.run();
    };
    std::thread::Builder::new().name("sandbox-relay".to_owned()).spawn(carry).map_err(cannot)?;
    UnixStream::from_std(ours).map_err(cannot)
}
