use std::sync::Mutex;

use async_trait::async_trait;
use sandbox_core::{Error, ErrorKind};
use sandbox_policy::Policy;

use super::*;

/// Gives out what it was told last.
#[derive(Debug, Default)]
struct Told(Mutex<Option<String>>);

#[async_trait]
impl CredentialProvider for Told {
    async fn secret(&self, _: &CredentialName) -> Result<SecretString> {
        let told = self.0.lock().unwrap().clone();
        told.map(SecretString::from).ok_or_else(|| Error::new(ErrorKind::Token, "the store's own words"))
    }
}

const SECRET: &str = "not-a-real-secret-0001";

fn vault() -> (Vault, Arc<Told>) {
    let policy = Policy::from_toml(
        "version = 1\n[[credentials]]\nname = \"model\"\nhost = \"api.example.org\"\nheader = \"x-api-key\"\n\
         variable = \"MODEL_KEY\"\nprefix = \"sk-\"\nlength = 40\nmethods = [\"POST\"]\n\
         [[credentials]]\nname = \"index\"\nhost = \"pypi.example.org\"\nbasic = \"__token__\"\nvariable = \"INDEX\"\n\
         [[credentials]]\nname = \"bearer\"\nhost = \"hub.example.org\"\nheader = \"authorization\"\nvariable = \"HUB\"\n",
    )
    .unwrap();
    let told = Arc::new(Told(Mutex::new(Some(SECRET.to_owned()))));
    (Vault::new(policy.credentials(), Some(Arc::clone(&told) as _)).unwrap(), told)
}

fn placeholder(vault: &Vault, variable: &str) -> String {
    vault.variables().into_iter().find(|(name, _)| name == variable).unwrap().1
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let pairs = list.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
    let mut headers = HeaderMap::new();
    pairs.for_each(|(name, value): (HeaderName, HeaderValue)| {
        headers.append(name, value);
    });
    headers
}

/// The headers that would go out, or why none do.
async fn sent(
    vault: &Vault,
    (host, method, path): (&str, &str, &str),
    list: &[(&str, &str)],
) -> std::result::Result<HeaderMap, Refusal> {
    let (host, mut headers) = (host.parse::<Host>().unwrap(), headers(list));
    let slots = vault.slots(Bearer { host: &host, port: 443, method, path }, &headers)?;
    for slot in &slots {
        vault.fill(slot, &mut headers, &Handle::current()).await?;
    }
    Ok(headers)
}

const MODEL: (&str, &str, &str) = ("api.example.org", "POST", "/v1/messages");

#[tokio::test]
async fn a_placeholder_is_exchanged_in_its_place() {
    let (vault, _) = vault();
    let model = placeholder(&vault, "MODEL_KEY");
    assert!(model.starts_with("sk-") && model.len() == 40);
    let out = sent(&vault, MODEL, &[("x-api-key", &model), ("accept", "*/*")]).await.unwrap();
    assert_eq!((&out["x-api-key"], &out["accept"]), (&SECRET.parse().unwrap(), &"*/*".parse().unwrap()));
    assert!(out["x-api-key"].is_sensitive() && !format!("{out:?}").contains(SECRET));

    let hub = placeholder(&vault, "HUB");
    for (given, wanted) in [(format!("Bearer {hub}"), format!("Bearer {SECRET}")), (hub, SECRET.to_owned())] {
        let out = sent(&vault, ("hub.example.org", "GET", "/"), &[("authorization", &given)]).await.unwrap();
        assert_eq!(out["authorization"], wanted);
    }
    let login = BASE64_STANDARD.encode(format!("__token__:{}", placeholder(&vault, "INDEX")));
    let given = format!("basic {login}");
    let out = sent(&vault, ("pypi.example.org", "GET", "/simple/"), &[("authorization", &given)]).await.unwrap();
    assert_eq!(out["authorization"], format!("Basic {}", BASE64_STANDARD.encode(format!("__token__:{SECRET}"))));
    assert!(sent(&vault, MODEL, &[("accept", "*/*")]).await.unwrap().contains_key("accept"));
}

#[tokio::test]
async fn a_placeholder_anywhere_else_is_refused() {
    let (vault, _) = vault();
    let model = placeholder(&vault, "MODEL_KEY");
    let index = placeholder(&vault, "INDEX");
    let base64 = BASE64_STANDARD.encode(format!("user:{model}"));
    let encoded = percent_encoding::percent_encode(model.as_bytes(), percent_encoding::NON_ALPHANUMERIC).to_string();
    let encoded = encoded.replace('s', "%73");
    let other = ("evil.example", "POST", "/v1/messages");
    for (request, header, value) in [
        (other, "x-api-key", model.clone()),
        (other, "x-other", format!("a {model} b")),
        (other, "cookie", format!("key={encoded}")),
        (other, "authorization", format!("Basic {base64}")),
        (MODEL, "x-other", model.clone()),
        (MODEL, "x-api-key", format!("x{model}")),
        (MODEL, "x-api-key", format!("{model} {model}")),
        (MODEL, "x-api-key", format!("Basic {base64}")),
        (MODEL, "x-api-key", index.clone()),
        (("api.example.org", "GET", "/v1/messages"), "x-api-key", model.clone()),
        (("pypi.example.org", "GET", "/"), "authorization", format!("Bearer {index}")),
        (
            ("pypi.example.org", "GET", "/"),
            "authorization",
            format!("Basic {}", BASE64_STANDARD.encode(format!("me:{index}"))),
        ),
        (("a.api.example.org", "POST", "/v1/messages"), "x-api-key", model.clone()),
    ] {
        let refusal = sent(&vault, request, &[(header, &value)]).await.unwrap_err();
        assert_eq!(refusal.kind, RefusalKind::Denied, "{request:?} {header}");
        assert!(refusal.rule.starts_with("credential "), "{refusal:?}");
        let said = format!("{refusal:?}");
        assert!(!said.contains(&model) && !said.contains(&index) && !said.contains(SECRET), "{said}");
    }
    for path in [format!("/?key={model}"), format!("/{encoded}"), format!("/x?a={base64}")] {
        assert!(sent(&vault, ("api.example.org", "POST", &path), &[]).await.is_err(), "{path}");
    }
    assert!(sent(&vault, MODEL, &[("x-api-key", &model), ("x-api-key", &model)]).await.is_err());
}

#[tokio::test]
async fn another_key_at_a_bound_host_is_refused() {
    let (vault, _) = vault();
    let refusal = sent(&vault, MODEL, &[("x-api-key", "sk-somebody-elses")]).await.unwrap_err();
    assert!(refusal.reason.contains("holds another key") && refusal.hint.contains("MODEL_KEY"), "{refusal:?}");
    assert!(sent(&vault, ("evil.example", "POST", "/"), &[("x-api-key", "sk-somebody-elses")]).await.is_ok());
}

#[tokio::test]
async fn a_change_and_a_withdrawal_hold_for_the_next_request() {
    let (vault, told) = vault();
    let model = placeholder(&vault, "MODEL_KEY");
    let list = [("x-api-key", model.as_str())];
    *told.0.lock().unwrap() = Some("rotated-not-real".to_owned());
    assert_eq!(sent(&vault, MODEL, &list).await.unwrap()["x-api-key"], "rotated-not-real");
    *told.0.lock().unwrap() = None;
    let refusal = sent(&vault, MODEL, &list).await.unwrap_err();
    assert!(refusal.reason.contains("cannot be had") && !refusal.reason.contains("own words"), "{refusal:?}");
    *told.0.lock().unwrap() = Some("two\r\nlines".to_owned());
    let refusal = sent(&vault, MODEL, &list).await.unwrap_err();
    assert!(refusal.reason.contains("no header") && !refusal.reason.contains("lines"), "{refusal:?}");
}

#[test]
fn it_prints_names_alone() {
    let (vault, _) = vault();
    assert_eq!(format!("{vault:?}"), "{\"bearer\", \"index\", \"model\"}");
}
