use super::*;
use crate::{
    ByteSize, ClassicRule, DigestRule, Isolation, NetworkRule, Permission, ProtectionRule, PullRule, RootRule,
};

/// Reads a document that is wrong and returns where, which key, and the whole message.
fn refused(text: &str) -> (usize, usize, Option<String>, String) {
    let error = Policy::from_toml(text).unwrap_err();
    (error.line(), error.column(), error.key().map(str::to_owned), error.to_string())
}

/// Reads a document whose third line is `line` of the section that the second line opens.
fn refused_in(section: &str, line: &str) -> String {
    let (at, _, key, message) = refused(&format!("version = 1\n[{section}]\n{line}\n"));
    assert_eq!(at, 3, "{message}");
    assert!(key.is_some_and(|key| key.starts_with(&format!("{section}."))), "{message}");
    message
}

/// Reads a document whose second line is `line`.
fn refused_at_top(line: &str) -> String {
    let (at, _, key, message) = refused(&format!("version = 1\n{line}\n"));
    assert_eq!(at, 2, "{message}");
    assert!(key.is_some(), "{message}");
    message
}

#[test]
fn the_least_document_is_the_standard_policy_without_its_name() {
    let policy = Policy::from_toml("version = 1").unwrap();
    assert_eq!(policy, Policy::standard().with_name(PolicyName::known("unnamed")));
}

#[test]
fn absent_keys_take_the_values_of_the_base() {
    for name in PRESETS {
        let text = format!("version = 1\nname = \"{name}\"\nbase = \"{name}\"\n[limits]\n[image]\n");
        assert_eq!(Some(Policy::from_toml(&text).unwrap()), Policy::preset(name));
    }
}

#[test]
fn reads_every_key() {
    let policy = Policy::from_toml(
        "\u{feff}version = 1\r\nname = [\"b\", \"a\"]\nbase = \"deny-all\"\nsandboxes = \"allow\"\nroot = 'writable'\n\
         network = \"egress\"\nsudo = \"packages\"\nuser-namespace = \"optional\"\nisolation = \"gvisor\"\nworkspace = \"read-only\"\n\
         workspace-kinds = [\"volume\", \"copy\"]\nworkspace-protected = [\"b\", \"a/c/\"]\nworkspace-covered = [\"d/\"]\n\
         waive = [\"disk\", \"cpu\", \"disk\"]\nlimits.cpus = 0.5\nlimits.memory = \"512MiB\"\nlimits.disk = \"1GiB\"\n\
         limits.processes = 1_00\nlimits.open-files = 256\nlimits.lifetime = \"30m\"\n\
         [image]\ndigest = \"optional\"\npull = \"if-missing\" # a comment\n[token]\nscopes = [\"repo\", \"workflow\"]\n\
         classic = \"allow\"\nlifetime = \"7d\"\nprotected-default-branch = \"optional\"\n",
    )
    .unwrap();
    assert_eq!(policy.name(), "a ∧ b");
    assert_eq!(policy.sandboxes, Permission::Allow);
    assert_eq!((policy.root, policy.network), (RootRule::Writable, NetworkRule::Egress));
    assert_eq!(policy.isolation, Isolation::Gvisor);
    assert_eq!(policy.limits.cpus.millis(), 500);
    assert_eq!(policy.limits.memory, ByteSize::mib(512));
    assert_eq!(policy.limits.processes.get(), 100);
    assert_eq!(policy.image.require_digest, DigestRule::Optional);
    assert_eq!(policy.image.pull, PullRule::IfMissing);
    assert_eq!(policy.token.scopes, [Scope::Repo, Scope::Workflow].into());
    assert_eq!((policy.token.classic, policy.token.lifetime.to_string()), (ClassicRule::Allow, "7d".to_owned()));
    assert_eq!(policy.token.require_protected_default_branch, ProtectionRule::Optional);
    assert_eq!(policy.waived.len(), 2);
    assert_eq!(policy.workspace_kinds, [WorkspaceKind::Copy, WorkspaceKind::Volume].into());
    let protected: Vec<&str> = policy.workspace_protected.iter().map(CoverPath::as_str).collect();
    assert_eq!(protected, ["a/c/", "b"]);
    assert!(policy.workspace_covered.iter().map(CoverPath::as_str).eq(["d/"]));
    assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
}

#[test]
fn a_printed_preset_is_the_preset() {
    for name in PRESETS {
        let policy = Policy::preset(name).unwrap();
        assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
    }
    let printed = Policy::standard().to_toml();
    assert!(printed.contains("memory = \"4GiB\"\n") && printed.contains("cpus = 2\n"), "{printed}");
}

#[test]
fn version_comes_first() {
    assert_eq!(
        refused("name = \"x\"\n"),
        (1, 1, Some("version".into()), "line 1, column 1: version is absent: write version = 1".into())
    );
    for (version, given) in [("2", "2"), ("\"1\"", "\\\"1\\\""), ("1.0", "1.0"), ("-1", "-1"), ("0x1", "0x1")] {
        assert_eq!(
            refused(&format!("\nversion = {version}\nunheard-of = 1")),
            (
                2,
                11,
                Some("version".into()),
                format!("line 2, column 11: version \"{given}\" is not a version that is known here: write 1")
            )
        );
    }
}

#[test]
fn unknown_keys_are_errors() {
    assert_eq!(
        refused_at_top("memroy = 1"),
        "line 2, column 1: memroy is not a known key: write one of version name base sandboxes root network sudo \
         user-namespace isolation workspace workspace-kinds workspace-protected workspace-covered waive limits image token egress credentials"
    );
    assert_eq!(
        refused_in("limits", "Memory = \"1GiB\""),
        "line 3, column 1: limits.Memory is not a known key: write one of cpus memory disk processes open-files lifetime"
    );
    assert_eq!(
        refused_in("image", "tag = 1"),
        "line 3, column 1: image.tag is not a known key: write one of digest pull"
    );
    assert!(refused_at_top("[git]").contains("git is not a known key"));
    let hostile = refused_at_top(&format!("\"\\u001b{}\" = 1", "x".repeat(9_000)));
    assert!(hostile.contains("\\u{1b}xxx") && hostile.len() < 400, "{hostile}");
}

#[test]
fn duplicate_keys_are_errors() {
    assert_eq!(
        refused("version = 1\nsudo = \"deny\"\nsudo = \"allow\"\n"),
        (3, 1, Some("sudo".into()), "line 3, column 1: sudo is given twice: write it once".into())
    );
    assert_eq!(
        refused("version = 1\n[limits]\nmemory = \"1GiB\"\n  memory = \"2GiB\"\n"),
        (4, 3, Some("limits.memory".into()), "line 4, column 3: limits.memory is given twice: write it once".into())
    );
    assert_eq!(refused("version = 1\n[limits]\n[limits]\n").0, 3);
}

#[test]
fn sizes_need_the_right_unit() {
    for (given, shown) in [
        ("\"1Gi\"", "1Gi"),
        ("\"1G\"", "1G"),
        ("\"1GB\"", "1GB"),
        ("\"-1GiB\"", "-1GiB"),
        ("\"1.5GiB\"", "1.5GiB"),
        ("\"NaN\"", "NaN"),
        ("\"\"", ""),
        ("4", "4"),
        ("nan", "nan"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("2020-01-01", "2020-01-01"),
        ("[\"1GiB\"]", "[\\\"1GiB\\\"]"),
    ] {
        for key in ["memory", "disk"] {
            let column = key.len() + 4;
            assert_eq!(
                refused_in("limits", &format!("{key} = {given}")),
                format!(
                    "line 3, column {column}: limits.{key} \"{shown}\" is not a byte size: write an integer and one of \
                     B, KiB, MiB, GiB, TiB"
                )
            );
        }
    }
    assert_eq!(
        refused_in("limits", "memory = \"9999999TiB\""),
        "line 3, column 10: limits.memory \"9999999TiB\" is not a byte size: write at most 9223372036854775807B"
    );
}

#[test]
fn numbers_need_to_be_counts() {
    for given in
        ["-1", "0", "nan", "inf", "-inf", "+nan", "1e400", "1e3", "0.0001", "99999999999999999999", "\"2\"", "0x2"]
    {
        let message = refused_in("limits", &format!("cpus = {given}"));
        assert!(message.contains("is not a number of CPUs: write a number above 0"), "{message}");
    }
    for key in ["processes", "open-files"] {
        for given in ["-1", "0", "nan", "1.5", "4294967296", "99999999999999999999999999", "\"512\"", "0x10", "[1]"] {
            let message = refused_in("limits", &format!("{key} = {given}"));
            assert!(message.contains("write a whole number from 1 to 4294967295"), "{message}");
        }
    }
    for given in ["\"8\"", "8", "\"-8h\"", "\"1h30m\"", "\"8H\"", "nan"] {
        let message = refused_in("limits", &format!("lifetime = {given}"));
        assert!(message.contains("write an integer and one of s, m, h, d"), "{message}");
    }
}

#[test]
fn words_need_to_be_known() {
    for (line, message) in [
        ("root = \"rw\"", "root \"rw\" is not a rule for the root file system: write one of read-only writable"),
        ("network = \"bridge\"", "network \"bridge\" is not a rule for the network: write one of none egress"),
        ("sudo = true", "sudo \"true\" is not a rule for sudo: write one of deny packages any"),
        ("sandboxes = \"Allow\"", "sandboxes \"Allow\" is not a permission: write one of deny allow"),
        ("base = \"none\"", "base \"none\" is not a preset: write one of open standard maximum deny-all"),
        ("waive = [\"disk\", 1]", "waive \"1\" is not a control: write one of agent-user"),
        ("waive = [\"all\"]", "waive \"all\" is not a control: write one of agent-user"),
        ("name = 5", "name \"5\" is not of the right type: write it in quotes"),
        ("name = \"a ∧ b\"", "name \"a ∧ b\" is not a policy name"),
        ("name = []", "name [] has no name: write one"),
        ("limits = 5", "limits is not a section: write [limits]"),
        ("[[limits]]", "limits is not a section: write [limits]"),
    ] {
        let refused = refused_at_top(line);
        assert!(refused.contains(message), "{refused}");
    }
    assert!(refused_at_top("waive = [\"disk\", \"x\"]").starts_with("line 2, column 18: "));
    assert!(refused_in("image", "digest = \"yes\"").contains("write one of required optional"));
    assert!(refused_in("image", "pull = \"always\"").contains("write one of never if-missing"));
}

#[test]
fn what_is_not_toml_names_its_line() {
    for (text, line) in [
        ("version = 1\nroot", 2),
        ("version = 1\n\n= 2\n", 3),
        ("version = 1\n[limits\n", 2),
        ("version = 1\nname = \"\u{1b}[31m\"\n", 2),
        ("version = 1\nname = \"x\n", 2),
        ("version 1", 1),
    ] {
        let (at, _, key, message) = refused(text);
        assert_eq!((at, key), (line, None), "{message}");
        assert!(message.contains("not TOML: "), "{message}");
        assert!(!message.contains(char::is_control), "{message}");
    }
}

#[test]
fn depth_is_bounded() {
    let depth = 20_000;
    for deep in [
        format!("version = 1\nname = {}", "[".repeat(depth)),
        format!("version = 1\nname = {}", "{a=".repeat(depth)),
        format!("version = 1\n{}a = 1", "a.".repeat(depth)),
        format!("version = 1\n[{}a]", "a.".repeat(depth)),
    ] {
        let message = refused(&deep).3;
        assert!(message.contains("recur") && message.len() < 400, "{message}");
    }
}

#[test]
fn columns_count_characters() {
    let (line, column, ..) = refused("version = 1\nlimits = { memory = \"1GiB\", \"é\" = 1 }\n");
    assert_eq!((line, column), (2, 29));
    let (line, column, ..) = refused("version = 1\n\"é\" = 1");
    assert_eq!((line, column), (2, 1));
    let (line, column, ..) = refused("version = 1\nname = [\"é\", \"ok\"]");
    assert_eq!((line, column), (2, 9));
    let (line, column, ..) = refused("version = 1\nlimits = {} # é\nimage = { pull = \"é\" }");
    assert_eq!((line, column), (3, 18));
    let (line, column, ..) = refused("version = 1\nname = \"é\" x");
    assert_eq!((line, column), (2, 12));
}

#[test]
fn a_document_is_bounded() {
    let comment = "#".repeat(MAX_DOCUMENT_BYTES - 12);
    assert!(Policy::from_toml(&format!("version = 1\n{comment}")).is_ok());
    let (line, column, key, message) = refused(&format!("version = 1\n{comment}#"));
    assert_eq!((line, column, key), (1, 1, None));
    assert!(message.ends_with("65537 bytes are too many: write at most 65536"), "{message}");
}

const CREDENTIAL: &str = "[[credentials]]\nname = \"model\"\nhost = \"api.example.org\"\nvariable = \"MODEL_KEY\"\n";

#[test]
fn credentials_are_read_and_written() {
    let text = format!(
        "version = 1\n{CREDENTIAL}header = \"X-Api-Key\"\nprefix = \"sk-\"\nlength = 64\nmethods = [\"POST\"]\npaths = [\"/v1/*\"]\n\
         [[credentials]]\nname = \"index\"\nhost = \"pypi.example.org\"\nbasic = \"__token__\"\nvariable = \"INDEX\"\n"
    );
    let policy = Policy::from_toml(&text).unwrap();
    let model = &policy.credentials()[&"model".parse().unwrap()];
    assert_eq!((model.placement().to_string().as_str(), model.shape().length()), ("header x-api-key", 64));
    assert!(model.covers("POST", "/v1/x") && !model.covers("POST", "/x"));
    assert_eq!(policy.credentials()[&"index".parse().unwrap()].placement().to_string(), "basic __token__");
    assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
}

#[test]
fn a_credential_that_is_bound_to_nothing_is_refused_with_its_place() {
    for (lines, key, said) in [
        ("", "credentials[0].header", "header or basic"),
        ("header = \"host\"", "credentials[0].header", "frames or routes"),
        ("header = \"a\"\nbasic = \"b\"", "credentials[0].basic", "one of the two"),
        ("header = \"a\"\nlength = 9", "credentials[0].length", "from 24 to 512"),
        ("header = \"a\"\npaths = []", "credentials[0].paths", "leave it out"),
        ("header = \"a\"\nsecret = \"x\"", "credentials[0].secret", "not a known key"),
    ] {
        let error = Policy::from_toml(&format!("version = 1\n{CREDENTIAL}{lines}\n")).unwrap_err();
        assert_eq!(error.key(), Some(key), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let twice = format!("version = 1\n{CREDENTIAL}header = \"a\"\n{CREDENTIAL}header = \"a\"\n");
    assert!(Policy::from_toml(&twice).unwrap_err().to_string().contains("write each once"));
    let wild = CREDENTIAL.replace("api.", "*.");
    assert_eq!(Policy::from_toml(&format!("version = 1\n{wild}")).unwrap_err().key(), Some("credentials[0].host"));
}
