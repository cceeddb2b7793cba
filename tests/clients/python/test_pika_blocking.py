"""pika's BlockingConnection: the tutorial patterns, acknowledgement, transactions, properties."""

import uuid
from datetime import datetime, timezone

import pika
import pytest
from blocking import declare, drain, message_count, receive
from pika.exceptions import ChannelClosedByBroker, NackError, UnroutableError
from support import (
    HEADERS_MATCHES,
    TOPIC_BINDINGS,
    TOPIC_MATCHES,
    X_MATCH_VALUES,
    headers_binding,
    wait_until,
)

REPLY_TO = "amq.rabbitmq.reply-to"


def test_work_queue_with_prefetch_one_dispatches_fairly(connection, channel, name):
    queue = name("tasks")
    channel.queue_declare(queue, durable=True)
    busy, idle = [], []
    busy_channel = connection.channel()
    busy_channel.basic_qos(prefetch_count=1)
    busy_channel.basic_consume(queue, lambda _c, method, _p, body: busy.append((method.delivery_tag, body)))
    idle_channel = connection.channel()
    idle_channel.basic_qos(prefetch_count=1)

    def finish(consumer, method, _properties, body):
        idle.append(body)
        consumer.basic_ack(method.delivery_tag)

    idle_channel.basic_consume(queue, finish)
    for number in range(8):
        channel.basic_publish("", queue, b"task %d" % number, pika.BasicProperties(delivery_mode=2))
    receive(connection, idle, 7)
    assert len(busy) == 1
    assert sorted([busy[0][1], *idle]) == [b"task %d" % number for number in range(8)]
    busy_channel.basic_ack(busy[0][0])
    # A synchronous call on the same channel makes sure that the ack has been handled.
    assert busy_channel.queue_delete(queue).method.message_count == 0


def test_round_robin_without_prefetch(connection, channel, name):
    queue = declare(channel, name("tasks"))
    inboxes = [[], [], []]
    for inbox in inboxes:
        channel.basic_consume(queue, lambda _c, _m, _p, body, inbox=inbox: inbox.append(body), auto_ack=True)
    for number in range(9):
        channel.basic_publish("", queue, str(number))
    wait_until(
        lambda: sum(map(len, inboxes)) == 9,
        "the arrival of all messages",
        step=lambda: connection.process_data_events(time_limit=0.05),
    )
    assert [len(inbox) for inbox in inboxes] == [3, 3, 3]


def test_publish_subscribe(connection, channel, name):
    exchange = name("logs")
    channel.exchange_declare(exchange, "fanout")
    inboxes = []
    for _ in range(3):
        queue = declare(channel, "")
        assert queue.startswith("amq.gen-")
        channel.queue_bind(queue, exchange)
        inbox = []
        inboxes.append(inbox)
        channel.basic_consume(queue, lambda _c, _m, _p, body, inbox=inbox: inbox.append(body), auto_ack=True)
    channel.basic_publish(exchange, "ignored", b"news")
    for inbox in inboxes:
        receive(connection, inbox, 1)
        assert inbox == [b"news"]


def test_routing_by_exact_key(channel, name):
    exchange = name("direct")
    channel.exchange_declare(exchange, "direct")
    errors, everything = declare(channel, ""), declare(channel, "")
    channel.queue_bind(errors, exchange, "error")
    for key in ("error", "warning", "info"):
        channel.queue_bind(everything, exchange, key)
    channel.confirm_delivery()
    for key in ("info", "error", "warning", "debug", "Error"):
        channel.basic_publish(exchange, key, key.encode())
    assert drain(channel, errors) == [b"error"]
    assert drain(channel, everything) == [b"info", b"error", b"warning"]


def test_topics(channel, name):
    exchange = name("topics")
    channel.exchange_declare(exchange, "topic")
    queues = {key: declare(channel, "") for key in TOPIC_BINDINGS}
    for key, queue in queues.items():
        channel.queue_bind(queue, exchange, key)
    channel.confirm_delivery()
    for routing_key, matches in TOPIC_MATCHES.items():
        channel.basic_publish(exchange, routing_key, b"x")
        assert {key for key, queue in queues.items() if drain(channel, queue)} == matches, routing_key


def test_headers_exchange(channel, name):
    exchange = name("headers")
    channel.exchange_declare(exchange, "headers")
    queues = {x_match: declare(channel, "") for x_match in X_MATCH_VALUES}
    for x_match, queue in queues.items():
        channel.queue_bind(queue, exchange, arguments=headers_binding(x_match))
    channel.confirm_delivery()
    for headers, matches in HEADERS_MATCHES:
        channel.basic_publish(exchange, "", b"x", pika.BasicProperties(headers=headers))
        assert {key for key, queue in queues.items() if drain(channel, queue)} == matches, headers


def test_exchange_to_exchange_bindings_and_alternate_exchange(channel, name):
    source, target, rest = name("source"), name("target"), name("rest")
    channel.exchange_declare(rest, "fanout")
    channel.exchange_declare(source, "direct", arguments={"alternate-exchange": rest})
    channel.exchange_declare(target, "topic")
    channel.exchange_bind(target, source, "order.paid")
    bound, unmatched = declare(channel, ""), declare(channel, "")
    channel.queue_bind(bound, target, "order.#")
    channel.queue_bind(unmatched, rest)
    channel.confirm_delivery()
    channel.basic_publish(source, "order.paid", b"1", mandatory=True)
    channel.basic_publish(source, "order.lost", b"2", mandatory=True)
    channel.exchange_unbind(target, source, "order.paid")
    channel.basic_publish(source, "order.paid", b"3", mandatory=True)
    assert drain(channel, bound) == [b"1"]
    assert drain(channel, unmatched) == [b"2", b"3"]


def test_rpc_with_direct_reply_to(connection, channel, name):
    requests = declare(channel, name("rpc"))
    server = connection.channel()

    def serve(consumer, method, properties, body):
        assert properties.reply_to.startswith(f"{REPLY_TO}.")
        answer = pika.BasicProperties(correlation_id=properties.correlation_id)
        consumer.basic_publish("", properties.reply_to, str(int(body) ** 2), answer)
        consumer.basic_ack(method.delivery_tag)

    server.basic_consume(requests, serve)
    replies = {}

    def keep(_channel, method, properties, body):
        assert (method.exchange, method.redelivered) == ("", False)
        replies[properties.correlation_id] = int(body)

    channel.basic_consume(REPLY_TO, keep, auto_ack=True)
    for number in range(5):
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=f"call {number}")
        channel.basic_publish("", requests, str(number), properties)
    wait_until(lambda: len(replies) == 5, "the replies", step=lambda: connection.process_data_events(0.05))
    assert replies == {f"call {number}": number**2 for number in range(5)}


@pytest.mark.parametrize(
    ("first_step", "text"),
    [
        ("publish", "PRECONDITION_FAILED - fast reply consumer does not exist"),
        ("consume with acknowledgement", "PRECONDITION_FAILED - reply consumer cannot acknowledge"),
        ("consume twice", "PRECONDITION_FAILED - reply consumer already set"),
    ],
)
def test_direct_reply_to_errors(channel, name, first_step, text):
    queue = declare(channel, name("rpc"))
    with pytest.raises(ChannelClosedByBroker) as caught:
        if first_step == "publish":
            channel.basic_publish("", queue, b"", pika.BasicProperties(reply_to=REPLY_TO))
        elif first_step == "consume with acknowledgement":
            channel.basic_consume(REPLY_TO, print)
        else:
            channel.basic_consume(REPLY_TO, print, auto_ack=True)
            channel.basic_consume(REPLY_TO, print, auto_ack=True)
        channel.basic_qos()
    assert (caught.value.reply_code, caught.value.reply_text) == (406, text)


def test_confirms_and_returns(channel, name):
    queue = declare(channel, name("confirmed"))
    channel.confirm_delivery()
    for number in range(20):
        channel.basic_publish("", queue, b"%d" % number, mandatory=True)
    assert message_count(channel, queue) == 20
    with pytest.raises(UnroutableError) as caught:
        properties = pika.BasicProperties(message_id="lost", headers={"a": 1})
        channel.basic_publish("amq.direct", "nowhere", b"body", properties, mandatory=True)
    (returned,) = caught.value.messages
    method = returned.method
    assert (method.reply_code, method.reply_text) == (312, "NO_ROUTE")
    assert (method.exchange, method.routing_key) == ("amq.direct", "nowhere")
    assert (returned.properties.message_id, returned.properties.headers) == ("lost", {"a": 1})
    assert returned.body == b"body"
    # Not mandatory: dropped and confirmed all the same.
    channel.basic_publish("amq.direct", "nowhere", b"body")


def test_mandatory_return_without_confirms(connection, channel):
    returned = []
    channel.add_on_return_callback(lambda _c, method, _p, body: returned.append((method.reply_code, body)))
    channel.basic_publish("", uuid.uuid4().hex, b"lost", mandatory=True)
    receive(connection, returned, 1)
    assert returned == [(312, b"lost")]


def test_reject_publish_nacks(channel, name):
    queue = declare(channel, name("full"), arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"fits")
    with pytest.raises(NackError):
        channel.basic_publish("", queue, b"does not fit")
    assert drain(channel, queue) == [b"fits"]
    channel.basic_publish("", queue, b"fits again")


def test_priorities(connection, channel, name):
    queue = declare(channel, name("urgent"), arguments={"x-max-priority": 5})
    channel.confirm_delivery()
    for body, priority in ((b"1", 1), (b"5", 5), (b"none", None), (b"3", 3), (b"9", 9), (b"0", 0), (b"3 again", 3)):
        channel.basic_publish("", queue, body, pika.BasicProperties(priority=priority))
    inbox = []
    channel.basic_consume(queue, lambda _c, _m, _p, body: inbox.append(body), auto_ack=True)
    receive(connection, inbox, 7)
    assert inbox == [b"5", b"9", b"3", b"3 again", b"1", b"none", b"0"]


def test_consumer_priorities(connection, channel, name):
    queue = declare(channel, name("preferred"))
    channel.basic_qos(prefetch_count=2)
    high, low = [], []
    channel.basic_consume(queue, lambda _c, _m, _p, body: low.append(body), arguments={"x-priority": -1})
    channel.basic_consume(queue, lambda _c, _m, _p, body: high.append(body), arguments={"x-priority": 10})
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    receive(connection, low, 1)
    assert (high, low) == ([b"0", b"1"], [b"2"])


def test_client_cancels_consumer(connection, channel, name):
    queue = declare(channel, name("cancelled"))
    inbox = []
    tag = channel.basic_consume(queue, lambda _c, method, _p, _b: inbox.append(method.delivery_tag))
    assert tag.startswith("ctag")
    channel.basic_publish("", queue, b"one")
    receive(connection, inbox, 1)
    channel.basic_cancel(tag)
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"two")
    declared = channel.queue_declare(queue, passive=True).method
    assert (declared.message_count, declared.consumer_count) == (1, 0)
    # A delivery from before the cancellation can still be acknowledged.
    channel.basic_ack(inbox[0])
    channel.basic_recover(requeue=True)
    assert drain(channel, queue) == [b"two"]
    assert len(inbox) == 1


def test_server_cancels_consumer_when_the_queue_is_deleted(connection, channel, name):
    queue = declare(channel, name("deleted"))
    cancelled = []
    channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    channel.basic_consume(queue, print, consumer_tag="first")
    channel.basic_consume(queue, print, consumer_tag="second")
    other = connection.channel()
    other.queue_delete(queue)
    receive(connection, cancelled, 2)
    assert sorted(cancelled) == ["first", "second"]
    assert channel.is_open
    # The tags are free again.
    again = declare(channel, name("again"))
    channel.basic_consume(again, print, consumer_tag="first")


def test_consume_generator_ends_when_the_queue_is_deleted(connection, channel, name):
    queue = declare(channel, name("generator"))
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    bodies = []
    for method, _properties, body in channel.consume(queue, inactivity_timeout=10):
        assert method is not None, "no message and no cancellation"
        bodies.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(bodies) == 3:
            connection.channel().queue_delete(queue)
    assert bodies == [b"0", b"1", b"2"]


def test_auto_delete_queue_goes_with_its_last_consumer(channel, name):
    queue = declare(channel, name("auto-delete"), auto_delete=True)
    tags = [channel.basic_consume(queue, print) for _ in range(2)]
    channel.basic_cancel(tags[0])
    assert channel.queue_declare(queue, passive=True).method.consumer_count == 1
    channel.basic_cancel(tags[1])
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.queue_declare(queue, passive=True)
    assert caught.value.reply_code == 404


def test_basic_get(channel, name):
    queue = declare(channel, name("polled"))
    assert channel.basic_get(queue) == (None, None, None)
    for number in range(3):
        channel.basic_publish("", queue, b"%d" % number)
    # One channel keeps its order, so the messages are there.
    method, properties, body = channel.basic_get(queue)
    assert (method.delivery_tag, method.redelivered, method.message_count) == (1, False, 2)
    assert (method.exchange, method.routing_key, body) == ("", queue, b"0")
    assert properties.headers is None
    method, _properties, body = channel.basic_get(queue, auto_ack=True)
    assert (method.delivery_tag, method.message_count, body) == (2, 1, b"1")
    channel.basic_ack(1)
    assert channel.queue_purge(queue).method.message_count == 1


def test_nack_requeues_to_the_original_position(channel, name):
    queue = declare(channel, name("requeued"))
    for number in range(4):
        channel.basic_publish("", queue, b"%d" % number)
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(3)]
    channel.basic_nack(tags[1], requeue=True)
    method, _properties, body = channel.basic_get(queue)
    assert (body, method.redelivered) == (b"1", True)
    channel.basic_nack(method.delivery_tag, multiple=True, requeue=True)
    seen = [channel.basic_get(queue, auto_ack=True) for _ in range(4)]
    assert [(body, method.redelivered) for method, _properties, body in seen] == [
        (b"0", True),
        (b"1", True),
        (b"2", True),
        (b"3", False),
    ]


def test_reject_and_recover_and_channel_close_requeue(connection, channel, name):
    queue = declare(channel, name("returned"))
    channel.basic_publish("", queue, b"message")
    for give_back in ("reject", "recover", "close"):
        consumer = connection.channel()
        method = consumer.basic_get(queue)[0]
        assert method.redelivered == (give_back != "reject")
        if give_back == "reject":
            consumer.basic_reject(method.delivery_tag, requeue=True)
        elif give_back == "recover":
            consumer.basic_recover(requeue=True)
        consumer.close()
        assert message_count(channel, queue) == 1
    method = channel.basic_get(queue)[0]
    channel.basic_reject(method.delivery_tag, requeue=False)
    assert message_count(channel, queue) == 0


def test_acknowledge_multiple(channel, name):
    queue = declare(channel, name("multiple"))
    for number in range(5):
        channel.basic_publish("", queue, b"%d" % number)
    tags = [channel.basic_get(queue)[0].delivery_tag for _ in range(5)]
    channel.basic_ack(tags[2], multiple=True)
    channel.basic_recover(requeue=True)
    assert drain(channel, queue) == [b"3", b"4"]
    # Tag 0 with multiple means everything outstanding and is no error when there is nothing.
    channel.basic_ack(0, multiple=True)
    channel.basic_qos()


def test_transactions(connection, channel, name):
    queue = declare(channel, name("transaction"))
    observer = connection.channel()
    channel.tx_select()
    channel.basic_publish("", queue, b"dropped")
    channel.tx_rollback()
    channel.basic_publish("", queue, b"kept")
    assert message_count(observer, queue) == 0
    channel.tx_commit()
    assert message_count(observer, queue) == 1
    method, _properties, body = channel.basic_get(queue)
    assert body == b"kept"
    channel.basic_ack(method.delivery_tag)
    channel.tx_rollback()
    # The rollback took the acknowledgement back.
    channel.basic_ack(method.delivery_tag)
    channel.tx_commit()
    channel.basic_recover(requeue=True)
    assert message_count(observer, queue) == 0


def test_returns_in_a_transaction_come_at_commit(channel):
    returned = []
    channel.add_on_return_callback(lambda _c, method, _p, body: returned.append(body))
    channel.tx_select()
    channel.basic_publish("", uuid.uuid4().hex, b"lost", mandatory=True)
    channel.basic_qos()
    channel.connection.process_data_events(0)
    assert returned == []
    channel.tx_commit()
    receive(channel.connection, returned, 1)


def test_all_message_properties(channel, name):
    queue = declare(channel, name("properties"))
    sent = pika.BasicProperties(
        content_type="application/json",
        content_encoding="gzip",
        headers={"key": "välue"},
        delivery_mode=2,
        priority=7,
        correlation_id="correlation",
        reply_to="reply",
        expiration="60000",
        message_id="message",
        timestamp=1_700_000_000,
        type="type",
        user_id="guest",
        app_id="application",
        cluster_id="cluster",
    )
    channel.basic_publish("", queue, b"", sent)
    method, received, body = channel.basic_get(queue, auto_ack=True)
    assert (method.message_count, body) == (0, b"")
    assert received == sent


def test_message_time_to_live_and_queue_expiry(connection, channel, name):
    queue = declare(channel, name("short-lived"), arguments={"x-message-ttl": 60_000})
    channel.basic_publish("", queue, b"gone", pika.BasicProperties(expiration="1"))
    channel.basic_publish("", queue, b"stays")
    wait_until(lambda: message_count(channel, queue) == 1, "the expiry of the message")
    assert drain(channel, queue) == [b"stays"]
    expiring = name("expiring")
    declare(channel, expiring, arguments={"x-expires": 100})

    def is_gone():
        # A passive declare would renew the lease, so the default exchange is asked.
        probe = connection.channel()
        probe.confirm_delivery()
        try:
            probe.basic_publish("", expiring, b"", mandatory=True)
        except UnroutableError:
            return True
        finally:
            probe.close()
        return False

    wait_until(is_gone, "the expiry of the queue")


def test_timestamp_header_keeps_seconds(channel, name):
    queue = declare(channel, name("time"))
    moment = datetime(2024, 2, 29, 12, 30, 15, tzinfo=timezone.utc)
    channel.basic_publish("", queue, b"", pika.BasicProperties(headers={"at": moment}))
    assert channel.basic_get(queue, auto_ack=True)[1].headers == {"at": moment}
