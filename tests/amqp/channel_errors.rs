//! Mistakes that close the channel and leave the connection alone.

use crate::{
    cases::{Case, Step, run_channel_errors},
    harness::{Names, broker},
    methods::{Method, basic, channel, confirm, exchange, queue, tx},
    wire::{Properties, Table, Value, table},
};

fn none() -> Table {
    Table::new()
}

fn exclusive(name: &str) -> Method {
    queue::declare(name, queue::EXCLUSIVE, &none())
}

#[test]
fn absent_queues_and_exchanges_are_not_found() {
    let names = Names::new();
    let name = names.plain("absent");
    let existing = names.plain("existing");
    let no_queue = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
    let no_exchange = format!("NOT_FOUND - no exchange '{name}' in vhost '/'");
    run_channel_errors(vec![
        Case::new("passive queue declare", queue::declare(&name, queue::PASSIVE, &none()), 404, &no_queue),
        Case::new(
            "passive queue declare, nowait",
            queue::declare(&name, queue::PASSIVE | queue::NOWAIT, &none()),
            404,
            &no_queue,
        ),
        Case::new("consume", basic::consume(&name, "", 0, &none()), 404, &no_queue),
        Case::new("consume, nowait", basic::consume(&name, "", basic::NOWAIT, &none()), 404, &no_queue),
        Case::new("get", basic::get(&name, 0), 404, &no_queue),
        Case::new("purge", queue::purge(&name, 0), 404, &no_queue),
        Case::new("purge, nowait", queue::purge(&name, 1), 404, &no_queue),
        Case::new("bind absent queue", queue::bind(&name, "amq.direct", "", 0, &none()), 404, &no_queue),
        Case::new("bind to absent exchange", queue::bind(&existing, &name, "", 0, &none()), 404, &no_exchange)
            .after([exclusive(&existing)]),
        Case::new("bind, nowait", queue::bind(&existing, &name, "", 1, &none()), 404, &no_exchange)
            .after([exclusive(&existing)]),
        Case::new("bind, both absent", queue::bind(&name, &name, "", 0, &none()), 404, &no_exchange),
        Case::new(
            "passive exchange declare",
            exchange::declare(&name, "direct", exchange::PASSIVE, &none()),
            404,
            &no_exchange,
        ),
        Case::new(
            "exchange bind, source absent",
            exchange::bind("amq.fanout", &name, "", 0, &none()),
            404,
            &no_exchange,
        ),
        Case::new(
            "exchange bind, destination absent",
            exchange::bind(&name, "amq.fanout", "", 0, &none()),
            404,
            &no_exchange,
        ),
        Case::publish(
            "publish to absent exchange",
            basic::publish(&name, "", 0),
            Properties::default(),
            b"x",
            404,
            &no_exchange,
        ),
        Case::publish(
            "mandatory publish to absent exchange",
            basic::publish(&name, "", 1),
            Properties::default(),
            b"",
            404,
            &no_exchange,
        ),
    ]);
}

#[test]
fn an_empty_queue_name_needs_a_declared_queue() {
    let text = "NOT_FOUND - no previously declared queue";
    run_channel_errors(vec![
        Case::new("consume", basic::consume("", "", 0, &none()), 404, text),
        Case::new("get", basic::get("", 0), 404, text),
        Case::new("purge", queue::purge("", 0), 404, text),
        Case::new("delete", queue::delete("", 0), 404, text),
        Case::new("bind", queue::bind("", "amq.direct", "", 0, &none()), 404, text),
        Case::new("unbind", queue::unbind("", "amq.direct", "", &none()), 404, text),
    ]);
}

#[test]
fn reserved_names_are_refused() {
    let names = Names::new();
    let own = names.plain("own");
    let default = "ACCESS_REFUSED - operation not permitted on the default exchange";
    let volatile = "NOT_FOUND - no queue 'amq.rabbitmq.reply-to' in vhost '/'";
    let pseudo = "amq.rabbitmq.reply-to";
    let queue_prefix = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    let exchange_prefix = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'";
    let system = "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed";
    run_channel_errors(vec![
        Case::new("queue with the prefix", exclusive("amq.mine"), 403, queue_prefix),
        Case::new(
            "exchange with the prefix",
            exchange::declare("amq.mine", "direct", 0, &none()),
            403,
            exchange_prefix,
        ),
        Case::new("declare default", exchange::declare("", "direct", exchange::DURABLE, &none()), 403, default),
        Case::new(
            "declare default passively",
            exchange::declare("", "direct", exchange::PASSIVE, &none()),
            403,
            default,
        ),
        Case::new("delete default", exchange::delete("", 0), 403, default),
        Case::new("bind to default", queue::bind(&own, "", "k", 0, &none()), 403, default).after([exclusive(&own)]),
        Case::new("unbind from default", queue::unbind(&own, "", &own, &none()), 403, default).after([exclusive(&own)]),
        Case::new("exchange bind from default", exchange::bind("amq.fanout", "", "", 0, &none()), 403, default),
        Case::new("exchange bind to default", exchange::bind("", "amq.fanout", "", 0, &none()), 403, default),
        Case::new("exchange unbind from default", exchange::unbind("amq.fanout", "", "", 0, &none()), 403, default),
        Case::new("exchange unbind to default", exchange::unbind("", "amq.fanout", "", 0, &none()), 403, default),
        Case::new("delete system exchange", exchange::delete("amq.direct", 0), 403, system),
        Case::new(
            "delete unused system exchange",
            exchange::delete("amq.direct", exchange::IF_UNUSED | exchange::DELETE_NOWAIT),
            403,
            system,
        ),
        Case::new("bind reply-to", queue::bind(pseudo, "amq.direct", "", 0, &none()), 404, volatile),
    ]);
}

#[test]
fn a_generated_queue_name_cannot_be_declared_again() {
    let mut client = broker().connect();
    let name = client.exclusive_queue(1, &none());
    client.send(1, &exclusive(&name));
    client.expect_channel_close(
        1,
        403,
        &format!("ACCESS_REFUSED - queue name '{name}' contains reserved prefix 'amq.*'"),
        (50, 10),
    );
}

#[test]
fn publishing_to_an_internal_exchange_is_refused() {
    let mut names = Names::new();
    let name = names.exchange("internal");
    let text = format!("ACCESS_REFUSED - cannot publish to internal exchange '{name}' in vhost '/'");
    let declare = exchange::declare(&name, "fanout", exchange::INTERNAL, &none());
    run_channel_errors(vec![
        Case::publish("internal exchange", basic::publish(&name, "", 0), Properties::default(), b"x", 403, text)
            .after([declare]),
    ]);
}

#[test]
fn exclusive_consumers_exclude_others() {
    let names = Names::new();
    let name = names.plain("q");
    let text = format!("ACCESS_REFUSED - queue '{name}' in vhost '/' in exclusive use");
    let consume = |tag: &str, flags| basic::consume(&name, tag, flags, &none());
    let single = queue::declare(&name, queue::EXCLUSIVE, &table([("x-single-active-consumer", true.into())]));
    run_channel_errors(vec![
        Case::new("second is exclusive", consume("b", basic::EXCLUSIVE), 403, &text)
            .after([exclusive(&name), consume("a", 0)]),
        Case::new("first is exclusive", consume("b", 0), 403, &text)
            .after([exclusive(&name), consume("a", basic::EXCLUSIVE)]),
        Case::new("both are exclusive", consume("b", 4), 403, &text)
            .after([exclusive(&name), consume("a", basic::EXCLUSIVE)]),
        Case::new("single active consumer", consume("a", basic::EXCLUSIVE), 403, &text).after([single]),
    ]);
}

#[test]
fn an_exclusive_queue_is_locked_for_other_connections() {
    let names = Names::new();
    let name = names.plain("locked");
    let mut owner = broker().connect();
    owner.declare_queue(1, &name, queue::EXCLUSIVE, &none());
    owner.call(1, &queue::bind(&name, "amq.direct", &name, 0, &none()));
    let text = format!(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original declaration."
    );
    run_channel_errors(vec![
        Case::new("declare", queue::declare(&name, queue::EXCLUSIVE, &none()), 405, &text),
        Case::new("declare without the flag", queue::declare(&name, queue::DURABLE, &none()), 405, &text),
        Case::new("passive declare", queue::declare(&name, queue::PASSIVE, &none()), 405, &text),
        Case::new("bind", queue::bind(&name, "amq.direct", "", 0, &none()), 405, &text),
        Case::new("unbind", queue::unbind(&name, "amq.direct", &name, &none()), 405, &text),
        Case::new("consume", basic::consume(&name, "", 0, &none()), 405, &text),
        Case::new("get", basic::get(&name, 0), 405, &text),
        Case::new("purge", queue::purge(&name, 0), 405, &text),
        Case::new("delete", queue::delete(&name, 0), 405, &text),
    ]);
    owner.close();
    let absent = format!("NOT_FOUND - no queue '{name}' in vhost '/'");
    run_channel_errors(vec![Case::new(
        "gone with its owner",
        queue::declare(&name, queue::PASSIVE, &none()),
        404,
        absent,
    )]);
}

#[test]
fn redeclaring_with_another_exclusive_flag_is_locked() {
    let mut names = Names::new();
    let (own, shared) = (names.plain("own"), names.queue("shared"));
    let text = |name: &str| {
        format!(
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be originally declared on another \
             connection or the exclusive property value does not match that of the original declaration."
        )
    };
    run_channel_errors(vec![
        Case::new("drop the flag", queue::declare(&own, queue::DURABLE, &none()), 405, text(&own))
            .after([exclusive(&own)]),
        Case::new("add the flag", exclusive(&shared), 405, text(&shared)).after([queue::declare(
            &shared,
            queue::DURABLE,
            &none(),
        )]),
    ]);
}

#[test]
fn deletes_with_conditions() {
    let mut names = Names::new();
    let (name, source) = (names.plain("q"), names.exchange("source"));
    let declare = exchange::declare(&source, "fanout", 0, &none());
    let consume = basic::consume(&name, "", 0, &none());
    let message = || Step::Publish(basic::publish("", &name, 0), Box::default(), b"m".to_vec());
    let in_use = format!("PRECONDITION_FAILED - queue '{name}' in vhost '/' in use");
    let not_empty = format!("PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty");
    let exchange_in_use = format!("PRECONDITION_FAILED - exchange '{source}' in vhost '/' in use");
    run_channel_errors(vec![
        Case::new("queue with consumer", queue::delete(&name, queue::IF_UNUSED), 406, in_use)
            .after([exclusive(&name), consume]),
        Case::new("queue with message", queue::delete(&name, queue::IF_EMPTY), 406, &not_empty)
            .after([exclusive(&name)])
            .after_step(message()),
        Case::new("both conditions", queue::delete(&name, queue::IF_EMPTY | queue::IF_UNUSED), 406, &not_empty)
            .after([exclusive(&name)])
            .after_step(message()),
        Case::new("exchange with binding", exchange::delete(&source, exchange::IF_UNUSED), 406, &exchange_in_use)
            .after([declare.clone(), exclusive(&name), queue::bind(&name, &source, "", 0, &none())]),
        Case::new(
            "exchange bound to an exchange",
            exchange::delete(&source, exchange::IF_UNUSED | exchange::DELETE_NOWAIT),
            406,
            &exchange_in_use,
        )
        .after([declare, exchange::bind("amq.fanout", &source, "never", 0, &none())]),
    ]);
}

#[test]
fn delivery_tags_must_be_outstanding() {
    let names = Names::new();
    let name = names.plain("q");
    let unknown = |tag: u64| format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
    let message = || Step::Publish(basic::publish("", &name, 0), Box::default(), b"m".to_vec());
    let one_got = |case: Case| case.after([exclusive(&name)]).after_step(message()).after([basic::get(&name, 0)]);
    let one_got_without_ack =
        |case: Case| case.after([exclusive(&name)]).after_step(message()).after([basic::get(&name, 1)]);
    run_channel_errors(vec![
        Case::new("ack of nothing", basic::ack(1, 0), 406, unknown(1)),
        Case::new("ack of a huge tag", basic::ack(u64::MAX, 0), 406, unknown(u64::MAX)),
        Case::new("ack multiple of nothing", basic::ack(1, basic::MULTIPLE), 406, unknown(1)),
        Case::new("nack of nothing", basic::nack(7, basic::NACK_REQUEUE), 406, unknown(7)),
        Case::new("nack multiple of nothing", basic::nack(7, basic::NACK_REQUEUE | basic::MULTIPLE), 406, unknown(7)),
        Case::new("reject of nothing", basic::reject(9, basic::REQUEUE), 406, unknown(9)),
        one_got(Case::new("ack of the next tag", basic::ack(2, 0), 406, unknown(2))),
        one_got(Case::new("ack multiple above the last tag", basic::ack(2, basic::MULTIPLE), 406, unknown(2))),
        one_got(Case::new("ack of tag 0", basic::ack(0, 0), 406, unknown(0))),
        one_got(Case::new("reject of tag 0", basic::reject(0, 0), 406, unknown(0))),
        one_got(Case::new("double ack", basic::ack(1, 0), 406, unknown(1))).after_step(Step::Send(basic::ack(1, 0))),
        one_got(Case::new("multiple up to a settled tag", basic::ack(1, basic::MULTIPLE), 406, unknown(1)))
            .after_step(Step::Send(basic::ack(1, 0))),
        one_got(Case::new("reject after ack", basic::reject(1, 1), 406, unknown(1)))
            .after_step(Step::Send(basic::ack(1, 0))),
        one_got_without_ack(Case::new("ack of a delivery without acknowledgement", basic::ack(1, 0), 406, unknown(1))),
        one_got(Case::new("in a transaction, at once", basic::ack(5, 0), 406, unknown(5))).after([tx::select()]),
    ]);
}

#[test]
fn an_ack_belongs_to_its_channel() {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(1, &none());
    client.publish(1, "", &name, "m");
    assert_eq!(client.wait_for_message(1, &name, 0).tag, 1);
    client.send(2, &basic::ack(1, 0));
    client.expect_channel_close(2, 406, "PRECONDITION_FAILED - unknown delivery tag 1", (60, 80));
    client.send(1, &basic::ack(1, 0));
    client.call(1, &basic::qos(0, 0, 0));
}

#[test]
fn message_properties_are_checked() {
    let message = || basic::publish("", "nowhere", 0);
    let expiration = |name, text: &str, reason: &str| {
        let expected = format!("PRECONDITION_FAILED - invalid expiration '{text}': {reason}");
        Case::publish(name, message(), Properties::with_expiration(text), b"x", 406, expected)
    };
    let keys = |name, header, value: Value, kind: &str| {
        let expected =
            format!("PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,\"{header}\",{kind}}}");
        Case::publish(name, message(), Properties::with_headers([(header, value)]), b"x", 406, expected)
    };
    let user = Properties { user_id: Some("someone".to_owned()), ..Properties::default() };
    run_channel_errors(vec![
        expiration("text", "never", "no_integer"),
        expiration("fraction", "1.5", "{leftover_string,\".5\"}"),
        expiration("unit", "10s", "{leftover_string,\"s\"}"),
        expiration("negative", "-1", "{value_negative,-1}"),
        expiration("empty", "", "no_integer"),
        expiration("too large", "315360000001", "{value_too_large,315360000001}"),
        keys("CC as text", "CC", "k".into(), "longstr"),
        keys("BCC as number", "BCC", Value::I32(1), "signedint"),
        keys("CC as table", "CC", Value::Table(none()), "table"),
        keys("CC as bool", "CC", Value::Bool(true), "bool"),
        Case::publish(
            "user-id",
            message(),
            user,
            b"x",
            406,
            "PRECONDITION_FAILED - user_id property set to 'someone' but authenticated user was 'guest'",
        ),
        Case::publish(
            "message too large",
            message(),
            Properties::default(),
            &vec![0; 16_777_217],
            406,
            "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216",
        ),
    ]);
}

#[test]
fn transactions_and_confirms_do_not_mix() {
    let not_transactional = "PRECONDITION_FAILED - channel is not transactional";
    let to_tx = "PRECONDITION_FAILED - cannot switch from confirm to tx mode";
    let to_confirm = "PRECONDITION_FAILED - cannot switch from tx to confirm mode";
    run_channel_errors(vec![
        Case::new("commit", tx::commit(), 406, not_transactional),
        Case::new("rollback", tx::rollback(), 406, not_transactional),
        Case::new("tx after confirm", tx::select(), 406, to_tx).after([confirm::select(0)]),
        Case::new("confirm after tx", confirm::select(0), 406, to_confirm).after([tx::select()]),
        Case::new("confirm after tx, nowait", confirm::select(1), 406, to_confirm).after([tx::select()]),
    ]);
}

#[test]
fn direct_reply_to_rules() {
    let pseudo = "amq.rabbitmq.reply-to";
    let consume = |flags| basic::consume(pseudo, "", flags, &none());
    run_channel_errors(vec![
        Case::publish(
            "request without consumer",
            basic::publish("", "nowhere", 0),
            Properties::with_reply_to(pseudo),
            b"x",
            406,
            "PRECONDITION_FAILED - fast reply consumer does not exist",
        ),
        Case::new(
            "consumer that acknowledges",
            consume(0),
            406,
            "PRECONDITION_FAILED - reply consumer cannot acknowledge",
        ),
        Case::new("second consumer", consume(basic::NO_ACK), 406, "PRECONDITION_FAILED - reply consumer already set")
            .after([consume(basic::NO_ACK)]),
    ]);
}

#[test]
fn a_closing_channel_ignores_everything_but_its_close_ok() {
    let mut client = broker().connect();
    client.send(1, &basic::ack(1, 0));
    client.expect(1, channel::CLOSE);
    client.send(1, &basic::qos(0, 1, 0));
    client.send(1, &queue::declare("amq.mine", 0, &none()));
    client.publish(1, "", "nowhere", "discarded");
    client.expect_silence(1);
    client.send(1, &channel::close_ok());
    client.open_channel(1);
    client.close();
}

#[test]
fn a_channel_number_is_free_only_after_close_ok() {
    let mut client = broker().connect();
    client.send(1, &basic::ack(1, 0));
    client.expect(1, channel::CLOSE);
    client.send(1, &channel::open());
    client.expect_connection_close(504, "CHANNEL_ERROR - second 'channel.open' seen", (20, 10));
}

#[test]
fn a_channel_close_crossing_the_brokers_is_answered() {
    let mut client = broker().connect();
    client.send(1, &basic::ack(1, 0));
    client.expect(1, channel::CLOSE);
    client.send(1, &channel::close());
    client.expect(1, channel::CLOSE_OK);
    client.send(1, &channel::close_ok());
    client.open_channel(2);
    client.close();
}

#[test]
fn a_closed_channel_returns_its_messages_without_waiting_for_the_client() {
    let mut client = broker().connect();
    client.open_channel(2);
    let name = client.exclusive_queue(2, &none());
    client.publish(2, "", &name, "m");
    client.consume(1, &name, "c", 0, &none());
    client.expect_delivery(1);
    client.send(1, &basic::ack(99, 0));
    client.expect(1, channel::CLOSE);
    let message = client.wait_for_message(2, &name, 1);
    assert_eq!((message.text(), message.redelivered), ("m", true));
    let (_, _, consumers) = client.declare_queue(2, &name, queue::PASSIVE, &none());
    assert_eq!(consumers, 0, "the consumers of a closed channel are gone");
}
