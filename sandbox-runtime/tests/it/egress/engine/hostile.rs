//! Clients inside real engines that mean harm, and a gateway that breaks down: all of it ends, and nothing goes out after it.

use sandbox_core::ErrorKind;
use sandbox_core::testkit::contract::Fixture;
use sandbox_runtime::EgressProxy;

use super::super::bounds::Defective;
use super::super::harness::{Names, Origin, here, own_address, rule};
use super::{open_by, run};

/// Says of each attack how it ended, and between them that others are served.
const PROGRAM: &str = r#"
import os, select, socket, sys, threading, urllib.error, urllib.parse, urllib.request
own, port = sys.argv[1], int(sys.argv[2])
proxy = urllib.parse.urlparse(os.environ["HTTP_PROXY"])
socks = urllib.parse.urlparse(os.environ["SOCKS_PROXY"])

def connected(way=proxy):
    return socket.create_connection((way.hostname, way.port), 60)

def served():
    try:
        return urllib.request.urlopen(f"http://{own}:{port}/", timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None

def rest(s):
    text = b""
    try:
        while part := s.recv(4096):
            text += part
    except ConnectionResetError:
        pass
    return text[:12].decode()

def flood():
    s = connected()
    try:
        s.sendall(b"GET http://a.example/ HTTP/1.1\r\n" + b"X-Flood: and more\r\n" * 100000)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return rest(s) in ("", "HTTP/1.1 400")

def smuggled():
    s = connected()
    s.sendall(f"POST http://{own}:{port}/ HTTP/1.1\r\nHost: {own}:{port}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())
    return rest(s)

def slow(way, word):
    """Sends a bit now and then, for as long as it is let."""
    s = connected(way)
    s.settimeout(0.5)
    for _ in range(120):
        try:
            s.sendall(word)
            if not s.recv(100):
                return "ended"
        except TimeoutError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            return "ended"
    return "open"

print("control", served())
print("flood", flood())
print("smuggled", smuggled())
held = []
while len(held) < 8:
    s = connected()
    try:
        s.sendall(b"GET http://")
    except OSError:
        pass
    held.append(s)
    # Whoever comes later is answered later. Who has an answer by then was turned away, since one that is over may keep its place
    # for a moment.
    served()
    held = [s for s in held if not select.select([s], [], [], 0)[0]]
print("full", served() in (429, None))
for s in held:
    s.close()
while served() != 200:
    pass
print("room", served())
ends = {}
slows = [threading.Thread(target=lambda n=name, w=way, b=word: ends.update({n: slow(w, b)}))
    for name, way, word in (("head", proxy, b"X"), ("socks", socks, b""))]
for thread in slows:
    thread.start()
print("meanwhile", served())
for thread in slows:
    thread.join()
print("slow", ends["head"], ends["socks"])

tunnel = connected()
tunnel.sendall(f"CONNECT {own}:{port} HTTP/1.1\r\nHost: {own}:{port}\r\n\r\n".encode())
answer = b""
while not answer.endswith(b"\r\n\r\n"):
    answer += tunnel.recv(1)
print("tunnel", answer[:12].decode())
s = connected()
s.sendall(b"GET http://defect.example/ HTTP/1.1\r\nHost: defect.example\r\n\r\n")
print("broken down", repr(rest(s)), "HTTP" in rest(tunnel))
while True:
    try:
        connected().close()
    except OSError:
        break
print("after", served())
"#;

pub(super) async fn harm_ends_and_a_gateway_that_breaks_down_lets_nothing_out(fixture: &Fixture) {
    let origin = Origin::web().await;
    let own = own_address();
    let names = Names::default();
    let rules = [here(&own.to_string(), &[origin.port]), rule("defect.example", &[80])];
    let proxy = EgressProxy::new().with_resolver(Defective(names)).with_connections(8);
    let (sandbox, _proxy) = open_by(fixture, rules, proxy).await;
    sandbox.write("/tmp/harm.py", PROGRAM).await.unwrap();
    let said = run(&sandbox, &format!("python3 /tmp/harm.py {own} {}", origin.port)).await;
    let expected = "control 200\nflood True\nsmuggled HTTP/1.1 400\nfull True\nroom 200\nmeanwhile 200\nslow ended ended\n\
                    tunnel HTTP/1.1 200\nbroken down '' False\nafter None\n";
    assert_eq!(said, expected);
    // The sandbox itself goes on, without a way out, and its end tells.
    let before = origin.text();
    run(&sandbox, &format!("(exec 3<>/dev/tcp/{own}/{}) 2>/dev/null && exit 1 || true", origin.port)).await;
    assert_eq!(origin.text(), before);
    let error = sandbox.destroy().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Residue);
    assert!(format!("{error:?}").contains("the egress gateway had broken down"), "{error:?}");
}
