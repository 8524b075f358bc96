//! Git on the host, speaking to the one server that the policy has allowed.
//!
//! Invariants: git dials addresses that were checked here, and no other, or the one proxy that was named; it follows no redirect and uses no `.netrc`, no
//! cookie and no helper but ours; a secret reaches it through a pipe, for that server alone; and a pipe that closes, because
//! nobody wants the answer any more or because this process was killed, ends git and all that it started.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sandbox_policy::{Branch, Decision, History, Host, RemoteRepo};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::git::{self, ObjectId, Said};
use super::mirror::MirrorLimits;
use crate::{Error, ErrorKind, Event, Events, Resolve, Result, Token};

/// An HTTP proxy by way of which git on the host reaches servers.
#[derive(Clone, Debug)]
pub struct MirrorProxy {
    host: Host,
    port: u16,
    login: Option<(String, SecretString)>,
}

impl MirrorProxy {
    /// Names the proxy.
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port, login: None }
    }

    /// Sets the user and the password that it asks for. The password is one line, and git is told it by a pipe.
    #[must_use]
    pub fn with_login(mut self, user: impl Into<String>, password: SecretString) -> Self {
        self.login = Some((user.into(), password));
        self
    }

    /// What git is told of it. Its password, if it has one, waits in a pipe.
    fn settings(&self) -> Vec<String> {
        let Self { host, port, login } = self;
        let Some((user, _)) = login else { return vec![format!("http.proxy=http://{host}:{port}")] };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let user: String = undecoded(user)
            .bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect();
        vec![
            format!("http.proxy=http://{user}@{host}:{port}"),
            "http.proxyAuthMethod=basic".to_owned(),
            format!("credential.http://{host}:{port}.helper={PROXY_HELPER}"),
        ]
    }

    fn password(&self) -> &str {
        self.login.as_ref().map_or("", |(_, password)| password.expose_secret())
    }
}

/// What libcurl, which takes percent signs out of a proxy's user and password (`CURLOPT_PROXYUSERPWD`), makes the text of.
fn undecoded(text: &str) -> String {
    text.replace('%', "%25")
}

/// How git reaches a server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// By way of a proxy.
    By(&'a MirrorProxy),
    /// By itself, to the addresses that the name has.
    Straight(&'a dyn Resolve),
}

/// A server and a repository of it.
#[derive(Debug)]
pub(super) struct Server<'a> {
    remote: &'a RemoteRepo,
    /// The addresses, in the words of `CURLOPT_RESOLVE`; none where the host is an address itself.
    pinned: Option<String>,
    authorities: Option<PathBuf>,
    proxy: Option<&'a MirrorProxy>,
    secret: Option<SecretString>,
    limits: MirrorLimits,
}

/// What a repository says that it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Advertised {
    /// Its default branch, where it has one that can be named.
    pub(super) default: Option<(Branch, ObjectId)>,
    /// The commit of the branch that was asked for, where there is one.
    pub(super) asked: Option<ObjectId>,
}

impl<'a> Server<'a> {
    /// Finds out where the server is. What an address may be is decided as it was for the host.
    pub(super) async fn find(
        remote: &'a RemoteRepo,
        decision: &Decision,
        way: Way<'a>,
        events: &Events,
    ) -> Result<Self> {
        let host = remote.host();
        let proxy = match way {
            Way::By(proxy) if proxy.password().bytes().any(|byte| byte.is_ascii_control()) => {
                return Err(Error::new(ErrorKind::InvalidInput, "the password of the proxy is no single line"));
            }
            Way::By(proxy) => Some(proxy),
            Way::Straight(_) => None,
        };
        let found = match (host.address(), host.name(), way) {
            (Some(address), _, _) => vec![address],
            (None, Some(name), Way::Straight(resolver)) => resolved(name, resolver).await?,
            // The proxy knows it.
            (None, _, _) => Vec::new(),
        };
        // One bad answer spoils all: a name that leads to a public address and to a private one is up to no good.
        for address in &found {
            if let Err(reason) = decision.check_address(*address) {
                events.report(Event::EgressDecided {
                    host: host.to_string(),
                    port: remote.port(),
                    method: None,
                    verdict: crate::EgressVerdict::Denied,
                    rule: "addresses that are not public".to_owned(),
                    reason: Some(reason.clone()),
                });
                return Err(Error::new(ErrorKind::Denied, format!("{host} resolves to {reason}"))
                    .with_hint("only a rule that names the host and the address allows it"));
            }
        }
        let pinned = host.name().filter(|_| proxy.is_none()).map(|name| {
            let addresses: Vec<String> = found.iter().map(bracketed).collect();
            format!("{name}:{}:{}", remote.port(), addresses.join(","))
        });
        Ok(Self { remote, pinned, authorities: None, proxy, secret: None, limits: MirrorLimits::default() })
    }

    pub(super) fn within(mut self, limits: MirrorLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Has the server's certificate checked against these authorities, and not those of the machine.
    pub(super) fn trusting(mut self, authorities: Option<&Path>) -> Self {
        self.authorities = authorities.map(Path::to_owned);
        self
    }

    /// Shows a credential to the server, if it asks for one.
    pub(super) fn known_by(mut self, token: Option<&Token>) -> Result<Self> {
        let secret = token.map(Token::secret);
        if secret.is_some_and(|secret| !secret.expose_secret().bytes().all(|byte| byte.is_ascii_graphic())) {
            let message = format!("the token for {} is no single word", self.remote.repository());
            return Err(Error::new(ErrorKind::Token, message));
        }
        self.secret = secret.cloned();
        Ok(self)
    }

    /// Asks which branch is the default, and where a branch stands.
    pub(super) async fn advertised(&self, mirror: &Path, branch: Option<&Branch>) -> Result<Advertised> {
        let url = self.url();
        let mut arguments = vec!["ls-remote", "--symref", "--quiet", "--", &url, "HEAD"];
        let reference = branch.map(Branch::reference);
        arguments.extend(reference.as_deref());
        let said = self.run(mirror, &arguments, ASK_WITHIN).await?;
        advertised(&said, branch)
    }

    /// Brings branches into references of a repository of the host's own.
    pub(super) async fn fetch(&self, into: &Path, wanted: &BTreeMap<Branch, String>, history: History) -> Result<()> {
        let url = self.url();
        let mut arguments = vec![
            "fetch".to_owned(),
            "--quiet".to_owned(),
            "--no-tags".to_owned(),
            "--no-write-fetch-head".to_owned(),
            "--no-recurse-submodules".to_owned(),
            "--no-auto-maintenance".to_owned(),
            "--atomic".to_owned(),
        ];
        match history {
            History::Full => {}
            History::Blobless => arguments.push("--filter=blob:none".to_owned()),
            History::Depth(depth) => arguments.push(format!("--depth={depth}")),
        }
        arguments.extend(["--".to_owned(), url]);
        arguments.extend(wanted.iter().map(|(branch, to)| format!("+{}:{to}", branch.reference())));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.run(into, &arguments, self.limits.deadline).await.map(|_| ())
    }

    /// The address as git is told it: with no user and no secret.
    fn url(&self) -> String {
        format!("{}.git", self.remote)
    }

    async fn run(&self, repository: &Path, arguments: &[&str], within: Duration) -> Result<Vec<u8>> {
        let mut child = git::spawn(&mut self.command(repository, arguments))?;
        let stdin = child.stdin.take();
        let secret = self.secret.as_ref().map_or("", |secret| secret.expose_secret());
        let password = SecretString::from(undecoded(self.proxy.map_or("", MirrorProxy::password)));
        let password = password.expose_secret();
        let holding = async {
            let mut stdin = stdin;
            if let Some(stdin) = &mut stdin {
                // Git that has ended already says why.
                let _ = stdin.write_all(format!("{secret}\n{password}\n").as_bytes()).await;
            }
            // Open until git has ended: it is what git's life hangs on.
            stdin
        };
        let (said, stdin) = git::ended(&mut child, within, holding).await?;
        drop(stdin);
        if said.code == Some(0) { Ok(said.stdout) } else { Err(self.refused(&said)) }
    }

    fn command(&self, repository: &Path, arguments: &[&str]) -> Command {
        let Self { remote, pinned, authorities, proxy, secret, limits } = self;
        let mut settings: Vec<String> = SETTINGS.iter().map(ToString::to_string).collect();
        settings.extend(pinned.as_ref().map(|pinned| format!("http.curloptResolve={pinned}")));
        settings.extend(proxy.iter().flat_map(|proxy| proxy.settings()));
        settings.extend(authorities.as_ref().map(|path| format!("http.sslCAInfo={}", path.display())));
        if secret.is_some() {
            let authority = match remote.port() {
                443 => remote.host().to_string(),
                port => format!("{}:{port}", remote.host()),
            };
            settings.push(format!("credential.https://{authority}.helper={HELPER}"));
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SUPERVISOR, "sh", &limits.bytes.div_ceil(BLOCK).to_string(), "git"]);
        let settings = settings.iter().flat_map(|setting| ["-c", setting.as_str()]);
        let mut command = git::prepared(shell, repository, settings.chain(arguments.iter().copied()));
        command.process_group(0).stdin(Stdio::piped());
        command
    }

    /// The error that git gives. What a server says may hold what it was told.
    fn refused(&self, said: &Said) -> Error {
        let at = self.remote;
        let complains = |words: &[&str]| words.iter().any(|words| said.complains_of(words));
        if complains(&["File too large", "No space left"]) {
            let message = format!("{at} is more than {} bytes, or than there is room for", self.limits.bytes);
            return Error::new(ErrorKind::Exhausted, message)
                .with_hint("have less of it cloned: a depth, or no blobs; or allow more");
        }
        let kind = if complains(&[
            "Authentication failed",
            "could not read Username",
            "unable to get password",
            "error: 401",
            "error: 403",
        ]) {
            ErrorKind::Token
        } else if complains(&["not found", "error: 404"]) {
            ErrorKind::NotFound
        } else if complains(&["fsck error", "transport 'https' not allowed"]) {
            ErrorKind::InvalidInput
        } else {
            ErrorKind::Io
        };
        let line = git::line(&said.stderr);
        let shown = [self.secret.as_ref().map(SecretString::expose_secret), self.proxy.map(MirrorProxy::password)];
        let tells = shown.into_iter().flatten().any(|secret| !secret.is_empty() && line.contains(secret));
        let line = if tells { "it repeats a secret that it was shown" } else { &line };
        let error = Error::new(kind, format!("git on the host cannot clone {at}: {line}"));
        match kind {
            ErrorKind::Token if self.secret.is_none() => error.with_hint("keep a token for it: `sandbox token setup`"),
            ErrorKind::Token => error.with_hint("the token does not open it: see `sandbox token check`"),
            ErrorKind::NotFound => error.with_hint("is the name right? a private one is not found without a token"),
            _ => error,
        }
    }
}

/// Every address of a name.
async fn resolved(name: &str, resolver: &dyn Resolve) -> Result<Vec<IpAddr>> {
    let unfound = |why: &str| Error::new(ErrorKind::NotFound, format!("{name} cannot be resolved: {why}"));
    match tokio::time::timeout(RESOLVE_WITHIN, resolver.resolve(name)).await {
        Ok(Ok(found)) if !found.is_empty() => Ok(found),
        Ok(Ok(_)) => Err(unfound("it has no address")),
        Ok(Err(_)) => Err(unfound("the host's resolver does not know it")),
        Err(_) => Err(Error::deadline(format!("resolving {name}"), RESOLVE_WITHIN)),
    }
}

fn bracketed(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Reads what `git ls-remote --symref` lists; the names in it are the server's.
fn advertised(said: &[u8], branch: Option<&Branch>) -> Result<Advertised> {
    let text = String::from_utf8_lossy(said);
    let lines = || text.lines().filter_map(|line| line.split_once('\t'));
    let id_of = |name: &str| {
        let found = lines().find(|(first, second)| *second == name && !first.starts_with("ref: "));
        found.map(|(id, _)| ObjectId::parse(id.as_bytes())).transpose()
    };
    let head = id_of("HEAD")?;
    let named = lines().find_map(|(first, second)| first.strip_prefix("ref: ").filter(|_| second == "HEAD"));
    let default = match (head, named.and_then(|name| name.strip_prefix("refs/heads/"))) {
        (Some(id), Some(name)) => {
            let branch = name.parse().map_err(|error: sandbox_policy::ParseError| {
                Error::new(ErrorKind::InvalidInput, "the server's default branch has a name that cannot be used")
                    .with_source(error)
            })?;
            Some((branch, id))
        }
        _ => None,
    };
    let asked = branch.map(|branch| id_of(&branch.reference())).transpose()?.flatten();
    Ok(Advertised { default, asked })
}

/// Beside those of every git on the host: one protocol, no way round, and an end to what does not move.
const SETTINGS: [&str; 16] = [
    "protocol.file.allow=never",
    "protocol.https.allow=always",
    "http.followRedirects=false",
    "http.proxy=",
    "http.sslVerify=true",
    "http.cookieFile=",
    "http.saveCookies=false",
    "http.extraHeader=",
    "http.emptyAuth=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=60",
    "credential.interactive=false",
    "credential.useHttpPath=false",
    "transfer.credentialsInUrl=die",
    "fetch.unpackLimit=1",
    "fetch.recurseSubmodules=false",
];

/// Answers git's question for a credential with what waits in the pipe, once.
const HELPER: &str = "!f() { test \"$1\" = get && cat <&3; }; f";

/// The same for the password of a proxy.
const PROXY_HELPER: &str = "!f() { test \"$1\" = get && cat <&5; }; f";

/// Gives git its credentials by pipes, bounds each file that is written, and ends the whole family when standard input ends.
const SUPERVISOR: &str = r#"
exec 4<&0 0</dev/null
trap '' XFSZ
ulimit -f "$1" || exit 125
shift
IFS= read -r secret <&4
IFS= read -r password <&4
{ read -r rest <&4; kill -KILL 0; } >/dev/null 2>&1 &
watch=$!
printf 'password=%s\n' "$password" | {
    exec 5<&0 0</dev/null
    printf 'username=x-access-token\npassword=%s\n' "$secret" | { exec 3<&0 0</dev/null 4<&-; "$@"; }
}
code=$?
kill "$watch"
exit "$code"
"#;

/// The bytes by which `ulimit -f` counts (POSIX).
const BLOCK: u64 = 512;
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
const ASK_WITHIN: Duration = Duration::from_mins(2);

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn what_a_server_lists_is_read_by_whole_names() {
        let topic: Branch = "topic".parse().unwrap();
        let other = ID.replace('0', "f");
        let said = format!("ref: refs/heads/trunk\tHEAD\n{ID}\tHEAD\n{other}\trefs/heads/a/refs/heads/topic\n");
        let found = advertised(said.as_bytes(), Some(&topic)).unwrap();
        let id = ObjectId::parse(ID.as_bytes()).unwrap();
        assert_eq!(found, Advertised { default: Some(("trunk".parse().unwrap(), id.clone())), asked: None });
        let said = format!("{ID}\trefs/heads/topic\n");
        assert_eq!(advertised(said.as_bytes(), Some(&topic)).unwrap(), Advertised { default: None, asked: Some(id) });
        assert_eq!(advertised(b"", None).unwrap(), Advertised { default: None, asked: None });
    }

    #[test]
    fn a_server_names_no_option_and_no_nonsense() {
        for name in ["-x", "--upload-pack=x", "a..b", "a b", "\u{202e}x", ""] {
            let said = format!("ref: refs/heads/{name}\tHEAD\n{ID}\tHEAD\n");
            assert_eq!(advertised(said.as_bytes(), None).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        assert!(advertised(b"--help\tHEAD\n", None).is_err());
    }
}
