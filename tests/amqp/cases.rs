//! Runs tables of protocol errors: every row on a connection of its own, all failures reported together.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use crate::{
    client::{Client, PATIENCE, close_arguments, describe},
    harness::{broker, is_warren},
    methods::{Method, basic, channel, connection, queue},
    wire::{Properties, Table},
};

/// Something a client does on channel 1.
pub(crate) enum Step {
    /// A request whose reply is awaited.
    Call(Method),
    /// A method without a reply, or one that must fail.
    Send(Method),
    /// A message.
    Publish(Method, Box<Properties>, Vec<u8>),
}

/// One row: what must be answered with a close.
pub(crate) struct Case {
    name: &'static str,
    steps: Vec<Step>,
    /// The last step, which fails.
    provoke: Step,
    code: u16,
    text: String,
    ids: (u16, u16),
}

impl Case {
    /// A method that must fail.
    pub(crate) fn new(name: &'static str, provoke: Method, code: u16, text: impl Into<String>) -> Self {
        let ids = provoke.ids();
        Self { name, steps: Vec::new(), provoke: Step::Send(provoke), code, text: text.into(), ids }
    }

    /// A message that must fail.
    pub(crate) fn publish(
        name: &'static str,
        method: Method,
        properties: Properties,
        body: &[u8],
        code: u16,
        text: impl Into<String>,
    ) -> Self {
        let ids = method.ids();
        Self {
            name,
            steps: Vec::new(),
            provoke: Step::Publish(method, Box::new(properties), body.to_vec()),
            code,
            text: text.into(),
            ids,
        }
    }

    /// Requests that come first and succeed, in order.
    pub(crate) fn after(mut self, calls: impl IntoIterator<Item = Method>) -> Self {
        self.steps.extend(calls.into_iter().map(Step::Call));
        self
    }

    /// A step that comes first and has no reply.
    pub(crate) fn after_step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }
}

/// Runs `check` on each item and panics with all failures.
pub(crate) fn run_all<T>(items: Vec<T>, name: impl Fn(&T) -> String, check: impl Fn(&T)) {
    let hook_text = |payload: Box<dyn std::any::Any + Send>| match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().map_or_else(|_| "panic".to_owned(), |text| (*text).to_owned()),
    };
    let failures: Vec<String> = items
        .iter()
        .filter_map(|item| {
            catch_unwind(AssertUnwindSafe(|| check(item)))
                .err()
                .map(|payload| format!("{}: {}", name(item), hook_text(payload)))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), items.len(), failures.join("\n"));
}

fn perform(client: &mut Client, step: &Step) {
    match step {
        Step::Call(method) => call(client, method),
        Step::Send(method) => client.send(1, method),
        Step::Publish(method, properties, body) => client.publish_with(1, method, properties, body),
    }
}

/// Rows of a table share names, and RabbitMQ sometimes still holds the exclusive queue of the connection before, although it answered
/// connection.close: against it, and only there, a locked queue is tried again.
fn call(client: &mut Client, method: &Method) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(1, method);
        let reply = client.recv(1).method;
        if reply.ids() == method.reply_ids() || reply.ids() == basic::GET_OK {
            return;
        }
        let locked = reply.ids() == channel::CLOSE && close_arguments(&reply).0 == 405;
        assert!(locked && !is_warren() && Instant::now() < deadline, "unexpected reply: {}", describe(&reply));
        client.send(1, &channel::close_ok());
        client.open_channel(1);
    }
}

fn bytes_of(client: &Client, step: &Step) -> Vec<u8> {
    match step {
        Step::Call(method) | Step::Send(method) => method.frame(1),
        Step::Publish(method, properties, body) => client.message_bytes(1, method, properties, body),
    }
}

/// Every row must close its channel; whatever was sent behind the mistake is discarded, the channel number can be opened again after close-ok,
/// and other channels of the connection live on.
pub(crate) fn run_channel_errors(cases: Vec<Case>) {
    run_all(
        cases,
        |case| case.name.to_owned(),
        |case| {
            let mut client = broker().connect();
            client.open_channel(2);
            for step in &case.steps {
                perform(&mut client, step);
            }
            let mut bytes = bytes_of(&client, &case.provoke);
            bytes.extend(basic::qos(0, 1, 0).frame(1));
            bytes.extend(client.message_bytes(
                1,
                &basic::publish("", "nowhere", basic::MANDATORY),
                &Properties::default(),
                b"discarded",
            ));
            client.send_bytes(&bytes);
            let close = client.expect(1, channel::CLOSE);
            assert_eq!(close_arguments(&close.method), (case.code, case.text.clone(), case.ids));
            client.exclusive_queue(2, &Table::new());
            client.send(1, &channel::close_ok());
            client.open_channel(1);
            let name = client.exclusive_queue(1, &Table::new());
            client.call(1, &queue::delete(&name, 0));
            client.close();
        },
    );
}

/// Every row must close its connection, and the socket after close-ok.
pub(crate) fn run_connection_errors(cases: Vec<Case>) {
    run_all(
        cases,
        |case| case.name.to_owned(),
        |case| {
            let mut client = broker().connect();
            for step in &case.steps {
                perform(&mut client, step);
            }
            let mut bytes = bytes_of(&client, &case.provoke);
            bytes.extend(basic::qos(0, 1, 0).frame(1));
            client.send_bytes(&bytes);
            let close = client.recv(0).method;
            assert_eq!(close.ids(), connection::CLOSE, "expected connection.close, got {}", describe(&close));
            assert_eq!(close_arguments(&close), (case.code, case.text.clone(), case.ids));
            client.send(0, &connection::close_ok());
            client.drain_until_closed();
        },
    );
}
