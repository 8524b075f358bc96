//! Where a sandbox may go: hosts against another parser, decisions by table, and what joining does to them.

use std::net::IpAddr;

use proptest::prelude::*;
use sandbox_policy::{
    Budget, Bundle, Capabilities, Control, Decision, Destination, Egress, Host, NetworkRequest, Policy, SandboxRequest,
    Sight, Support, Violation,
};
use url::Url;

use crate::strategies::egress;

/// What the parser of another make holds a text for, as the host of a URL.
fn others(text: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{text}/")).ok()?;
    let alone = url.username().is_empty() && url.password().is_none() && url.port().is_none() && url.path() == "/";
    (alone && url.query().is_none() && url.fragment().is_none()).then(|| url.host_str().unwrap_or("").to_owned())
}

/// What is accepted here means the same elsewhere, or nothing.
fn check(text: &str) -> Result<(), TestCaseError> {
    let Ok(host) = text.parse::<Host>() else { return Ok(()) };
    let printed = host.to_string();
    prop_assert_eq!(printed.parse::<Host>()?, host.clone());
    if let Some(other) = others(text) {
        // Only the final dot, which a URL keeps, is a difference.
        prop_assert_eq!(other.strip_suffix('.').unwrap_or(&other), printed.as_str());
    } else {
        // Which `xn--` labels decode to something is the other parser's business; nobody registers those that do not.
        prop_assert!(printed.contains("xn--"), "{} is a host here and none elsewhere", printed);
    }
    match text.strip_suffix('.').unwrap_or(text).parse::<IpAddr>() {
        Ok(address) => prop_assert_eq!(host.address(), Some(address)),
        Err(_) => prop_assert!(host.address().is_none() || text.starts_with('[')),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4_096, ..ProptestConfig::default() })]

    #[test]
    fn a_host_means_the_same_to_another_parser(
        text in "[a-zA-Z0-9.-]{1,12}|[0-9a-fxX.]{1,12}|\\[[0-9a-fA-F:.%]{2,14}\\]|(xn--)?[a-zA-Z0-9-]{1,9}(\\.(xn--)?[a-z0-9-]{1,4}){0,3}\\.?|\\PC{0,12}|[ -~]{0,9}"
    ) {
        check(&text)?;
    }

    #[test]
    fn any_bytes_are_a_host_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        check(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn what_the_meet_allows_each_allows(
        a in egress(),
        b in egress(),
        host in prop::sample::select(&["a.example.org", "x.b.example.org", "192.0.2.7", "[2001:db8::7]", "pypi.org", "8.8.8.8", "10.0.0.5"]),
        port in prop::sample::select(&[22_u16, 80, 443]),
        request in prop::option::of((prop::sample::select(&["GET", "PUT"]), prop::sample::select(&["/a/b/c", "/a/b/", "/x", "/a/../x"]))),
    ) {
        let host: Host = host.parse()?;
        let destination = Destination { host: &host, port, request };
        let met = a.meet(&b).decide(&destination);
        let alone = [a.decide(&destination), b.decide(&destination)];
        prop_assert_eq!(met.is_allowed(), alone.iter().all(Decision::is_allowed));
        if let Decision::Allow { addresses, .. } = &met {
            for decision in &alone {
                for address in addresses {
                    prop_assert!(decision.check_address(*address).is_ok());
                }
            }
        }
        if a.is_within(&b) && alone[0].is_allowed() {
            prop_assert!(alone[1].is_allowed());
        }
    }
}

#[expect(clippy::unwrap_used, reason = "a document or a host that does not parse is a mistake in the test")]
fn decide(document: &str, host: &str, port: u16, request: Option<(&str, &str)>) -> Decision {
    let policy = Policy::from_toml(&format!("version = 1\n{document}")).unwrap();
    policy.decide_egress(&Destination { host: &host.parse().unwrap(), port, request })
}

fn why_not(document: &str, host: &str, port: u16, request: Option<(&str, &str)>) -> String {
    match decide(document, host, port, request) {
        Decision::Deny { rule, reason, hint } => format!("{rule}: {reason}; {hint}"),
        Decision::Allow { rule, .. } => format!("allowed by {rule}"),
    }
}

const OWN: &str = "[egress]\nbundles = []\n[[egress.rules]]\nhost = \"git.example.org\"\naddresses = [\"10.0.0.5\"]\n\
                   [[egress.rules]]\nhost = \"api.example.org\"\nports = [80]\nmethods = [\"GET\"]\npaths = [\"/v1/*\"]\n";

#[test]
fn a_decision_says_which_rule_and_what_would_help() {
    for (host, port, request, said) in [
        ("git.example.org", 443, None, "allowed by rule git.example.org"),
        (
            "git.example.org",
            22,
            None,
            "rule git.example.org: git.example.org may be reached on port 443, not on 22; port 22 in the rule's ports",
        ),
        (
            "evil.example",
            443,
            None,
            "no rule: evil.example is not on the allowlist; a rule with host = \"evil.example\" and ports = [443]",
        ),
        ("api.example.org", 80, Some(("GET", "/v1/x?y")), "allowed by rule api.example.org"),
        (
            "api.example.org",
            80,
            None,
            "rule api.example.org: api.example.org may be reached for some requests alone, and a tunnel hides which; a rule \
             without methods and paths, or a gateway that sees each request",
        ),
        (
            "api.example.org",
            80,
            Some(("PUT", "/v1/x")),
            "rule api.example.org: api.example.org may be asked with GET, not with PUT; the method in the rule's methods",
        ),
        (
            "api.example.org",
            80,
            Some(("GET", "/v1/../v2")),
            "rule api.example.org: api.example.org may be asked for /v1/*, not for /v1/../v2; the path in the rule's paths",
        ),
    ] {
        assert_eq!(why_not(OWN, host, port, request), said);
    }
    let hostile = why_not(OWN, "api.example.org", 80, Some(("GET\u{1b}[2J", &"x".repeat(9_000))));
    assert!(hostile.contains("GET\\u{1b}") && hostile.len() < 400, "{hostile}");
}

#[test]
fn the_presets_reach_as_far_as_they_say() {
    let reaches = |base: &str, host: &str| decide(&format!("base = \"{base}\"\n"), host, 443, None).is_allowed();
    for bundle in Bundle::ALL {
        for rule in bundle.rules() {
            let host = rule.host().to_string().replace('*', "a");
            assert!(reaches("standard", &host) && reaches("open", &host) && !reaches("maximum", &host), "{host}");
        }
    }
    assert!(reaches("open", "evil.example") && !reaches("standard", "evil.example"));
    assert!(reaches("open", "8.8.8.8") && !reaches("standard", "8.8.8.8"));
    for host in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:8.8.8.8]", "[64:ff9b::808:808]"] {
        assert!(!reaches("open", host), "{host}");
    }
}

#[test]
fn an_address_is_dialled_only_if_it_is_public_or_named() {
    let refused = |decision: &Decision, address: &str| decision.check_address(address.parse().unwrap()).err();
    let named = decide(OWN, "git.example.org", 443, None);
    assert_eq!(refused(&named, "10.0.0.5"), None);
    assert_eq!(refused(&named, "8.8.8.8"), None);
    assert_eq!(refused(&named, "10.0.0.6").as_deref(), Some("10.0.0.6 is a private address"));
    assert_eq!(
        refused(&named, "::ffff:10.0.0.5").as_deref(),
        Some("::ffff:10.0.0.5 is an IPv4 address in another form")
    );
    let other = decide("", "pypi.org", 443, None);
    assert!(refused(&other, "10.0.0.5").is_some() && refused(&other, "169.254.169.254").is_some());
    let denied = decide(OWN, "evil.example", 443, None);
    assert!(refused(&denied, "8.8.8.8").is_some());
}

#[test]
fn an_open_policy_beside_it_takes_named_addresses_away() {
    let own = Policy::from_toml(&format!("version = 1\n{OWN}")).unwrap();
    let host: Host = "git.example.org".parse().unwrap();
    let private: IpAddr = "10.0.0.5".parse().unwrap();
    let destination = Destination { host: &host, port: 443, request: None };
    assert_eq!(own.decide_egress(&destination).check_address(private), Ok(()));
    for met in [own.meet(&Policy::open()), Policy::open().meet(&own)] {
        let decision = met.decide_egress(&destination);
        assert!(decision.is_allowed() && decision.check_address(private).is_err(), "{decision:?}");
        assert_eq!(Policy::from_toml(&met.to_toml()).unwrap().egress(), met.egress());
    }
    assert!(!own.is_at_least_as_strict_as(&Policy::open()));
}

#[test]
fn what_cannot_be_a_rule_is_refused_with_its_place() {
    for (rule, key, said) in [
        ("host = \"*\"", "egress.rules[0].host", "a wildcard stands for"),
        ("host = \"*.com\"", "egress.rules[0].host", "two labels"),
        ("host = \"a_b.org\"", "egress.rules[0].host", "is not a host pattern"),
        ("ports = [443]", "egress.rules[0].host", "is absent"),
        ("host = \"a.org\"\nports = [0]", "egress.rules[0].ports", "1 to 65535"),
        ("host = \"a.org\"\nport = 80", "egress.rules[0].port", "not a known key"),
        ("host = \"a.org\"\nmethods = []", "egress.rules[0].methods", "leave it out"),
        ("host = \"a.org\"\npaths = [\"/a/../b\"]", "egress.rules[0].paths", "absolute path"),
        ("host = \"a.org\"\naddresses = [\"127.0.0.1\"]", "egress.rules[0].addresses", "a loopback address"),
        ("host = \"a.org\"\naddresses = [\"169.254.169.254\"]", "egress.rules[0].addresses", "no rule may name"),
        ("host = \"*.a.org\"\naddresses = [\"10.0.0.1\"]", "egress.rules[0].addresses", "write it in full"),
        ("host = \"a.org\"\nrate = 0", "egress.rules[0].rate", "at least 1"),
    ] {
        let error = Policy::from_toml(&format!("version = 1\n[[egress.rules]]\n{rule}\n")).unwrap_err();
        assert_eq!(error.key(), Some(key), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    for (section, key) in [
        ("reach = \"open\"\nbundles = [\"npm\"]", "egress.bundles"),
        ("lists = []\nbundles = []", "egress.bundles"),
        ("bundles = [\"maven\"]", "egress.bundles"),
        ("reach = \"all\"", "egress.reach"),
        ("rules = [1]", "egress.rules"),
    ] {
        let error = Policy::from_toml(&format!("version = 1\n[egress]\n{section}\n")).unwrap_err();
        assert_eq!(error.key(), Some(key), "{error}");
    }
}

#[test]
fn what_a_sandbox_may_move_in_all_is_the_smaller_of_each() {
    let read = |text: &str| Policy::from_toml(&format!("version = 1\n{text}")).unwrap();
    let bytes = read("[egress]\nbytes = \"1GiB\"\nrate = 60\n");
    let rate = read("[egress]\nreach = \"open\"\nbytes = \"2GiB\"\nrate = 30\n");
    let met = bytes.meet(&rate);
    assert_eq!(met.egress_budget(), Budget { bytes: "1GiB".parse().ok(), rate: Some(30) });
    assert_eq!(Policy::from_toml(&met.to_toml()).unwrap(), met);
    assert!(met.is_at_least_as_strict_as(&rate.clone().with_egress(bytes.egress().clone())));
    assert!(!bytes.is_at_least_as_strict_as(&met) && !Policy::standard().is_at_least_as_strict_as(&bytes));
    assert_eq!(Policy::standard().egress_budget(), Budget::default());
    // What a rule says is its host's own.
    let of_rule = read("[[egress.rules]]\nhost = \"a.example\"\nbytes = \"1MiB\"\n");
    assert_eq!(of_rule.egress_budget(), Budget::default());
    for (section, key) in
        [("rate = 0", "egress.rate"), ("bytes = \"1GB\"", "egress.bytes"), ("bytes = 5", "egress.bytes")]
    {
        let error = Policy::from_toml(&format!("version = 1\n[egress]\n{section}\n")).unwrap_err();
        assert_eq!(error.key(), Some(key), "{error}");
    }
}

#[test]
fn a_request_may_ask_for_less_and_not_for_more() {
    let capabilities = Control::ALL
        .iter()
        .fold(Capabilities::new(), |all, control| all.with(*control, Support::Enforced { by: "a test".to_owned() }));
    let mut request = SandboxRequest::new("debian:12".parse().unwrap());
    let granted = |request: &SandboxRequest, policy: &Policy| policy.check(request, &capabilities);
    let standard = Policy::standard();
    assert_eq!(*granted(&request, &standard).unwrap().egress(), Egress::None);
    request.network = NetworkRequest::Egress;
    assert_eq!(granted(&request, &standard).unwrap().egress(), standard.egress());

    let narrow = Policy::from_toml("version = 1\n[egress]\nbundles = [\"npm\"]\n").unwrap().egress().clone();
    request.egress = Some(narrow.clone());
    let spec = granted(&request, &standard).unwrap();
    assert_eq!(*spec.egress(), narrow);
    let pypi: Host = "pypi.org".parse().unwrap();
    let to_pypi = Destination { host: &pypi, port: 443, request: None };
    assert!(!spec.decide_egress(&to_pypi).is_allowed() && standard.decide_egress(&to_pypi).is_allowed());

    request.egress = Some(Egress::Open);
    let error = granted(&request, &standard).unwrap_err();
    let [Violation::Denied { field, requested, .. }] = error.violations() else { panic!("{error}") };
    assert_eq!((field.as_str(), requested.as_str()), ("egress", "open"));
    assert!(granted(&request, &Policy::open()).is_ok());
}

#[test]
fn a_credential_is_granted_only_if_the_policy_binds_it_and_the_sandbox_reaches_out() {
    let capabilities = Control::ALL
        .iter()
        .fold(Capabilities::new(), |all, control| all.with(*control, Support::Enforced { by: "a test".to_owned() }));
    let policy = Policy::from_toml(
        "version = 1\n[[credentials]]\nname = \"model\"\nhost = \"api.example.org\"\nheader = \"x-api-key\"\nvariable = \"KEY\"\n",
    )
    .unwrap();
    let mut request = SandboxRequest::new("debian:12".parse().unwrap());
    request.network = NetworkRequest::Egress;
    assert!(policy.check(&request, &capabilities).unwrap().credentials().is_empty());
    request.credentials.insert("model".parse().unwrap());
    let spec = policy.check(&request, &capabilities).unwrap();
    assert_eq!(spec.credentials(), policy.credentials());
    let host: Host = "api.example.org".parse().unwrap();
    assert_eq!((spec.sight(&host, 443), spec.sight(&host, 80)), (Sight::Requests, Sight::Opaque));
    assert_eq!(spec.seen_hosts(), ["api.example.org"]);

    for (policy, network, allowed) in [
        (policy.meet(&Policy::standard()), NetworkRequest::Egress, "none"),
        (policy.clone(), NetworkRequest::None, "none without the network \"egress\""),
    ] {
        request.network = network;
        let error = policy.check(&request, &capabilities).unwrap_err();
        let [Violation::Denied { field, requested, allowed: said }] = error.violations() else { panic!("{error}") };
        assert_eq!((field.as_str(), requested.as_str(), said.as_str()), ("credentials", "model", allowed));
    }
}
