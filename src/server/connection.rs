//! One task a connection: wait for the socket, the outbox or the clock; then let the protocol and the session work.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::broker::{Eventually, Outbox, Pending, Session, Verdict};
use crate::model::ids::{ConnectionId, Timestamp};
use crate::model::request::{Event, Request};
use crate::model::statistics::{ConnectionFacts, ConnectionRecord, TrafficNumber};
use crate::protocol::amqp091::{Connection, Status};

use super::Shared;
use super::admission::Place;
use super::opening::{Link, Opened, Opening};
use super::stream::Stream;

/// Bytes read at once, into a buffer that all connections of a thread share.
const READ_MAX: usize = 128 * 1024;
/// Requests handled before credit is looked at: few enough that what comes of them stays small, whatever it is; enough
/// that looking costs nothing.
const REQUESTS_MAX: usize = 32;
/// Who sends as many bytes at once is likely to send more.
const FLOOD: usize = 16 * 1024;
/// Once fewer bytes than this wait for the socket, the deliveries among them count as sent.
const OUTPUT_LOW: usize = 64 * 1024;
/// How long what a client had sent before the broker stopped is still taken.
const LAST_READS: Duration = Duration::from_secs(1);
/// After such a silence, all of it has been taken.
const LAST_SILENCE: Duration = Duration::from_millis(20);
const DISPLACED: &str = "connection closed before its login: others need its place";
/// Lists that grew longer than this are given back after a while.
const LIST_KEEP: usize = 256;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_MAX]);
}

struct Driver {
    shared: Arc<Shared>,
    stream: Stream,
    link: Link,
    protocol: Connection,
    session: Session,
    record: Arc<ConnectionRecord>,
    outbox: Arc<Outbox>,
    events: Vec<Event>,
    requests: Vec<Request>,
    immediate: Vec<Event>,
    timer: Pin<Box<Sleep>>,
    /// What the timer is set to.
    armed: Option<Timestamp>,
    /// What the session waits for: somebody else's answer.
    pending: Option<Eventually<Verdict>>,
    end_of_input: bool,
    place: Place,
    /// The broker is stopping: says so once what the client sent before is taken, at this time at the latest.
    farewell: Option<(Event, Instant)>,
}

/// Goes to the end of this thread's queue. Those that the last batch woke run first; otherwise a flooding publisher would
/// keep its thread for hundreds of batches, with the consumers it feeds waiting in that thread's slot. Unlike
/// `yield_now`, which stays with its thread, this leaves the task where an idle thread finds it: publisher and consumer
/// then run on two cores.
async fn let_others_run() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// What a driver waits for.
enum Wake {
    Readable,
    /// What is kept of the input may be handled, or more of a transaction.
    Input,
    Answered(Verdict),
    /// Another connection needs the place of this one, which has not logged in.
    Displaced,
    Other,
}

pub(super) async fn serve(
    shared: Arc<Shared>,
    opening: Arc<Opening>,
    socket: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    // The time for the handshakes of TLS and AMQP together begins here.
    let accepted = shared.clock.now();
    let opened = tokio::select! {
        opened = opening.open(socket, peer, &place) => opened,
        () = place.is_taken() => {
            tracing::debug!(%peer, "{DISPLACED}");
            return;
        }
    };
    let Some(Opened { stream, link, external }) = opened else { return };
    let id = shared.broker.new_connection_id();
    let Ok(seed) = getrandom::u64() else {
        tracing::error!("no random numbers from the system: connection refused");
        return;
    };
    let outbox =
        Arc::new(Outbox::new(shared.publish_credit, shared.delivery_credit).sharing(shared.broker.credit_pool()));
    let (peer, own) = (link.peer, link.local);
    let facts = ConnectionFacts {
        name: format!("{peer} -> {own}").into(),
        peer_host: peer.ip().to_canonical().to_string(),
        peer_port: peer.port(),
        host: own.ip().to_canonical().to_string(),
        port: own.port(),
        connected_at: shared.clock.now(),
        tls: link.tls.clone(),
        ..ConnectionFacts::default()
    };
    let record = shared.broker.registry.add(id, facts, &outbox);
    if let Some(alarm) = shared.alarms.current() {
        outbox.push_one(alarm);
    }
    tell_accepted(id, &link);
    let mut protocol = Connection::new(shared.amqp.load_full(), id, seed, accepted).with_record(&record);
    protocol.set_requests_max(REQUESTS_MAX);
    if let Some(user) = external {
        protocol.offer_external(user);
    }
    let mut driver = Box::new(Driver {
        protocol,
        session: Session::new(&shared.broker, &outbox, id, peer.ip(), seed.rotate_left(32)).with_record(&record),
        record,
        stream,
        link,
        outbox,
        events: Vec::new(),
        requests: Vec::new(),
        immediate: Vec::new(),
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        armed: None,
        pending: None,
        end_of_input: false,
        place,
        farewell: None,
        shared,
    });
    let outcome = driver.run().await;
    driver.finish(id, outcome).await;
}

fn tell_accepted(id: ConnectionId, link: &Link) {
    let Link { peer, local, tls } = link;
    match tls.as_deref() {
        Some(tls) => {
            let subject = tls.peer.as_ref().map_or("", |certificate| &certificate.subject);
            let (version, cipher) = (tls.version, tls.cipher);
            tracing::debug!(connection = id.0, %peer, %local, version, cipher, subject, "connection accepted");
        }
        None => tracing::debug!(connection = id.0, %peer, %local, "connection accepted"),
    }
}

impl Driver {
    /// Where the connection comes from, and how it is protected.
    fn link(&self) -> &Link {
        &self.link
    }

    /// The whole life of the connection. An error is the socket's.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            let now = self.shared.clock.now();
            self.work(now);
            self.write()?;
            if self.protocol.output().len() < OUTPUT_LOW {
                self.protocol.return_credit(self.shared.credit_worth, &mut self.requests);
                if !self.requests.is_empty() {
                    continue;
                }
            }
            if self.protocol.status() == Status::Closed || self.end_of_input {
                return Ok(());
            }
            if let Some((_, until)) = self.farewell {
                self.take_leave(until).await?;
                continue;
            }
            match self.wait().await? {
                Wake::Readable => {
                    let length = self.read()?;
                    self.work(self.shared.clock.now());
                    // To wake another thread takes its time, too.
                    if length >= FLOOD {
                        let_others_run().await;
                    }
                }
                Wake::Input => {
                    self.go_on();
                    self.work(self.shared.clock.now());
                    let_others_run().await;
                }
                Wake::Answered(verdict) => self.resume(verdict),
                Wake::Displaced => return Err(io::Error::other(DISPLACED)),
                Wake::Other => {}
            }
            self.tick();
            if self.place.is_waiting() && self.session.user().is_some() {
                self.place.log_in();
            }
        }
    }

    /// Handles events and requests until there are none.
    fn work(&mut self, now: Timestamp) {
        self.outbox.take(&mut self.events);
        loop {
            self.session.submit(&mut self.requests, &mut self.immediate, now);
            for event in self.immediate.drain(..) {
                self.protocol.handle(event, now, &mut self.requests);
            }
            for event in self.events.drain(..) {
                match event {
                    Event::Shutdown { .. } => self.farewell = Some((event, Instant::now() + LAST_READS)),
                    Event::Internal(internal) => self.session.internal(&internal, &mut self.immediate, now),
                    event => self.protocol.handle(event, now, &mut self.requests),
                }
            }
            self.protocol.flush(now, &mut self.requests);
            if self.requests.is_empty() && self.immediate.is_empty() {
                break;
            }
        }
    }

    /// Waits from here on for what the session needs, if it needs something.
    fn take_pending(&mut self) {
        match self.session.take_pending() {
            Some(Pending::Answer(answer)) => self.pending = Some(answer),
            Some(Pending::Pause { ms, then }) => {
                self.pending = Some(Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    then
                }));
            }
            None => {}
        }
    }

    /// Goes on with what waited for the answer; `work` tells the client.
    fn resume(&mut self, verdict: Verdict) {
        self.pending = None;
        self.session.resume(verdict, &mut self.immediate, self.shared.clock.now());
    }

    /// Gives back what a busy time has left behind. Called when the timer fires, so at the pace of heartbeats.
    fn trim(&mut self) {
        self.events.shrink_to(LIST_KEEP);
        self.immediate.shrink_to(LIST_KEEP);
        self.requests.shrink_to(LIST_KEEP);
        self.session.trim(LIST_KEEP);
        self.outbox.trim(LIST_KEEP);
    }

    fn write(&mut self) -> io::Result<()> {
        if self.protocol.output().is_empty() {
            return self.stream.flush();
        }
        let before = self.protocol.output().len();
        let stream = &mut self.stream;
        let outcome = self.protocol.output().drain(|slices| stream.try_write_vectored(slices));
        let left = self.protocol.output().len();
        self.protocol.note_written(before - left);
        self.record.traffic.add(TrafficNumber::Sent, (before - left) as u64);
        self.record.traffic.add(TrafficNumber::SentCount, 1);
        self.record.traffic.set(TrafficNumber::Pending, left as u64);
        match outcome {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// Handles input as far as there is credit for what comes of it; the rest is kept. `work` does what is left to do.
    fn take_in(&mut self, mut input: &[u8]) {
        let now = self.shared.clock.now();
        loop {
            input = self.protocol.receive(input, now, &mut self.requests);
            if input.is_empty() {
                return;
            }
            self.gather(now);
            if !self.takes_input() {
                return self.protocol.keep_input(input);
            }
        }
    }

    /// Goes on with what was kept of the input, as far as there is credit.
    fn go_on(&mut self) {
        let now = self.shared.clock.now();
        while self.takes_requests() && self.protocol.can_go_on() {
            let input = self.protocol.go_on(now, &mut self.requests);
            self.gather(now);
            if !input.is_empty() {
                self.take_in(&input);
            }
        }
    }

    /// Has the session handle what there is, without waking anybody yet.
    fn gather(&mut self, now: Timestamp) {
        self.session.gather(&mut self.requests, &mut self.immediate, now);
        for event in self.immediate.drain(..) {
            self.protocol.handle(event, now, &mut self.requests);
        }
        self.protocol.set_requests_max(if self.session.publishes_are_costly() { 1 } else { REQUESTS_MAX });
    }

    /// Whether more input may be handled: there is credit for what comes of it. An alarm holds publishes back before they
    /// need credit, and acknowledgements are to get through.
    fn takes_requests(&self) -> bool {
        (self.session.has_credit() || self.protocol.is_alarmed()) && !self.session.is_waiting()
    }

    fn takes_input(&self) -> bool {
        self.protocol.wants_input() && self.takes_requests()
    }

    /// How many bytes had arrived.
    fn read(&mut self) -> io::Result<usize> {
        // What was sent after an alarm was set is not to overtake the news of it.
        if self.shared.alarms.is_set() != self.protocol.is_alarmed() {
            self.work(self.shared.clock.now());
        }
        READ_BUFFER.with_borrow_mut(|buffer| match self.stream.try_read(buffer) {
            Ok(0) => {
                self.end_of_input = true;
                Ok(0)
            }
            Ok(length) => {
                self.record.traffic.add(TrafficNumber::Received, length as u64);
                self.record.traffic.add(TrafficNumber::ReceivedCount, 1);
                self.take_in(&buffer[..length]);
                Ok(length)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        })
    }

    /// Takes some of what the client sent before the broker stopped; the farewell comes after all of it. After that
    /// nothing more is looked at.
    async fn take_leave(&mut self, until: Instant) -> io::Result<()> {
        let is_late = Instant::now() >= until;
        self.take_pending();
        if let Some(pending) = &mut self.pending
            && !is_late
        {
            if let Ok(verdict) = tokio::time::timeout_at(until, pending).await {
                self.resume(verdict);
            }
            return Ok(());
        }
        if (self.protocol.wants_input() || self.session.is_committing()) && !is_late {
            if !self.session.has_credit() {
                let _ = tokio::time::timeout_at(until, self.outbox.changed()).await;
                return Ok(());
            }
            if self.session.is_committing() {
                let_others_run().await;
                return Ok(());
            }
            if self.protocol.can_go_on() {
                self.go_on();
                return Ok(());
            }
            if self.read()? > 0 || self.end_of_input {
                return Ok(());
            }
            // That nothing was there means little: more than fits the socket's buffers comes in pieces.
            let until = until.min(Instant::now() + LAST_SILENCE);
            if tokio::time::timeout_at(until, self.stream.socket().readable()).await.is_ok() {
                return Ok(());
            }
        }
        if let Some((event, _)) = self.farewell.take() {
            self.protocol.handle(event, self.shared.clock.now(), &mut self.requests);
        }
        Ok(())
    }

    async fn wait(&mut self) -> io::Result<Wake> {
        self.arm();
        self.take_pending();
        let waiting = self.protocol.output().len();
        let reading = self.takes_input();
        if self.session.is_committing() && self.session.has_credit() {
            return Ok(Wake::Input);
        }
        if self.takes_requests() && self.protocol.can_go_on() {
            return Ok(Wake::Input);
        }
        let writing = waiting > 0 || self.stream.wants_write();
        if !reading {
            self.protocol.note_deaf();
        }
        if reading && self.stream.has_input() {
            return Ok(Wake::Readable);
        }
        let interest = match (reading, writing) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let stream = self.stream.socket();
        let socket = async {
            match interest {
                Some(interest) => stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        let pending = self.pending.as_mut();
        let answer = async {
            match pending {
                Some(pending) => pending.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.outbox.changed() => Ok(Wake::Other),
            () = self.place.is_taken(), if self.place.is_waiting() => Ok(Wake::Displaced),
            verdict = answer => Ok(Wake::Answered(verdict)),
            ready = socket => {
                let ready = ready?;
                let readable = reading && (ready.is_readable() || ready.is_read_closed());
                Ok(if readable { Wake::Readable } else { Wake::Other })
            }
            () = &mut self.timer, if self.armed.is_some() => Ok(Wake::Other),
        }
    }

    /// Sets the timer to the protocol's deadline. A deadline that moved later is left: the early wake-up sets it anew.
    fn arm(&mut self) {
        let deadline = self.protocol.deadline().into_iter().chain(self.session.expires()).min();
        match (self.armed, deadline) {
            (Some(armed), Some(deadline)) if armed <= deadline => {}
            (_, Some(deadline)) => {
                self.timer.as_mut().reset(self.shared.clock.instant(deadline));
                self.armed = Some(deadline);
            }
            (_, None) => self.armed = None,
        }
    }

    fn tick(&mut self) {
        let now = self.shared.clock.now();
        if self.armed.is_some_and(|armed| armed <= now) {
            self.armed = None;
            self.trim();
        }
        if self.session.expires().is_some_and(|expires| expires <= now) {
            self.session.expire();
            let text = "credential expired".to_owned();
            self.protocol.handle(Event::Shutdown { text }, now, &mut self.requests);
        }
        if self.protocol.deadline().is_some_and(|deadline| deadline <= now) {
            self.protocol.tick(now);
        }
    }

    /// What began to commit does so whole, although nobody is there any more to be told.
    async fn end_commit(&mut self) {
        while self.session.is_committing() {
            if self.session.has_credit() {
                let_others_run().await;
            } else {
                self.outbox.changed().await;
            }
            self.events.clear();
            self.outbox.take(&mut self.events);
            self.requests.clear();
            self.immediate.clear();
            self.session.submit(&mut self.requests, &mut self.immediate, self.shared.clock.now());
        }
    }

    /// Ends what the broker has for the connection, and closes the socket so that what was written last arrives.
    async fn finish(mut self: Box<Self>, id: ConnectionId, outcome: io::Result<()>) {
        self.end_commit().await;
        self.session.abandon(self.shared.clock.now());
        self.shared.broker.registry.remove(id);
        let user = self.session.user().map_or("", |user| user.as_str());
        let peer = self.link().peer;
        let name = self.protocol.client().connection_name.clone().unwrap_or_default();
        match (self.protocol.take_reason(), &outcome) {
            (Some(reason), _) => tracing::warn!(connection = id.0, %peer, user, name, reason, "connection closed"),
            (None, Err(error)) => tracing::warn!(connection = id.0, %peer, user, name, %error, "connection lost"),
            (None, Ok(())) => tracing::debug!(connection = id.0, %peer, user, name, "connection closed"),
        }
        match (&outcome, self.end_of_input) {
            (Ok(()), false) => self.stream.close().await,
            (Ok(()), true) => self.stream.answer_close(),
            (Err(_), _) => {}
        }
    }
}
