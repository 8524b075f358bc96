//! The servers beyond the gateway, and the proxy that leads to them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use sandbox_runtime::{Roots, Upstream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// An authority that a test's origins are trusted by.
pub(crate) struct Trusted {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Trusted {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { params, key, pem }
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(&self.pem).unwrap()
    }

    pub(crate) fn server(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let mut config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A server for one name, which keeps all that arrives at it.
pub(super) struct Origin {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<usize>>,
    _serving: JoinSet<()>,
}

impl Origin {
    /// Serves with these protocols; its certificate is this authority's.
    pub(super) async fn serving(trusted: &Trusted, name: &str, protocols: &[&str]) -> Self {
        let acceptor = trusted.server(name, protocols);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, connections) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::<Mutex<usize>>::default());
        let (noted, counted) = (Arc::clone(&seen), Arc::clone(&connections));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *counted.lock().unwrap() += 1;
                all.spawn(serve(acceptor.clone(), stream, Arc::clone(&noted)));
            }
        });
        Self { port, seen, connections, _serving: serving }
    }

    /// Every byte that arrived, decrypted; for HTTP/2, what the headers and bodies said.
    pub(super) fn seen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn serve(acceptor: TlsAcceptor, stream: TcpStream, seen: Arc<Mutex<Vec<u8>>>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let is_second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let noted = Arc::clone(&seen);
    let service = service_fn(move |request| {
        let seen = Arc::clone(&noted);
        async move { Ok::<_, Infallible>(answer(request, is_second.then_some(seen)).await) }
    });
    let stream = TokioIo::new(Noted { stream, seen: (!is_second).then_some(seen) });
    if is_second {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(stream, service).with_upgrades().await;
    }
}

/// What an origin says: by the path, the headers that came, the body that came, a way elsewhere, or a change of protocol.
async fn answer(
    mut request: Request<Incoming>,
    seen: Option<Arc<Mutex<Vec<u8>>>>,
) -> Response<Either<Full<Bytes>, Incoming>> {
    let note = |bytes: &[u8]| {
        if let Some(seen) = &seen {
            seen.lock().unwrap().extend_from_slice(bytes);
        }
    };
    note(format!("{} {}\n", request.method(), request.uri()).as_bytes());
    let mut headers = String::new();
    for (name, value) in request.headers() {
        headers.extend([name.as_str(), ": ", &String::from_utf8_lossy(value.as_bytes()), "\n"]);
    }
    note(headers.as_bytes());
    let text = |text: String| Response::new(Either::Left(Full::from(text)));
    match request.uri().path() {
        "/open/silent" => std::future::pending().await,
        "/echo" => Response::new(Either::Right(request.into_body())),
        "/elsewhere" => {
            let mut response = text(String::new());
            *response.status_mut() = http::StatusCode::FOUND;
            response.headers_mut().insert("location", "https://evil.example/".parse().unwrap());
            response
        }
        "/socket" => {
            let changed = hyper::upgrade::on(&mut request);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut stream = TokioIo::new(changed.await.unwrap());
                    let mut bytes = [0; 4];
                    stream.read_exact(&mut bytes).await.unwrap();
                    stream.write_all(&bytes.map(|byte| byte.to_ascii_uppercase())).await.unwrap();
                    stream.flush().await.unwrap();
                });
            });
            let mut response = text(String::new());
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
            response
        }
        _ => {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            note(&body);
            text(headers)
        }
    }
}

/// A stream whose bytes are kept as they are read.
struct Noted<S> {
    stream: S,
    seen: Option<Arc<Mutex<Vec<u8>>>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if let Some(seen) = &this.seen {
            seen.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A proxy that opens tunnels to where names lead, and knows no others.
pub(super) struct Switchboard {
    port: u16,
    _serving: JoinSet<()>,
}

impl Switchboard {
    pub(super) async fn leading(names: &[(&str, u16)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let names: HashMap<String, u16> = names.iter().map(|(name, port)| (format!("{name}:443"), *port)).collect();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let names = names.clone();
                all.spawn(async move {
                    let head = super::harness::head(&mut stream).await;
                    let to = names.get(head.split(' ').nth(1).unwrap_or(""));
                    let Some(to) = to else {
                        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await;
                        return;
                    };
                    let mut server = TcpStream::connect(("127.0.0.1", *to)).await.unwrap();
                    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
                });
            }
        });
        Self { port, _serving: serving }
    }

    pub(super) fn upstream(&self) -> Upstream {
        Upstream::new("127.0.0.1".parse().unwrap(), self.port)
    }
}
