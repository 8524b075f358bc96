//! Sinks for tests.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{Envelope, Error, ErrorKind, Event, EventSink, Result};

/// Keeps every event. Clones share what they keep.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    envelopes: Arc<Mutex<Vec<Envelope>>>,
}

impl Recorder {
    /// Everything that was recorded, in order.
    pub fn envelopes(&self) -> Vec<Envelope> {
        self.envelopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events, in order.
    pub fn events(&self) -> Vec<Event> {
        self.envelopes().into_iter().map(|envelope| envelope.event).collect()
    }
}

impl EventSink for Recorder {
    fn record(&self, envelope: &Envelope) -> Result<()> {
        self.envelopes.lock().unwrap_or_else(PoisonError::into_inner).push(envelope.clone());
        Ok(())
    }
}

/// Refuses the events that a test picks, as a full disk would.
#[derive(Clone, Copy, Debug)]
pub struct Refuser(pub fn(&Event) -> bool);

impl EventSink for Refuser {
    fn record(&self, envelope: &Envelope) -> Result<()> {
        if (self.0)(&envelope.event) {
            return Err(Error::new(ErrorKind::Exhausted, "the disk is full"));
        }
        Ok(())
    }
}
