//! Package managers as root inside, fetching through the gateway: what is installed runs, and the host has what it had.

use sandbox_core::SudoGateway;
use sandbox_core::policy::{NetworkRequest, SudoRequest, SudoRule};
use sandbox_core::testkit::contract::Fixture;
use sandbox_runtime::EgressProxy;

use super::super::harness::allowlist;
use super::{registry, run};

async fn packages_of_registries_are_installed_and_run(fixture: &Fixture) {
    let hosts = ["deb.debian.org", "pypi.org", "files.pythonhosted.org"];
    let egress = allowlist(hosts.map(|host| registry(host, &[80, 443])));
    let policy = fixture.policy().with_egress(egress).with_sudo(SudoRule::Packages);
    let builder = fixture.builder().policy(policy).network(NetworkRequest::Egress).gateway(EgressProxy::new());
    let sandbox = builder.sudo(SudoRequest::Allow).gateway(SudoGateway::new()).start().await.unwrap();
    let host = || {
        let programs = |directory: &str| {
            let mut names: Vec<_> =
                std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        (std::fs::read("/var/lib/dpkg/status").unwrap_or_default(), programs("/usr/bin"), programs("/usr/local/bin"))
    };
    let before = host();
    run(&sandbox, "sudo apt-get update -q").await;
    let apt = "sudo DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends";
    assert!(run(&sandbox, &format!("{apt} hello; hello")).await.contains("\nHello, world!\n"));
    run(&sandbox, &format!("{apt} python3-pip")).await;
    let pip = "sudo pip install -q --break-system-packages --root-user-action=ignore --retries 0";
    assert!(run(&sandbox, &format!("{pip} cowsay; cowsay -t moo")).await.contains("| moo |"));
    // The agent's own processes have gained nothing.
    let sets = run(&sandbox, "grep -E '^Cap' /proc/self/status | grep -vc 0000000000000000 || true").await;
    assert_eq!(sets.trim(), "0");
    assert!(before == host(), "the host has what it had");
    sandbox.destroy().await.unwrap();
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
