//! What waits for what: an answer never overtakes what its program wrote before it.

use std::io;
use std::time::Instant;

use super::flow::{Flow, Role};
use super::{Relay, Side, TERMINAL};

impl Relay {
    /// Whether an answer must wait for what its program has written before.
    pub(super) fn waits(&self, id: u32, flow: &Flow) -> bool {
        if self.side != Side::Guest || !flow.is_control(id) {
            return false;
        }
        let mut waits = false;
        for sibling in id + 1..id + TERMINAL {
            let Some(source) = self.flows.get(&sibling).filter(|sibling| sibling.role == Role::Source) else {
                continue;
            };
            waits |=
                flow.barriers.iter().any(|(at, total)| *at == sibling && source.read < *total && !source.stalled());
        }
        waits
    }

    /// Whether what came for a control must wait for what came for its siblings before.
    pub(super) fn sink_waits(&self, id: u32, flow: &Flow) -> bool {
        let Some(chunk) = flow.queue.front() else { return false };
        self.side == Side::Host
            && flow.is_control(id)
            && chunk.after.iter().any(|(sibling, total)| {
                self.flows.get(sibling).is_some_and(|sibling| sibling.written < *total && !sibling.stalled())
            })
    }

    /// How much has come so far for the pipes of a control's request.
    pub(super) fn siblings(&self, id: u32) -> Vec<(u32, u64)> {
        let siblings = self.flows.range(id + 1..id + TERMINAL).filter(|(_, flow)| flow.role == Role::Sink);
        siblings.map(|(id, flow)| (*id, flow.written + flow.queued as u64)).collect()
    }

    /// Notes what an answer must wait for; `true` when it need not.
    pub(super) fn set_barriers(&mut self, id: u32) -> io::Result<bool> {
        let Some(control) = self.flows.get(&id) else { return Ok(false) };
        if control.barriers.is_empty() {
            let mut barriers = Vec::new();
            for (sibling, source) in self.flows.range(id + 1..id + TERMINAL) {
                if source.role == Role::Source {
                    let waiting = rustix::io::ioctl_fionread(&source.descriptor)?;
                    barriers.push((*sibling, source.read + waiting));
                }
            }
            for (sibling, _) in &barriers {
                if let Some(source) = self.flows.get_mut(sibling) {
                    source.moved = Instant::now();
                }
            }
            if let Some(control) = self.flows.get_mut(&id) {
                control.barriers = barriers;
            }
        }
        Ok(self.flows.get(&id).is_some_and(|control| !self.waits(id, control)))
    }
}
