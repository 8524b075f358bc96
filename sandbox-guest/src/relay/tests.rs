use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use super::*;
use crate::frame;
use crate::wire::{Hello, MAX_TO_HOST, PROTOCOL, Reply, Request, WindowSize};

/// A host's channel and a guest's, and what carries one to the other.
fn joined() -> (UnixStream, UnixStream, Vec<JoinHandle<io::Result<()>>>) {
    let (near, far) = UnixStream::pair().unwrap();
    let (host, beside_host) = UnixStream::pair().unwrap();
    let (guest, beside_guest) = UnixStream::pair().unwrap();
    let carriers = [(Side::Host, near, beside_host), (Side::Guest, far, beside_guest)]
        .map(|(side, stream, channel)| {
            let output = stream.try_clone().unwrap();
            let relay = Relay::new(side, stream.into(), output.into(), channel.into()).unwrap();
            std::thread::spawn(move || relay.run())
        })
        .into();
    (host, guest, carriers)
}

fn request(host: &UnixStream, give: Vec<OwnedFd>) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let all: Vec<OwnedFd> = std::iter::once(theirs.into()).chain(give).collect();
    let borrowed: Vec<_> = all.iter().map(|descriptor| descriptor.as_fd()).collect();
    frame::send(host, &Request::Attest, &borrowed, MAX_TO_GUEST).unwrap();
    ours
}

fn taken(guest: &UnixStream) -> Vec<OwnedFd> {
    let (request, descriptors) = frame::receive::<Request>(guest, MAX_TO_GUEST).unwrap().unwrap();
    assert_eq!(request, Request::Attest);
    descriptors
}

#[test]
fn requests_data_and_answers_arrive_and_all_ends_with_the_channel() {
    let (host, guest, carriers) = joined();
    frame::send(&guest, &Hello { protocol: PROTOCOL }, &[], MAX_TO_HOST).unwrap();
    assert_eq!(frame::receive::<Hello>(&host, MAX_TO_HOST).unwrap().unwrap().0.protocol, PROTOCOL);

    let (down, mut down_ours) = io::pipe().unwrap();
    let (mut up_ours, up) = io::pipe().unwrap();
    let control = request(&host, vec![down.into(), up.into()]);
    let mut met = taken(&guest);
    let (up, down, served) = (met.pop().unwrap(), met.pop().unwrap(), met.pop().unwrap());
    down_ours.write_all(b"typed").unwrap();
    drop(down_ours);
    let mut text = String::new();
    File::from(down).read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed");

    // More than any window holds, written by one who answers as soon as all is out of hand.
    let much = vec![7_u8; 3 << 20];
    let copy = much.clone();
    let writer = std::thread::spawn(move || {
        File::from(up).write_all(&copy).unwrap();
        frame::send(&served, &Reply::Started { pid: 5 }, &[], MAX_TO_HOST).unwrap();
    });
    let mut all = Vec::new();
    up_ours.read_to_end(&mut all).unwrap();
    assert!(all == much);
    writer.join().unwrap();
    let answer = frame::receive::<Reply>(&control, MAX_TO_HOST).unwrap().unwrap().0;
    assert_eq!(answer, Reply::Started { pid: 5 });
    assert!(frame::receive::<Reply>(&control, MAX_TO_HOST).unwrap().is_none(), "the control ends with who served it");

    drop(host);
    assert!(frame::receive::<Request>(&guest, MAX_TO_GUEST).unwrap().is_none());
    for carrier in carriers {
        carrier.join().unwrap().unwrap();
    }
}

#[test]
fn an_answer_does_not_overtake_what_was_written_before_it() {
    let (host, guest, _carriers) = joined();
    for _ in 0..200 {
        let (mut up_ours, up) = io::pipe().unwrap();
        let control = request(&host, vec![up.into()]);
        let mut met = taken(&guest);
        let (up, served) = (met.pop().unwrap(), met.pop().unwrap());
        let mut up = File::from(up);
        up.write_all(b"last words").unwrap();
        frame::send(&served, &Reply::Started { pid: 1 }, &[], MAX_TO_HOST).unwrap();
        frame::receive::<Reply>(&control, MAX_TO_HOST).unwrap().unwrap();
        // Its other end is still open, so that only what has come can be counted.
        assert_eq!(rustix::io::ioctl_fionread(&up_ours).unwrap(), 10);
        let mut words = [0; 10];
        up_ours.read_exact(&mut words).unwrap();
    }
}

#[test]
fn a_reader_that_stands_still_holds_up_nobody_else() {
    let (host, guest, _carriers) = joined();
    let (idle, up) = io::pipe().unwrap();
    let _control = request(&host, vec![up.into()]);
    let mut met = taken(&guest);
    let flood = met.pop().unwrap();
    let flooding = std::thread::spawn(move || {
        let mut flood = File::from(flood);
        while flood.write_all(&vec![0; CHUNK]).is_ok() {}
    });
    let control = request(&host, Vec::new());
    let served = taken(&guest).pop().unwrap();
    frame::send(&served, &Reply::Started { pid: 9 }, &[], MAX_TO_HOST).unwrap();
    assert!(frame::receive::<Reply>(&control, MAX_TO_HOST).unwrap().is_some());
    // Whoever writes learns that nobody reads any more.
    drop(idle);
    flooding.join().unwrap();
}

#[test]
fn a_control_that_closes_closes_inside_and_a_terminal_is_resized_there() {
    let (host, guest, _carriers) = joined();
    let control = request(&host, Vec::new());
    let served = UnixStream::from(taken(&guest).pop().unwrap());
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let master = rustix::pty::openpt(flags).unwrap();
    frame::send(&served, &Reply::Started { pid: 2 }, &[master.as_fd()], MAX_TO_HOST).unwrap();
    let (_, passed) = frame::receive::<Reply>(&control, MAX_TO_HOST).unwrap().unwrap();
    assert_eq!(passed.len(), 1);
    let size = WindowSize { rows: 31, columns: 77 };
    frame::send(&control, &Command::Resize(size), &[], MAX_TO_GUEST).unwrap();
    frame::send(&control, &Command::Kill, &[], MAX_TO_GUEST).unwrap();
    // The resize is the relay's, and only what follows it arrives.
    assert_eq!(frame::receive::<Command>(&served, MAX_TO_GUEST).unwrap().unwrap().0, Command::Kill);
    let found = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((found.ws_row, found.ws_col), (31, 77));
    drop(control);
    assert!(frame::receive::<Command>(&served, MAX_TO_GUEST).unwrap().is_none());
}

/// What a host's relay says to an end of the stream that means harm.
fn told(bytes: &[u8]) -> io::Error {
    let (near, mut far) = UnixStream::pair().unwrap();
    let (host, beside_host) = UnixStream::pair().unwrap();
    let _control = request(&host, Vec::new());
    let output = near.try_clone().unwrap();
    let relay = Relay::new(Side::Host, near.into(), output.into(), beside_host.into()).unwrap();
    let carrier = std::thread::spawn(move || relay.run());
    far.read_exact(&mut [0; 9]).unwrap();
    // It may have left before all is said.
    let _ = far.write_all(bytes);
    carrier.join().unwrap().unwrap_err()
}

#[test]
fn an_end_that_breaks_the_protocol_is_left() {
    let frame = |kind: Kind, id: u32, payload: &[u8]| {
        let mut out = VecDeque::new();
        super::frame::encode(&mut out, kind, id, payload);
        Vec::from(out)
    };
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.extend(frame(Kind::Data, 0, &vec![0; CHUNK]));
    }
    for bytes in [
        vec![9; 9],
        [&[Kind::Data as u8, 0, 0, 0, 0][..], &u32::MAX.to_le_bytes()].concat(),
        frame(Kind::Open, 8, &[0]),
        frame(Kind::Attach, 3, &[]),
        frame(Kind::Credit, 0, &[1, 0]),
        frame(Kind::Credit, 0, &1_u32.to_le_bytes()),
        [frame(Kind::Attach, 0, &[]), frame(Kind::Attach, 0, &[])].concat(),
        flood,
    ] {
        assert_eq!(told(&bytes).kind(), io::ErrorKind::InvalidData);
    }
}
