//! `token` and `repo` against a GitHub that is played, and held to GitHub's own description.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use sandbox_github::{Keyring, TokenStore as _};
use serde_json::{Value, json};

use crate::description::example;
use crate::harness::{Place, Ran};
use crate::mock::{Answer, GitHub, answer};
use crate::session::Session;

mod embedded;

const REPO: &str = "octocat/hello-world";
const READ: &str = "/repos/octocat/hello-world";
const OLD: &str = "github_pat_MADE0UP0FOR0TESTS0";
const NEW: &str = "github_pat_MADE0UP0FOR0TESTS1";

/// A place, and the GitHub that it speaks to.
struct Scene {
    place: Place,
    github: GitHub,
    variables: Vec<(&'static str, String)>,
}

impl Scene {
    async fn new(answers: Vec<Answer>) -> Self {
        Self { place: Place::without_engine(), github: GitHub::play(answers).await, variables: Vec::new() }
    }

    /// Runs the command to its end, with a line to read.
    fn fed(&self, arguments: &[&str], line: &str) -> Ran {
        tokio::task::block_in_place(|| {
            let mut command = self.place.command(arguments);
            command.env("SANDBOX_GITHUB", self.github.client().url().origin());
            command.envs(self.variables.iter().map(|(name, value)| (name, value)));
            let mut child =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            // A command that refuses reads nothing.
            let _ = child.stdin.take().unwrap().write_all(line.as_bytes());
            Ran::from(child.wait_with_output().unwrap())
        })
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.fed(arguments, "")
    }

    fn keep(&self, token: &str) {
        let ran = self.fed(&["token", "setup", "--repo", REPO], token);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    fn kept(&self) -> Option<String> {
        std::fs::read_to_string(self.place.path("config/sandbox/tokens/.env.octocat.hello-world")).ok()
    }

    /// Everything that was printed holds no token, and GitHub was asked as it says.
    async fn end(self, printed: &[Ran]) {
        for ran in printed {
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("MADE0UP"), "{ran:?}");
        }
        self.github.asked().await;
    }
}

/// The repository, read with a token that ends in some days, or never.
fn read(days: Option<u64>) -> Answer {
    let mut repository = example("repository");
    repository["full_name"] = json!(REPO);
    repository["private"] = json!(true);
    let read = answer("GET", READ, 200, repository);
    match days {
        None => read,
        Some(days) => {
            let end: DateTime<Utc> = (SystemTime::now() + Duration::from_secs(days * 86_400 + 3_600)).into();
            read.header("github-authentication-token-expiration", end.format("%Y-%m-%d %H:%M:%S UTC").to_string())
        }
    }
}

fn listed() -> Answer {
    let mut entry = example("/user/repos")[0].clone();
    entry["full_name"] = json!(REPO);
    answer("GET", "/user/repos", 200, json!([entry]))
}

fn refused(path: &'static str) -> Answer {
    answer(
        "GET",
        path,
        401,
        json!({ "message": "Bad credentials", "documentation_url": "https://docs.github.com/rest" }),
    )
}

fn revocable() -> [Answer; 3] {
    [
        answer("GET", "/user", 200, example("/user")),
        refused("/user"),
        answer("POST", "/credentials/revoke", 202, json!({})).undescribed(),
    ]
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_checked_before_it_is_kept_and_never_printed() {
    let scene = Scene::new(vec![read(Some(30)), listed()]).await;
    let set = scene.fed(&["token", "setup", "--repo", REPO], &format!("{OLD}\n"));
    assert_eq!(set.code, Some(0), "{set:?}");
    assert!(set.stderr.contains("/settings/personal-access-tokens/new?name=sandbox-hello-world"), "{set:?}");
    assert!(set.stderr.contains("repository access: only octocat/hello-world"), "{set:?}");
    assert!(set.stdout.contains("kind:       fine-grained") && set.stdout.contains("not known:  "), "{set:?}");
    assert!(scene.kept().unwrap().contains(OLD));
    let file = scene.place.path("config/sandbox/tokens/.env.octocat.hello-world");
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    let again = scene.fed(&["token", "setup", "--repo", REPO], NEW);
    assert!(again.code == Some(1) && again.stderr.contains("hint: `sandbox token rotate --repo"), "{again:?}");
    let list = scene.run(&["token", "list", "--json"]);
    let row = &json_of(&list)[0];
    assert_eq!(
        (&row["repository"], &row["days-left"], &row["kind"]),
        (&json!(REPO), &json!(30), &json!("fine-grained"))
    );
    assert_eq!(row["sha256"], "N86FIIIBSBGiLcoBr9OXNMkXrHEon1gw/SV74tqA87A=");
    let text = scene.run(&["token", "list"]);
    assert!(text.stdout.contains("in 30 days") && text.stderr.is_empty(), "{text:?}");
    scene.end(&[set, again, list, text]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policy_refuses_is_not_kept() {
    for (answer, token, words) in [
        (read(None), OLD, "denied: token.lifetime: asked for a token that never ends, allowed is at most 30d"),
        (read(Some(90)), OLD, "denied: token.lifetime: asked for a token that lives for 91 days"),
        (read(Some(30)), "ghp_MADE0UP0FOR0TESTS0", "denied: token.classic: asked for a classic token"),
        (refused(READ).undescribed(), OLD, "does not accept the credential"),
        (read(Some(30)), "MADE0UP0FOR0TESTS0", "something that is no personal access token"),
        (read(Some(30)), "", "no secret was given"),
    ] {
        let scene = Scene::new(vec![answer, listed()]).await;
        let set = scene.fed(&["token", "setup", "--repo", REPO], token);
        assert!(set.code == Some(1) && set.stderr.contains(words), "{words}: {set:?}");
        assert_eq!(scene.kept(), None);
        scene.end(&[set]).await;
    }
    let scene = Scene::new(Vec::new()).await;
    let set = scene.fed(&["token", "setup", "--repo", REPO, "--policy", "deny-all"], OLD);
    assert!(set.code == Some(1) && set.stderr.contains("policy deny-all grants no token"), "{set:?}");
    scene.end(&[set]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_soon_is_warned_about_and_an_audit_asks_github() {
    let scene = Scene::new(vec![read(Some(7)), listed()]).await;
    scene.keep(OLD);
    let list = scene.run(&["token", "list"]);
    assert!(list.stderr.contains("ends soon: `sandbox token rotate --repo octocat/hello-world`"), "{list:?}");
    let fine = scene.run(&["token", "audit", "--json"]);
    let finding = &json_of(&fine)[0];
    assert_eq!((fine.code, &finding["problems"]), (Some(0), &json!([])), "{fine:?}");
    assert_eq!(finding["checked"]["reach"], "likely this repository alone");

    scene.github.lay(refused(READ).undescribed());
    let dead = scene.run(&["token", "audit"]);
    assert!(dead.code == Some(1) && dead.stdout.contains("does not accept the credential"), "{dead:?}");
    let missing = scene.run(&["token", "audit", "--repo", "octocat/other"]);
    assert!(missing.code == Some(1) && missing.stdout.contains("no token is kept"), "{missing:?}");
    scene.end(&[list, fine, dead, missing]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_keeps_the_new_one_and_then_ends_the_old_one() {
    let [alive, dead, reported] = revocable();
    let scene = Scene::new(vec![read(Some(30)), listed(), alive, dead, reported]).await;
    let nothing = scene.fed(&["token", "rotate", "--repo", REPO], NEW);
    assert!(nothing.code == Some(1) && nothing.stderr.contains("hint: `sandbox token setup --repo"), "{nothing:?}");
    scene.keep(OLD);
    let same = scene.fed(&["token", "rotate", "--repo", REPO], OLD);
    assert!(same.code == Some(1) && same.stderr.contains("kept already"), "{same:?}");
    assert!(scene.kept().unwrap().contains(OLD));
    let rotated = scene.fed(&["token", "rotate", "--repo", REPO], NEW);
    assert!(rotated.code == Some(0) && rotated.stdout.contains("the old one: revoked"), "{rotated:?}");
    assert!(scene.kept().unwrap().contains(NEW));
    let bodies: Vec<String> =
        scene.github.requests().await.iter().map(|it| String::from_utf8_lossy(&it.body).into()).collect();
    assert!(
        bodies.iter().any(|body| body.contains(OLD)) && bodies.iter().all(|body| !body.contains(NEW)),
        "{bodies:?}"
    );
    scene.end(&[nothing, same, rotated]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_forgotten_only_once_github_refuses_it() {
    let alive = answer("GET", "/user", 200, example("/user"));
    let reported = answer("POST", "/credentials/revoke", 202, json!({})).undescribed();
    let scene = Scene::new(vec![read(Some(30)), listed(), alive, reported]).await;
    scene.keep(OLD);
    let still = scene.run(&["token", "revoke", "--repo", REPO]);
    assert!(still.code == Some(1) && still.stderr.contains("may still be good"), "{still:?}");
    assert!(scene.kept().is_some());
    scene.github.lay(refused("/user"));
    let all = scene.run(&["token", "revoke", "--all", "--json"]);
    assert_eq!((all.code, json_of(&all)), (Some(0), json!([{ "repository": REPO, "already": true }])), "{all:?}");
    assert_eq!(scene.kept(), None);
    let none = scene.run(&["token", "revoke", "--repo", REPO]);
    assert!(none.code == Some(1) && none.stderr.contains("no token is kept"), "{none:?}");
    scene.end(&[still, all, none]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn protection_is_shown_proposed_and_made_with_a_token_that_is_not_kept() {
    let rules = "/repos/octocat/hello-world/rules/branches/master";
    let mut branch = example("branch");
    branch["protected"] = json!(false);
    let scene = Scene::new(vec![
        read(Some(30)),
        listed(),
        answer("GET", rules, 200, json!([])),
        answer("GET", "/repos/octocat/hello-world/branches/master", 200, branch),
        answer("POST", "/repos/octocat/hello-world/rulesets", 201, example("ruleset")),
    ])
    .await;
    scene.keep(OLD);
    let open = scene.run(&["repo", "show", "--repo", REPO]);
    assert!(open.code == Some(1) && open.stdout.contains("the default branch master is not protected"), "{open:?}");
    scene.github.lay(answer("GET", rules, 200, json!([{ "type": "non_fast_forward", "ruleset_id": 1, "ruleset_source": REPO, "ruleset_source_type": "Repository" }])));
    let shown = scene.run(&["repo", "show", "--repo", REPO, "--json"]);
    assert_eq!((shown.code, &json_of(&shown)["protection"]), (Some(0), &json!("protected")), "{shown:?}");

    let asked = scene.github.requests().await.len();
    let proposed = scene.run(&["repo", "protect", "--repo", REPO, "--json"]);
    assert_eq!(json_of(&proposed)["rulesets"][0]["target"], "branch", "{proposed:?}");
    assert_eq!(scene.github.requests().await.len(), asked, "a proposal asks nobody");
    let made = scene.fed(&["repo", "protect", "--repo", REPO, "--apply"], NEW);
    assert!(made.code == Some(0) && made.stdout.contains("made rulesets"), "{made:?}");
    assert!(scene.kept().unwrap().contains(OLD));
    scene.end(&[open, shown, proposed, made]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn activity_is_listed_since_a_time() {
    let now: DateTime<Utc> = SystemTime::now().into();
    let at = |hours: i64| (now - chrono::TimeDelta::hours(hours)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let entry = |reference: &str, hours: i64| {
        json!({
            "id": 1, "node_id": "MADEUP", "before": "1".repeat(40), "after": "2".repeat(40), "ref": reference,
            "timestamp": at(hours), "activity_type": "force_push", "actor": null,
        })
    };
    let mut pulls = example("/repos/{owner}/{repo}/pulls");
    pulls[0]["updated_at"] = json!(at(2));
    let mut commits = example("/repos/{owner}/{repo}/commits");
    commits[0]["commit"]["committer"]["date"] = json!(at(3));
    let forbidden =
        json!({ "message": "Resource not accessible", "documentation_url": "https://docs.github.com/rest" });
    let scene = Scene::new(vec![
        read(Some(30)),
        listed(),
        answer(
            "GET",
            "/repos/octocat/hello-world/activity",
            200,
            json!([entry("refs/heads/new", 1), entry("refs/heads/old", 30)]),
        ),
        answer("GET", "/repos/octocat/hello-world/pulls", 200, pulls),
        answer("GET", "/repos/octocat/hello-world/commits", 200, commits),
        answer("GET", "/repos/octocat/hello-world/actions/runs", 403, forbidden).undescribed(),
    ])
    .await;
    scene.keep(OLD);
    let day = scene.run(&["repo", "activity", "--repo", REPO]);
    for word in ["force_push", "refs/heads/new", "pull_request", "workflow_file"] {
        assert!(day.code == Some(0) && day.stdout.contains(word), "{word}: {day:?}");
    }
    assert!(!day.stdout.contains("refs/heads/old") && day.stderr.contains("not told: workflow runs"), "{day:?}");
    let week = scene.run(&["repo", "activity", "--repo", REPO, "--since", "7d", "--json"]);
    let told = json_of(&week);
    let kinds: Vec<&str> = told["done"].as_array().unwrap().iter().map(|done| done["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["force_push", "pull_request", "workflow_file", "force_push"], "{week:?}");
    assert_eq!(told["missing"].as_array().unwrap().len(), 1);
    scene.end(&[day, week]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_be_kept_in_the_keyring_of_the_session() {
    let [alive, dead, reported] = revocable();
    let mut scene = Scene::new(vec![read(Some(30)), listed(), alive, dead, reported]).await;
    let none = scene.fed(&["token", "setup", "--repo", REPO, "--keyring"], OLD);
    assert!(none.code == Some(1) && none.stderr.contains("no keyring"), "{none:?}");
    let github = scene.github.client().url().clone();
    let answers = |session: &Session| Keyring::new(&session.address, &github).list().is_ok();
    let session = tokio::task::block_in_place(|| Session::with_keyring(answers));
    scene.variables = vec![("DBUS_SESSION_BUS_ADDRESS", session.address.clone())];
    let set = scene.fed(&["token", "setup", "--repo", REPO, "--keyring"], OLD);
    assert!(set.code == Some(0) && set.stdout.contains("kept in:    the keyring"), "{set:?}");
    assert_eq!(scene.kept(), None, "no file holds it");
    let list = scene.run(&["token", "list"]);
    assert!(list.stdout.contains("in 30 days"), "{list:?}");
    let rotated = scene.fed(&["token", "rotate", "--repo", REPO], NEW);
    assert!(rotated.code == Some(0) && scene.kept().is_none(), "{rotated:?}");
    scene.github.lay(refused("/user"));
    let revoked = scene.run(&["token", "revoke", "--all"]);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(!scene.run(&["token", "list"]).stdout.contains(REPO));
    scene.end(&[none, set, list, rotated, revoked]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_typed_is_not_shown() {
    let scene = Scene::new(vec![read(Some(30)), listed()]).await;
    let (shown, code) = tokio::task::block_in_place(|| {
        let template = scene.place.command(&[]);
        let line = format!("{} token setup --repo {REPO}", env!("CARGO_BIN_EXE_sandbox"));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env_clear().current_dir(scene.place.path(""));
        command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("SANDBOX_GITHUB", scene.github.client().url().origin());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut shown, mut stdout) = (Vec::new(), child.stdout.take().unwrap());
        // Only then does the terminal show nothing of what is typed.
        while !String::from_utf8_lossy(&shown).contains("The token: ") {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        child.stdin.take().unwrap().write_all(format!("{OLD}\n").as_bytes()).unwrap();
        stdout.read_to_end(&mut shown).unwrap();
        (String::from_utf8_lossy(&shown).into_owned(), child.wait().unwrap().code())
    });
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("fine-grained") && !shown.contains("MADE0UP"), "{shown}");
    assert!(scene.kept().unwrap().contains(OLD));
    scene.end(&[]).await;
}
