//! One publishing connection. It never blocks in the socket: while the broker takes nothing, confirms are still read.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::client::{Client, check, id};
use super::error::PerfError;
use super::shared::{Meter, Shared, nanoseconds};
use super::template::{Shape, Template};
use super::topology::Route;
use super::window::Window;
use super::wire::{METHOD, is_wait, long_long_at, octet_at};

/// Bytes of messages that are written at once, about; they carry the same time.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the last batch and its confirms may take once the run is to end.
const GRACE: Duration = Duration::from_secs(5);
/// The longest wait for the socket before the run's end is looked for.
const WAIT: Duration = Duration::from_millis(50);
/// Without confirms the socket is read once in so many batches, for a close.
const READ_EVERY: u32 = 64;

/// What a publisher is to do.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    pub(super) routes: Vec<Route>,
    /// Unconfirmed messages at most; 0 is without confirms.
    pub(super) window: usize,
    /// Messages per second; none is as many as possible.
    pub(super) rate: Option<f64>,
    /// Messages in all; none is until the run ends.
    pub(super) messages: Option<u64>,
}

/// See the module's documentation.
pub(super) struct Publisher<'a> {
    client: Client,
    shared: &'a Shared,
    /// Its place among the publishers.
    number: usize,
    template: Template,
    window: Option<Window>,
    rate: Option<f64>,
    messages: u64,
    batch: usize,
    started: u64,
    /// The message in the template that is to be sent next.
    position: usize,
    /// Bytes of the template not written yet.
    pending: Range<usize>,
    /// The messages of the template these bytes belong to.
    sending: Range<usize>,
    /// Messages written before those in `sending`.
    published: u64,
    confirmed: u64,
}

/// What can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// There is something to write.
    Write,
    /// The next message is due then.
    Due(u64),
    /// The window is full.
    Confirms,
    /// Everything is written.
    Finished,
}

impl<'a> Publisher<'a> {
    /// Makes the connection and the messages ready.
    pub(super) fn new(mut client: Client, plan: &Plan, shared: &'a Shared, number: usize) -> Result<Self, PerfError> {
        if plan.window > 0 {
            client.select_confirms()?;
        }
        client.stream.set_nonblocking(true)?;
        let shape = Shape { frame_max: client.frame_max, ..plan.shape.clone() };
        Ok(Self {
            client,
            shared,
            number,
            template: Template::new(&shape, &plan.routes),
            window: (plan.window > 0).then(|| Window::new(plan.window)),
            rate: plan.rate,
            messages: plan.messages.unwrap_or(u64::MAX),
            batch: (BATCH_BYTES / (plan.shape.size + 64)).max(1),
            started: 0,
            position: 0,
            pending: 0..0,
            sending: 0..0,
            published: 0,
            confirmed: 0,
        })
    }

    /// Publishes until everything is published and confirmed, or the run ends.
    pub(super) fn run(mut self) -> Result<(), PerfError> {
        match self.publish() {
            Ok(true) => self.client.close(),
            // The broker takes nothing, and in the middle of a message nothing else can be said.
            Ok(false) => Ok(()),
            Err(PerfError::Socket(error)) => Err(self.client.explain(error.into())),
            Err(error) => Err(error),
        }
    }

    /// Whether the last message was written to its end.
    fn publish(&mut self) -> Result<bool, PerfError> {
        self.started = self.shared.clock.now();
        let mut turns = 0u32;
        let mut give_up = None;
        loop {
            let stopping = self.shared.is_stopping();
            let next = if self.pending.is_empty() { self.prepare(stopping) } else { Next::Write };
            let blocked = next == Next::Write && self.write()?;
            let open = self.window.as_ref().is_some_and(|window| !window.is_empty());
            if stopping {
                let now = self.shared.clock.now();
                let deadline = *give_up.get_or_insert_with(|| now + nanoseconds(GRACE));
                if now > deadline {
                    return Ok(self.pending.is_empty());
                }
            }
            if next == Next::Finished && !open {
                return Ok(true);
            }
            if blocked || next != Next::Write {
                self.wait(blocked, next)?;
            }
            turns = turns.wrapping_add(1);
            if self.window.is_some() || blocked || next != Next::Write || turns.is_multiple_of(READ_EVERY) {
                self.read()?;
            }
        }
    }

    /// Chooses the next messages and stamps them.
    fn prepare(&mut self, stopping: bool) -> Next {
        let left = self.messages - self.published;
        if stopping || left == 0 {
            return Next::Finished;
        }
        let mut count = self.batch.min(self.template.len() - self.position);
        count = count.min(usize::try_from(left).unwrap_or(usize::MAX));
        let now = self.shared.clock.now();
        let mut stamp = now;
        if let Some(rate) = self.rate {
            let due_at = |message: u64| self.started + (message as f64 / rate * 1e9) as u64;
            let due = ((now - self.started) as f64 * rate / 1e9) as u64;
            let behind = due.saturating_sub(self.published);
            if behind == 0 {
                return Next::Due(due_at(self.published + 1));
            }
            count = count.min(usize::try_from(behind).unwrap_or(usize::MAX));
            // Messages that the broker held up carry the time they were due at, or its delays would go unmeasured.
            let due_at = due_at(self.published + 1);
            if now > due_at + LATE {
                stamp = due_at;
            }
        }
        if let Some(window) = &mut self.window {
            count = count.min(window.room());
            if count == 0 {
                return Next::Confirms;
            }
            window.send(count, stamp);
        }
        self.sending = self.position..self.position + count;
        self.pending = self.template.stamp(self.sending.clone(), stamp);
        self.position = self.sending.end % self.template.len();
        Next::Write
    }

    /// Writes once; whether the socket has no room.
    fn write(&mut self) -> Result<bool, PerfError> {
        match self.client.stream.write(self.template.bytes(self.pending.clone())) {
            Ok(length) => self.pending.start += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(error) if is_wait(&error) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let ended = self.template.ended(self.sending.start, self.pending.start).min(self.sending.len());
        self.sending.start += ended;
        self.published += ended as u64;
        self.shared.published[self.number].set(self.published, self.shared.clock.now());
        Ok(false)
    }

    /// Waits for the socket, or until the next message is due.
    fn wait(&self, for_room: bool, next: Next) -> Result<(), PerfError> {
        let nanoseconds = match next {
            Next::Due(at) => at.saturating_sub(self.shared.clock.now()).min(nanoseconds(WAIT)),
            Next::Write | Next::Confirms | Next::Finished => nanoseconds(WAIT),
        };
        // At most a twentieth of a second.
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::try_from(nanoseconds).unwrap_or(0) };
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, for_room);
        match poll(&mut [PollFd::new(&self.client.stream, flags)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    /// Reads what the socket has, which is confirms.
    fn read(&mut self) -> Result<(), PerfError> {
        match self.client.input.fill(&mut self.client.stream) {
            Ok(()) => {}
            Err(PerfError::Socket(error)) if is_wait(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let now = self.shared.clock.now();
        let meter: &Meter = &self.shared.confirmed[self.number];
        let (client, window, shared) = (&mut self.client, &mut self.window, self.shared);
        let confirmed = meter.latencies.record(|record| {
            let mut confirmed = 0;
            while let Some(frame) = client.input.next()? {
                let ids = if frame.kind == METHOD { frame.id()? } else { continue };
                match (ids, window.as_mut()) {
                    (id::BASIC_ACK | id::BASIC_NACK, Some(window)) => {
                        let (tag, flags) = (long_long_at(frame.payload, 4)?, octet_at(frame.payload, 12)?);
                        let each = |sent: u64, count| record(now.saturating_sub(sent), count);
                        let count = window.confirm(tag, flags & 1 != 0, each)?;
                        confirmed += count;
                        if ids == id::BASIC_NACK {
                            shared.refused.fetch_add(count, Ordering::Relaxed);
                        }
                    }
                    _ => check(&frame)?,
                }
            }
            Ok::<u64, PerfError>(confirmed)
        })?;
        if confirmed > 0 {
            self.confirmed += confirmed;
            meter.count.set(self.confirmed, now);
        }
        Ok(())
    }
}

/// A message less late than this, in nanoseconds, is taken as sent when it was: waking up takes some time.
const LATE: u64 = 1_000_000;
