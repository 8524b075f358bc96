//! Reads and writes one stream here; on a control, a terminal may travel along.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::flow::Flow;
use crate::wire::MAX_DESCRIPTORS;

/// Reads a stream; a control may bring a terminal along.
pub(super) fn receive(flow: &Flow, id: u32, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
    if !flow.is_control(id) {
        return rustix::io::retry_on_intr(|| rustix::io::read(&flow.descriptor, &mut *bytes)).map(|got| (got, None));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::io::retry_on_intr(|| {
        recvmsg(&flow.descriptor, &mut [IoSliceMut::new(bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut passed = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            passed = descriptors.last();
        }
    }
    Ok((got.bytes, passed))
}

/// Writes the first chunk of a queue, with what is to be passed.
pub(super) fn send(flow: &mut Flow, id: u32) -> Result<usize, Errno> {
    let Some(chunk) = flow.queue.front() else { return Ok(0) };
    let bytes = &chunk.bytes[chunk.sent..];
    if !flow.is_control(id) {
        return rustix::io::retry_on_intr(|| rustix::io::write(&flow.descriptor, bytes));
    }
    let passing: Vec<_> = flow.passing.iter().map(|descriptor| descriptor.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !passing.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&passing));
    }
    let sent = rustix::io::retry_on_intr(|| {
        sendmsg(&flow.descriptor, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    drop(passing);
    flow.passing = None;
    Ok(sent)
}
