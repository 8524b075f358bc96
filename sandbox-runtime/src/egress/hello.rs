//! The first message of a TLS connection, read for the one name in it (RFC 8446, section 4.1.2; RFC 6066, section 3).

use std::str::FromStr as _;

use sandbox_policy::Host;

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientHello {
    /// The server that it means, if it says so.
    pub(crate) name: Option<Host>,
}

/// Why it is refused, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoHello(pub(crate) &'static str);

/// Reads a `ClientHello` as it comes. Each record is taken once, when all of it is there, and the message is read once, when
/// its last record is: however small the parts are that it comes in, they cost no more than their number.
#[derive(Debug, Default)]
pub(crate) struct HelloReader {
    /// Bytes of the stream that were taken.
    taken: usize,
    /// What the records held.
    handshake: Vec<u8>,
    #[cfg(test)]
    counted: Counted,
}

/// What was done to read a message.
#[cfg(test)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    records: usize,
    messages: usize,
}

impl HelloReader {
    /// Reads on in a stream, which is given from its beginning each time; nothing as long as more must come.
    pub(crate) fn read(&mut self, stream: &[u8]) -> Result<Option<ClientHello>, NoHello> {
        // A message may be spread over records as one likes.
        loop {
            if let Some(length) = message_length(&self.handshake)?
                && self.handshake.len() >= length
            {
                #[cfg(test)]
                {
                    self.counted.messages += 1;
                }
                return ClientHello::body(&self.handshake[4..length]).map(Some);
            }
            let rest = stream.get(self.taken..).unwrap_or_default();
            match record(rest)? {
                None if rest.len() < MAX_HELLO => return Ok(None),
                None => return Err(NoHello("the first message is too long")),
                Some(content) => {
                    #[cfg(test)]
                    {
                        self.counted.records += 1;
                    }
                    self.handshake.extend_from_slice(content);
                    self.taken += RECORD_HEAD + content.len();
                }
            }
        }
    }
}

impl ClientHello {
    /// Reads the beginning of a stream; nothing as long as more must come.
    #[cfg(test)]
    pub(crate) fn parse(stream: &[u8]) -> Result<Option<Self>, NoHello> {
        HelloReader::default().read(stream)
    }

    fn body(body: &[u8]) -> Result<Self, NoHello> {
        let mut reader = Reader(body);
        // Version and random.
        reader.take(2 + 32)?;
        reader.prefixed(1)?; // session
        reader.prefixed(2)?; // cipher suites
        reader.prefixed(1)?; // compression
        if reader.0.is_empty() {
            return Ok(Self { name: None });
        }
        let mut extensions = Reader(reader.prefixed(2)?);
        if !reader.0.is_empty() {
            return Err(TORN);
        }
        let mut name = None;
        while !extensions.0.is_empty() {
            let kind = extensions.number(2)?;
            let content = extensions.prefixed(2)?;
            if kind == SERVER_NAME {
                if name.is_some() {
                    return Err(NoHello("the server is named twice"));
                }
                name = Some(server_name(content)?);
            }
        }
        Ok(Self { name })
    }
}

fn server_name(content: &[u8]) -> Result<Host, NoHello> {
    let mut outer = Reader(content);
    let mut list = Reader(outer.prefixed(2)?);
    let kind = list.number(1)?;
    let name = list.prefixed(2)?;
    if kind != HOST_NAME || !list.0.is_empty() || !outer.0.is_empty() {
        return Err(NoHello("the server is named in another way than by one host name"));
    }
    let text = str::from_utf8(name).ok();
    text.and_then(|text| Host::from_str(text).ok()).ok_or(NoHello("the server's name is no host"))
}

/// The bytes of the message that begins here, with its own head; nothing as long as that has not come.
fn message_length(handshake: &[u8]) -> Result<Option<usize>, NoHello> {
    if handshake.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
        return Err(NoHello("the first message is no ClientHello"));
    }
    let [_, a, b, c, ..] = *handshake else { return Ok(None) };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    if length > MAX_HELLO { Err(NoHello("the first message is too long")) } else { Ok(Some(4 + length)) }
}

/// What the first record of a stream holds.
fn record(stream: &[u8]) -> Result<Option<&[u8]>, NoHello> {
    // As soon as the first bytes tell that it is something else.
    if stream.first().is_some_and(|kind| *kind != HANDSHAKE) || stream.get(1).is_some_and(|major| *major != 3) {
        return Err(NoHello("it does not begin as TLS does"));
    }
    let [_, _, _, high, low, ..] = *stream else { return Ok(None) };
    let length = usize::from(high) << 8 | usize::from(low);
    if !(1..=MAX_RECORD).contains(&length) {
        return Err(NoHello("a record is empty or too long"));
    }
    Ok(stream.get(RECORD_HEAD..RECORD_HEAD + length))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], NoHello> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TORN)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<usize, NoHello> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn prefixed(&mut self, bytes: usize) -> Result<&'a [u8], NoHello> {
        let length = self.number(bytes)?;
        self.take(length)
    }
}

/// The fatal alert `unrecognized_name`, as whoever began a handshake understands it (RFC 8446, section 6).
pub(crate) const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

const TORN: NoHello = NoHello("the ClientHello breaks off");
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: usize = 0;
const HOST_NAME: usize = 0;
const RECORD_HEAD: usize = 5;
const MAX_RECORD: usize = 1 << 14;
/// The largest first message that is read, in bytes; those of today have at most 2 KiB.
const MAX_HELLO: usize = 16 << 10;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `ClientHello` that names these servers, in records of at most so many bytes.
    pub(crate) fn hello(names: &[&str], record: usize) -> Vec<u8> {
        let sized = |bytes: usize, content: &[u8]| {
            let length = (content.len() as u64).to_be_bytes();
            [&length[8 - bytes..], content].concat()
        };
        let mut extensions = Vec::new();
        for name in names {
            let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
            extensions.extend([&[0, 0][..], &sized(2, &sized(2, &entry))].concat());
        }
        extensions.extend([0, 23, 0, 0]);
        let body =
            [&[3, 3][..], &[7; 32], &[0], &sized(2, &[0x13, 1]), &sized(1, &[0]), &sized(2, &extensions)].concat();
        let message = [&[CLIENT_HELLO][..], &sized(3, &body)].concat();
        message.chunks(record).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &sized(2, part)].concat()).collect()
    }

    fn name(stream: &[u8]) -> Option<String> {
        ClientHello::parse(stream).unwrap().unwrap().name.map(|host| host.to_string())
    }

    #[test]
    fn the_name_is_found_however_it_is_spread() {
        for record in [1, 3, 4, 5, 50, 16_000] {
            let stream = hello(&["Example.ORG"], record);
            assert_eq!(name(&stream).as_deref(), Some("example.org"), "{record}");
            for end in 0..stream.len() {
                assert_eq!(ClientHello::parse(&stream[..end]), Ok(None), "{record} {end}");
            }
        }
        assert_eq!(name(&hello(&[], 1000)), None);
    }

    #[test]
    fn a_byte_at_a_time_is_read_once() {
        for record in [1, 50, 16_000] {
            let stream = hello(&["example.org"], record);
            let message = hello(&["example.org"], 16_000).len() - RECORD_HEAD;
            let mut reader = HelloReader::default();
            for end in 0..stream.len() {
                assert_eq!(reader.read(&stream[..end]), Ok(None), "{record} {end}");
            }
            assert!(reader.read(&stream).unwrap().is_some());
            let counted = Counted { records: message.div_ceil(record), messages: 1 };
            assert_eq!((reader.counted, reader.handshake.len()), (counted, message), "{record}");
        }
    }

    #[test]
    fn what_is_no_hello_or_names_two_is_refused() {
        assert!(ClientHello::parse(&hello(&["a.example", "b.example"], 1000)).is_err());
        for bad in ["", "a\0.example", "a..b", "*.example", "127.1", "ä.example"] {
            assert!(ClientHello::parse(&hello(&[bad], 1000)).is_err(), "{bad:?}");
        }
        for bad in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x\r\n", &[22, 2], &[22, 3, 1, 0, 0], &[22, 3, 1, 0xff, 0xff]]
        {
            assert!(ClientHello::parse(bad).is_err(), "{bad:?}");
        }
        // Not the first message, or one that would never end.
        assert!(ClientHello::parse(&[22, 3, 1, 0, 4, 2, 0, 0, 0]).is_err());
        assert!(ClientHello::parse(&[22, 3, 1, 0, 4, 1, 1, 0, 0]).is_err());
        let endless: Vec<u8> = [22, 3, 1, 0, 1, 1].into_iter().chain([22, 3, 1, 0, 1, 0].repeat(5_000)).collect();
        assert!(ClientHello::parse(&endless).is_err() || ClientHello::parse(&endless) == Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(mut stream: Vec<u8>, at in 0_usize..200, byte: u8) {
            let _ = ClientHello::parse(&stream);
            stream = hello(&["example.org"], 40);
            let at = at % stream.len();
            stream[at] = byte;
            let _ = ClientHello::parse(&stream);
        }
    }
}
