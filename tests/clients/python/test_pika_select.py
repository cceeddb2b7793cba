"""pika's SelectConnection: everything by callbacks on one event loop."""

import copy
import uuid
from datetime import datetime, timezone

import pika
import pytest
from errors import ALL, BAD_PASSWORD, UNKNOWN_VHOST
from pika import spec
from pika.exceptions import (
    ChannelClosedByBroker,
    ChannelWrongStateError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from select_driver import on_select_connection
from support import (
    HEADERS_MATCHES,
    LARGE_BODY,
    TOPIC_BINDINGS,
    TOPIC_MATCHES,
    X_MATCH_VALUES,
    check_death,
    check_death_summary,
    headers_binding,
)

REPLY_TO = "amq.rabbitmq.reply-to"


@on_select_connection
async def test_work_queue_with_prefetch_one_dispatches_fairly(client, name):
    connection = await client.connect()
    busy, idle = await client.channel(connection), await client.channel(connection)
    queue = name("tasks")
    await client.call(busy.queue_declare, queue, durable=True)
    for channel in (busy, idle):
        await client.call(channel.basic_qos, prefetch_count=1)
    busy_inbox = await client.consume(busy, queue)
    idle_inbox = await client.consume(idle, queue)
    for number in range(8):
        busy.basic_publish("", queue, b"task %d" % number, pika.BasicProperties(delivery_mode=2))
    done = []
    for _ in range(7):
        method, _properties, body = await idle_inbox.take()
        done.append(body)
        idle.basic_ack(method.delivery_tag)
    method, _properties, body = await busy_inbox.take()
    assert not busy_inbox.messages
    assert sorted([body, *done]) == [b"task %d" % number for number in range(8)]
    busy.basic_ack(method.delivery_tag)
    assert (await client.call(busy.queue_delete, queue)).method.message_count == 0


@on_select_connection
async def test_publish_subscribe(client, name):
    channel = await client.channel()
    exchange = name("logs")
    await client.call(channel.exchange_declare, exchange, "fanout")
    inboxes = []
    for _ in range(3):
        queue = await client.declare(channel)
        await client.call(channel.queue_bind, queue, exchange)
        inboxes.append(await client.consume(channel, queue, auto_ack=True))
    channel.basic_publish(exchange, "", b"news")
    assert [(await inbox.take())[2] for inbox in inboxes] == [b"news"] * 3


@on_select_connection
async def test_routing_by_exact_key(client, name):
    channel = await client.channel()
    exchange = name("direct")
    await client.call(channel.exchange_declare, exchange, "direct")
    errors, everything = await client.declare(channel), await client.declare(channel)
    await client.call(channel.queue_bind, errors, exchange, "error")
    for key in ("error", "warning", "info"):
        await client.call(channel.queue_bind, everything, exchange, key)
    confirms = await client.confirms(channel)
    for reply in [confirms.publish(exchange, key, key.encode()) for key in ("info", "error", "debug", "warning")]:
        assert await reply == "ack"
    assert await client.drain(channel, errors) == [b"error"]
    assert await client.drain(channel, everything) == [b"info", b"error", b"warning"]


@on_select_connection
async def test_topics(client, name):
    channel = await client.channel()
    exchange = name("topics")
    await client.call(channel.exchange_declare, exchange, "topic")
    queues = {key: await client.declare(channel) for key in TOPIC_BINDINGS}
    for key, queue in queues.items():
        await client.call(channel.queue_bind, queue, exchange, key)
    confirms = await client.confirms(channel)
    for key, expected in TOPIC_MATCHES.items():
        assert await confirms.publish(exchange, key, b"x") == "ack"
        matched = {binding for binding, queue in queues.items() if await client.drain(channel, queue)}
        assert matched == expected, key


@on_select_connection
async def test_headers_exchange(client, name):
    channel = await client.channel()
    exchange = name("headers")
    await client.call(channel.exchange_declare, exchange, "headers")
    queues = {x_match: await client.declare(channel) for x_match in X_MATCH_VALUES}
    for x_match, queue in queues.items():
        await client.call(channel.queue_bind, queue, exchange, arguments=headers_binding(x_match))
    confirms = await client.confirms(channel)
    for headers, expected in HEADERS_MATCHES:
        assert await confirms.publish(exchange, "", b"x", pika.BasicProperties(headers=headers)) == "ack"
        matched = {x_match for x_match, queue in queues.items() if await client.drain(channel, queue)}
        assert matched == expected, headers


@on_select_connection
async def test_rpc_with_direct_reply_to(client, name):
    asking, answering = await client.channel(), await client.channel()
    requests = name("rpc")
    await client.call(answering.queue_declare, requests, durable=True)
    inbox = await client.consume(answering, requests)
    replies = await client.consume(asking, REPLY_TO, auto_ack=True)
    for number in range(5):
        properties = pika.BasicProperties(reply_to=REPLY_TO, correlation_id=str(number))
        asking.basic_publish("", requests, b"%d" % number, properties)
    for _ in range(5):
        method, properties, body = await inbox.take()
        answer = pika.BasicProperties(correlation_id=properties.correlation_id)
        answering.basic_publish("", properties.reply_to, b"%d" % int(body) ** 2, answer)
        answering.basic_ack(method.delivery_tag)
    answers = {}
    for _ in range(5):
        method, properties, body = await replies.take()
        assert (method.exchange, method.redelivered) == ("", False)
        answers[properties.correlation_id] = int(body)
    assert answers == {str(number): number**2 for number in range(5)}


@on_select_connection
async def test_confirms_of_many_messages(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("confirmed"))
    confirms = await client.confirms(channel)
    pending = [confirms.publish("", queue, b"%d" % number, mandatory=True) for number in range(500)]
    for reply in pending:
        assert await reply == "ack"
    declared = await client.call(channel.queue_declare, queue, passive=True)
    assert declared.method.message_count == 500


@on_select_connection
async def test_a_return_comes_before_its_confirm(client, name):
    channel = await client.channel()
    events = []
    channel.add_on_return_callback(
        lambda _channel, method, properties, body: events.append(
            (method.reply_code, method.reply_text, method.routing_key, properties.message_id, body)
        )
    )
    confirms = await client.confirms(channel)
    lost = confirms.publish("amq.topic", "no.where", b"lost", pika.BasicProperties(message_id="1"), mandatory=True)
    assert await lost == "ack"
    assert events == [(312, "NO_ROUTE", "no.where", "1", b"lost")]
    assert await confirms.publish("amq.topic", "no.where", b"dropped") == "ack"
    assert len(events) == 1


@on_select_connection
async def test_reject_publish_nacks(client, name):
    channel = await client.channel()
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await client.declare(channel, name("full"), arguments=arguments)
    confirms = await client.confirms(channel)
    assert await confirms.publish("", queue, b"fits") == "ack"
    assert await confirms.publish("", queue, b"does not") == "nack"
    assert await client.drain(channel, queue) == [b"fits"]


async def dead_letter_pair(client, channel, name, **arguments):
    """A queue that dead-letters through an exchange of its own, and the queue behind that exchange."""
    exchange, source, dead = name("dlx"), name("source"), name("dead")
    await client.call(channel.exchange_declare, exchange, "direct")
    await client.declare(channel, dead)
    await client.call(channel.queue_bind, dead, exchange, "dead")
    arguments |= {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": "dead"}
    await client.declare(channel, source, arguments=arguments)
    return source, dead


@on_select_connection
async def test_dead_lettering_by_time_to_live(client, name):
    channel = await client.channel()
    source, dead = await dead_letter_pair(client, channel, name, **{"x-message-ttl": 10_000})
    inbox = await client.consume(channel, dead, auto_ack=True)
    channel.basic_publish("", source, b"late", pika.BasicProperties(expiration="20"))
    method, properties, body = await inbox.take()
    assert (method.routing_key, body, properties.expiration) == ("dead", b"late", None)
    (death,) = properties.headers["x-death"]
    check_death(death, queue=source, reason="expired", exchange="", routing_keys=[source], expiration="20")
    check_death_summary(properties.headers, first=(source, "expired", ""), last=(source, "expired", ""))


@on_select_connection
async def test_dead_lettering_by_maximum_length(client, name):
    channel = await client.channel()
    source, dead = await dead_letter_pair(client, channel, name, **{"x-max-length": 3})
    inbox = await client.consume(channel, dead, auto_ack=True)
    for number in range(5):
        channel.basic_publish("", source, b"%d" % number)
    for number in range(2):
        _method, properties, body = await inbox.take()
        assert body == b"%d" % number
        (death,) = properties.headers["x-death"]
        check_death(death, queue=source, reason="maxlen", exchange="", routing_keys=[source])
    assert await client.drain(channel, source) == [b"2", b"3", b"4"]


@on_select_connection
async def test_dead_lettering_by_rejection(client, name):
    channel = await client.channel()
    source, dead = await dead_letter_pair(client, channel, name)
    await client.call(channel.queue_bind, source, "amq.direct", source)
    channel.basic_publish("amq.direct", source, b"bad")
    rejecting = await client.consume(channel, source)
    method, _properties, _body = await rejecting.take()
    channel.basic_reject(method.delivery_tag, requeue=False)
    inbox = await client.consume(channel, dead)
    _method, properties, _body = await inbox.take()
    (death,) = properties.headers["x-death"]
    check_death(death, queue=source, reason="rejected", exchange="amq.direct", routing_keys=[source])
    check_death_summary(
        properties.headers, first=(source, "rejected", "amq.direct"), last=(source, "rejected", "amq.direct")
    )


@on_select_connection
async def test_priorities(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("urgent"), arguments={"x-max-priority": 10})
    confirms = await client.confirms(channel)
    for priority in (0, 10, 4, 10, 7, 200, None):
        body = str(priority).encode()
        assert await confirms.publish("", queue, body, pika.BasicProperties(priority=priority)) == "ack"
    assert await client.drain(channel, queue) == [b"10", b"10", b"200", b"7", b"4", b"0", b"None"]


@on_select_connection
async def test_client_cancels_consumer(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("cancelled"))
    inbox = await client.consume(channel, queue, consumer_tag="tag")
    channel.basic_publish("", queue, b"one")
    method, _properties, _body = await inbox.take()
    answer = await client.call(channel.basic_cancel, "tag")
    assert answer.method.consumer_tag == "tag"
    confirms = await client.confirms(channel)
    await confirms.publish("", queue, b"two")
    channel.basic_ack(method.delivery_tag)
    assert await client.drain(channel, queue) == [b"two"]
    assert inbox.messages == []


@on_select_connection
async def test_server_cancels_consumer_when_the_queue_is_deleted(client, name):
    connection = await client.connect()
    channel, other = await client.channel(connection), await client.channel(connection)
    queue = await client.declare(channel, name("deleted"))
    cancelled = client.reply(channel)
    channel.add_on_cancel_callback(cancelled)
    await client.consume(channel, queue, consumer_tag="tag")
    await client.call(other.queue_delete, queue)
    assert (await cancelled).method.consumer_tag == "tag"
    assert channel.is_open


@on_select_connection
async def test_nack_requeues_to_the_original_position(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("requeued"))
    confirms = await client.confirms(channel)
    for number in range(4):
        assert await confirms.publish("", queue, b"%d" % number) == "ack"
    for number in range(3):
        method, _properties, body = await client.get(channel, queue, auto_ack=False)
        assert (body, method.redelivered, method.message_count) == (b"%d" % number, False, 3 - number)
    channel.basic_nack(method.delivery_tag, multiple=True, requeue=True)
    seen = [await client.get(channel, queue) for _ in range(4)]
    assert [(body, method.redelivered) for method, _properties, body in seen] == [
        (b"0", True),
        (b"1", True),
        (b"2", True),
        (b"3", False),
    ]
    assert await client.get(channel, queue) is None


@on_select_connection
async def test_unacknowledged_messages_return_when_the_channel_closes(client, name):
    connection = await client.connect()
    channel = await client.channel(connection)
    queue = await client.declare(channel, name("returned"))
    consuming = await client.channel(connection)
    inbox = await client.consume(consuming, queue)
    channel.basic_publish("", queue, b"again")
    await inbox.take()
    consuming.close()
    await consuming.closing
    method, _properties, body = await client.get(channel, queue)
    assert (body, method.redelivered) == (b"again", True)


@on_select_connection
async def test_transactions(client, name):
    channel, observer = await client.channel(), await client.channel()
    queue = name("transaction")
    await client.call(channel.queue_declare, queue, durable=True)
    await client.call(channel.tx_select)
    channel.basic_publish("", queue, b"dropped")
    await client.call(channel.tx_rollback)
    channel.basic_publish("", queue, b"kept")
    await client.call(channel.basic_qos)
    assert await client.get(observer, queue) is None
    await client.call(channel.tx_commit)
    assert await client.drain(observer, queue) == [b"kept"]


@on_select_connection
async def test_large_message(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("large"))
    inbox = await client.consume(channel, queue, auto_ack=True)
    channel.basic_publish("", queue, LARGE_BODY)
    assert (await inbox.take())[2] == LARGE_BODY


@on_select_connection
async def test_header_tables(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("headers"))
    headers = {
        "text": "grüße",
        "binary": b"\x00\xff",
        "int": -5,
        "bool": True,
        "list": [1, {"two": [3]}],
        "when": datetime(2024, 1, 2, tzinfo=timezone.utc),
        "void": None,
    }
    channel.basic_publish("", queue, b"", pika.BasicProperties(headers=headers, timestamp=5, app_id="suite"))
    _method, properties, body = await client.get(channel, queue)
    assert (properties.headers, properties.timestamp, properties.app_id, body) == (headers, 5, "suite", b"")


@on_select_connection(heartbeat=1)
async def test_heartbeats_keep_an_idle_connection(client, name):
    channel = await client.channel()
    queue = await client.declare(channel, name("idle"))
    await client.sleep(3.5)
    channel.basic_publish("", queue, b"alive")
    assert await client.drain(channel, queue) == [b"alive"]


@on_select_connection
async def test_update_secret(client):
    connection = await client.connect()
    updated = client.reply()
    connection.update_secret("guest", "renewed", callback=updated)
    assert isinstance((await updated).method, spec.Connection.UpdateSecretOk)
    assert (await client.channel(connection)).is_open


@on_select_connection
async def test_many_channels(client):
    connection = await client.connect()
    channels = [await client.channel(connection) for _ in range(50)]
    assert [channel.channel_number for channel in channels] == list(range(1, 51))
    channels[10].close()
    await channels[10].closing
    assert (await client.channel(connection)).channel_number == 11


async def step(client, channel, method, arguments):
    """Does one step of an error case on an asynchronous channel."""
    if method == "publish":
        fields = dict(arguments)
        properties = spec.BasicProperties(**fields.pop("properties", {}))
        # pika's own basic_publish does not offer `immediate`.
        channel._send_method(spec.Basic.Publish(**fields), (properties, b"body"))
    elif method == "basic_consume":
        await client.consume(channel, **arguments)
    elif method == "basic_get":
        await client.get(channel, **arguments, auto_ack=False)
    elif method == "confirm_delivery":
        await client.confirms(channel)
    elif method in ("basic_ack", "basic_nack", "basic_reject"):
        getattr(channel, method)(**arguments)
    else:
        await client.call(getattr(channel, method), **arguments)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.label)
@on_select_connection
async def test_error(client, case, name):
    names = {kind: name(kind) for kind in ("queue", "exchange")}
    if case.before:
        preparing = await client.channel()
        for method, arguments in case.filled(case.before, names):
            await step(client, preparing, method, arguments)
    connection = await client.connect()
    channel = await client.channel(connection)
    try:
        for method, arguments in case.filled(case.steps, names):
            await step(client, channel, method, arguments)
    except (ChannelClosedByBroker, ConnectionClosedByBroker, ChannelWrongStateError):
        pass  # The reason is looked at below, however it came.
    reason = await channel.closing
    assert isinstance(reason, ConnectionClosedByBroker if case.closes_connection else ChannelClosedByBroker)
    case.check(reason.reply_code, reason.reply_text, names)
    if case.closes_connection:
        assert (await connection.closing).reply_code == case.code
    else:
        assert (await client.channel(connection)).is_open


@on_select_connection
async def test_bad_password(client):
    parameters = copy.copy(client.parameters)
    parameters.credentials = pika.PlainCredentials("guest", uuid.uuid4().hex)
    with pytest.raises(ProbableAuthenticationError) as caught:
        await client.connect(parameters)
    assert BAD_PASSWORD[1] in str(caught.value)


@on_select_connection
async def test_unknown_vhost(client):
    parameters = copy.copy(client.parameters)
    parameters.virtual_host = "no-such-vhost"
    with pytest.raises(ProbableAccessDeniedError) as caught:
        await client.connect(parameters)
    assert UNKNOWN_VHOST[1] in str(caught.value)
