"""pika's BlockingConnection: frames, heartbeats and what else concerns the connection as a whole."""

import time

import pytest
from blocking import declare, drain
from pika.exceptions import ChannelClosedByBroker
from support import LARGE_BODY, wait_until


def test_large_message(channel, name):
    queue = declare(channel, name("large"))
    channel.confirm_delivery()
    channel.basic_publish("", queue, LARGE_BODY)
    _method, _properties, body = channel.basic_get(queue, auto_ack=True)
    assert body == LARGE_BODY


@pytest.mark.parametrize("frame_max", [8192, 131072])
@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_bodies_around_the_frame_size(connect, name, frame_max, excess):
    channel = connect(frame_max=frame_max).channel()
    queue = declare(channel, name("frames"))
    body = bytes(byte % 251 for byte in range(frame_max - 8 + excess))
    channel.basic_publish("", queue, body)
    assert channel.basic_get(queue, auto_ack=True)[2] == body


def test_heartbeats_keep_an_idle_connection(connect, name):
    connection = connect(heartbeat=1)
    channel = connection.channel()
    queue = declare(channel, name("idle"))
    connection.process_data_events(time_limit=3.5)
    channel.basic_publish("", queue, b"alive")
    assert drain(channel, queue) == [b"alive"]


def test_a_silent_client_is_disconnected(connect, name):
    """The exclusive queue of a client that sends no heartbeats goes away with its connection."""
    silent = connect(heartbeat=1)
    queue = declare(silent.channel(), name("silent"))
    watcher = connect()

    def code():
        try:
            watcher.channel().queue_declare(queue, passive=True)
        except ChannelClosedByBroker as error:
            return error.reply_code
        raise AssertionError("another connection's exclusive queue was accessible")

    started = time.monotonic()
    assert code() == 405
    wait_until(lambda: code() == 404, "the end of the connection", seconds=8, step=lambda: time.sleep(0.1))
    assert time.monotonic() - started > 1


def test_update_secret(connection, channel, name):
    queue = declare(channel, name("secret"))
    connection.update_secret("guest", "renewed")
    channel.basic_publish("", queue, b"still here")
    assert drain(channel, queue) == [b"still here"]


def test_client_properties_and_server_properties(connect):
    connection = connect(client_properties={"connection_name": "python suite", "nested": {"list": [1, "two", None]}})
    properties = connection._impl.server_properties
    expected = {
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    }
    assert {key for key, value in properties["capabilities"].items() if value is True} >= expected
    assert properties["product"] and properties["version"]
    assert connection.basic_nack_supported
    assert connection.exchange_exchange_bindings_supported
