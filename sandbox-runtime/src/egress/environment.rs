//! The variables by which programs inside find the gateway.
//!
//! `ALL_PROXY` names the HTTP proxy: a library that is told of SOCKS and lacks it fails instead of going without (Python's
//! httpx does). Whoever wants SOCKS finds it in `SOCKS_PROXY`.

use super::proxy::Ports;

/// The variables for a gateway at these ports of the loopback.
pub(crate) fn variables(ports: Ports) -> Vec<(String, String)> {
    let Ports { http, socks } = ports;
    let proxy = format!("http://127.0.0.1:{http}");
    let mut variables = Vec::new();
    // curl reads `http_proxy` in lower case alone, others read the upper one alone.
    for name in ["http_proxy", "https_proxy", "all_proxy"] {
        variables.push((name.to_owned(), proxy.clone()));
        variables.push((name.to_uppercase(), proxy.clone()));
    }
    for name in ["socks_proxy", "SOCKS_PROXY"] {
        variables.push((name.to_owned(), format!("socks5h://127.0.0.1:{socks}")));
    }
    for name in ["no_proxy", "NO_PROXY"] {
        variables.push((name.to_owned(), NO_PROXY.to_owned()));
    }
    // cargo, yarn and pip read these first; git, npm, apt, wget, Go and curl are content with those above.
    for name in ["CARGO_HTTP_PROXY", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY", "PIP_PROXY"] {
        variables.push((name.to_owned(), proxy.clone()));
    }
    // Node looks at the variables above only if it is told to (https://nodejs.org/api/cli.html#node_use_env_proxy1).
    variables.push(("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
    // Java reads none of them, and this one always
    // (https://docs.oracle.com/en/java/javase/21/core/java-networking.html).
    let java = format!(
        "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort={http} -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={http} \
         -Dhttp.nonProxyHosts=localhost|127.*|[::1]"
    );
    variables.push((JAVA.to_owned(), java));
    variables
}

/// The variable that Java reads.
pub(crate) const JAVA: &str = "JAVA_TOOL_OPTIONS";

/// What is inside the sandbox itself.
const NO_PROXY: &str = "localhost,127.0.0.1,::1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_set_once_and_in_both_cases() {
        let variables = variables(Ports { http: 3128, socks: 1080 });
        let values = |name: &str| -> Vec<String> {
            variables.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
        };
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SOCKS_PROXY"] {
            let upper = values(name);
            let lower = values(&name.to_lowercase());
            assert!(upper.len() == 1 && upper == lower, "{name}");
        }
        assert_eq!(values("ALL_PROXY"), ["http://127.0.0.1:3128"]);
    }
}
