//! Declarations that contradict an existing object, or whose arguments are not valid.

use crate::{
    cases::{Case, run_all, run_channel_errors},
    harness::{Names, broker},
    methods::{Method, exchange, queue},
    wire::{Table, Value, table},
};

fn none() -> Table {
    Table::new()
}

fn exclusive(name: &str, arguments: &Table) -> Method {
    queue::declare(name, queue::EXCLUSIVE, arguments)
}

/// A queue declared with `before`, then with `after`.
fn mismatch(label: &'static str, name: &str, argument: &str, before: &Table, after: &Table, found: &str) -> Case {
    let text = format!("PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{name}' in vhost '/': {found}");
    Case::new(label, exclusive(name, after), 406, text).after([exclusive(name, before)])
}

/// A queue declared with one argument or none, then with another value of it or without.
fn argument_changed(
    label: &'static str,
    argument: &str,
    before: Option<Value>,
    after: Option<Value>,
    found: &str,
) -> Case {
    let arguments = |value: Option<Value>| value.map_or_else(none, |value| table([(argument, value)]));
    mismatch(label, &Names::new().plain("q"), argument, &arguments(before), &arguments(after), found)
}

#[test]
fn added_arguments_are_named_with_their_type() {
    let added = |kind, value: Value| {
        let text = format!("received the value '10' of type '{kind}' but current is none");
        argument_changed(kind, "x-max-length", None, Some(value), &text)
    };
    run_channel_errors(vec![
        added("signedint", Value::I32(10)),
        added("unsignedint", Value::U32(10)),
        added("long", Value::I64(10)),
        added("short", Value::I16(10)),
        added("unsignedshort", Value::U16(10)),
        added("byte", Value::I8(10)),
        added("unsignedbyte", Value::U8(10)),
    ]);
}

#[test]
fn dropped_arguments_are_named_with_their_type() {
    let dropped = |argument, value: Value, kind, shown| {
        let text = format!("received none but current is the value '{shown}' of type '{kind}'");
        argument_changed(argument, argument, Some(value), None, &text)
    };
    run_channel_errors(vec![
        dropped("x-max-length", 10.into(), "signedint", "10"),
        dropped("x-max-length-bytes", Value::I64(9), "long", "9"),
        dropped("x-message-ttl", 60_000.into(), "signedint", "60000"),
        dropped("x-expires", 60_000.into(), "signedint", "60000"),
        dropped("x-max-priority", Value::U8(5), "unsignedbyte", "5"),
        dropped("x-overflow", "drop-head".into(), "longstr", "drop-head"),
        dropped("x-dead-letter-exchange", "a".into(), "longstr", "a"),
        dropped("x-single-active-consumer", true.into(), "bool", "true"),
    ]);
}

#[test]
fn changed_arguments_are_named_with_both_values() {
    let changed = |argument, before: Value, after: Value, found| {
        argument_changed(argument, argument, Some(before), Some(after), found)
    };
    run_channel_errors(vec![
        changed("x-max-length", 10.into(), 11.into(), "received '11' but current is '10'"),
        changed("x-max-length", Value::U8(10), Value::I64(11), "received '11' but current is '10'"),
        changed("x-message-ttl", 1000.into(), 2000.into(), "received '2000' but current is '1000'"),
        changed("x-max-priority", 5.into(), 6.into(), "received '6' but current is '5'"),
        changed(
            "x-overflow",
            "drop-head".into(),
            "reject-publish".into(),
            "received 'reject-publish' but current is 'drop-head'",
        ),
        changed("x-dead-letter-exchange", "a".into(), "b".into(), "received 'b' but current is 'a'"),
        changed("x-single-active-consumer", true.into(), false.into(), "received 'false' but current is 'true'"),
    ]);
}

#[test]
fn queue_properties_must_be_equivalent() {
    let mut names = Names::new();
    let (name, durable) = (names.plain("q"), names.queue("durable"));
    let text = |name: &str, property, found| {
        format!("PRECONDITION_FAILED - inequivalent arg '{property}' for queue '{name}' in vhost '/': {found}")
    };
    let plain = queue::declare(&durable, queue::DURABLE, &none());
    let auto = queue::DURABLE | queue::AUTO_DELETE;
    let both = queue::EXCLUSIVE | queue::AUTO_DELETE;
    run_channel_errors(vec![
        Case::new(
            "transient",
            queue::declare(&durable, 0, &none()),
            406,
            text(&durable, "durable", "received 'false' but current is 'true'"),
        )
        .after([plain.clone()]),
        Case::new(
            "auto-delete",
            queue::declare(&durable, auto, &none()),
            406,
            text(&durable, "auto_delete", "received 'true' but current is 'false'"),
        )
        .after([plain]),
        Case::new(
            "not auto-delete",
            exclusive(&name, &none()),
            406,
            text(&name, "auto_delete", "received 'false' but current is 'true'"),
        )
        .after([queue::declare(&name, both, &none())]),
        Case::new(
            "properties before arguments",
            queue::declare(&name, both, &table([("x-max-length", 1.into())])),
            406,
            text(&name, "auto_delete", "received 'true' but current is 'false'"),
        )
        .after([exclusive(&name, &none())]),
        Case::new(
            "nowait",
            exclusive(&name, &none()),
            406,
            text(&name, "auto_delete", "received 'false' but current is 'true'"),
        )
        .after([queue::declare(&name, both, &none())]),
    ]);
}

#[test]
fn equivalent_declarations_succeed() {
    let names = Names::new();
    let name = names.plain("q");
    let pairs: Vec<(&str, Table, Table)> = vec![
        ("integer width", table([("x-max-length", Value::U8(10))]), table([("x-max-length", Value::I64(10))])),
        ("unknown arguments", table([("colour", "red".into())]), table([("shape", 3.into())])),
        ("missing queue type is classic", none(), table([("x-queue-type", "classic".into())])),
        ("queue type dropped", table([("x-queue-type", "classic".into())]), none()),
        (
            "order",
            table([("x-max-length", 1.into()), ("x-expires", 99999.into())]),
            table([("x-expires", 99999.into()), ("x-max-length", 1.into())]),
        ),
    ];
    run_all(
        pairs,
        |pair| pair.0.to_owned(),
        |(_, before, after)| {
            let mut client = broker().connect();
            client.declare_queue(1, &name, queue::EXCLUSIVE, before);
            client.declare_queue(1, &name, queue::EXCLUSIVE, after);
            client.declare_queue(1, &name, queue::EXCLUSIVE | queue::DURABLE, after);
            client.close();
        },
    );
}

#[test]
fn queue_arguments_are_validated() {
    let names = Names::new();
    let name = names.plain("q");
    let case = |label, argument, value: Value, reason| {
        let text = format!("PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '/': {reason}");
        Case::new(label, exclusive(&name, &table([(argument, value)])), 406, text)
    };
    run_channel_errors(vec![
        case("expires zero", "x-expires", 0.into(), "{value_zero,0}"),
        case("expires negative", "x-expires", Value::I32(-1), "{value_negative,-1}"),
        case("expires too large", "x-expires", Value::I64(315_360_000_001), "{value_too_large,315360000001}"),
        case("expires text", "x-expires", "1000".into(), "\"expected integer, got longstr\""),
        case("ttl negative", "x-message-ttl", Value::I32(-5), "{value_negative,-5}"),
        case("ttl too large", "x-message-ttl", Value::I64(315_360_000_001), "{value_too_large,315360000001}"),
        case("ttl text", "x-message-ttl", "60000".into(), "\"expected integer, got longstr\""),
        case("ttl double", "x-message-ttl", Value::Double(1.0), "\"expected integer, got double\""),
        case("ttl float", "x-message-ttl", Value::Float(1.0), "\"expected integer, got float\""),
        case("ttl decimal", "x-message-ttl", Value::Decimal(0, 1), "\"expected integer, got decimal\""),
        case("ttl bool", "x-message-ttl", true.into(), "\"expected integer, got bool\""),
        case("length negative", "x-max-length", Value::I32(-1), "{value_negative,-1}"),
        case("length text", "x-max-length", "many".into(), "\"expected integer, got longstr\""),
        case("bytes negative", "x-max-length-bytes", Value::I64(-9), "{value_negative,-9}"),
        case("priority negative", "x-max-priority", Value::I8(-1), "{value_negative,-1}"),
        case("priority too large", "x-max-priority", 256.into(), "{max_value_exceeded,256}"),
        case("priority text", "x-max-priority", "5".into(), "\"expected integer, got longstr\""),
        case("overflow unknown", "x-overflow", "block".into(), "invalid_overflow"),
        case("overflow number", "x-overflow", 1.into(), "{unacceptable_type,signedint}"),
        case("single active consumer number", "x-single-active-consumer", 1.into(), "{unacceptable_type,signedint}"),
        case("single active consumer text", "x-single-active-consumer", "true".into(), "{unacceptable_type,longstr}"),
        case("routing key without exchange", "x-dead-letter-routing-key", "k".into(), "routing_key_but_no_dlx_defined"),
        case("routing key number", "x-dead-letter-routing-key", 1.into(), "{unacceptable_type,signedint}"),
        case("queue type number", "x-queue-type", 1.into(), "{unacceptable_type,signedint}"),
        case("queue type unknown", "x-queue-type", "fast".into(), "\"unsupported queue type 'fast'\""),
    ]);
}

#[test]
fn other_declaration_arguments() {
    let names = Names::new();
    let name = names.plain("x");
    let wrong_type = |argument: &str, resource: &str, kind: &str| {
        format!("PRECONDITION_FAILED - invalid type '{kind}' for arg '{argument}' in {resource} '{name}' in vhost '/'")
    };
    let of_type = |argument: &str| {
        format!(
            "PRECONDITION_FAILED - invalid arg '{argument}' for queue '{name}' in vhost '/' of queue type rabbit_classic_queue"
        )
    };
    let queue_with = |argument, value| exclusive(&name, &table([(argument, value)]));
    let exchange_with = |kind: &str, arguments: &Table| exchange::declare(&name, kind, 0, arguments);
    let dlx = "x-dead-letter-exchange";
    let alternate = table([("alternate-exchange", 5.into())]);
    run_channel_errors(vec![
        Case::new(
            "dead letter exchange of wrong type",
            queue_with(dlx, 5.into()),
            406,
            wrong_type(dlx, "queue", "signedint"),
        ),
        Case::new(
            "delivery limit on classic",
            queue_with("x-delivery-limit", 5.into()),
            406,
            of_type("x-delivery-limit"),
        ),
        Case::new("max age on classic", queue_with("x-max-age", "1h".into()), 406, of_type("x-max-age")),
        Case::new(
            "group size on classic",
            queue_with("x-quorum-initial-group-size", 3.into()),
            406,
            of_type("x-quorum-initial-group-size"),
        ),
        Case::new(
            "strategy on classic",
            queue_with("x-dead-letter-strategy", "at-most-once".into()),
            406,
            of_type("x-dead-letter-strategy"),
        ),
        Case::new(
            "exchange type",
            exchange_with("surprise", &none()),
            406,
            "PRECONDITION_FAILED - unknown exchange type 'surprise'",
        ),
        Case::new(
            "alternate exchange of wrong type",
            exchange_with("direct", &alternate),
            406,
            wrong_type("alternate-exchange", "exchange", "signedint"),
        ),
    ]);
}

#[test]
fn exchanges_must_be_equivalent() {
    let mut names = Names::new();
    let name = names.exchange("x");
    let text = |name: &str, property, found| {
        format!("PRECONDITION_FAILED - inequivalent arg '{property}' for exchange '{name}' in vhost '/': {found}")
    };
    let with = |kind, flags, arguments: &Table| exchange::declare(&name, kind, flags, arguments);
    let alternate = |target: &str| table([("alternate-exchange", target.into())]);
    let first = || [exchange::delete(&name, 0), with("direct", 0, &none())];
    let with_alternate = || [exchange::delete(&name, 0), with("direct", 0, &alternate("a"))];
    let argument = "alternate-exchange";
    run_channel_errors(vec![
        Case::new(
            "type",
            with("fanout", 0, &none()),
            406,
            text(&name, "type", "received 'fanout' but current is 'direct'"),
        )
        .after(first()),
        Case::new(
            "durable",
            with("direct", 2, &none()),
            406,
            text(&name, "durable", "received 'true' but current is 'false'"),
        )
        .after(first()),
        Case::new(
            "auto-delete",
            with("direct", 4, &none()),
            406,
            text(&name, "auto_delete", "received 'true' but current is 'false'"),
        )
        .after(first()),
        Case::new(
            "internal",
            with("direct", 8, &none()),
            406,
            text(&name, "internal", "received 'true' but current is 'false'"),
        )
        .after(first()),
        Case::new(
            "alternate added",
            with("direct", 0, &alternate("a")),
            406,
            text(&name, argument, "received the value 'a' of type 'longstr' but current is none"),
        )
        .after(first()),
        Case::new(
            "alternate changed",
            with("direct", 0, &alternate("b")),
            406,
            text(&name, argument, "received 'b' but current is 'a'"),
        )
        .after(with_alternate()),
        Case::new(
            "alternate dropped",
            with("direct", 0, &none()),
            406,
            text(&name, argument, "received none but current is the value 'a' of type 'longstr'"),
        )
        .after(with_alternate()),
    ]);
}

#[test]
fn system_exchanges_must_be_equivalent() {
    let text = |name: &str, property, found| {
        format!("PRECONDITION_FAILED - inequivalent arg '{property}' for exchange '{name}' in vhost '/': {found}")
    };
    run_channel_errors(vec![
        Case::new(
            "system exchange",
            exchange::declare("amq.direct", "topic", exchange::DURABLE, &none()),
            406,
            text("amq.direct", "type", "received 'topic' but current is 'direct'"),
        ),
        Case::new(
            "transient system exchange",
            exchange::declare("amq.topic", "topic", exchange::NOWAIT, &none()),
            406,
            text("amq.topic", "durable", "received 'false' but current is 'true'"),
        ),
    ]);
}

#[test]
fn binding_arguments_are_validated() {
    let names = Names::new();
    let name = names.plain("q");
    let case = |label, value: Value, text: &str| {
        let bind = queue::bind(&name, "amq.headers", "", 0, &table([("x-match", value)]));
        Case::new(label, bind, 406, format!("PRECONDITION_FAILED - {text}")).after([exclusive(&name, &none())])
    };
    run_channel_errors(vec![
        case(
            "x-match value",
            "most".into(),
            "Invalid x-match field value <<\"most\">>; expected all, any, all-with-x, or any-with-x",
        ),
        case("x-match type", Value::I32(1), "Invalid x-match field type signedint (value 1); expected longstr"),
    ]);
}
