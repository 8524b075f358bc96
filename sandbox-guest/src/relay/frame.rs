//! What travels on the stream: a kind, a stream's number, a length and that many bytes.

use std::collections::VecDeque;
use std::io;

use super::{CHUNK, Side, broken};
use crate::wire::{MAX_DESCRIPTORS, MAX_TO_GUEST, MAX_TO_HOST};

/// Bytes before the payload: kind, stream, length.
const HEAD: usize = 9;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A terminal comes with the next bytes of a control.
    Attach,
    /// So many bytes more may be sent on a stream.
    Credit,
    /// Bytes of a stream.
    Data,
    /// A stream has ended: nothing more comes, or nothing more is taken.
    End,
    /// A message of the channel that brings no descriptor.
    Message,
    /// A request: how many streams it brings beside its control, which way each goes, and the message.
    Open,
}

const KINDS: [Kind; 6] = [Kind::Attach, Kind::Credit, Kind::Data, Kind::End, Kind::Message, Kind::Open];

/// Adds a frame to what is to be sent.
pub(super) fn encode(out: &mut VecDeque<u8>, kind: Kind, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.push_back(kind as u8);
    out.extend(id.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(payload);
}

/// Takes frames out of the stream's bytes.
#[derive(Debug)]
pub(super) struct Decoder {
    side: Side,
    bytes: VecDeque<u8>,
}

impl Decoder {
    pub(super) fn new(side: Side) -> Self {
        Self { side, bytes: VecDeque::new() }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The next whole frame; its length is checked before more is awaited.
    pub(super) fn next(&mut self) -> io::Result<Option<(Kind, u32, Vec<u8>)>> {
        if self.bytes.len() < HEAD {
            return Ok(None);
        }
        let head: Vec<u8> = self.bytes.iter().take(HEAD).copied().collect();
        let number = |at: usize| head[at..at + 4].iter().rev().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte));
        let (kind, id) = (head[0], number(1));
        let kind = *KINDS.get(usize::from(kind)).ok_or_else(|| broken("a frame of no known kind"))?;
        let length = number(5) as usize;
        let most = match (kind, self.side) {
            (Kind::Attach | Kind::End, _) => 0,
            (Kind::Credit, _) => 4,
            (Kind::Data, _) => CHUNK,
            (Kind::Message, Side::Host) => MAX_TO_HOST,
            (Kind::Message, Side::Guest) => MAX_TO_GUEST,
            (Kind::Open, Side::Guest) => MAX_TO_GUEST + 1 + MAX_DESCRIPTORS,
            (Kind::Open, Side::Host) => return Err(broken("a request to the host")),
        };
        if length > most {
            return Err(broken(&format!("a frame of {length} bytes, where {most} are allowed")));
        }
        if self.bytes.len() < HEAD + length {
            return Ok(None);
        }
        self.bytes.drain(..HEAD);
        Ok(Some((kind, id, self.bytes.drain(..length).collect())))
    }
}
