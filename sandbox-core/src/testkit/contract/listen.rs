//! Listeners that are inside and accepted on outside, and the variables that lead to them.

use async_trait::async_trait;
use sandbox_policy::{Capabilities, Control, NetworkRequest, SandboxSpec, Support, Violation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Fixture, sh, text};
use crate::testkit::Recorder;
use crate::{ErrorKind, Event, Events, Gateway, Guest, OpenGateway, Result, Token, Transport};

pub async fn a_listener_inside_is_accepted_on_outside(fixture: &Fixture) {
    let recorder = Recorder::default();
    let sandbox = fixture.start_with(recorder.clone()).await;
    let opened = sandbox.listen_tcp(0).await;
    assert!(recorder.events().contains(&Event::Listening { socket: "127.0.0.1:0".to_owned() }));
    if fixture.runtime.transport() == Transport::Relay {
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::InvalidInput);
        let path = fixture.path("listener");
        assert_eq!(sandbox.listen_unix(path, 0o666).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        sandbox.destroy().await.unwrap();
        return;
    }
    let listener = opened.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo asked >&3 && cat <&3");
    let client = sandbox.command("bash").args(["-c", &script]).output();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 6];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"answered").await.unwrap();
        asked
    };
    let (output, asked) = tokio::join!(client, server);
    assert_eq!((output.unwrap().stdout.as_slice(), &asked), (b"answered".as_slice(), b"asked\n"));
    assert_eq!(sandbox.listen_tcp(port).await.unwrap_err().kind(), ErrorKind::Io, "the port is taken");
    // Without the listener nobody answers.
    drop(listener);
    let refused = sh(&sandbox, &format!("bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}' 2>&1")).await;
    assert_ne!(refused.exit.status, crate::Status::Code(0));

    let path = std::env::temp_dir().join(format!("sandbox-{}", sandbox.id().short())).join("listener");
    let listener = sandbox.listen_unix(&path, 0o666).await.unwrap();
    let kind = text(&sandbox, &format!("stat -c '%A' {}", path.display())).await;
    assert_eq!(kind, "srw-rw-rw-");
    assert_eq!(sandbox.listen_unix(&path, 0o666).await.unwrap_err().kind(), ErrorKind::Io, "something is there");
    drop(listener);
    // Where nothing is isolated, it was made on the host.
    let _ = std::fs::remove_dir_all(path.parent().unwrap());
    sandbox.destroy().await.unwrap();
}

/// Is found by variables, and serves nothing.
#[derive(Debug)]
struct Signpost;

#[async_trait]
impl Gateway for Signpost {
    fn name(&self) -> &'static str {
        "signpost"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new().with(Control::EgressAllowlist, Support::Enforced { by: "no way out".to_owned() })
    }

    async fn open(&self, _: &SandboxSpec, _: &Events, _: Option<Token>) -> Result<Box<dyn OpenGateway>> {
        Ok(Box::new(Self))
    }
}

#[async_trait]
impl OpenGateway for Signpost {
    fn environment(&self) -> Vec<(String, String)> {
        [("SIGNPOST", "gateway"), ("OVERRIDDEN", "gateway"), ("HOME", "/nowhere")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    async fn attach(&mut self, _: &Guest) -> Result<()> {
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

pub async fn a_gateways_variables_are_the_weakest(fixture: &Fixture) {
    let builder = fixture.builder().gateway(Signpost).env("OVERRIDDEN", "caller");
    if fixture.runtime.transport() == Transport::Relay {
        // No listener can be passed, so no gateway can serve, and a request for one is refused.
        let error = builder.network(NetworkRequest::Egress).start().await.unwrap_err();
        let refused = |violation: &Violation| {
            matches!(violation, Violation::Unenforceable { control: Control::EgressAllowlist, why, .. }
                if why.contains("listening socket"))
        };
        assert!(error.violations().iter().any(refused), "{error:?}");
        return;
    }
    let sandbox = builder.network(NetworkRequest::Egress).start().await.unwrap();
    let seen = text(&sandbox, "echo $SIGNPOST $OVERRIDDEN; test $HOME != /nowhere").await;
    assert_eq!(seen, "gateway caller");
    sandbox.destroy().await.unwrap();
}
