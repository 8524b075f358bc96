use proptest::prelude::*;

use super::*;

fn request(text: &str) -> Result<RequestHead, Malformed> {
    RequestHead::parse(text.as_bytes())
}

fn framed(fields: &str) -> Result<Framing, Malformed> {
    request(&format!("POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))?.framing()
}

#[test]
fn a_plain_head_is_read() {
    let head = request("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nAccept:  */*\t\r\nX:\r\n\r\n").unwrap();
    assert_eq!((head.method.as_str(), head.target.as_str()), ("GET", "http://a.example/"));
    let fields: Vec<_> = head.fields.iter().collect();
    assert_eq!(fields, [("Host", &b"a.example"[..]), ("Accept", b"*/*"), ("X", b"")]);
    assert_eq!((head.framing(), head.is_kept()), (Ok(Framing::Empty), true));
    assert!(!request("GET / HTTP/1.0\r\n\r\n").unwrap().is_kept());
    assert!(!request("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n").unwrap().is_kept());
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for text in [
        "",
        "\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\n\r\n",
        "GET  / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1 \r\n\r\n",
        "GET /\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\n\r\n",
        "GET /\t HTTP/1.1\r\n\r\n",
        "G(T / HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\n\tA: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA : b\r\n\r\n",
        "GET / HTTP/1.1\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nA\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nA: b\u{7}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n",
    ] {
        assert!(request(text).is_err(), "{text:?}");
    }
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
    assert!(request(&many).is_err());
}

#[test]
fn a_body_has_one_length() {
    assert_eq!(framed("Content-Length: 5\r\n"), Ok(Framing::Length(5)));
    assert_eq!(framed("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        assert!(framed(fields).is_err(), "{fields:?}");
    }
    assert!(request("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap().framing().is_err());
}

#[test]
fn a_responses_body_follows_its_status_and_its_request() {
    let framing = |status: &str, fields: &str, method: &str| {
        ResponseHead::parse(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes())?.framing(method)
    };
    assert_eq!(framing("200 OK", "", "GET"), Ok(Framing::UntilClose));
    assert_eq!(framing("200", "Content-Length: 3\r\n", "GET"), Ok(Framing::Length(3)));
    for (status, method) in [("200 OK", "HEAD"), ("204 No Content", "GET"), ("304 Not Modified", "GET"), ("100", "GET")]
    {
        assert_eq!(framing(status, "Content-Length: 3\r\n", method), Ok(Framing::Empty), "{status} {method}");
    }
    for status in ["20", "2000", "+20", "abc", "099"] {
        assert!(framing(status, "", "GET").is_err(), "{status}");
    }
    assert!(framing("200 OK", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "GET").is_err());
}

#[tokio::test]
async fn a_head_is_bounded_in_size_and_in_time() {
    let minute = Duration::from_mins(1);
    let flood = [b"GET / HTTP/1.1\r\n".as_slice(), &b"A: b\r\n".repeat(10_000)].concat();
    let mut buffer = Buffer::default();
    let read = read(&mut buffer, &mut flood.as_slice(), minute, minute).await;
    assert!(matches!(read, Err(NoHead::Malformed(_))), "{read:?}");
    assert!(buffer.unread().len() <= MAX_HEAD + 2 * super::super::buffer::CHUNK);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_given_up() {
    let (mut client, mut server) = tokio::io::duplex(64);
    tokio::io::AsyncWriteExt::write_all(&mut client, b"GET / HT").await.unwrap();
    let read = read(&mut Buffer::default(), &mut server, Duration::from_secs(9), Duration::from_secs(9)).await;
    assert!(matches!(read, Err(NoHead::Late)), "{read:?}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_fail(bytes: Vec<u8>, text in "[A-Z]{1,5} [!-~]{1,20} HTTP/1\\.[01]\r\n([A-Za-z-]{1,9}: ?[ -~]{0,9}\r\n){0,4}\r\n") {
        let _ = RequestHead::parse(&bytes).and_then(|head| head.framing());
        let _ = ResponseHead::parse(&bytes).and_then(|head| head.framing("GET"));
        prop_assert!(RequestHead::parse(text.as_bytes()).is_ok(), "{text:?}");
    }
}

#[test]
fn a_form_feed_is_no_blank_around_a_value() {
    for value in ["a\x0c", "\x0ca", " \x0c", "5 \x0c "] {
        let head = format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
        assert!(RequestHead::parse(head.as_bytes()).is_err(), "{value:?}");
    }
    assert!(RequestHead::parse(b"GET / HTTP/1.1\r\nHost:\t a \t\r\n\r\n").is_ok());
}
