//! One stream of bytes that is moved, at one of its two ends.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::{STALL, STREAMS, WINDOW, broken};

/// The largest command on a control, with its length.
const MAX_COMMAND: usize = 64 + 4;

/// Which way a stream goes, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Both ways; its end in either is its end.
    Both,
    /// What comes from the other side is written to it.
    Sink,
    /// What it holds is read and goes to the other side.
    Source,
}

/// Bytes that are to be written, once so much of other streams has been.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    pub(super) sent: usize,
    pub(super) after: Vec<(u32, u64)>,
}

/// A stream.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) role: Role,
    pub(super) descriptor: OwnedFd,
    /// Bytes that may still be sent to the other side.
    pub(super) credit: usize,
    /// Bytes read here so far.
    pub(super) read: u64,
    /// Bytes written here so far.
    pub(super) written: u64,
    /// What waits to be written here, and how many bytes that is.
    pub(super) queue: VecDeque<Chunk>,
    pub(super) queued: usize,
    /// Nothing more comes from the other side.
    pub(super) ended: bool,
    /// Whether a terminal came with it, and the descriptor that goes with the next byte.
    pub(super) attached: bool,
    pub(super) passing: Option<OwnedFd>,
    /// What of its siblings must have been read before this is read.
    pub(super) barriers: Vec<(u32, u64)>,
    /// When something last moved.
    pub(super) moved: Instant,
    /// The part of a command that has come.
    partial: Vec<u8>,
}

impl Flow {
    pub(super) fn new(role: Role, descriptor: OwnedFd) -> Self {
        Self {
            role,
            descriptor,
            credit: WINDOW,
            read: 0,
            written: 0,
            queue: VecDeque::new(),
            queued: 0,
            ended: false,
            attached: false,
            passing: None,
            barriers: Vec::new(),
            moved: Instant::now(),
            partial: Vec::new(),
        }
    }

    pub(super) fn is_control(&self, id: u32) -> bool {
        self.role == Role::Both && id.is_multiple_of(STREAMS)
    }

    pub(super) fn may_read(&self) -> bool {
        self.role != Role::Sink && self.credit > 0 && !self.ended
    }

    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn stalled(&self) -> bool {
        self.moved.elapsed() > STALL
    }

    pub(super) fn enqueue(&mut self, bytes: Vec<u8>, after: Vec<(u32, u64)>) {
        if self.queue.is_empty() {
            self.moved = Instant::now();
        }
        self.queued += bytes.len();
        self.queue.push_back(Chunk { bytes, sent: 0, after });
    }

    pub(super) fn written(&mut self, count: usize) {
        self.written += count as u64;
        self.queued -= count;
        self.moved = Instant::now();
        if let Some(chunk) = self.queue.front_mut() {
            chunk.sent += count;
            if chunk.sent >= chunk.bytes.len() {
                self.queue.pop_front();
            }
        }
    }

    /// The whole commands that have come on a control, each with its length before it.
    pub(super) fn commands(&mut self, bytes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        self.partial.extend_from_slice(bytes);
        let mut whole = Vec::new();
        while let Some(prefix) = self.partial.first_chunk::<4>() {
            let length = (u32::from_le_bytes(*prefix) as usize).saturating_add(4);
            if length > MAX_COMMAND {
                return Err(broken("a command that is too long"));
            }
            if self.partial.len() < length {
                break;
            }
            whole.push(self.partial.drain(..length).collect());
        }
        Ok(whole)
    }
}
