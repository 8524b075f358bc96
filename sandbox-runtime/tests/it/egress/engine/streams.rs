//! What is long or lasts, from inside real engines: both ways, whole, and each half by itself.

use sandbox_core::testkit::contract::Fixture;
use sandbox_runtime::Outcome;

use super::super::harness::{here, own_address};
use super::super::tunnels;
use super::{open, run};

const PROGRAM: &str = r#"
import hashlib, os, socket, struct, sys, threading, urllib.parse
own, echo, first, chat = sys.argv[1], *map(int, sys.argv[2:])
proxy = urllib.parse.urlparse(os.environ["HTTP_PROXY"])
socks = urllib.parse.urlparse(os.environ["SOCKS_PROXY"])

def head(s):
    text = b""
    while not text.endswith(b"\r\n\r\n"):
        text += s.recv(1)
    return text.decode()

def connected(port):
    s = socket.create_connection((proxy.hostname, proxy.port), 60)
    s.sendall(f"CONNECT {own}:{port} HTTP/1.1\r\nHost: {own}:{port}\r\n\r\n".encode())
    assert head(s).startswith("HTTP/1.1 200 ")
    return s

def exact(s, count):
    data = b""
    while len(data) < count:
        data += s.recv(count - len(data))
    return data

def by_socks(host, port):
    s = socket.create_connection((socks.hostname, socks.port), 60)
    s.sendall(b"\x05\x01\x00")
    assert exact(s, 2) == b"\x05\x00"
    s.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack("!H", port))
    return s, exact(s, 10)[1]

def echoed(s, size):
    block = bytes(range(256)) * 256
    sent, came = hashlib.sha256(), hashlib.sha256()
    def send():
        for number in range(size // len(block)):
            part = number.to_bytes(4, "big") + block[4:]
            sent.update(part)
            s.sendall(part)
        s.shutdown(socket.SHUT_WR)
    sending = threading.Thread(target=send)
    sending.start()
    left = size
    while left:
        part = s.recv(min(left, 1 << 20))
        assert part, f"{left} bytes are missing"
        came.update(part)
        left -= len(part)
    rest = b""
    while part := s.recv(100):
        rest += part
    sending.join()
    return came.digest() == sent.digest(), rest.decode()

print("tunnel", *echoed(connected(echo), 64 << 20))
s, code = by_socks(own, echo)
print("socks", code, *echoed(s, 8 << 20))
print("socks elsewhere", by_socks("elsewhere.example", echo)[1])

s = connected(first)
print("half", exact(s, 4).decode(), len(s.recv(1)))
s.sendall(b"still here")
s.close()

s = socket.create_connection((proxy.hostname, proxy.port), 60)
s.sendall(f"GET http://{own}:{chat}/chat HTTP/1.1\r\nHost: {own}:{chat}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
print("socket", head(s).split()[1], exact(s, 5).decode())
for word in (b"again", b"later"):
    s.sendall(word)
    assert exact(s, 5) == word
s.shutdown(socket.SHUT_WR)
print("socket over", len(s.recv(1)))
"#;

pub(super) async fn streams_pass_whole(fixture: &Fixture) {
    let (echo, first, chat) = (tunnels::echo().await, tunnels::over_first().await, tunnels::chat().await);
    let own = own_address();
    let ports = [echo.port, first.port, chat.port];
    let (sandbox, proxy) = open(fixture, [here(&own.to_string(), &ports)]).await;
    sandbox.write("/tmp/streams.py", PROGRAM).await.unwrap();
    let said =
        run(&sandbox, &format!("python3 /tmp/streams.py {own} {} {} {}", echo.port, first.port, chat.port)).await;
    let expected = "tunnel True total 67108864\nsocks 0 True total 8388608\nsocks elsewhere 2\nhalf over 0\n\
                    socket 101 first\nsocket over 0\n";
    assert_eq!(said, expected);
    tunnels::arrived(&first, "still here").await;
    let ledger = proxy.ledger(sandbox.id()).unwrap();
    let entry = ledger.iter().find(|entry| entry.port == echo.port && entry.outcome == Outcome::Allowed).unwrap();
    assert_eq!((entry.count, entry.sent), (2, 72 << 20));
    sandbox.destroy().await.unwrap();
}
