//! From start to nothing left, on every road.

use std::time::Duration;

use sandbox_policy::{LimitsRequest, Span};

use super::{Fixture, eventually, nap, running};
use crate::testkit::{Recorder, Refuser};
use crate::{Cause, ErrorKind, Event, Signal, Status};

pub async fn destroying_leaves_nothing(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let (id, guest) = (sandbox.id(), sandbox.guest().clone());
    let listed = fixture.runtime.list().await.unwrap();
    let ours = listed.iter().find(|container| container.sandbox == id).unwrap();
    assert_eq!(ours.owner, Some(crate::Owner::current().unwrap()));
    assert_eq!(fixture.run_root.sandboxes().unwrap(), [id]);
    assert_eq!(sandbox.destroy().await.unwrap(), Cause::Requested);
    fixture.assert_nothing_left(id).await;
    // A handle that outlives its sandbox says so.
    let error = guest.command("true").output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SandboxGone, "{error}");
}

pub async fn a_dropped_sandbox_is_taken_down(fixture: &Fixture) {
    let recorder = Recorder::default();
    let sandbox = fixture.start_with(recorder.clone()).await;
    let id = sandbox.id();
    drop(sandbox);
    eventually("the dropped sandbox is gone", || async {
        recorder.events().contains(&Event::Destroyed { residue: Vec::new() })
    })
    .await;
    assert!(recorder.events().contains(&Event::Destroying { cause: Cause::Dropped }));
    fixture.assert_nothing_left(id).await;
}

pub async fn a_start_that_is_given_up_leaves_nothing(fixture: &Fixture) {
    // At first at once, then later and later, until a start outruns its end.
    let mut outran = false;
    let mut step = 0;
    while !outran {
        let recorder = Recorder::default();
        let start = fixture.builder().events(recorder.clone()).start();
        let within = Duration::from_millis(step * step * 4);
        match tokio::time::timeout(within, start).await {
            Ok(sandbox) => {
                outran = true;
                sandbox.unwrap().destroy().await.unwrap();
            }
            Err(_) => {
                eventually("the given-up start is undone", || async {
                    let events = recorder.events();
                    events.is_empty() || events.contains(&Event::Destroyed { residue: Vec::new() })
                })
                .await;
            }
        }
        if let Some(envelope) = recorder.envelopes().first() {
            fixture.assert_nothing_left(envelope.sandbox).await;
        }
        step += 1;
    }
    assert!(step > 1, "no start was ever given up");
}

pub async fn a_lifetime_ends_the_sandbox(fixture: &Fixture) {
    let limits = LimitsRequest { lifetime: Some(Span::seconds(2)), ..LimitsRequest::default() };
    let sandbox = fixture.builder().limits(limits).start().await.unwrap();
    let id = sandbox.id();
    let output = sandbox.command("sleep").arg("600").output();
    let ended = tokio::time::timeout(Duration::from_secs(30), sandbox.ended());
    let (output, cause) = tokio::join!(output, ended);
    assert_eq!(output.unwrap_err().kind(), ErrorKind::SandboxGone);
    let cause = cause.unwrap().unwrap();
    // The guest has a clock of its own, and may be the first.
    assert!(matches!(cause, Cause::LifetimeOver | Cause::GuestEnded), "{cause:?}");
    fixture.assert_nothing_left(id).await;
    assert_eq!(sandbox.destroy().await.unwrap(), cause);
}

pub async fn a_container_that_ends_takes_its_sandbox_with_it(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let running = sandbox.command("sleep").arg("600").spawn().await.unwrap();
    fixture.runtime.kill(sandbox.container(), Signal::Kill).await.unwrap();
    let cause = tokio::time::timeout(Duration::from_secs(30), sandbox.ended()).await.unwrap().unwrap();
    assert_eq!(cause, Cause::GuestEnded);
    let mut running = running;
    assert_eq!(running.wait().await.unwrap_err().kind(), ErrorKind::SandboxGone);
    fixture.assert_nothing_left(sandbox.id()).await;
    sandbox.destroy().await.unwrap();
}

pub async fn events_are_numbered_and_hold_no_argument(fixture: &Fixture) {
    let recorder = Recorder::default();
    let sandbox = fixture.builder().events(recorder.clone()).env("NAME", "not-to-be-told").start().await.unwrap();
    sandbox.command("sh").args(["-c", ": not-to-be-told"]).output().await.unwrap();
    let path = fixture.path("told");
    sandbox.write(&path, "not-to-be-told").await.unwrap();
    sandbox.remove(&path).await.unwrap();
    sandbox.destroy().await.unwrap();

    let envelopes = recorder.envelopes();
    for (number, envelope) in envelopes.iter().enumerate() {
        assert_eq!(envelope.sequence, number as u64);
    }
    let json = serde_json::to_string(&envelopes).unwrap();
    assert!(!json.contains("not-to-be-told"), "{json}");
    let mut order = recorder.events().into_iter().filter_map(|event| match event {
        Event::Creating { .. } => Some("creating"),
        Event::Starting { .. } => Some("starting"),
        Event::Attested { .. } => Some("attested"),
        Event::Executing { program } if program == "sh" => Some("executing"),
        Event::Transferring { operation, .. } => Some(operation),
        Event::Destroying { .. } => Some("destroying"),
        Event::Destroyed { .. } => Some("destroyed"),
        _ => None,
    });
    let expected = ["creating", "starting", "attested", "executing", "write", "remove", "destroying", "destroyed"];
    assert!(order.by_ref().eq(expected), "{:?}", recorder.events());
}

pub async fn an_event_that_is_refused_stops_its_effect(fixture: &Fixture) {
    let refuse_creating = Refuser(|event| matches!(event, Event::Creating { .. }));
    let error = fixture.builder().events(refuse_creating).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EventRefused, "{error}");
    assert_eq!(fixture.run_root.sandboxes().unwrap(), []);

    let path = fixture.path("never-written");
    let refuse_work = Refuser(|event| match event {
        Event::Executing { program } => program == "touch",
        Event::Transferring { operation, .. } => *operation == "write",
        _ => false,
    });
    let sandbox = fixture.start_with(refuse_work).await;
    assert!(sandbox.command("touch").arg(&path).output().await.is_err());
    assert!(sandbox.write(&path, "x").await.is_err());
    assert_eq!(sandbox.stat(&path).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(sandbox.command("true").output().await.unwrap().exit.status, Status::Code(0));
    sandbox.destroy().await.unwrap();
}

pub async fn two_sandboxes_do_not_meet(fixture: &Fixture) {
    let (one, other) = tokio::join!(fixture.start(), fixture.start());
    assert_ne!(one.id(), other.id());
    if !fixture.lacks(sandbox_policy::Control::HostFilesystem) {
        let path = fixture.path("mine");
        one.write(&path, "mine").await.unwrap();
        assert_eq!(other.read(&path, 10).await.unwrap_err().kind(), ErrorKind::NotFound);
        let nap = nap(&one);
        let sleeper = one.command("sh").args(["-c", &format!("exec {nap}")]).spawn().await.unwrap();
        eventually("the program runs", || async { running(&one, &nap).await == "1" }).await;
        assert_eq!(running(&other, &nap).await, "0");
        drop(sleeper);
    }
    let (one, other) = tokio::join!(one.destroy(), other.destroy());
    assert_eq!((one.unwrap(), other.unwrap()), (Cause::Requested, Cause::Requested));
}
