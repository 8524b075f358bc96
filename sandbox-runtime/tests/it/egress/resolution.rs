//! Names, and the addresses that they lead to.

use sandbox_core::policy::Egress;

use super::harness::{Origin, Way, here, own_address, rule};

#[tokio::test]
async fn an_answer_that_is_not_public_is_not_dialled() {
    let way = Way::with(Egress::Open, |proxy| proxy).await;
    let own = own_address().to_string();
    for address in [
        "127.0.0.1",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "fc00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        &own,
    ] {
        way.names.lead("name.example", &[&[address]]);
        let answer = way.get("http://name.example/").await;
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.contains("addresses that are not public"),
            "{address}: {answer}"
        );
        // The same as a literal.
        let literal = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let (_, answer) = way.tunnel(&format!("{literal}:443")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{address}: {answer}");
    }
    assert!(way.get("http://metadata.google.internal/").await.starts_with("HTTP/1.1 502"), "nobody knows it here");
}

#[tokio::test]
async fn a_name_with_one_bad_answer_is_not_dialled_at_all() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let url = format!("http://origin.example:{}/", origin.port);
    let own = own_address().to_string();
    assert!(way.get(&url).await.starts_with("HTTP/1.1 200"), "the positive control");
    for mixed in [[own.as_str(), "127.0.0.1"], ["127.0.0.1", &own], [&own, "::1"], [&own, "10.1.2.3"]] {
        way.names.lead("origin.example", &[&mixed]);
        assert!(way.get(&url).await.starts_with("HTTP/1.1 403"), "{mixed:?}");
    }
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_second_time_is_checked_the_second_time() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let url = format!("http://origin.example:{}/", origin.port);
    way.names.lead("origin.example", &[&[&own_address().to_string()], &["169.254.169.254"]]);
    assert!(way.get(&url).await.starts_with("HTTP/1.1 200"));
    assert!(way.get(&url).await.starts_with("HTTP/1.1 403"));
    // One question for each connection: what was checked is what was dialled.
    assert_eq!(way.names.asked().len(), 2);
}

#[tokio::test]
async fn a_rules_address_counts_for_its_own_host_alone() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port]), rule("other.example", &[origin.port])]).await;
    assert!(way.get(&format!("http://origin.example:{}/", origin.port)).await.starts_with("HTTP/1.1 200"));
    assert!(way.get(&format!("http://other.example:{}/", origin.port)).await.starts_with("HTTP/1.1 403"));
    assert!(way.get(&format!("http://{}:{}/", own_address(), origin.port)).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn a_name_of_another_form_is_the_same_name_or_none() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let at = |name: &str| format!("http://{name}:{}/", origin.port);
    for same in ["ORIGIN.example", "origin.example."] {
        assert!(way.get(&at(same)).await.starts_with("HTTP/1.1 200"), "{same}");
    }
    for other in ["origin.example.evil.example", "evilorigin.example", "origin-example", "a.origin.example"] {
        assert!(way.get(&at(other)).await.starts_with("HTTP/1.1 403"), "{other}");
    }
    for none in
        ["origin..example", "origin_.example", "origin.example%00", "0x7f.1", "127.1", "2130706433", "[::1%25lo]"]
    {
        assert!(way.get(&at(none)).await.starts_with("HTTP/1.1 400"), "{none}");
    }
    assert!(way.names.asked().iter().all(|asked| asked == "origin.example"), "{:?}", way.names.asked());
}
