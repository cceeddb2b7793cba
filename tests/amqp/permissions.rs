//! Users of broker.toml: who may log in where, and what each operation needs.

use crate::{
    cases::run_all,
    client::Client,
    harness::{Broker, own_broker},
    methods::{Method, basic, channel, connection, exchange, queue},
    wire::{Properties, Table, Value, table},
};

const USERS: &str = r#"
[defaults]
vhosts = ["other"]

[[users]]
name = "limited"
password = "secret"
permissions = [{ vhost = "/", configure = "^(c|all|amq\\.gen)", write = "^(w|all)", read = "^(r|all)" }]

[[users]]
name = "nowhere"
password = "secret"

[[users]]
name = "speaker"
password = "secret"
tags = ["impersonator"]
permissions = [{ vhost = "/", configure = "", write = ".*", read = "" }]

[[users]]
name = "guarded"
password = "secret"
permissions = [{ vhost = "other", configure = "^(?!amq\\.|private)", write = ".*", read = ".*" }]
"#;

fn none() -> Table {
    Table::new()
}

fn refused(access: &str, kind: &str, name: &str, user: &str) -> String {
    format!("ACCESS_REFUSED - {access} access to {kind} '{name}' in vhost '/' refused for user '{user}'")
}

/// Queues and exchanges whose first letters say what `limited` may do with them.
fn prepare(broker: &Broker) -> Client {
    let mut owner = broker.connect();
    for name in ["c", "w", "r", "all", "x"] {
        owner.declare_queue(1, name, 0, &none());
        owner.call(1, &exchange::declare(name, "direct", 0, &none()));
    }
    owner
}

#[test]
fn each_operation_needs_its_permission() {
    let Some(broker) = own_broker(USERS) else { return };
    let _owner = prepare(&broker);
    let dead_letters = |name: &str| table([("x-dead-letter-exchange", name.into())]);
    let alternate = |name: &str| table([("alternate-exchange", name.into())]);
    let cases: Vec<(Method, &str, &str, &str)> = vec![
        (exchange::declare("r2", "direct", 0, &none()), "configure", "exchange", "r2"),
        (exchange::delete("w", 0), "configure", "exchange", "w"),
        (exchange::declare("c2", "direct", 0, &alternate("w")), "read", "exchange", "c2"),
        (exchange::declare("all2", "direct", 0, &alternate("r")), "write", "exchange", "r"),
        (exchange::declare("x", "direct", exchange::PASSIVE, &none()), "configure", "exchange", "x"),
        (queue::declare("r2", 0, &none()), "configure", "queue", "r2"),
        (queue::declare("x", queue::PASSIVE, &none()), "configure", "queue", "x"),
        (queue::declare("c2", 0, &dead_letters("w")), "read", "queue", "c2"),
        (queue::declare("all2", 0, &dead_letters("r")), "write", "exchange", "r"),
        (queue::delete("w", 0), "configure", "queue", "w"),
        (queue::purge("w", 0), "read", "queue", "w"),
        (queue::bind("r", "r", "", 0, &none()), "write", "queue", "r"),
        (queue::bind("w", "w", "", 0, &none()), "read", "exchange", "w"),
        (queue::unbind("r", "r", "", &none()), "write", "queue", "r"),
        (queue::unbind("w", "w", "", &none()), "read", "exchange", "w"),
        (exchange::bind("r", "r", "", 0, &none()), "write", "exchange", "r"),
        (exchange::bind("w", "w", "", 0, &none()), "read", "exchange", "w"),
        (exchange::unbind("r", "r", "", 0, &none()), "write", "exchange", "r"),
        (exchange::unbind("w", "w", "", 0, &none()), "read", "exchange", "w"),
        (basic::consume("w", "", 0, &none()), "read", "queue", "w"),
        (basic::get("c", 1), "read", "queue", "c"),
        (basic::publish("r", "", 0), "write", "exchange", "r"),
        (basic::publish("", "all", 0), "write", "exchange", "amq.default"),
    ];
    run_all(
        cases,
        |(method, access, kind, name)| format!("{:?} {access} {kind} {name}", method.ids()),
        |(method, access, kind, name)| {
            let mut client = broker.connect_as("limited", "secret", "/");
            if method.ids() == (60, 40) {
                client.publish_with(1, method, &Properties::default(), b"x");
            } else {
                client.send(1, method);
            }
            client.expect_channel_close(1, 403, &refused(access, kind, name, "limited"), method.ids());
            client.close();
        },
    );
}

#[test]
fn permitted_operations_succeed() {
    let Some(broker) = own_broker(USERS) else { return };
    let mut owner = prepare(&broker);
    let mut client = broker.connect_as("limited", "secret", "/");
    for name in ["c", "w", "r"] {
        client.call(1, &queue::declare(name, queue::PASSIVE, &none()));
        client.call(1, &exchange::declare(name, "direct", exchange::PASSIVE, &none()));
    }
    client.call(1, &queue::bind("w", "r", "k", 0, &none()));
    client.call(1, &exchange::bind("w", "r", "k", 0, &none()));
    client.call(1, &queue::bind("all", "all", "k", 0, &none()));
    client.publish(1, "all", "k", "kept");
    assert_eq!(client.wait_for_message(1, "all", 1).text(), "kept");
    client.call(1, &queue::purge("r", 0));
    client.consume(1, "r", "t", 0, &none());
    client.call(1, &queue::declare("c-new", 0, &none()));
    client.exclusive_queue(1, &none());
    for name in ["c", "c-new"] {
        client.call(1, &queue::delete(name, 0));
    }
    client.call(1, &exchange::delete("c", 0));
    // The patterns are searched for: without an anchor at the end, what begins so is meant too.
    client.call(1, &exchange::declare("all-of-them", "fanout", 0, &none()));
    assert_eq!(owner.message_count(1, "w"), 0);
    client.close();
}

#[test]
fn a_virtual_host_needs_a_permission_entry() {
    let Some(broker) = own_broker(USERS) else { return };
    for (user, password, virtual_host, text) in [
        ("nowhere", "secret", "/", "access to vhost '/' refused for user 'nowhere'"),
        ("limited", "secret", "other", "access to vhost 'other' refused for user 'limited'"),
        ("nowhere", "secret", "missing", "vhost missing not found"),
        ("guest", "guest", "Other", "vhost Other not found"),
    ] {
        let mut client = Client::new(broker.socket());
        client.ask_to_open(user, password, virtual_host);
        client.expect_connection_close(530, &format!("NOT_ALLOWED - {text}"), (10, 40));
    }
    broker.connect_as("guest", "guest", "other").close();
}

#[test]
fn a_look_ahead_excludes_names() {
    let Some(broker) = own_broker(USERS) else { return };
    let mut client = broker.connect_as("guarded", "secret", "other");
    client.call(1, &queue::declare("public", 0, &none()));
    client.send(1, &queue::declare("private.1", 0, &none()));
    let text = "ACCESS_REFUSED - configure access to queue 'private.1' in vhost 'other' refused for user 'guarded'";
    client.expect_channel_close(1, 403, text, (50, 10));
    client.close();
}

#[test]
fn an_impersonator_may_name_others() {
    let Some(broker) = own_broker(USERS) else { return };
    let mut owner = prepare(&broker);
    let claimed = |name: &str| Properties { user_id: Some(name.to_owned()), ..Properties::default() };
    let mut speaker = broker.connect_as("speaker", "secret", "/");
    speaker.publish_with(1, &basic::publish("", "all", 0), &claimed("guest"), b"said");
    let message = owner.wait_for_message(1, "all", 1);
    assert_eq!(message.properties().user_id.as_deref(), Some("guest"));
    let mut limited = broker.connect_as("limited", "secret", "/");
    limited.publish_with(1, &basic::publish("all", "k", 0), &claimed("guest"), b"said");
    let text = "PRECONDITION_FAILED - user_id property set to 'guest' but authenticated user was 'limited'";
    limited.expect_channel_close(1, 406, text, (60, 40));
    // An empty pattern permits nothing, not even a look.
    speaker.send(1, &basic::get("all", 1));
    speaker.expect_channel_close(1, 403, &refused("read", "queue", "all", "speaker"), (60, 70));
}

#[test]
fn amqplain_logs_in_any_user() {
    let Some(broker) = own_broker(USERS) else { return };
    let response = |password: &str| {
        let pairs = table([("LOGIN", "limited".into()), ("PASSWORD", Value::from(password))]);
        crate::wire::Writer::new().table(&pairs).0.split_off(4)
    };
    for (password, good) in [("secret", true), ("", false), ("Secret", false)] {
        let mut client = Client::new(broker.socket());
        client.send_bytes(crate::client::PROTOCOL_HEADER);
        client.expect(0, connection::START);
        let parameters = crate::client::Handshake::default();
        let properties = parameters.client_properties();
        client.send(0, &connection::start_ok(&properties, "AMQPLAIN", &response(password)));
        if good {
            client.tune(&parameters);
            client.call(0, &connection::open("/"));
            client.close();
        } else {
            let text = "ACCESS_REFUSED - Login was refused using authentication mechanism AMQPLAIN. For details see the broker logfile.";
            client.expect_connection_close(403, text, (0, 0));
        }
    }
}

#[test]
fn virtual_hosts_share_nothing() {
    let Some(broker) = own_broker(USERS) else { return };
    let mut first = broker.connect_as("guest", "guest", "/");
    let mut second = broker.connect_as("guest", "guest", "other");
    for (client, virtual_host) in [(&mut first, "/"), (&mut second, "other")] {
        client.declare_queue(1, "same", 0, &none());
        client.call(1, &exchange::declare("both", "fanout", 0, &none()));
        client.call(1, &queue::bind("same", "both", "", 0, &none()));
        client.publish(1, "both", "", virtual_host);
        client.publish(1, "", "same", virtual_host);
        client.wait_for_count(1, "same", 2);
    }
    first.declare_queue(1, "only-here", 0, &none());
    assert_eq!(second.drain_queue(1, "same"), ["other", "other"]);
    first.call(1, &exchange::delete("both", 0));
    second.call(1, &exchange::declare("both", "fanout", exchange::PASSIVE, &none()));
    second.call(1, &queue::delete("same", 0));
    assert_eq!(first.drain_queue(1, "same"), ["/", "/"]);
    second.publish_with(1, &basic::publish("", "only-here", basic::MANDATORY), &Properties::default(), b"lost");
    assert_eq!(second.expect_return(1).reply.0, 312);
    second.send(1, &queue::declare("only-here", queue::PASSIVE, &none()));
    second.expect_channel_close(1, 404, "NOT_FOUND - no queue 'only-here' in vhost 'other'", (50, 10));
}

#[test]
fn any_new_secret_of_a_user_with_a_password_will_do() {
    let Some(broker) = own_broker(USERS) else { return };
    let mut client = broker.connect_as("limited", "secret", "/");
    assert_eq!(client.call(0, &connection::update_secret("secret")).ids(), (10, 71));
    client.send(1, &channel::flow(1));
    client.expect(1, (20, 21));
    assert_eq!(client.call(0, &connection::update_secret("guest")).ids(), (10, 71));
    client.close();
}
