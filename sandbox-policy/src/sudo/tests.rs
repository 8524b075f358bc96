//! What may be asked of root inside, by table and for every command.

use proptest::prelude::*;

use super::*;

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect()
}

fn decide(rule: SudoRule, line: &str) -> SudoDecision {
    let call = SudoCall::parse(&words(line)).unwrap();
    rule.decide(&call, &[])
}

fn rule_of(line: &str) -> String {
    match decide(SudoRule::Packages, line) {
        SudoDecision::Allow { rule, .. } => rule,
        SudoDecision::Deny { reason, .. } => panic!("{line}: {reason}"),
    }
}

fn reason_of(line: &str) -> String {
    match decide(SudoRule::Packages, line) {
        SudoDecision::Allow { rule, .. } => panic!("{line}: {rule}"),
        SudoDecision::Deny { reason, hint, rule } => {
            assert!(!hint.is_empty() && rule.starts_with("sudo packages"));
            reason
        }
    }
}

#[test]
fn usual_installs_pass() {
    for (line, rule) in [
        ("apt-get install -y jq", "apt install"),
        ("apt-get update -qq", "apt update"),
        ("-n apt-get -yqq --no-install-recommends install libssl-dev=3.0.1-1~deb12u2 gcc:arm64", "apt install"),
        (
            "DEBIAN_FRONTEND=noninteractive apt-get -o Dpkg::Options::=--force-confold -oDpkg::Use-Pty=0 -y upgrade",
            "apt upgrade",
        ),
        ("/usr/bin/apt install ./x_1.0_all.deb", "apt install"),
        ("apt-get install -t bookworm-backports -q=2 g++ libstdc++-12-dev", "apt install"),
        ("dpkg -i x.deb ./y.deb", "dpkg i"),
        ("dpkg --configure -a", "dpkg configure"),
        ("pip install requests[socks]==2.31.0 six<2", "pip install"),
        ("pip3.11 install --break-system-packages --no-cache-dir -U ./x-1.0-py3-none-any.whl", "pip install"),
        ("python3 -m pip install --root-user-action=ignore six", "pip install"),
        ("npm install -g typescript@~5.4 @scope/name@latest --no-audit", "npm install"),
        ("npm i --global ./x-1.0.0.tgz", "npm i"),
        ("gem install --no-document rake -v 13.0.6", "gem install"),
        ("cargo install --locked --root /usr/local ripgrep@14.1.0", "cargo install"),
        ("apt-get --version", "apt version"),
    ] {
        assert_eq!(rule_of(line), format!("sudo packages: {rule}"), "{line}");
        assert!(decide(SudoRule::Any, line).is_allowed(), "{line}");
        assert!(!decide(SudoRule::Deny, line).is_allowed(), "{line}");
    }
}

#[test]
fn what_runs_programs_or_moves_the_root_is_refused() {
    for (line, why) in [
        ("apt-get install -o Dpkg::Pre-Invoke::=id x", "not known to be harmless"),
        ("apt-get update -oAPT::Update::Pre-Invoke::=id", "not known to be harmless"),
        ("apt-get -o=Dir::Etc=/tmp/x update", "not known to be harmless"),
        ("apt-get --option=DPkg::Options::=--root=/x install x", "not known to be harmless"),
        ("apt-get -o Acquire::Check-Valid-Until=false update", "not known to be harmless"),
        ("apt-get -yo DPkg::Post-Invoke::=id install x", "not known to be harmless"),
        ("apt-get -c /tmp/conf update", "can name programs to run"),
        ("apt-get -yc=/tmp/conf update", "is not known to be harmless"),
        ("apt-get --config-file /tmp/conf update", "can name programs to run"),
        ("apt-get --opt Dpkg::Pre-Invoke::=id update", "is not known to be harmless"),
        ("apt-get install --allow-unauthenticated x", "nobody vouches for"),
        ("apt-get source x", "is not a way to install"),
        ("apt-get changelog x", "is not a way to install"),
        ("apt edit-sources", "is not a way to install"),
        ("apt-get install $(id)", "is not a package"),
        ("apt-get install x;id", "is not a package"),
        ("apt-get install -- x", "is not known to be harmless"),
        ("apt-get", "nothing is installed"),
        ("dpkg --root=/x -i x.deb", "moves where packages go"),
        ("dpkg --admindir /x -i x.deb", "moves where packages go"),
        ("dpkg --instdir=/x -i x.deb", "moves where packages go"),
        ("dpkg --force-script-chrootless -i x.deb", "can name programs to run"),
        ("dpkg --force-all -i x.deb", "nobody vouches for"),
        ("dpkg --pre-invoke=id -i x.deb", "can name programs to run"),
        ("dpkg -x x.deb /", "is not known to be harmless"),
        ("pip install -t / x", "moves where packages go"),
        ("pip install --target=/ x", "moves where packages go"),
        ("pip install --targ / x", "is not known to be harmless"),
        ("pip install --prefix /x x", "moves where packages go"),
        ("pip install --root=/x x", "moves where packages go"),
        ("pip install --index-url http://x/ y", "takes packages from elsewhere"),
        ("pip install --config-settings a=b x", "can name programs to run"),
        ("pip install -e .", "links a directory"),
        ("pip install .", "is not a requirement"),
        ("pip install ./x", "is not a requirement"),
        ("pip install x.tar.gz", "is not a requirement"),
        ("pip install git+https://example.org/x", "is not a requirement"),
        ("pip install https://example.org/x.whl", "is not a requirement"),
        ("pip install -r requirements.txt", "nobody has looked at"),
        ("python3 -c import", "for its module pip alone"),
        ("python3 -m http.server", "for its module pip alone"),
        ("python3 -X importtime -m pip install x", "for its module pip alone"),
        ("npm install typescript", "it needs no root"),
        ("npm install -g --prefix /x y", "moves where packages go"),
        ("npm install -g --script-shell=/tmp/x y", "can name programs to run"),
        ("npm install -g --registry=http://x y", "takes packages from elsewhere"),
        ("npm install -g user/repo", "is not a package"),
        ("npm install -g git+ssh://x", "is not a package"),
        ("npm install -g x@file:/tmp/y", "is not a package"),
        ("npm install -g ./directory", "is not a package"),
        ("npm run -g x", "is not a way to install"),
        ("npm exec x", "is not a way to install"),
        ("npm install -C /x -g y", "moves where packages go"),
        ("gem install x -- --with-cc=/tmp/x", "can name programs to run"),
        ("gem install -i /x y", "moves where packages go"),
        ("gem install --config-file /x y", "can name programs to run"),
        ("cargo install --path .", "builds a directory"),
        ("cargo install --git https://x", "takes packages from elsewhere"),
        ("cargo install --config build.rustc-wrapper=x y", "can name programs to run"),
        ("cargo install --root /etc x", "not known to be harmless"),
        ("cargo build", "is not a way to install"),
        ("cargo +x install y", "is not a way to install"),
        ("sh -c id", "does not install packages"),
        ("env apt-get install x", "does not install packages"),
        ("/tmp/apt-get install x", "is not a program of the system"),
        ("./apt-get install x", "is not a program of the system"),
        ("/usr/bin/../../tmp/apt-get install x", "is not a program of the system"),
        ("-u postgres apt-get install x", "only root can be"),
        ("-u #1000 apt-get install x", "only root can be"),
        ("-g docker apt-get install x", "only root can be"),
        ("-i", "more than install"),
        ("-s apt-get install x", "more than install"),
        ("PATH=/tmp apt-get install x", "is root's own"),
        ("LD_PRELOAD=/tmp/x apt-get install x", "is root's own"),
        ("HOME=/tmp npm install -g x", "is root's own"),
        ("APT_CONFIG=/tmp/x apt-get update", "is not known to be harmless"),
        ("PYTHONPATH=/tmp pip install x", "is not known to be harmless"),
        ("PIP_TARGET=/ pip install x", "is not known to be harmless"),
        ("PIP_CONFIG_FILE=/x pip install x", "is not known to be harmless"),
        ("NODE_OPTIONS=--require=/x npm i -g x", "is not known to be harmless"),
        ("npm_config_prefix=/x npm i -g x", "is not known to be harmless"),
        ("PERL5LIB=/x apt-get install y", "is not known to be harmless"),
        ("DPKG_ROOT=/x dpkg -i y.deb", "is not known to be harmless"),
        ("http_proxy=http://127.0.0.1:1 apt-get update", "is not known to be harmless"),
        ("DEBIAN_FRONTEND=x;system apt-get update", "may be a word"),
        ("LANG=/tmp/x apt-get update", "may be a word"),
    ] {
        let reason = reason_of(line);
        assert!(reason.contains(why), "{line}: {reason}");
    }
}

#[test]
fn a_shell_and_anything_else_pass_where_anything_does() {
    for line in ["-i", "-s", "-s id", "sh -c id", "A=/b id", "-u root -g root id", "-l", "-v"] {
        assert!(decide(SudoRule::Any, line).is_allowed(), "{line}");
    }
    for line in ["-u www-data id", "-u #33 id", "LD_PRELOAD=x id", "PATH=/x id"] {
        assert!(!decide(SudoRule::Any, line).is_allowed(), "{line}");
    }
    assert!(decide(SudoRule::Packages, "-l").is_allowed());
    assert!(!decide(SudoRule::Deny, "-v").is_allowed());
}

#[test]
fn of_the_environment_only_what_is_harmless_is_kept() {
    let variable = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let has = [
        variable("TERM", "xterm"),
        variable("LC_ALL", "C.UTF-8"),
        variable("LD_PRELOAD", "/x.so"),
        variable("PYTHONPATH", "/x"),
        variable("CI", "1"),
        variable("LANG", "../../x"),
    ];
    let kept = |rule: SudoRule, line: &str| {
        let call = SudoCall::parse(&words(line)).unwrap();
        match rule.decide(&call, &has) {
            SudoDecision::Allow { environment, .. } => {
                let names: Vec<String> =
                    environment.into_iter().map(|(name, _)| String::from_utf8(name).unwrap()).collect();
                Ok(names.join(" "))
            }
            SudoDecision::Deny { reason, .. } => Err(reason),
        }
    };
    assert_eq!(kept(SudoRule::Packages, "apt update").unwrap(), "TERM LC_ALL");
    assert_eq!(kept(SudoRule::Packages, "-E apt update").unwrap(), "TERM LC_ALL CI");
    assert_eq!(kept(SudoRule::Packages, "--preserve-env=CI apt update").unwrap(), "TERM LC_ALL CI");
    assert!(kept(SudoRule::Packages, "--preserve-env=PYTHONPATH apt update").is_err());
    assert_eq!(kept(SudoRule::Any, "-E id").unwrap(), "TERM LC_ALL PYTHONPATH CI LANG");
    assert!(kept(SudoRule::Any, "--preserve-env=LD_PRELOAD id").is_err());
}

fn argument() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "apt-get",
        "apt",
        "install",
        "-y",
        "-o",
        "-c",
        "--root=/x",
        "DPkg::Pre-Invoke::=id",
        "dpkg",
        "-i",
        "x.deb",
        "pip",
        "-m",
        "python3",
        "--target",
        "npm",
        "-g",
        "--prefix",
        "--",
        "-E",
        "-u",
        "root",
        "sh",
        "A=b",
        "LD_PRELOAD=x",
        "/",
        "./x.tgz",
        "cargo",
        "gem",
        "-qq",
        "update",
        "--option",
        "--global",
        "-yo",
        "jq",
    ]);
    prop_oneof![
        8 => known.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..12),
        1 => "[-a-zA-Z=/.:]{0,12}".prop_map(String::into_bytes),
    ]
}

/// What may stand nowhere in a command that installs packages.
const NEVER: [&str; 6] = ["--root=/x", "DPkg::Pre-Invoke::=id", "--target", "--prefix", "-c", "--"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_096, ..ProptestConfig::default() })]

    #[test]
    fn no_argument_makes_it_fail_and_what_packages_allow_any_allows(
        arguments in prop::collection::vec(argument(), 0..9),
        environment in prop::collection::vec((argument(), argument()), 0..3),
    ) {
        let Ok(call) = SudoCall::parse(&arguments) else { return Ok(()) };
        let packages = SudoRule::Packages.decide(&call, &environment);
        if let SudoDecision::Allow { environment, .. } = &packages {
            prop_assert!(SudoRule::Any.decide(&call, environment).is_allowed());
            prop_assert!(environment.iter().all(|(name, _)| !name.starts_with(b"LD_") && name != b"PATH"));
            if let SudoAction::Run(command) = &call.action {
                prop_assert_ne!(command.first().map(Vec::as_slice), Some(&b"sh"[..]));
                prop_assert!(!command.iter().any(|word| NEVER.iter().any(|never| never.as_bytes() == word.as_slice())));
            }
        }
        prop_assert!(!SudoRule::Deny.decide(&call, &environment).is_allowed());
    }

    #[test]
    fn a_hostile_argument_anywhere_is_refused(
        form in prop::sample::select(vec![
            "apt-get install -y jq", "dpkg -i x.deb", "pip install six", "npm install -g x", "gem install x", "cargo install x",
        ]),
        hostile in prop::sample::select(vec![
            "--root", "--root=/x", "-o", "--config-file=/x", "-c", "--prefix=/x", "--target=/x", "--", "a b", "$(id)", "`id`",
            "x;id", "x|id", "x&id", "\n", "", "é", "--pre-invoke=id", "-e", "https://x/y", "--script-shell=x",
        ]),
        at in 1_usize..4,
    ) {
        let mut command = words(form);
        let at = at.min(command.len());
        command.insert(at, hostile.as_bytes().to_vec());
        let call = SudoCall { user: None, group: None, assignments: Vec::new(), keep: Keep::Few, action: SudoAction::Run(command) };
        prop_assert!(!SudoRule::Packages.decide(&call, &[]).is_allowed());
    }
}

#[test]
fn npm_runs_no_script_of_a_package_as_root() {
    let call = |line: &str| SudoCall::parse(&words(line)).unwrap();
    let given = |line: &str, environment: &[Variable]| match SudoRule::Packages.decide(&call(line), environment) {
        SudoDecision::Allow { environment, .. } => environment,
        SudoDecision::Deny { reason, .. } => panic!("{line}: {reason}"),
    };
    let own = (b"npm_config_ignore_scripts".to_vec(), b"false".to_vec());
    for line in ["npm install -g x", "npm i -g ./x-1.tgz", "/usr/bin/npm update -g", "-E npm install -g x"] {
        let environment = given(line, std::slice::from_ref(&own));
        assert_eq!(environment, [(own.0.clone(), b"true".to_vec())], "{line}");
    }
    assert_eq!(given("apt-get install x", &[]), []);
    for line in [
        "npm install -g --no-ignore-scripts x",
        "npm install -g --ignore-scripts=false x",
        "npm install -g --ignore-scripts false x --no-ignore-scripts",
        "npm_config_ignore_scripts=false npm install -g x",
        "NPM_CONFIG_IGNORE_SCRIPTS=false npm install -g x",
        "--preserve-env=npm_config_ignore_scripts npm install -g x",
    ] {
        let decided = SudoRule::Packages.decide(&call(line), std::slice::from_ref(&own));
        assert!(!decided.is_allowed(), "{line}: {decided:?}");
    }
    let SudoDecision::Allow { environment, .. } = SudoRule::Any.decide(&call("npm install -g x"), &[]) else {
        panic!()
    };
    assert_eq!(environment, [], "whoever may do anything may run scripts");
}
