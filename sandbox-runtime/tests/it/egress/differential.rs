//! A host, as others read it: curl, which programs inside are, and the resolver that the dialler asks.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use sandbox_core::policy::Host;

use self::variations::{seeds, variations};

#[path = "../../../../fuzz/src/variations.rs"]
mod variations;

/// Texts that are taken for hosts, and what they are taken for.
fn taken() -> BTreeMap<String, Host> {
    let texts = variations(&seeds("host"), 3_000).into_iter().filter_map(|bytes| String::from_utf8(bytes).ok());
    let taken: BTreeMap<String, Host> = texts.filter_map(|text| text.parse().ok().map(|host| (text, host))).collect();
    assert!(taken.len() > 200 && taken.values().any(|host| host.address().is_some()), "{}", taken.len());
    taken
}

/// Answers requests to a proxy, connection by connection, until one comes that says nothing; gives their targets.
fn targets(proxy: &TcpListener) -> Vec<String> {
    let mut targets = Vec::new();
    for stream in proxy.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        let before = targets.len();
        loop {
            let (mut first, mut line) = (String::new(), String::new());
            if stream.read_line(&mut first).unwrap_or(0) == 0 {
                break;
            }
            while stream.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            targets.push(first.split(' ').nth(1).unwrap().to_owned());
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
        if targets.len() == before {
            break;
        }
    }
    targets
}

/// Runs a program to its end with this as its input, and gives its output.
fn told(program: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn curl_asks_for_the_same_host() {
    let taken = taken();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = proxy.local_addr().unwrap();
    let urls: Vec<String> =
        taken.keys().enumerate().map(|(n, text)| format!("url = \"http://{text}/{n}\"\n")).collect();
    let urls = urls.concat();
    let settings = format!("proxy = \"http://{at}\"\nnoproxy = \"\"\n{urls}");
    let serving = std::thread::spawn(move || targets(&proxy));
    told("curl", &["-q", "--globoff", "--silent", "--max-time", "60", "-K", "-"], &settings);
    drop(TcpStream::connect(at).unwrap());
    let asked = serving.join().unwrap();
    assert!(asked.len() * 10 > taken.len() * 9, "curl asked for {} of {}", asked.len(), taken.len());
    let expected: Vec<(&String, &Host)> = taken.iter().collect();
    for target in asked {
        let (host, number) = target.strip_prefix("http://").unwrap().split_once('/').unwrap();
        let (text, expected) = expected[number.parse::<usize>().unwrap()];
        assert_eq!(host.parse::<Host>().as_ref(), Ok(expected), "{text:?} is {host:?} to curl");
    }
}

/// Says for each line which address it is without asking anybody (`getaddrinfo(3)`, `AI_NUMERICHOST`).
const NUMERIC: &str = "
import socket, sys
for line in sys.stdin:
    try:
        print(socket.getaddrinfo(line[:-1], None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4][0])
    except OSError:
        print('-')
";

#[test]
fn a_name_is_no_address_to_the_resolver() {
    let taken = taken();
    // A name is asked for with its final dot, and then without one.
    let asked = |host: &Host| match (host.address(), host.name()) {
        (Some(address), _) => vec![address.to_string()],
        (None, name) => vec![format!("{}.", name.unwrap()), name.unwrap().to_owned()],
    };
    let questions: Vec<(String, &Host)> =
        taken.values().flat_map(|host| asked(host).into_iter().map(move |text| (text, host))).collect();
    let lines: Vec<&str> = questions.iter().flat_map(|(text, _)| [text.as_str(), "\n"]).collect();
    let answers = told("python3", &["-c", NUMERIC], &lines.concat());
    assert_eq!(answers.lines().count(), questions.len());
    for (answer, (text, host)) in answers.lines().zip(&questions) {
        assert_eq!(answer.parse::<IpAddr>().ok(), host.address(), "{text:?} is {answer:?} to the resolver");
    }
}
