//! The way out, as people use it: by `run`, by `up`, and by what `egress` and `run --learn` tell.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use crate::harness::{Place, eventually, signal};

/// An address of this machine that a rule may name.
fn own_address() -> IpAddr {
    // Nothing is sent: the kernel looks up where it would be sent from (udp(7)).
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.99:9").unwrap();
    socket.local_addr().unwrap().ip()
}

/// Answers every request alike, for as long as the test runs.
fn origin() -> u16 {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nanswer");
        }
    });
    port
}

/// A place whose policy lets sandboxes reach an origin, by its address.
fn place(port: u16) -> Place {
    let place = Place::new();
    let own = own_address();
    let policy = format!(
        "version = 1\nname = [\"test\"]\nwaive = [\"disk\", \"user-namespace\"]\n[egress]\nbundles = []\n\
         [[egress.rules]]\nhost = \"{own}\"\nports = [{port}]\naddresses = [\"{own}\"]\n"
    );
    std::fs::write(place.path("config/sandbox/policy.toml"), policy).unwrap();
    place
}

/// A program that prints what it is answered, or how it is refused.
fn fetch(url: &str) -> String {
    format!(
        "import urllib.request, urllib.error\n\
         try: print(urllib.request.urlopen('{url}').read().decode())\n\
         except urllib.error.HTTPError as e: print(e.code, e.headers.get('x-sandbox-denied'))\n"
    )
}

#[test]
fn what_the_policy_allows_is_reached_and_what_it_denies_is_listed() {
    let port = origin();
    let place = place(port);
    let url = format!("http://{}:{port}/", own_address());
    let id = place.ok(&["up"]).trim().to_owned();
    assert_eq!(place.ok(&["exec", &id, "python3", "-c", &fetch(&url)]), "answer\n");
    assert_eq!(place.ok(&["exec", &id, "python3", "-c", &fetch("http://elsewhere.example/")]), "403 no rule\n");
    let listed: Value = serde_json::from_str(&place.ok(&["egress", &id, "--json"])).unwrap();
    let outcomes: Vec<_> = listed.as_array().unwrap().iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["allowed", "denied"], "{listed}");
    let text = place.ok(&["egress", &id]);
    assert!(text.contains("denied: elsewhere.example:80: elsewhere.example is not on the allowlist"), "{text}");
    place.ok(&["down", &id]);
}

#[test]
fn nothing_is_reached_where_nothing_is_wanted() {
    let port = origin();
    let place = place(port);
    let script = format!("env | grep -ci _proxy=; exec 3<>/dev/tcp/{}/{port}", own_address());
    for arguments in [&["--no-network"][..], &["--policy", "maximum", "--waive", "disk", "--waive", "user-namespace"]] {
        let ran = place.sandbox(&[&["run"], arguments, &["--", "bash", "-c", &script]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "0\n"), "{ran:?}");
        assert!(ran.stderr.contains("unreachable"), "{ran:?}");
    }
}

#[test]
fn a_run_teaches_the_policy_that_it_needs() {
    let port = origin();
    let place = place(port);
    let own = own_address();
    let script = fetch(&format!("http://{own}:{port}/")) + &fetch("http://elsewhere.example:8080/");
    let ran = place.sandbox(&["run", "--learn", "--", "python3", "-c", &script]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "answer\n403 no rule\n"), "{ran:?}");
    std::fs::write(place.path("learned.toml"), &ran.stderr).unwrap();
    let shown = place.ok(&["policy", "show", "learned.toml"]);
    for line in
        [format!("host = \"{own}\"\nports = [{port}]"), "host = \"elsewhere.example\"\nports = [8080]".to_owned()]
    {
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    let waive = ["--waive", "disk", "--waive", "user-namespace"];
    let again = [
        &["run", "--policy", "learned.toml"][..],
        &waive,
        &["--", "python3", "-c", &fetch(&format!("http://{own}:{port}/"))],
    ];
    assert_eq!(place.ok(&again.concat()), "answer\n");
}

#[test]
fn a_doctor_tells_which_internal_addresses_a_policy_names() {
    let place = place(8080);
    let own = own_address();
    let told = place.sandbox(&["doctor"]).stdout;
    assert!(told.contains(&format!("internal: your policy lets sandboxes reach {own} at {own}")), "{told}");
}

#[test]
fn a_credential_is_a_placeholder_inside_and_must_be_bound_and_there() {
    let place = place(origin());
    let policy = place.path("config/sandbox/policy.toml");
    let bound = "[[credentials]]\nname = \"model\"\nhost = \"api.example\"\nheader = \"x-api-key\"\nvariable = \"MODEL_KEY\"\n\
                 prefix = \"sk-\"\nlength = 40\n";
    std::fs::write(&policy, std::fs::read_to_string(&policy).unwrap() + bound).unwrap();
    let secret = place.path("key");
    std::fs::write(&secret, "not-a-real-secret\n").unwrap();
    let source = format!("model=file:{}", secret.display());
    let shown =
        place.ok(&["run", "--credential", &source, "--", "sh", "-c", "echo $MODEL_KEY; cat $SSL_CERT_FILE; env"]);
    let (placeholder, rest) = shown.split_once('\n').unwrap();
    assert!(placeholder.starts_with("sk-") && placeholder.len() == 40, "{shown}");
    assert!(rest.contains("BEGIN CERTIFICATE") && !shown.contains("not-a-real-secret"));

    let unbound = place.sandbox(&["run", "--credential", "other=env:HOME", "--", "true"]).stderr;
    assert!(unbound.contains("credentials") && unbound.contains("other"), "{unbound}");
    let absent = place.sandbox(&["run", "--credential", "model=env:NO_SUCH_VARIABLE", "--", "true"]).stderr;
    assert!(absent.contains("NO_SUCH_VARIABLE"), "{absent}");
}

/// A program that opens a tunnel, says so, and then says how much came before its end.
fn hold(to: &str) -> String {
    format!(
        "import os, socket, urllib.parse\n\
         proxy = urllib.parse.urlparse(os.environ['HTTP_PROXY'])\n\
         tunnel = socket.create_connection((proxy.hostname, proxy.port))\n\
         tunnel.sendall(b'CONNECT {to} HTTP/1.1\\r\\nHost: {to}\\r\\n\\r\\n')\n\
         print(tunnel.recv(4096).split()[1].decode(), flush=True)\n\
         print(len(tunnel.recv(1)))\n"
    )
}

#[test]
fn a_reload_holds_a_sandbox_to_what_its_policy_says_by_now_and_gives_it_no_more() {
    let port = origin();
    let place = place(port);
    let file = place.path("config/sandbox/policy.toml");
    let begun = std::fs::read_to_string(&file).unwrap();
    let id = place.ok(&["up"]).trim().to_owned();
    let ask = |url: &str| place.ok(&["exec", &id, "python3", "-c", &fetch(url)]);
    let allowed = format!("http://{}:{port}/", own_address());
    assert_eq!(ask(&allowed), "answer\n");

    let script = hold(&format!("{}:{port}", own_address()));
    let (mut holding, mut rest, first) = place.started(&["exec", &id, "python3", "-c", &script]);
    assert_eq!(first, "200\n");
    std::fs::write(&file, begun.replace(&format!("ports = [{port}]"), "ports = [9]")).unwrap();
    let told = place.ok(&["egress", &id, "--reload"]);
    assert_eq!(told, "held to the policy test as it is now: egress allowlist, and no more than at the start\n");
    let mut after = String::new();
    rest.read_to_string(&mut after).unwrap();
    assert_eq!((after.as_str(), holding.wait().unwrap().code()), ("0\n", Some(0)), "the tunnel was closed");
    assert!(ask(&allowed).starts_with("403 "));

    // What it says beyond what it said at the start is not for this sandbox.
    std::fs::write(&file, format!("{begun}[[egress.rules]]\nhost = \"elsewhere.example\"\nports = [80]\n")).unwrap();
    place.ok(&["egress", &id, "--reload"]);
    assert_eq!((ask(&allowed).as_str(), ask("http://elsewhere.example/").as_str()), ("answer\n", "403 no rule\n"));

    std::fs::write(&file, "nonsense").unwrap();
    let failed = place.sandbox(&["egress", &id, "--reload"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("policy.toml"), "{failed:?}");
    assert_eq!(ask(&allowed), "answer\n");
    place.ok(&["down", &id]);
}

/// A proxy that lets in whoever knows the password `not-a-real-secret` of `me`, and tells what it was asked for.
fn beyond() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let knows = head.contains("Proxy-Authorization: Basic bWU6bm90LWEtcmVhbC1zZWNyZXQ=\r\n");
            let answer = if knows { "200 OK" } else { "407 No" };
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 6\r\nConnection: close\r\n\r\nbeyond");
            if tell.send(head.lines().next().unwrap_or_default().to_owned()).is_err() {
                return;
            }
        }
    });
    (port, told)
}

#[test]
fn a_proxy_beyond_is_asked_for_what_is_allowed_by_a_password_that_nobody_sees() {
    let (port, asked) = beyond();
    let place = place(9);
    let policy = "version = 1\nname = [\"test\"]\nwaive = [\"disk\", \"user-namespace\"]\n[egress]\nbundles = []\n\
                  [[egress.rules]]\nhost = \"origin.example\"\nports = [80]\n";
    std::fs::write(place.path("config/sandbox/policy.toml"), policy).unwrap();
    let file = place.path("password");
    std::fs::write(&file, "not-a-real-secret\n").unwrap();
    let (url, source) = (format!("http://me@127.0.0.1:{port}"), format!("file:{}", file.display()));
    let script =
        fetch("http://origin.example/a") + &fetch("http://elsewhere.example/") + "import os; print(os.environ)";
    let way = ["--egress-upstream", &url, "--egress-password", &source];
    let ran = place.ok(&[&["run"], &way[..], &["--", "python3", "-c", &script]].concat());
    assert!(ran.starts_with("beyond\n403 no rule\n") && !ran.contains("not-a-real"), "{ran}");
    assert_eq!(asked.recv().unwrap(), "GET http://origin.example/a HTTP/1.1");
    assert!(asked.try_recv().is_err(), "what is denied is not asked for");

    let mut command = place.command(&["run", "--", "python3", "-c", &fetch("http://origin.example/b")]);
    let command = command.env("SANDBOX_EGRESS_UPSTREAM", &url);
    let named = command.env("SANDBOX_EGRESS_PASSWORD", "not-a-real-secret").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&named.stdout), "beyond\n", "{named:?}");
    let unknown = command.env("SANDBOX_EGRESS_PASSWORD", "another").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&unknown.stdout), "407 None\n", "{unknown:?}");

    let secret = format!("http://me:not-a-real-secret@127.0.0.1:{port}");
    for wrong in [
        &["--egress-upstream", &secret][..],
        &["--egress-upstream", &url, "--egress-password", "not-a-real-secret"],
        &["--egress-upstream", &url],
    ] {
        let ran = place.sandbox(&[&["run"], wrong, &["--", "true"]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), ""), "{ran:?}");
        assert!(ran.stderr.contains("EGRESS_PASSWORD") || ran.stderr.contains("egress-"), "{ran:?}");
        assert!(!ran.stderr.contains("not-a-real"), "{ran:?}");
    }
}

#[test]
fn a_killed_holder_takes_every_way_out_along() {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut all = Vec::new();
        // A reset is an end as well.
        let _ = stream.read_to_end(&mut all);
        tell.send(all).unwrap();
    });
    let place = place(port);
    let id = place.ok(&["up"]).trim().to_owned();
    let script = hold(&format!("{}:{port}", own_address()));
    let (mut holding, _rest, first) = place.started(&["exec", &id, "python3", "-c", &script]);
    assert_eq!(first, "200\n", "the positive control");
    let inspected: Value = serde_json::from_str(&place.ok(&["inspect", &id, "--json"])).unwrap();
    let holder = u32::try_from(inspected["holder"].as_u64().unwrap()).unwrap();
    assert!(told.try_recv().is_err(), "it is open");
    signal(holder, rustix::process::Signal::KILL);
    assert_eq!(told.recv_timeout(std::time::Duration::from_mins(1)).unwrap(), b"", "the tunnel is closed");
    assert_ne!(holding.wait().unwrap().code(), Some(0));
    eventually("the container is gone", || place.containers().is_empty());
    place.ok(&["cleanup"]);
}
