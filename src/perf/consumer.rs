//! One consuming connection: blocking reads of many deliveries, acknowledged in groups.

use std::io::Write;
use std::time::Duration;

use super::client::{Client, check, delivery_tag_offset, id};
use super::error::PerfError;
use super::shared::Shared;
use super::template::read_stamp;
use super::wire::{BODY, Encoder, HEADER, METHOD, is_wait, long_long_at};

/// How long a read may last: the run's end is looked for, and a group that is not full is acknowledged.
const READ_TIMEOUT: Duration = Duration::from_millis(50);
/// A time further back than this, in nanoseconds, was never a time: a day.
const AGE_MAX: u64 = 86_400_000_000_000;

/// What a consumer is to do.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) queues: Vec<String>,
    /// Messages acknowledged at once; none is automatic acknowledgement.
    pub(super) ack_every: Option<u64>,
    /// 0 is no limit.
    pub(super) prefetch: u16,
}

/// See the module's documentation.
pub(super) struct Consumer<'a> {
    client: Client,
    shared: &'a Shared,
    /// Its place among the consumers.
    number: usize,
    ack_every: Option<u64>,
    acknowledgements: Encoder,
    deliveries: Deliveries,
    unacknowledged: u64,
}

/// The place in the stream of frames.
#[derive(Debug, Default)]
struct Deliveries {
    count: u64,
    /// The delivery tag of the current message.
    tag: u64,
    /// Body bytes that are still to come.
    left: u64,
    /// The next body frame is the message's first.
    first: bool,
    /// Messages in a row that carry this time are recorded together.
    stamp: u64,
    run: u64,
}

impl<'a> Consumer<'a> {
    /// Starts consuming.
    pub(super) fn new(mut client: Client, plan: &Plan, shared: &'a Shared, number: usize) -> Result<Self, PerfError> {
        if plan.prefetch > 0 {
            client.prefetch(plan.prefetch)?;
        }
        for (index, queue) in plan.queues.iter().enumerate() {
            client.consume(queue, &index.to_string(), plan.ack_every.is_none())?;
        }
        client.stream.set_read_timeout(Some(READ_TIMEOUT))?;
        Ok(Self {
            client,
            shared,
            number,
            ack_every: plan.ack_every,
            acknowledgements: Encoder::default(),
            deliveries: Deliveries::default(),
            unacknowledged: 0,
        })
    }

    /// Consumes until the run ends.
    pub(super) fn run(mut self) -> Result<(), PerfError> {
        match self.consume() {
            Ok(()) => {
                // What still comes may keep the broker's answer back; everything is said.
                let _ = self.client.close();
                Ok(())
            }
            Err(PerfError::Socket(error)) => Err(self.client.explain(error.into())),
            Err(error) => Err(error),
        }
    }

    fn consume(&mut self) -> Result<(), PerfError> {
        loop {
            let idle = match self.client.input.fill(&mut self.client.stream) {
                Ok(()) => false,
                Err(PerfError::Socket(error)) if is_wait(&error) => true,
                Err(error) => return Err(error),
            };
            self.read()?;
            let stopping = self.shared.is_stopping();
            if (idle || stopping) && self.unacknowledged > 0 {
                acknowledge(&mut self.acknowledgements, self.deliveries.tag);
                self.unacknowledged = 0;
            }
            if !self.acknowledgements.0.is_empty() {
                self.client.stream.write_all(&self.acknowledgements.0)?;
                self.acknowledgements.0.clear();
            }
            if stopping {
                return Ok(());
            }
        }
    }

    /// Goes through the deliveries that were read.
    fn read(&mut self) -> Result<(), PerfError> {
        let now = self.shared.clock.now();
        let meter = &self.shared.delivered[self.number];
        let before = self.deliveries.count;
        let (client, deliveries) = (&mut self.client, &mut self.deliveries);
        let (ack_every, acknowledgements) = (self.ack_every, &mut self.acknowledgements);
        let unacknowledged = &mut self.unacknowledged;
        meter.latencies.record(|record| {
            while let Some(frame) = client.input.next()? {
                let complete = match frame.kind {
                    METHOD if frame.id()? == id::BASIC_DELIVER => {
                        deliveries.tag = long_long_at(frame.payload, delivery_tag_offset(frame.payload)?)?;
                        false
                    }
                    HEADER => deliveries.begin(long_long_at(frame.payload, 4)?),
                    BODY => deliveries.body(frame.payload, now, record),
                    _ => {
                        check(&frame)?;
                        false
                    }
                };
                if let Some(every) = ack_every.filter(|_| complete) {
                    *unacknowledged += 1;
                    if *unacknowledged == every {
                        acknowledge(acknowledgements, deliveries.tag);
                        *unacknowledged = 0;
                    }
                }
            }
            deliveries.record_run(now, record);
            Ok::<(), PerfError>(())
        })?;
        if deliveries.count > before {
            meter.count.set(deliveries.count, now);
        }
        Ok(())
    }
}

impl Deliveries {
    /// A content header: whether the message is complete with it.
    fn begin(&mut self, size: u64) -> bool {
        self.left = size;
        self.first = true;
        self.count += u64::from(size == 0);
        size == 0
    }

    /// A body frame: whether the message is complete with it.
    #[inline]
    fn body(&mut self, payload: &[u8], now: u64, record: &mut dyn FnMut(u64, u64)) -> bool {
        if std::mem::take(&mut self.first)
            && let Some(stamp) = read_stamp(payload)
        {
            if stamp != self.stamp {
                self.record_run(now, record);
            }
            self.stamp = stamp;
            self.run += 1;
        }
        self.left = self.left.saturating_sub(payload.len() as u64);
        self.count += u64::from(self.left == 0);
        self.left == 0
    }

    fn record_run(&mut self, now: u64, record: &mut dyn FnMut(u64, u64)) {
        let latency = now.saturating_sub(self.stamp);
        if self.run > 0 && latency < AGE_MAX {
            record(latency, self.run);
        }
        self.run = 0;
    }
}

/// Acknowledges this message and those before it.
fn acknowledge(out: &mut Encoder, tag: u64) {
    const CHANNEL: u16 = 1;
    const MULTIPLE: u8 = 1;
    out.method(CHANNEL, id::BASIC_ACK, |arguments| {
        arguments.long_long(tag).octet(MULTIPLE);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_time_are_recorded_together_and_nonsense_is_not() {
        let mut deliveries = Deliveries::default();
        let mut recorded = Vec::new();
        let mut record = |latency, count| recorded.push((latency, count));
        let now = 2 * AGE_MAX;
        for (stamp, size) in [(now - 5, 8u64), (now - 5, 16), (now - 1, 8), (3, 8)] {
            assert!(!deliveries.begin(size));
            let mut body = stamp.to_le_bytes().to_vec();
            body.resize(usize::try_from(size).unwrap(), 0);
            assert!(deliveries.body(&body, now, &mut record));
        }
        assert!(deliveries.begin(0));
        deliveries.record_run(now, &mut record);
        assert_eq!(recorded, [(5, 2), (1, 1)]);
        assert_eq!(deliveries.count, 5);
    }

    #[test]
    fn a_body_in_pieces_is_one_message() {
        let mut deliveries = Deliveries::default();
        deliveries.begin(20);
        let mut record = |_, _| ();
        assert!(!deliveries.body(&[0; 12], 0, &mut record));
        assert!(deliveries.body(&[0; 8], 0, &mut record));
        assert_eq!((deliveries.count, deliveries.run), (1, 1));
    }
}
