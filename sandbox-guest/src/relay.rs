//! The same requests over one stream of bytes, where no descriptor can be passed.
//!
//! A [`Relay`] runs on either side of the stream. Beside the host it takes a request with its descriptors off the
//! channel, and moves what passes through them; beside the guest it makes new ones in their place and hands the request
//! on. Neither the host's code nor the guest's can tell, and neither side reads what a request says.
//!
//! ```text
//! host ─ channel ─ Relay ═══ stream ═══ Relay ─ channel ─ guest
//! ```
//!
//! Every stream of bytes has a window: who sends more than was granted breaks the protocol, so a slow reader holds up
//! nobody else and memory is bounded. An answer never overtakes what the program wrote before it.

mod flow;
mod frame;
mod order;
mod passing;
mod side;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::Timespec;

use crate::frame::{Incoming, Outgoing};
use crate::wire::{Command, MAX_DESCRIPTORS, MAX_TO_GUEST};
use flow::{Flow, Role};
use frame::{Decoder, Kind};
use passing::{receive, send};
pub use side::Side;

/// The argument that asks the guest to serve its standard input and output instead of a socket.
pub const ARGUMENT: &str = "--relay";

/// Bytes of one stream that may be on their way in one direction.
const WINDOW: usize = 256 << 10;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Bytes that wait for the stream before no more are read.
const BACKLOG: usize = 512 << 10;

/// How long an answer waits for what was written before it, while nothing of that is taken.
const STALL: Duration = Duration::from_secs(10);

/// How often a waiting answer is looked at.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Streams of one request: its control, what it brought, and its terminal.
const STREAMS: u32 = 8;

/// The place of a terminal among them.
const TERMINAL: u32 = 7;

/// One end of the stream.
#[derive(Debug)]
pub struct Relay {
    side: Side,
    input: OwnedFd,
    output: OwnedFd,
    channel: OwnedFd,
    decoder: Decoder,
    /// What waits for the stream.
    out: VecDeque<u8>,
    /// The message that comes in from the channel.
    incoming: Incoming,
    /// Messages that wait for the channel.
    handing: VecDeque<(Outgoing, Vec<OwnedFd>)>,
    flows: BTreeMap<u32, Flow>,
    /// The next request's number.
    next: u32,
}

impl Relay {
    /// Joins a channel to a stream that is read at `input` and written at `output`. All three become non-blocking.
    ///
    /// # Errors
    /// Those of `ioctl(2)`.
    pub fn new(side: Side, input: OwnedFd, output: OwnedFd, channel: OwnedFd) -> io::Result<Self> {
        for descriptor in [&input, &output, &channel] {
            rustix::io::ioctl_fionbio(descriptor, true)?;
        }
        Ok(Self {
            side,
            input,
            output,
            decoder: Decoder::new(side),
            out: VecDeque::new(),
            incoming: Incoming::new(side.most_from_channel()),
            handing: VecDeque::new(),
            flows: BTreeMap::new(),
            channel,
            next: 0,
        })
    }

    /// Moves everything until the channel or the stream ends.
    ///
    /// # Errors
    /// `InvalidData` where the other end breaks the protocol, else those of the calls that move bytes.
    pub fn run(mut self) -> io::Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// Waits for something to happen and deals with it; `false` at the end.
    fn step(&mut self) -> io::Result<bool> {
        let roomy = self.out.len() < BACKLOG;
        let when = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let mut ready = vec![
            PollFd::new(&self.input, PollFlags::IN),
            PollFd::new(&self.output, when(!self.out.is_empty(), PollFlags::OUT)),
            PollFd::new(&self.channel, when(roomy, PollFlags::IN) | when(!self.handing.is_empty(), PollFlags::OUT)),
        ];
        let mut ids = Vec::new();
        let mut held = false;
        for (id, flow) in &self.flows {
            let waits = self.waits(*id, flow);
            held |= waits;
            let read = roomy && flow.may_read() && !waits;
            let blocked = self.sink_waits(*id, flow);
            held |= blocked;
            let write = flow.has_queue() && !blocked;
            if read || write || flow.role == Role::Sink {
                let flags = when(read, PollFlags::IN) | when(write, PollFlags::OUT);
                ready.push(PollFd::new(&flow.descriptor, flags));
                ids.push((*id, read));
            }
        }
        let timeout = held.then_some(&LOOK_AGAIN);
        rustix::io::retry_on_intr(|| poll(&mut ready, timeout))?;
        let seen: Vec<PollFlags> = ready.iter().map(PollFd::revents).collect();
        drop(ready);
        if !seen[1].is_empty() {
            if seen[1].intersects(PollFlags::ERR | PollFlags::HUP) && !seen[1].contains(PollFlags::OUT) {
                return Ok(false);
            }
            self.flush()?;
        }
        if !seen[0].is_empty() && !self.take_stream()? {
            return Ok(false);
        }
        if !seen[2].is_empty() && !self.take_channel(roomy, seen[2])? {
            self.flush_or_leave();
            return Ok(false);
        }
        for ((id, read), seen) in ids.iter().zip(&seen[3..]) {
            if seen.is_empty() {
                continue;
            }
            self.deliver(*id);
            if *read && seen.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                self.read(*id)?;
            } else if seen.contains(PollFlags::ERR) {
                self.end(*id);
            }
        }
        self.deliver_all();
        self.flush()?;
        Ok(true)
    }

    /// Reads what the stream has; `false` at its end.
    fn take_stream(&mut self) -> io::Result<bool> {
        let mut bytes = vec![0; CHUNK];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.input, &mut bytes)) {
            Ok(0) => return Ok(false),
            Ok(count) => self.decoder.feed(&bytes[..count]),
            Err(Errno::AGAIN) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        while let Some((kind, id, payload)) = self.decoder.next()? {
            self.take_frame(kind, id, payload)?;
        }
        Ok(true)
    }

    fn take_frame(&mut self, kind: Kind, id: u32, payload: Vec<u8>) -> io::Result<()> {
        match kind {
            Kind::Message => {
                let frame = Outgoing::encoded(&payload, self.side.most_to_channel())?;
                self.handing.push_back((frame, Vec::new()));
                self.hand_on()
            }
            Kind::Open => self.open(id, &payload),
            Kind::Attach => self.attach(id),
            Kind::Credit => {
                let amount =
                    <[u8; 4]>::try_from(payload).map_err(|_| broken("a grant of another size than four bytes"))?;
                if let Some(flow) = self.flows.get_mut(&id) {
                    let granted = flow.credit + u32::from_le_bytes(amount) as usize;
                    if granted > WINDOW {
                        return Err(broken("more granted than the window"));
                    }
                    flow.credit = granted;
                }
                Ok(())
            }
            Kind::Data => self.take_data(id, payload),
            Kind::End => {
                let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
                flow.ended = true;
                if flow.role == Role::Source || flow.queue.is_empty() {
                    self.flows.remove(&id);
                }
                Ok(())
            }
        }
    }

    fn take_data(&mut self, id: u32, payload: Vec<u8>) -> io::Result<()> {
        let after = if self.side == Side::Host && id.is_multiple_of(STREAMS) { self.siblings(id) } else { Vec::new() };
        let guest = self.side == Side::Guest;
        // What was closed meanwhile is not missed.
        let Some(flow) = self.flows.get_mut(&id) else { return Ok(()) };
        if flow.role == Role::Source || flow.queued + payload.len() > WINDOW {
            return Err(broken("more data than was granted"));
        }
        if guest && flow.is_control(id) {
            let length = payload.len();
            for command in flow.commands(&payload)? {
                match postcard::from_bytes::<Command>(&command[4..]) {
                    Ok(Command::Resize(size)) => {
                        if let Some(terminal) = self.flows.get(&(id + TERMINAL)) {
                            let size = rustix::termios::Winsize {
                                ws_row: size.rows,
                                ws_col: size.columns,
                                ws_xpixel: 0,
                                ws_ypixel: 0,
                            };
                            // A terminal that has ended has no size.
                            let _ = rustix::termios::tcsetwinsize(&terminal.descriptor, size);
                        }
                    }
                    _ => {
                        if let Some(flow) = self.flows.get_mut(&id) {
                            flow.enqueue(command, Vec::new());
                        }
                    }
                }
            }
            self.put(Kind::Credit, id, &u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
            self.deliver(id);
            return Ok(());
        }
        flow.enqueue(payload, after);
        self.deliver(id);
        Ok(())
    }

    /// Makes a request's descriptors anew, and hands it to the guest.
    fn open(&mut self, id: u32, payload: &[u8]) -> io::Result<()> {
        let wrong = || broken("a request that makes no sense");
        let (count, rest) = payload.split_first().ok_or_else(wrong)?;
        let count = usize::from(*count);
        if self.side != Side::Guest || !id.is_multiple_of(STREAMS) || count >= MAX_DESCRIPTORS || rest.len() < count {
            return Err(wrong());
        }
        let (roles, body) = rest.split_at(count);
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let mut give = vec![theirs];
        self.add(id, Role::Both, ours)?;
        for (sibling, role) in (id + 1..).zip(roles) {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            // Programs open their standard streams anew (/dev/stdout), as whoever they run as.
            // gVisor's pipes stay as they were made.
            match rustix::fs::fchmod(&read, Mode::from_raw_mode(0o666)) {
                Ok(()) | Err(Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
            let (ours, theirs, role) = if *role == 0 { (write, read, Role::Sink) } else { (read, write, Role::Source) };
            give.push(theirs);
            self.add(sibling, role, ours)?;
        }
        self.handing.push_back((Outgoing::encoded(body, MAX_TO_GUEST)?, give));
        self.hand_on()
    }

    /// Makes the socket that stands for a terminal, to be passed with the answer that follows.
    fn attach(&mut self, id: u32) -> io::Result<()> {
        if self.side != Side::Host || !id.is_multiple_of(STREAMS) {
            return Err(broken("a terminal that nobody asked for"));
        }
        let Some(control) = self.flows.get_mut(&id) else { return Ok(()) };
        if control.attached {
            return Err(broken("a second terminal for one request"));
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        control.attached = true;
        control.passing = Some(theirs);
        self.add(id + TERMINAL, Role::Both, ours)
    }

    fn add(&mut self, id: u32, role: Role, descriptor: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        self.flows.insert(id, Flow::new(role, descriptor));
        Ok(())
    }

    /// Takes what the channel says; `false` at its end.
    fn take_channel(&mut self, roomy: bool, seen: PollFlags) -> io::Result<bool> {
        self.hand_on()?;
        if !roomy || !seen.intersects(PollFlags::IN | PollFlags::HUP) {
            return Ok(!seen.contains(PollFlags::HUP));
        }
        match self.incoming.advance(&self.channel) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            // The other end was closed with something unread in it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(error) => return Err(error),
        }
        let whole = std::mem::replace(&mut self.incoming, Incoming::new(self.side.most_from_channel()));
        let (body, descriptors) = whole.into_parts();
        if descriptors.is_empty() {
            self.put(Kind::Message, 0, &body);
            return Ok(true);
        }
        let id = self.next;
        self.next = id.checked_add(STREAMS).ok_or_else(|| broken("more requests than can be numbered"))?;
        let mut descriptors = descriptors.into_iter();
        if let Some(control) = descriptors.next() {
            self.add(id, Role::Both, control)?;
        }
        let mut roles = Vec::new();
        for (sibling, descriptor) in (id + 1..).zip(descriptors) {
            let mode = rustix::fs::fcntl_getfl(&descriptor)? & OFlags::RWMODE;
            let role = if mode == OFlags::RDONLY { Role::Source } else { Role::Sink };
            roles.push(u8::from(role == Role::Sink));
            self.add(sibling, role, descriptor)?;
        }
        let count = u8::try_from(roles.len()).unwrap_or(u8::MAX);
        self.put(Kind::Open, id, &[&[count], roles.as_slice(), &body].concat());
        Ok(true)
    }

    fn hand_on(&mut self) -> io::Result<()> {
        while let Some((frame, descriptors)) = self.handing.front_mut() {
            let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
            match frame.advance(&self.channel, &borrowed) {
                Ok(true) => drop(self.handing.pop_front()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads one stream and sends on what there is.
    fn read(&mut self, id: u32) -> io::Result<()> {
        if self.side == Side::Guest && id.is_multiple_of(STREAMS) && !self.set_barriers(id)? {
            return Ok(());
        }
        let Some(flow) = self.flows.get_mut(&id).filter(|flow| flow.may_read()) else { return Ok(()) };
        let mut bytes = vec![0; CHUNK.min(flow.credit)];
        let (got, passed) = match receive(flow, id, &mut bytes) {
            Ok(got) => got,
            Err(Errno::AGAIN) => return Ok(()),
            // A terminal whose program has ended says EIO.
            Err(_) => (0, None),
        };
        if got == 0 {
            self.end(id);
            return Ok(());
        }
        flow.credit -= got;
        flow.read += got as u64;
        flow.moved = Instant::now();
        flow.barriers.clear();
        if let Some(terminal) = passed.filter(|_| self.side == Side::Guest && id.is_multiple_of(STREAMS)) {
            self.add(id + TERMINAL, Role::Both, terminal)?;
            self.put(Kind::Attach, id, &[]);
        }
        self.put(Kind::Data, id, &bytes[..got]);
        Ok(())
    }

    /// Ends a stream whose own end here has gone.
    fn end(&mut self, id: u32) {
        if self.flows.remove(&id).is_some() {
            self.put(Kind::End, id, &[]);
        }
    }

    fn deliver_all(&mut self) {
        let ids: Vec<u32> = self.flows.iter().filter(|(_, flow)| flow.has_queue()).map(|(id, _)| *id).collect();
        for id in ids {
            self.deliver(id);
        }
    }

    /// Writes what waits for a stream's own end here.
    fn deliver(&mut self, id: u32) {
        loop {
            let Some(flow) = self.flows.get(&id) else { return };
            if flow.queue.is_empty() || self.sink_waits(id, flow) {
                break;
            }
            let Some(flow) = self.flows.get_mut(&id) else { return };
            match send(flow, id) {
                Ok(count) => {
                    flow.written(count);
                    // A command's bytes are granted anew as soon as they have come.
                    if !(self.side == Side::Guest && id.is_multiple_of(STREAMS)) {
                        let granted = u32::try_from(count).unwrap_or(u32::MAX);
                        self.put(Kind::Credit, id, &granted.to_le_bytes());
                    }
                }
                Err(Errno::AGAIN) => return,
                Err(_) => return self.end(id),
            }
        }
        if self.flows.get(&id).is_some_and(|flow| flow.ended && flow.queue.is_empty()) {
            self.flows.remove(&id);
        }
    }

    fn put(&mut self, kind: Kind, id: u32, payload: &[u8]) {
        frame::encode(&mut self.out, kind, id, payload);
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let (front, _) = self.out.as_slices();
            match rustix::io::retry_on_intr(|| rustix::io::write(&self.output, front)) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends what the stream takes at once, at the end.
    fn flush_or_leave(&mut self) {
        // Whoever has gone misses nothing.
        let _ = self.flush();
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the relay's other end sent {what}"))
}

#[cfg(test)]
mod tests;
