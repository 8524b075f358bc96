//! Package managers as root inside, fetching through the gateway: what is installed runs, and the host has what it had.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use sandbox_core::SudoGateway;
use sandbox_core::policy::{NetworkRequest, SudoRequest, SudoRule};
use sandbox_core::testkit::contract::Fixture;
use sandbox_runtime::EgressProxy;

use super::super::harness::allowlist;
use super::{registry, run};

/// Files by their path, each with what no change leaves as it was.
type Files = BTreeMap<PathBuf, (u64, u64, i64, i64)>;

/// What this machine has where packages go, and Debian's list of them.
struct Host {
    packages: Vec<u8>,
    files: Files,
}

fn files_below(mut next: Vec<PathBuf>) -> Files {
    let mut files = Files::new();
    while let Some(directory) = next.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let Ok(data) = entry.path().symlink_metadata() else { continue };
            if !data.is_dir() {
                files.insert(entry.path(), (data.ino(), data.len(), data.ctime(), data.ctime_nsec()));
            } else if entry.file_name() != "__pycache__" {
                // What this machine's own Python leaves says nothing.
                next.push(entry.path());
            }
        }
    }
    files
}

impl Host {
    fn look() -> Self {
        let listed = std::process::Command::new("dpkg").arg("-l").env("COLUMNS", "200").output().unwrap();
        assert!(listed.status.success());
        let places = ["/usr", "/etc", "/opt", "/root/.local", "/root/.cache/pip", "/root/.npm", "/var/lib/dpkg"];
        Self { packages: listed.stdout, files: files_below(places.map(PathBuf::from).into()) }
    }

    fn assert_same(&self) {
        let now = Self::look();
        assert!(self.packages == now.packages, "the host's packages have changed");
        let of = |one: &Self, other: &Self| -> Vec<PathBuf> {
            one.files
                .iter()
                .filter(|(path, data)| other.files.get(*path) != Some(data))
                .map(|(path, _)| path.clone())
                .collect()
        };
        assert_eq!((of(self, &now), of(&now, self)), (Vec::new(), Vec::new()), "changed on the host");
    }
}

/// Whether a program of a name runs on this machine, and not in some sandbox of it.
fn runs(program: &str) -> bool {
    let namespace = |process: &std::path::Path| std::fs::read_link(process.join("ns/pid")).ok();
    let own = namespace("/proc/self".as_ref());
    std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).any(|process| {
        let is_named = std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == program);
        is_named && namespace(&process) == own
    })
}

/// The least that a look must tell.
#[test]
fn a_look_at_files_tells_a_change() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("file");
    std::fs::write(&file, "one").unwrap();
    let before = files_below(vec![here.path().to_owned()]);
    std::fs::write(&file, "two").unwrap();
    let after = files_below(vec![here.path().to_owned()]);
    assert!(before.contains_key(&file) && before != after);
    assert!(Host::look().files.len() > 1_000);
}

async fn packages_of_registries_are_installed_and_run(fixture: &Fixture) {
    let hosts = ["deb.debian.org", "pypi.org", "files.pythonhosted.org"];
    let egress = allowlist(hosts.map(|host| registry(host, &[80, 443])));
    let policy = fixture.policy().with_egress(egress).with_sudo(SudoRule::Packages);
    let builder = fixture.builder().policy(policy).network(NetworkRequest::Egress).gateway(EgressProxy::new());
    let sandbox = builder.sudo(SudoRequest::Allow).gateway(SudoGateway::new()).start().await.unwrap();
    let before = Host::look();
    run(&sandbox, "sudo apt-get update -q").await;
    let apt = "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends";
    assert!(run(&sandbox, &format!("{apt} hello; hello")).await.contains("\nHello, world!\n"));
    run(&sandbox, &format!("{apt} python3-pip")).await;
    let pip = "sudo pip install -q --break-system-packages --root-user-action=ignore --retries 0";
    assert!(run(&sandbox, &format!("{pip} cowsay; cowsay -t moo")).await.contains("| moo |"));
    // The agent's own processes have gained nothing.
    let sets = run(&sandbox, "grep -E '^Cap' /proc/self/status | grep -vc 0000000000000000 || true").await;
    assert_eq!(sets.trim(), "0");
    let first = fixture.runtime.state(sandbox.container()).await.unwrap().pid.unwrap();
    sandbox.destroy().await.unwrap();
    before.assert_same();
    // Of its processes there is none left (what has ended may wait to be reaped), and none of what it installed runs here.
    let first = std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
    assert!(first.is_empty() || first.contains(") Z "), "{first}");
    for program in ["hello", "cowsay", "moo"] {
        assert!(!runs(program), "{program} runs on the host");
    }
}

/// npm from Debian is large, so one engine shows it.
#[tokio::test]
async fn npm_installs_a_command_for_all() {
    let fixture = crate::contract::fixture::docker().await;
    let egress = allowlist(["deb.debian.org", "registry.npmjs.org"].map(|host| registry(host, &[80, 443])));
    let policy = fixture.policy().with_egress(egress).with_sudo(SudoRule::Packages);
    let builder = fixture.builder().policy(policy).network(NetworkRequest::Egress).gateway(EgressProxy::new());
    let sandbox = builder.sudo(SudoRequest::Allow).gateway(SudoGateway::new()).start().await.unwrap();
    run(&sandbox, "sudo apt-get update -q; sudo apt-get install -y -qq --no-install-recommends npm").await;
    let said =
        run(&sandbox, "sudo npm install -g --no-audit --no-fund semver; hash -r; /usr/local/bin/semver 1.2.3").await;
    assert!(said.ends_with("1.2.3\n"), "{said}");
    // A package's own scripts run as nobody but who installs without sudo, and then as the agent.
    let script = r#"mkdir ~/attack && cd ~/attack
        printf '{"name":"attack","version":"1.0.0","bin":"run","scripts":{"preinstall":"id -u >>/tmp/seen","postinstall":"id -u >>/tmp/seen"}}' >package.json
        printf '#!/bin/sh\necho attack runs\n' >run; chmod 755 run; npm pack --silent; echo ignore-scripts=false >~/.npmrc
        npm_config_ignore_scripts=false sudo -E npm install -g --no-audit --no-fund ./attack-1.0.0.tgz; hash -r; attack
        cat /tmp/seen 2>&1 || true"#;
    let said = run(&sandbox, script).await;
    assert!(said.contains("attack runs\n") && said.contains("/tmp/seen: No such file"), "{said}");
    let own = "cd; npm install --silent --no-audit --no-fund --prefix ~/own ./attack/attack-1.0.0.tgz; sort -u /tmp/seen; id -u";
    let said = run(&sandbox, own).await;
    assert_eq!(said, format!("{0}\n{0}\n", sandbox.agent().uid()), "the scripts can run, as the agent");
    // Python's packages are installed by a name or a wheel; what would be built is nothing that root builds for the asking.
    let refused = "cd; mkdir hook; echo 'open(\"/tmp/hook\", \"w\")' >hook/setup.py
        for what in ./hook hook/ /home/agent/hook file:///home/agent/hook git+https://x/y ./hook.tar.gz; do
            ! sudo pip install --break-system-packages $what || exit 9; done; ls /tmp/hook 2>&1 || true";
    assert!(run(&sandbox, refused).await.contains("/tmp/hook': No such file"), "nothing of it ran");
    sandbox.destroy().await.unwrap();
}

macro_rules! cases {
    ($name:ident $fixture:path) => {
        #[tokio::test]
        async fn $name() {
            packages_of_registries_are_installed_and_run(&$fixture().await).await;
        }
    };
}

cases!(packages_install_on_docker crate::contract::fixture::docker);
cases!(packages_install_on_podman_rootless crate::contract::fixture::podman_rootless);
cases!(packages_install_without_an_engine crate::embedded::fixture);
