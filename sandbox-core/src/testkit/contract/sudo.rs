//! Root inside, for who asks for it: what it can do, what it is refused, and that nobody else gains by it.

use sandbox_policy::{Control, SudoRequest, SudoRule};

use super::{Fixture, sh, text};
use crate::testkit::Recorder;
use crate::{Event, Output, Sandbox, Status, SudoGateway, Transport};

/// Starts a sandbox with sudo; none where it cannot be had, and then that is shown.
async fn offered(fixture: &Fixture, rule: SudoRule, recorder: &Recorder) -> Option<Sandbox> {
    let policy = fixture.policy().with_sudo(rule);
    let builder = fixture.builder().policy(policy).events(recorder.clone());
    let started = builder.sudo(SudoRequest::Allow).gateway(SudoGateway::new()).start().await;
    if fixture.lacks(Control::Sudo) {
        // It is waived, and going without the one who decides means going without.
        let sandbox = started.unwrap();
        assert_eq!(sandbox.spec().sudo(), SudoRule::Deny);
        sandbox.destroy().await.unwrap();
        return None;
    }
    if fixture.runtime.transport() == Transport::Relay {
        let error = started.unwrap_err();
        assert!(error.to_string().contains("sudo") || !error.violations().is_empty(), "{error:?}");
        return None;
    }
    Some(started.unwrap())
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the agent's own processes have: nothing, in any set.
async fn assert_agent_has_nothing(sandbox: &Sandbox) {
    let seen = text(sandbox, "grep -E '^(Uid|Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t\\n' ' '").await;
    let none = "0000000000000000";
    let uid = sandbox.agent().uid();
    let expected = format!(
        "Uid: {uid} {uid} {uid} {uid} CapInh: {none} CapPrm: {none} CapEff: {none} CapBnd: {none} CapAmb: {none} NoNewPrivs: 1"
    );
    assert_eq!(seen.trim_end(), expected);
}

pub async fn sudo_installs_packages(fixture: &Fixture) {
    let recorder = Recorder::default();
    let Some(sandbox) = offered(fixture, SudoRule::Packages, &recorder).await else { return };
    let installed = || std::fs::read("/var/lib/dpkg/status").unwrap_or_default();
    let host = installed();
    let script = "set -e; cd; for n in one two; do mkdir -p $n/DEBIAN $n/usr/bin; \
        printf 'Package: sandbox-%s\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' $n \
        > $n/DEBIAN/control; printf '#!/bin/sh\\necho runs %s\\n' $n > $n/usr/bin/sandbox-$n; \
        printf '#!/bin/sh\\ngrep -E \"^(Uid|Cap[PEB]|NoNewPrivs)\" /proc/self/status | tr -s \"\\\\t\\\\n\" \" \" > /var/lib/seen-%s\\n' \
        $n > $n/DEBIAN/postinst; chmod 755 $n/usr/bin/* $n/DEBIAN/postinst; \
        dpkg-deb --root-owner-group --build $n $n.deb > /dev/null; done";
    text(&sandbox, script).await;
    assert_agent_has_nothing(&sandbox).await;
    let done = sh(&sandbox, "cd; sudo dpkg -i one.deb && sandbox-one && stat -c %U /usr/bin/sandbox-one").await;
    assert_eq!(done.exit.status, Status::Code(0), "{}", errors(&done));
    assert!(String::from_utf8_lossy(&done.stdout).ends_with("runs one\nroot\n"), "{done:?}");
    // Two at once is one after the other to dpkg; the second waits for its lock.
    let install = "cd; sudo -n DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=50 install -y";
    let two = format!("{install} ./two.deb && sandbox-two");
    let one = format!("{install} --reinstall ./one.deb && sandbox-one");
    let (first, second) = tokio::join!(sh(&sandbox, &two), sh(&sandbox, &one));
    for done in [first, second] {
        assert_eq!(done.exit.status, Status::Code(0), "{} {}", String::from_utf8_lossy(&done.stdout), errors(&done));
    }
    let few = "00000000000000cb";
    let seen = text(&sandbox, "cat /var/lib/seen-one; cat /var/lib/seen-two").await;
    let each = format!("Uid: 0 0 0 0 CapPrm: {few} CapEff: {few} CapBnd: {few} NoNewPrivs: 1 ");
    assert_eq!(seen.trim_end(), format!("{each}{each}").trim_end());
    assert_agent_has_nothing(&sandbox).await;
    assert_eq!(installed(), host, "the host has what it had");
    assert!(!std::path::Path::new("/usr/bin/sandbox-one").exists());
    let allowed = |program: &str, form: &str| Event::SudoDecided {
        program: program.to_owned(),
        decision: "allow",
        rule: format!("sudo packages: {form}"),
    };
    let events = recorder.events();
    let at = |event: &Event| events.iter().position(|other| other == event);
    let decided = at(&allowed("dpkg", "dpkg i")).unwrap();
    assert_eq!(events[decided + 1], Event::Executing { program: "dpkg".to_owned() }, "first it is told");
    assert!(at(&allowed("apt-get", "apt install")).is_some());
    sandbox.destroy().await.unwrap();
}

pub async fn sudo_refuses_what_is_not_allowed_with_a_reason(fixture: &Fixture) {
    let recorder = Recorder::default();
    let Some(sandbox) = offered(fixture, SudoRule::Packages, &recorder).await else { return };
    for (command, reason) in [
        ("sudo id", "does not install packages"),
        ("sudo sh -c 'touch /tmp/canary'", "does not install packages"),
        ("sudo apt-get update -o APT::Update::Pre-Invoke::='touch /tmp/canary'", "not known to be harmless"),
        ("sudo apt-get -o Dpkg::Pre-Invoke::='touch /tmp/canary' install -y ./x.deb", "not known to be harmless"),
        ("sudo dpkg --root=/tmp/x -i x.deb", "moves where packages go"),
        ("sudo dpkg --pre-invoke='touch /tmp/canary' -i x.deb", "can name programs to run"),
        ("sudo apt-get install 'x;touch /tmp/canary'", "is not a package"),
        ("sudo apt-get install '$(touch /tmp/canary)'", "is not a package"),
        ("sudo PATH=/tmp:$PATH apt-get update", "is root's own"),
        ("sudo LD_PRELOAD=/tmp/x.so apt-get update", "is root's own"),
        ("sudo APT_CONFIG=/tmp/x apt-get update", "is not known to be harmless"),
        ("PERL5LIB=/tmp sudo --preserve-env=PERL5LIB apt-get update", "is not known to be harmless"),
        ("sudo -u www-data apt-get update", "only root can be"),
        ("sudo -i", "more than install"),
        ("sudo -e /etc/shadow", "is not something that sudo can do here"),
        ("sudo", "write what to run"),
        ("sudo apt-get --version < /", "standard input is a directory"),
        (
            "mkdir -p /tmp/bin; ln -s /bin/sh /tmp/bin/apt-get; sudo /tmp/bin/apt-get install x",
            "is not a program of the system",
        ),
    ] {
        let output = sh(&sandbox, command).await;
        assert_eq!(output.exit.status, Status::Code(1), "{command}: {output:?}");
        assert!(
            errors(&output).starts_with("sudo: ") && errors(&output).contains(reason),
            "{command}: {}",
            errors(&output)
        );
    }
    assert_eq!(text(&sandbox, "ls /tmp/canary 2>/dev/null | wc -l").await, "0");
    for (command, shows) in [
        ("sudo -V", "sudo of sandbox"),
        ("sudo -l", "sudo packages: "),
        ("sudo -l apt-get install jq", "allowed by sudo packages: apt install"),
        ("sudo -v", "sudo packages"),
        ("sudo -h", "usage: sudo"),
        ("sudo -k", ""),
        ("sudo apt-get --version", "apt "),
    ] {
        assert!(text(&sandbox, command).await.contains(shows), "{command}");
    }
    let denied = Event::SudoDecided { program: "id".into(), decision: "deny", rule: "sudo packages".into() };
    assert!(recorder.events().contains(&denied));
    assert_agent_has_nothing(&sandbox).await;
    sandbox.destroy().await.unwrap();
}

pub async fn sudo_any_is_root_inside_and_no_further(fixture: &Fixture) {
    let Some(sandbox) = offered(fixture, SudoRule::Any, &Recorder::default()).await else { return };
    for (command, shows) in [
        ("sudo id -u", "0"),
        ("sudo sh -c 'echo $HOME $USER $SUDO_UID $MINE'", &format!("/root root {}", sandbox.agent().uid())),
        ("MINE=1 sudo -E sh -c 'echo $MINE $HOME'", "1 /root"),
        ("sudo MINE=2 sh -c 'echo $MINE'", "2"),
        ("cd /usr && sudo pwd", "/usr"),
        ("sudo -i pwd", "/root"),
        ("sudo -s echo 'a  b'", "a  b"),
        ("echo through | sudo cat", "through"),
        ("sudo sh -c 'exit 7'; echo $?", "7"),
        ("sudo sh -c 'kill -9 $$'; echo $?", "137"),
        ("sudo /nowhere 2>/dev/null; echo $?", "1"),
        ("sudo -u www-data id 2>/dev/null; echo $?", "1"),
        ("sudo grep CapEff /proc/self/status", "CapEff:\t00000000000000cb"),
        ("sudo sh -c 'sudo id -u'", "0"),
        // Set-id bits give nothing to who may gain no privilege.
        (
            "sudo cp /usr/bin/id /usr/bin/id2 && sudo chmod 4755 /usr/bin/id2 && id2 -u",
            &sandbox.agent().uid().to_string(),
        ),
        (
            "sudo mount -t tmpfs x /mnt 2>/dev/null; sudo mknod /root/d b 8 0 2>/dev/null; sudo ls /root /mnt | grep -c '^d$'",
            "0",
        ),
        ("sudo sh -c 'echo x > /proc/sysrq-trigger' 2>/dev/null; sudo dmesg >/dev/null 2>&1; echo $?", "1"),
    ] {
        let output = sh(&sandbox, command).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), shows, "{command}: {}", errors(&output));
    }
    assert_agent_has_nothing(&sandbox).await;
    // A signal to the one who asks reaches the one who runs.
    let trapped = "sudo sh -c 'trap \"echo caught; exit 3\" INT; echo ready; while :; do sleep 0.1; done' > /tmp/out & p=$!; \
        until grep -q ready /tmp/out; do sleep 0.05; done; kill -INT $p; wait $p; echo $?; tail -n 1 /tmp/out";
    let output = sandbox.command("bash").args(["-mc", trapped]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "3\ncaught", "{}", errors(&output));
    // What was asked for ends with who asked, and with all that it started.
    let runs = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; echo; done | grep -c '^sleep 98765'";
    let orphaned = format!(
        "sudo sh -c 'setsid sleep 98765 & sleep 98765' & p=$!; until [ $({runs}) = 2 ]; do sleep 0.05; done; kill -9 $p; \
         until [ $({runs}) = 0 ]; do sleep 0.05; done; echo gone"
    );
    let output = sh(&sandbox, &orphaned).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), "gone", "{output:?}");
    // More at once than are served at once: the others wait, and each comes to its end.
    let flood = "for i in $(seq 50); do sudo sh -c 'sleep 0.1; echo done' & done | wc -l; wait; \
        for i in $(seq 50); do sudo -u nobody id 2>/dev/null & done; wait; sudo id -u";
    assert_eq!(text(&sandbox, flood).await, "50\n0");
    assert_agent_has_nothing(&sandbox).await;
    sandbox.destroy().await.unwrap();
}

/// What an attacker sends instead of a question, or beside it.
pub async fn sudo_takes_no_places_and_no_nonsense(fixture: &Fixture) {
    let Some(sandbox) = offered(fixture, SudoRule::Any, &Recorder::default()).await else { return };
    let attack = r#"
import os, socket, struct
def ask(fds, body):
    s = socket.socket(socket.AF_UNIX); s.connect("/run/sandbox/sudo"); s.settimeout(20)
    data = struct.pack("<I", len(body)) + body
    try:
        socket.send_fds(s, [data], fds)
        return s.recv(4096)
    except OSError as error:
        return b"broken"
def string(text): return bytes([len(text)]) + text
# arguments: ["id"], no environment, directory "/"
question = bytes([1]) + string(b"id") + bytes([0]) + string(b"/")
null = os.open("/dev/null", os.O_RDWR)
os.symlink("/etc/shadow", "/tmp/link")
cases = {
    "directory": [null, null, os.open("/", os.O_RDONLY)],
    "path": [os.open("/etc/passwd", os.O_PATH), null, null],
    "link": [os.open("/tmp/link", os.O_PATH | os.O_NOFOLLOW), null, null],
}
for name, fds in cases.items():
    assert b"a stream is needed" in ask(fds, question), name
assert b"3 are needed" in ask([null], question)
assert b"3 are needed" in ask([null] * 4, question)
assert ask([null] * 3, b"\xff" * 64) in (b"", b"broken")
s = socket.socket(socket.AF_UNIX); s.connect("/run/sandbox/sudo"); s.send(struct.pack("<I", 1 << 30)); s.settimeout(20)
assert s.recv(1) == b""
# Who only occupies places is put out after a while.
idle = [socket.socket(socket.AF_UNIX) for _ in range(64)]
for one in idle: one.connect("/run/sandbox/sudo")
os.execvp("sudo", ["sudo", "id", "-u"])
"#;
    let output = sandbox.command("python3").args(["-c", attack]).output().await.unwrap();
    assert_eq!((output.stdout.as_slice(), output.exit.status), (&b"0\n"[..], Status::Code(0)), "{}", errors(&output));
    assert_agent_has_nothing(&sandbox).await;
    sandbox.destroy().await.unwrap();
}
