//! Length-prefixed frames over a Unix stream socket, with descriptors beside them.
//!
//! A frame is four bytes of length, little-endian, and that many bytes of postcard. Descriptors (`SCM_RIGHTS`, unix(7))
//! ride on the first byte; the kernel never lets one receive call cross two such riders, so a frame's descriptors
//! are always the frame's own. The blocking [`send`] and [`receive`] serve the guest; a host that must not block
//! drives [`Outgoing`] and [`Incoming`] from its own readiness.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::wire::MAX_DESCRIPTORS;

const PREFIX: usize = 4;

/// A frame on its way out.
#[derive(Debug)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Encodes a message that must fit `limit` bytes.
    ///
    /// # Errors
    /// `InvalidInput` if it does not fit.
    pub fn new(message: &impl Serialize, limit: usize) -> io::Result<Self> {
        let mut bytes = vec![0; PREFIX];
        bytes =
            postcard::to_extend(message, bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let length = bytes.len() - PREFIX;
        let Some(prefix) = u32::try_from(length).ok().filter(|_| length <= limit) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("message has {length} bytes, at most {limit} are allowed"),
            ));
        };
        bytes[..PREFIX].copy_from_slice(&prefix.to_le_bytes());
        Ok(Self { bytes, sent: 0 })
    }

    /// Sends a message that is encoded already, and must fit `limit` bytes.
    pub(crate) fn encoded(body: &[u8], limit: usize) -> io::Result<Self> {
        let Some(prefix) = u32::try_from(body.len()).ok().filter(|_| (1..=limit).contains(&body.len())) else {
            return Err(invalid(format!("message of {} bytes, 1 to {limit} are allowed", body.len())));
        };
        Ok(Self { bytes: [&prefix.to_le_bytes(), body].concat(), sent: 0 })
    }

    /// Sends what the socket takes, with the descriptors on the first byte; `true` when all of it has gone.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`, `WouldBlock` among them.
    pub fn advance(&mut self, socket: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if self.sent == 0 && !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} descriptors, at most {MAX_DESCRIPTORS} are allowed", descriptors.len()),
            ));
        }
        let rest = [IoSlice::new(&self.bytes[self.sent..])];
        self.sent += rustix::io::retry_on_intr(|| sendmsg(&socket, &rest, &mut ancillary, SendFlags::NOSIGNAL))?;
        Ok(self.sent == self.bytes.len())
    }
}

/// A frame on its way in, read from one socket and never past its own end.
#[derive(Debug)]
pub struct Incoming {
    limit: usize,
    prefix: [u8; PREFIX],
    body: Vec<u8>,
    received: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Awaits a frame of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, prefix: [0; PREFIX], body: Vec::new(), received: 0, descriptors: VecDeque::new() }
    }

    /// Receives until the frame is complete.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`, `WouldBlock` among them; `UnexpectedEof` when the peer closed, `InvalidData` when the
    /// frame is over the limit or carries too many descriptors.
    pub fn advance(&mut self, socket: impl AsFd) -> io::Result<()> {
        loop {
            if self.received == PREFIX && self.body.is_empty() {
                let length = u32::from_le_bytes(self.prefix) as usize;
                if length == 0 || length > self.limit {
                    return Err(invalid(format!("frame of {length} bytes, 1 to {} are allowed", self.limit)));
                }
                self.body.resize(length, 0);
            }
            if self.received == PREFIX + self.body.len() && !self.body.is_empty() {
                return Ok(());
            }
            let target = if self.received < PREFIX {
                &mut self.prefix[self.received..]
            } else {
                &mut self.body[self.received - PREFIX..]
            };
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let got = rustix::io::retry_on_intr(|| {
                recvmsg(&socket, &mut [IoSliceMut::new(target)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            })?;
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                    self.descriptors.extend(descriptors);
                }
            }
            if got.flags.contains(rustix::net::ReturnFlags::CTRUNC) || self.descriptors.len() > MAX_DESCRIPTORS {
                return Err(invalid(format!("more than {MAX_DESCRIPTORS} descriptors in a frame")));
            }
            if got.bytes == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received += got.bytes;
        }
    }

    /// Whether nothing of the frame has come yet.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// The complete frame as it came, without its length.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<OwnedFd>) {
        (self.body, self.descriptors.into())
    }

    /// Decodes the complete frame.
    ///
    /// # Errors
    /// `InvalidData` if it is not exactly one message.
    pub fn finish<T: DeserializeOwned>(self) -> io::Result<(T, Vec<OwnedFd>)> {
        let (message, rest) = postcard::take_from_bytes(&self.body).map_err(|error| invalid(error.to_string()))?;
        if !rest.is_empty() {
            return Err(invalid(format!("{} bytes follow the message", rest.len())));
        }
        Ok((message, self.descriptors.into()))
    }
}

/// Sends one message and its descriptors; blocks until all of it has gone.
///
/// # Errors
/// `InvalidInput` if it is over the limit, else those of `sendmsg(2)`.
pub fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
    limit: usize,
) -> io::Result<()> {
    let mut frame = Outgoing::new(message, limit)?;
    while !frame.advance(&socket, descriptors)? {}
    Ok(())
}

/// Receives one message and its descriptors; `None` when the peer closed between frames.
///
/// # Errors
/// As [`Incoming::advance`] and [`Incoming::finish`].
pub fn receive<T: DeserializeOwned>(socket: impl AsFd, limit: usize) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut frame = Incoming::new(limit);
    match frame.advance(&socket) {
        Ok(()) => frame.finish().map(Some),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && frame.is_empty() => Ok(None),
        Err(error) => Err(error),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::wire::{Command, MAX_TO_GUEST, MAX_TO_HOST};

    #[test]
    fn a_message_and_its_descriptors_arrive_together() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&a, &Command::Signal(15), &[writer.as_fd()], MAX_TO_GUEST).unwrap();
        send(&a, &Command::Kill, &[], MAX_TO_GUEST).unwrap();
        drop(writer);
        let (first, descriptors) = receive::<Command>(&b, MAX_TO_GUEST).unwrap().unwrap();
        let (second, none) = receive::<Command>(&b, MAX_TO_GUEST).unwrap().unwrap();
        assert_eq!((first, second, none.len()), (Command::Signal(15), Command::Kill, 0));
        let [passed] = <[OwnedFd; 1]>::try_from(descriptors).unwrap();
        File::from(passed).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn a_closed_peer_is_the_end_between_frames_and_an_error_inside_one() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(receive::<Command>(&b, MAX_TO_HOST).unwrap().is_none());
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[9, 0, 0]).unwrap();
        drop(a);
        assert_eq!(receive::<Command>(&b, MAX_TO_HOST).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_read() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        let error = receive::<Command>(&b, MAX_TO_HOST).unwrap_err();
        assert!(error.to_string().contains("frame of 4294967295 bytes"), "{error}");
        assert!(Outgoing::new(&vec![0_u8; 32], 16).is_err());
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (a, b) = UnixStream::pair().unwrap();
        let files: Vec<File> = (0..=MAX_DESCRIPTORS).map(|_| File::open("/dev/null").unwrap()).collect();
        let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&a, &[IoSlice::new(&[1])], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(receive::<Command>(&b, MAX_TO_HOST).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[2, 0, 0, 0, 1, 1]).unwrap();
        assert_eq!(receive::<Command>(&b, MAX_TO_HOST).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
