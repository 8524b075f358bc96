//! The way out, as people use it: by `run`, by `up`, and by what `egress` and `run --learn` tell.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::thread;

use serde_json::Value;

use crate::harness::Place;

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
