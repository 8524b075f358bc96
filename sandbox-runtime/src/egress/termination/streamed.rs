//! A body on its way through: counted part by part, never held, and given up where it stands still.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::underway::Place;
use super::upstream::Lease;
use crate::egress::answer::Refusal;
use crate::egress::body::STALL;
use crate::egress::budget::Meter;
use crate::egress::session::{Pass, Session};
use crate::egress::stray::Search;

/// What is answered: what the other side says, or words of our own.
pub(super) type Answer = Either<Streamed, Full<Bytes>>;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body that passes.
#[derive(Debug)]
pub(super) struct Streamed {
    body: Incoming,
    meter: Meter,
    direction: Direction,
    stall: Pin<Box<Sleep>>,
    exchange: Option<Exchange>,
    /// A part that was there before anybody asked for it.
    begun: Option<Result<Frame<Bytes>, Error>>,
}

/// Where a body goes.
#[derive(Debug)]
pub(super) enum Direction {
    In,
    Out(Box<Guard>),
}

/// Ends what goes out where a placeholder is in it.
#[derive(Debug)]
pub(super) struct Guard {
    search: Search,
    session: Arc<Session>,
    pass: Arc<Pass>,
    refusal: Arc<OnceLock<Refusal>>,
}

impl Guard {
    /// Looks at a body; why it was ended, if it was, is told there.
    pub(super) fn new(session: &Arc<Session>, pass: &Arc<Pass>) -> (Self, Arc<OnceLock<Refusal>>) {
        let refusal = Arc::default();
        let (session, pass) = (Arc::clone(session), Arc::clone(pass));
        (Self { search: session.vault.search(), session, pass, refusal: Arc::clone(&refusal) }, refusal)
    }

    fn look(&mut self, frame: &Frame<Bytes>) -> io::Result<()> {
        let vault = &self.session.vault;
        let looked = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(bytes), _) => self.search.look(bytes).map_err(|found| vault.in_body(found)),
            (None, Some(trailers)) => {
                vault.stray("", trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())))
            }
            (None, None) => Ok(()),
        };
        looked.map_err(|Refusal { rule, reason, hint, .. }| {
            let refusal = self.session.revoke(&self.pass, &rule, reason, &hint);
            // Whoever waits for an answer is told; the first reason is as good as any.
            let _ = self.refusal.set(refusal);
            io::ErrorKind::PermissionDenied.into()
        })
    }
}

/// What lasts as long as an answer does.
#[derive(Debug)]
pub(super) struct Exchange {
    /// The connection that it comes by, which others may use after it.
    pub(super) lease: Option<Lease>,
    /// Its place among what is looked at where the policy changes its mind.
    #[expect(dead_code, reason = "it is held")]
    pub(super) place: Place,
}

impl Streamed {
    /// Lets a body pass.
    pub(super) fn new(body: Incoming, meter: Meter, direction: Direction) -> Self {
        Self { body, meter, direction, stall: Box::pin(tokio::time::sleep(STALL)), exchange: None, begun: None }
    }

    /// Ends an exchange when the body has.
    pub(super) fn ending(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        if self.body.is_end_stream() {
            self.ended();
        }
        self
    }

    /// Takes the first part, where it came with the head: it then goes on with it, in one piece. What comes later is not
    /// waited for.
    pub(super) async fn begin(&mut self) {
        for is_asked_anew in [false, true] {
            if self.body.is_end_stream() {
                return;
            }
            match std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *self).poll_frame(cx))).await {
                Poll::Ready(part) => {
                    self.begun = part;
                    return;
                }
                // The connection that it comes by is read as soon as somebody asks.
                Poll::Pending if !is_asked_anew => tokio::task::yield_now().await,
                Poll::Pending => {}
            }
        }
    }

    fn ended(&mut self) {
        if let Some(lease) = self.exchange.take().and_then(|mut exchange| exchange.lease.take()) {
            lease.give_back();
        }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Some(begun) = this.begun.take() {
            return Poll::Ready(Some(begun));
        }
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.stall.as_mut().poll(cx));
                return Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::TimedOut).into())));
            }
        };
        match frame {
            Some(Ok(frame)) => {
                if let Direction::Out(guard) = &mut this.direction
                    && let Err(error) = guard.look(&frame)
                {
                    return Poll::Ready(Some(Err(error.into())));
                }
                if let Some(bytes) = frame.data_ref() {
                    let counted = match this.direction {
                        Direction::In => this.meter.received(bytes.len()),
                        Direction::Out(_) => this.meter.sent(bytes.len()),
                    };
                    if let Err(error) = counted {
                        return Poll::Ready(Some(Err(error.into())));
                    }
                    this.stall.as_mut().reset(Instant::now() + STALL);
                }
                if this.body.is_end_stream() {
                    this.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                this.ended();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.begun.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        if let Some(Ok(begun)) = &self.begun {
            let held = begun.data_ref().map_or(0, Bytes::len) as u64;
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper.saturating_add(held));
            }
            hint.set_lower(hint.lower().saturating_add(held));
        }
        hint
    }
}
