"""What a restart leaves: after SIGTERM everything, after SIGKILL everything that was answered."""

import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest
from conftest import wait_until
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, UnroutableError

PERSISTENT = pika.BasicProperties(delivery_mode=2)
MIB = 1024 * 1024


def connect(broker):
    parameters = pika.URLParameters(broker.url)
    parameters.heartbeat = 0
    return pika.BlockingConnection(parameters)


def confirming(connection):
    channel = connection.channel()
    channel.confirm_delivery()
    return channel


def fill(channel, queue, bodies, properties=PERSISTENT):
    for body in bodies:
        channel.basic_publish("", queue, body, properties, mandatory=True)


def end(broker, how, connection):
    """Ends the broker, with the connection still open; its client answers what it is told meanwhile."""
    with ThreadPoolExecutor(1) as worker:
        ending = worker.submit(getattr(broker, how))
        deadline = time.monotonic() + 60
        with contextlib.suppress(AMQPError):
            while connection.is_open:
                assert time.monotonic() < deadline, "the connection outlives the broker"
                connection.process_data_events(time_limit=0.1)
        ending.result()


def restart(broker, how, connection):
    """A new connection after the restart."""
    end(broker, how, connection)
    broker.start()
    return connect(broker)


def take(channel, queue, count):
    """The messages of a queue, unacknowledged; there must be exactly so many."""
    found = []
    while (message := channel.basic_get(queue))[0] is not None:
        found.append(message)
    assert len(found) == count, [body[:20] for _method, _properties, body in found]
    return found


def publish_frames(channel_number, queue, body):
    method = pika.spec.Basic.Publish(routing_key=queue)
    frames = [
        pika.frame.Method(channel_number, method),
        pika.frame.Header(channel_number, len(body), PERSISTENT),
        pika.frame.Body(channel_number, body),
    ]
    return b"".join(frame.marshal() for frame in frames)


def bodies_of(messages):
    return [body for _method, _properties, body in messages]


def exists(connection, kind, name):
    channel = connection.channel()
    try:
        getattr(channel, f"{kind}_declare")(name, passive=True)
    except ChannelClosedByBroker as closed:
        assert closed.reply_code == 404, closed
        return False
    return True


def depth(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


both_ends = pytest.mark.parametrize("how", ["stop", "kill"])


@both_ends
def test_messages_come_back_as_they_were(broker, name, how):
    queue = name("kept")
    dice = random.Random(1)
    messages = [
        (b"", pika.BasicProperties(delivery_mode=2)),
        (
            b"all properties",
            pika.BasicProperties(
                content_type="text/plain",
                content_encoding="utf-8",
                headers={
                    "text": "ä",
                    "integer": -(2**40),
                    "true": True,
                    "nothing": None,
                    "list": [1, "two", {"three": 3}],
                    "table": {"deep": {"deeper": "yes"}},
                    "long": "x" * 70_000,
                },
                delivery_mode=2,
                priority=7,
                correlation_id="correlation",
                reply_to="reply",
                expiration="600000",
                message_id="id",
                timestamp=1_700_000_000,
                type="type",
                user_id="guest",
                app_id="application",
                cluster_id="cluster",
            ),
        ),
        (dice.randbytes(MIB), PERSISTENT),
        (b"\0" * 4096, pika.BasicProperties(delivery_mode=2, headers={})),
    ]
    messages += [(dice.randbytes(dice.randrange(10_000)), PERSISTENT) for _ in range(500)]
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(queue, durable=True)
    for body, properties in messages:
        channel.basic_publish("", queue, body, properties)
    connection = restart(broker, how, connection)
    found = take(connection.channel(), queue, len(messages))
    for (method, properties, body), (sent_body, sent_properties) in zip(found, messages, strict=True):
        assert body == sent_body
        assert properties == sent_properties
        # RabbitMQ takes everything for delivered after it was killed.
        assert not method.redelivered or (how == "kill" and broker.is_given)
    connection.close()


@both_ends
@pytest.mark.timeout(120)
def test_large_messages_come_back(broker, name, how):
    queue = name("large")
    body = random.Random(2).randbytes(15 * MIB)
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(queue, durable=True)
    fill(channel, queue, [b"before", body, b"after"])
    connection = restart(broker, how, connection)
    # Not compared by `==` in an assertion, whose message would be very long.
    found = bodies_of(take(connection.channel(), queue, 3))
    assert [len(each) for each in found] == [6, len(body), 5]
    assert found[1] == body or pytest.fail("the large body is another one")
    connection.close()


@both_ends
def test_transient_things_are_gone(broker, name, how):
    durable, transient, exclusive = name("durable"), name("transient"), name("exclusive")
    durable_exchange, transient_exchange = name("durable-exchange"), name("transient-exchange")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(durable, durable=True)
    channel.queue_declare(transient)
    channel.queue_declare(exclusive, exclusive=True)
    channel.exchange_declare(durable_exchange, "direct", durable=True)
    channel.exchange_declare(transient_exchange, "direct")
    for exchange in (durable_exchange, transient_exchange):
        for queue in (durable, transient, exclusive):
            channel.queue_bind(queue, exchange, "key")
    fill(channel, durable, [b"transient"], pika.BasicProperties(delivery_mode=1))
    fill(channel, durable, [b"no mode"], pika.BasicProperties())
    fill(channel, durable, [b"persistent"])
    fill(channel, transient, [b"persistent"])
    connection = restart(broker, how, connection)
    assert exists(connection, "queue", durable)
    assert exists(connection, "exchange", durable_exchange)
    assert not exists(connection, "queue", transient)
    assert not exists(connection, "queue", exclusive)
    channel = confirming(connection)
    if not broker.is_given:
        assert not exists(connection, "exchange", transient_exchange)
    # Neither a queue nor an exchange that is made anew has the bindings of the one that is gone.
    channel.exchange_declare(transient_exchange, "direct")
    channel.queue_declare(transient)
    channel.basic_publish(durable_exchange, "key", b"one", PERSISTENT, mandatory=True)
    if not broker.is_given:
        with pytest.raises(UnroutableError):
            channel.basic_publish(transient_exchange, "key", b"none", PERSISTENT, mandatory=True)
        assert bodies_of(take(channel, durable, 2)) == [b"persistent", b"one"]
    assert depth(channel, transient) == 0
    connection.close()


@both_ends
def test_definitions_come_back(broker, name, how):
    """Declared again with the same arguments they are accepted, and they route as before."""
    source, end_of_chain, alternate = name("source"), name("end"), name("alternate")
    plain, limited, unrouted = name("plain"), name("limited"), name("unrouted")
    arguments = {
        "x-max-length": 3,
        "x-overflow": "reject-publish",
        "x-message-ttl": 600_000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": plain,
        "x-expires": 600_000,
        "x-single-active-consumer": True,
    }

    def declare(channel):
        channel.exchange_declare(alternate, "fanout", durable=True, internal=True)
        channel.exchange_declare(source, "headers", durable=True, arguments={"alternate-exchange": alternate})
        channel.exchange_declare(end_of_chain, "topic", durable=True, auto_delete=True)
        channel.queue_declare(plain, durable=True)
        channel.queue_declare(limited, durable=True, arguments=arguments)
        channel.queue_declare(unrouted, durable=True, auto_delete=True)

    connection = connect(broker)
    channel = confirming(connection)
    declare(channel)
    channel.exchange_bind(end_of_chain, source, "", arguments={"x-match": "any", "kind": "a"})
    channel.queue_bind(plain, end_of_chain, "a.#")
    channel.queue_bind(plain, end_of_chain, "gone")
    channel.queue_bind(limited, end_of_chain, "*.b")
    channel.queue_bind(unrouted, alternate, "")
    channel.queue_unbind(plain, end_of_chain, "gone")
    connection = restart(broker, how, connection)
    channel = confirming(connection)
    declare(channel)

    def publish(key, kind):
        properties = pika.BasicProperties(delivery_mode=2, headers={"kind": kind})
        channel.basic_publish(source, key, b"%s %s" % (key.encode(), kind.encode()), properties)

    publish("a.b", "a")
    publish("c.b", "a")
    publish("gone", "a")
    publish("a.b", "other")
    assert bodies_of(take(channel, plain, 1)) == [b"a.b a"]
    assert bodies_of(take(channel, unrouted, 1)) == [b"a.b other"]
    publish("d.b", "a")
    with pytest.raises(NackError):
        publish("e.b", "a")
    connection.close()


def test_a_deleted_exchange_takes_its_bindings_along(broker, name):
    exchange, queue = name("exchange"), name("queue")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(queue, durable=True)
    channel.exchange_declare(exchange, "fanout", durable=True)
    channel.queue_bind(queue, exchange, "")
    channel.exchange_delete(exchange)
    connection = restart(broker, "kill", connection)
    assert not exists(connection, "exchange", exchange)
    channel = confirming(connection)
    channel.exchange_declare(exchange, "fanout", durable=True)
    with pytest.raises(UnroutableError):
        channel.basic_publish(exchange, "", b"", PERSISTENT, mandatory=True)
    connection.close()


@both_ends
def test_priorities_keep_their_order(broker, name, how):
    queue = name("priorities")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(queue, durable=True, arguments={"x-max-priority": 5})
    sent = [(number % 7, b"%d" % number) for number in range(70)]
    for priority, body in sent:
        properties = pika.BasicProperties(delivery_mode=2, priority=priority)
        channel.basic_publish("", queue, body, properties)
    connection = restart(broker, how, connection)
    channel = confirming(connection)
    late = pika.BasicProperties(delivery_mode=2, priority=9)
    channel.basic_publish("", queue, b"late", late)
    expected = sorted([*sent, (9, b"late")], key=lambda message: -min(message[0], 5))
    assert bodies_of(take(channel, queue, 71)) == [body for _priority, body in expected]
    connection.close()


@both_ends
def test_delivered_messages_are_redelivered_others_are_not(broker, name, how):
    queue = name("redelivered")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(queue, durable=True)
    fill(channel, queue, [b"%d" % number for number in range(20)])
    channel.basic_qos(prefetch_count=8)
    received = []
    channel.basic_consume(queue, lambda _channel, method, _properties, body: received.append((method, body)))
    wait_until(lambda: connection.process_data_events(0.05) or len(received) == 8, "8 deliveries")
    channel.basic_qos(prefetch_count=8, global_qos=False)
    if how == "kill":
        # Deliveries are remembered lazily.
        time.sleep(1)
    connection = restart(broker, how, connection)
    found = [(int(body), method.redelivered) for method, _properties, body in take(connection.channel(), queue, 20)]
    assert found == [(number, number < 8 or (how == "kill" and broker.is_given)) for number in range(20)]
    connection.close()


@both_ends
def test_acks_are_remembered(broker, name, how):
    queue = name("acked")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(queue, durable=True)
    fill(channel, queue, [b"%d" % number for number in range(30)])
    tags = [method.delivery_tag for method, _properties, _body in take(channel, queue, 30)]
    channel.basic_ack(tags[9], multiple=True)
    channel.basic_ack(tags[14])
    channel.basic_reject(tags[16], requeue=False)
    channel.basic_nack(tags[18], requeue=True)
    depth(channel, queue)
    if how == "kill":
        time.sleep(1)
    connection = restart(broker, how, connection)
    kept = [number for number in range(10, 30) if number not in (14, 16)]
    found = take(connection.channel(), queue, len(kept))
    assert [int(body) for body in bodies_of(found)] == kept
    # RabbitMQ forgets it of some after one was given back.
    assert broker.is_given or all(method.redelivered for method, _properties, _body in found)
    connection.close()


@both_ends
def test_time_to_live_goes_on_while_the_broker_is_down(broker, name, how):
    expiring, queue_wide, dead = name("expiring"), name("queue-wide"), name("dead")
    connection = connect(broker)
    channel = confirming(connection)
    letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(dead, durable=True)
    channel.queue_declare(expiring, durable=True, arguments=letters)
    channel.queue_declare(queue_wide, durable=True, arguments=letters | {"x-message-ttl": 2000})
    fill(channel, expiring, [b"by message"], pika.BasicProperties(delivery_mode=2, expiration="2000"))
    fill(channel, expiring, [b"stays"], pika.BasicProperties(delivery_mode=2, expiration="600000"))
    fill(channel, queue_wide, [b"by queue"])
    end(broker, how, connection)
    time.sleep(2.5)
    broker.start()
    connection = connect(broker)
    channel = connection.channel()
    wait_until(lambda: depth(channel, dead) == 2, "the dead letters", seconds=3)
    letters = {body: properties.headers["x-death"] for _method, properties, body in take(channel, dead, 2)}
    for body, queue in ((b"by message", expiring), (b"by queue", queue_wide)):
        assert [(death["queue"], death["reason"], death["count"]) for death in letters[body]] == [(queue, "expired", 1)]
    assert letters[b"by message"][0]["original-expiration"] == "2000"
    assert depth(channel, queue_wide) == 0
    assert bodies_of(take(channel, expiring, 1)) == [b"stays"]
    connection.close()


def test_time_to_live_is_not_begun_anew(broker, name):
    queue = name("expiring")
    connection = connect(broker)
    channel = confirming(connection)
    # Longer than a restart takes.
    seconds = 12 if broker.is_given else 4
    channel.queue_declare(queue, durable=True, arguments={"x-message-ttl": seconds * 1000})
    fill(channel, queue, [b"short"])
    published = time.monotonic()
    connection = restart(broker, "stop", connection)
    channel = connection.channel()
    assert depth(channel, queue) == 1
    wait_until(lambda: depth(channel, queue) == 0, "the expiry", seconds=15)
    assert seconds - 0.5 < time.monotonic() - published < seconds + 1.5
    connection.close()


def test_the_lease_of_a_queue_begins_anew(broker, name):
    queue = name("leased")
    connection = connect(broker)
    connection.channel().queue_declare(queue, durable=True, arguments={"x-expires": 4000})
    end(broker, "stop", connection)
    time.sleep(4.5)
    broker.start()
    started = time.monotonic()
    connection = connect(broker)
    # A passive declaration is use of the queue: only one, at once.
    assert exists(connection, "queue", queue)
    time.sleep(max(0, started + 7 - time.monotonic()))
    assert not exists(connection, "queue", queue)
    connection.close()


@both_ends
def test_limits_hold_over_restarts(broker, name, how):
    dropping, rejecting, dead = name("dropping"), name("rejecting"), name("dead")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(dead, durable=True)
    letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
    channel.queue_declare(dropping, durable=True, arguments={"x-max-length": 5} | letters)
    channel.queue_declare(
        rejecting, durable=True, arguments={"x-max-length-bytes": 100, "x-overflow": "reject-publish"}
    )
    fill(channel, dropping, [b"%d" % number for number in range(8)])
    fill(channel, rejecting, [b"x" * 50, b"x" * 49])
    wait_until(lambda: depth(channel, dead) == 3, "the dead letters")
    if how == "kill":
        # Dead letters are on disk later than the confirm of what displaced them.
        time.sleep(1)
    connection = restart(broker, how, connection)
    channel = confirming(connection)
    assert bodies_of(take(channel, dead, 3)) == [b"0", b"1", b"2"]
    fill(channel, dropping, [b"8"])
    assert bodies_of(take(channel, dropping, 5)) == [b"4", b"5", b"6", b"7", b"8"]
    assert depth(channel, rejecting) == 2
    fill(channel, rejecting, [b"x"])
    with pytest.raises(NackError):
        fill(channel, rejecting, [b"y"])
    connection.close()


@both_ends
def test_death_history_is_kept(broker, name, how):
    """A message goes around twice, with restarts in between."""
    work, parking = name("work"), name("parking")
    connection = connect(broker)
    channel = confirming(connection)
    channel.queue_declare(
        work, durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": parking}
    )
    channel.queue_declare(
        parking,
        durable=True,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 200},
    )
    fill(channel, work, [b"around"], pika.BasicProperties(delivery_mode=2, headers={"mine": "kept"}))
    for turn in (1, 2):
        message = wait_until(lambda: (got := channel.basic_get(work))[0] and got, "the message")  # noqa: B023
        channel.basic_reject(message[0].delivery_tag, requeue=False)
        wait_until(lambda: depth(channel, work) == 1, "its return")  # noqa: B023
        if how == "kill":
            time.sleep(1)
        connection = restart(broker, how, connection)
        channel = confirming(connection)
        method, properties, body = take(channel, work, 1)[0]
        channel.basic_nack(method.delivery_tag, requeue=True)
        deaths = {(death["queue"], death["reason"]): death["count"] for death in properties.headers["x-death"]}
        assert deaths == {(work, "rejected"): turn, (parking, "expired"): turn}
        assert properties.headers["x-first-death-queue"] == work
        assert properties.headers["mine"] == "kept"
        assert body == b"around"
    connection.close()


def test_a_committed_transaction_survives_a_kill(broker, name):
    queues = [name("one"), name("two")]
    connection = connect(broker)
    channel = connection.channel()
    for queue in queues:
        channel.queue_declare(queue, durable=True)
    channel.tx_select()
    for number in range(50):
        for queue in queues:
            channel.basic_publish("", queue, b"%d" % number, PERSISTENT)
    channel.tx_commit()
    fill(channel, queues[0], [b"not committed"])
    end(broker, "kill", connection)
    broker.start()
    connection = connect(broker)
    channel = connection.channel()
    for queue in queues:
        assert bodies_of(take(channel, queue, 50)) == [b"%d" % number for number in range(50)]
    connection.close()


def test_what_was_answered_survives_a_kill(broker, name):
    """purge-ok, delete-ok, unbind-ok, declare-ok: the broker is killed as soon as each is there."""
    purged, deleted, exchange = name("purged"), name("deleted"), name("exchange")
    connection = connect(broker)
    channel = confirming(connection)
    for queue in (purged, deleted):
        channel.queue_declare(queue, durable=True)
        fill(channel, queue, [b"x"] * 10)
    assert channel.queue_purge(purged).method.message_count == 10
    connection = restart(broker, "kill", connection)
    channel = confirming(connection)
    assert depth(channel, purged) == 0
    fill(channel, purged, [b"new"])

    assert channel.queue_delete(deleted).method.message_count == 10
    connection = restart(broker, "kill", connection)
    assert not exists(connection, "queue", deleted)
    channel = confirming(connection)
    assert bodies_of(take(channel, purged, 1)) == [b"new"]

    channel.exchange_declare(exchange, "direct", durable=True)
    connection = restart(broker, "kill", connection)
    channel = confirming(connection)
    channel.queue_bind(purged, exchange, "key")
    connection = restart(broker, "kill", connection)
    channel = confirming(connection)
    channel.basic_publish(exchange, "key", b"routed", PERSISTENT, mandatory=True)
    channel.queue_unbind(purged, exchange, "key")
    connection = restart(broker, "kill", connection)
    channel = confirming(connection)
    with pytest.raises(UnroutableError):
        channel.basic_publish(exchange, "key", b"unrouted", PERSISTENT, mandatory=True)
    assert bodies_of(take(channel, purged, 2)) == [b"new", b"routed"]

    channel.exchange_delete(exchange)
    connection = restart(broker, "kill", connection)
    assert not exists(connection, "exchange", exchange)
    connection.close()


@both_ends
def test_a_queue_declared_anew_is_empty(broker, name, how):
    queue = name("again")
    connection = connect(broker)
    channel = confirming(connection)
    for round_number in range(3):
        channel.queue_declare(queue, durable=True)
        fill(channel, queue, [b"%d" % round_number] * 10)
        channel.queue_delete(queue)
    channel.queue_declare(queue, durable=True)
    connection = restart(broker, how, connection)
    channel = confirming(connection)
    assert depth(channel, queue) == 0
    fill(channel, queue, [b"new"])
    connection = restart(broker, how, connection)
    assert bodies_of(take(connection.channel(), queue, 1)) == [b"new"]
    connection.close()


def test_what_was_sent_before_a_stop_is_taken(broker, name):
    """Without confirms: all that the broker's socket had received when it was told to stop is in the queue afterwards."""
    queue = name("burst")
    for round_number in range(5):
        connection = connect(broker)
        channel = connection.channel()
        channel.queue_declare(queue, durable=True)
        burst = b"".join(publish_frames(channel.channel_number, queue, bytes(1000)) for _number in range(2000))
        # At once: one call of pika a message is slower than the broker.
        connection._impl._output_marshaled_frames([burst])
        connection._flush_output()
        end(broker, "stop", connection)
        broker.start()
        connection = connect(broker)
        channel = connection.channel()
        assert depth(channel, queue) == 2000, round_number
        channel.queue_purge(queue)
        connection.close()


def test_many_restarts_change_nothing(broker, name):
    """Messages stay, in order, while others come and go around them."""
    kept, passing = name("kept"), name("passing")
    connection = connect(broker)
    channel = confirming(connection)
    for queue in (kept, passing):
        channel.queue_declare(queue, durable=True)
    fill(channel, kept, [b"%d" % number for number in range(300)])
    for round_number in range(6):
        fill(channel, passing, [bytes(20_000)] * 100)
        for method, _properties, _body in take(channel, passing, 100):
            channel.basic_ack(method.delivery_tag)
        for number in range(10):
            method, _properties, body = channel.basic_get(kept)
            assert int(body) == round_number * 10 + number
            channel.basic_ack(method.delivery_tag)
        fill(channel, kept, [b"%d" % (300 + round_number)])
        depth(channel, kept)
        if round_number % 2:
            time.sleep(1)
        connection = restart(broker, "kill" if round_number % 2 else "stop", connection)
        channel = confirming(connection)
    assert [int(body) for body in bodies_of(take(channel, kept, 246))] == list(range(60, 306))
    assert depth(channel, passing) == 0
    connection.close()
