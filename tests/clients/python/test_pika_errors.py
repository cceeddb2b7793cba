"""Errors as pika's BlockingConnection sees them."""

import pika
import pytest
from errors import ALL, BAD_PASSWORD, REUSED_TAG, UNKNOWN_VHOST
from pika import spec
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)


@pytest.fixture
def names(name):
    """The names an error case is about."""
    return {kind: name(kind) for kind in ("queue", "exchange")}


@pytest.fixture
def perform(connect):
    """Does the preparing steps of a case on a connection of its own."""

    def perform_steps(steps):
        if steps:
            channel = connect().channel()
            for method, arguments in steps:
                step(channel, method, arguments)

    return perform_steps


def step(channel, method, arguments):
    """Does one step of an error case on a blocking channel."""
    if method == "publish":
        fields = dict(arguments)
        properties = spec.BasicProperties(**fields.pop("properties", {}))
        # pika's own basic_publish does not offer `immediate`.
        channel._impl._send_method(spec.Basic.Publish(**fields), (properties, b"body"))
    elif method == "basic_consume":
        channel.basic_consume(on_message_callback=print, **arguments)
    else:
        getattr(channel, method)(**arguments)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.label)
def test_error(case, connect, perform, names):
    perform(case.filled(case.before, names))
    connection = connect()
    channel = connection.channel()
    expected = ConnectionClosedByBroker if case.closes_connection else ChannelClosedByBroker
    with pytest.raises(expected) as caught:
        for method, arguments in case.filled(case.steps, names):
            step(channel, method, arguments)
        # Asynchronous methods fail by the time of the next answer.
        channel.basic_qos()
    case.check(caught.value.reply_code, caught.value.reply_text, names)
    assert connection.is_open != case.closes_connection
    if connection.is_open:
        # The number of the closed channel can be used again.
        assert connection.channel(channel.channel_number).is_open


def test_other_channels_survive_a_channel_error(connection, channel, name):
    queue = channel.queue_declare(name("safe"), exclusive=True).method.queue
    failing = connection.channel()
    with pytest.raises(ChannelClosedByBroker):
        failing.queue_declare(name("absent"), passive=True)
    channel.basic_publish("", queue, b"unharmed")
    assert channel.basic_get(queue, auto_ack=True)[2] == b"unharmed"


def test_messages_published_after_an_error_are_discarded(connection, channel, name):
    queue = channel.queue_declare(name("safe"), exclusive=True).method.queue
    failing = connection.channel()
    absent = name("absent")
    for exchange in (absent, ""):
        failing._impl._send_method(
            spec.Basic.Publish(exchange=exchange, routing_key=queue), (spec.BasicProperties(), b"discarded")
        )
    with pytest.raises(ChannelClosedByBroker):
        failing.basic_qos()
    assert channel.basic_get(queue) == (None, None, None)


def test_a_consumer_tag_is_used_once(connection, channel, name):
    queue = channel.queue_declare(name("tags"), exclusive=True).method.queue
    channel.basic_consume(queue, print, consumer_tag="twice")
    with pytest.raises(ConnectionClosedByBroker) as caught:
        # pika would not send the second one by itself.
        channel._impl._send_method(spec.Basic.Consume(queue=queue, consumer_tag="twice"))
        channel.basic_qos()
    assert (caught.value.reply_code, caught.value.reply_text) == REUSED_TAG


def test_too_many_channels(connect):
    connection = connect(channel_max=2)
    assert [connection.channel().channel_number for _ in range(2)] == [1, 2]
    with pytest.raises(ConnectionClosedByBroker) as caught:
        # pika would not give out a third number by itself.
        connection._impl._send_method(3, spec.Channel.Open())
        connection.process_data_events(time_limit=10)
    assert caught.value.reply_code == 530
    assert caught.value.reply_text == (
        "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)"
    )


def test_a_message_above_the_size_limit(connect):
    channel = connect().channel()
    with pytest.raises(ChannelClosedByBroker) as caught:
        channel.basic_publish("", "nowhere", bytes(16 * 1024 * 1024 + 1))
        channel.basic_qos()
    assert (caught.value.reply_code, caught.value.reply_text) == (
        406,
        "PRECONDITION_FAILED - message size 16777217 is larger than configured max size 16777216",
    )


def test_bad_password(connect):
    with pytest.raises(ProbableAuthenticationError) as caught:
        connect(credentials=pika.PlainCredentials("guest", "wrong"))
    assert str(BAD_PASSWORD[0]) in str(caught.value)
    assert BAD_PASSWORD[1] in str(caught.value)


def test_unknown_user(connect):
    with pytest.raises(ProbableAuthenticationError) as caught:
        connect(credentials=pika.PlainCredentials("nobody", "guest"))
    assert BAD_PASSWORD[1] in str(caught.value)


def test_unknown_vhost(connect):
    with pytest.raises(ProbableAccessDeniedError) as caught:
        connect(virtual_host="no-such-vhost")
    assert str(UNKNOWN_VHOST[0]) in str(caught.value)
    assert UNKNOWN_VHOST[1] in str(caught.value)
