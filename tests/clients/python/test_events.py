"""The firehose and the event exchange: copies and events as messages, and events as lines."""

import http.client
import json
import os
import socket

import pika
import pytest
from broker import Broker
from support import wait_until

pytestmark = pytest.mark.skipif("AMQP_URL" in os.environ, reason="needs the broker's local socket")


class Local(http.client.HTTPConnection):
    """The management API on the data directory's socket."""

    def __init__(self, broker):
        super().__init__("localhost", timeout=15)
        self._path = str(broker._directory / "data" / "warren.sock")

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(broker, method, path, body=None):
    local = Local(broker)
    local.request(method, path, body=None if body is None else json.dumps(body))
    response = local.getresponse()
    response.read()
    local.close()
    assert response.status in (200, 201, 204), (method, path, response.status)


@pytest.fixture
def broker():
    broker = Broker()
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def channel(broker):
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        yield connection.channel()


def listen(channel, exchange, key="#"):
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, exchange, key)
    return queue


def take(channel, queue, count):
    """The next messages: key, headers, body."""
    taken = []

    def is_enough():
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is not None:
            taken.append((method.routing_key, properties.headers, body))
        return len(taken) >= count

    wait_until(is_enough, f"{count} messages, not {taken}")
    return taken


def test_tracing(broker, channel):
    copies = listen(channel, "amq.rabbitmq.trace")
    jobs = listen(channel, "amq.direct", "work")
    channel.confirm_delivery()
    call(broker, "PUT", "/api/vhosts/%2F", {"tracing": True})
    properties = pika.BasicProperties(content_type="text/plain", headers={"x": 1}, delivery_mode=2)
    channel.basic_publish("amq.direct", "work", b"body", properties)
    assert channel.basic_get(jobs, auto_ack=True)[2] == b"body"
    published, delivered = take(channel, copies, 2)
    assert (published[0], published[2]) == ("publish.amq.direct", b"body")
    assert (delivered[0], delivered[2]) == (f"deliver.{jobs}", b"body")
    for headers in (published[1], delivered[1]):
        assert headers["exchange_name"] == "amq.direct" and headers["routing_keys"] == ["work"]
        assert headers["vhost"] == "/" and headers["user"] == "guest" and headers["channel"] == 1
        assert " -> 127.0.0.1:" in headers["connection"]
        assert headers["properties"] == {"content_type": "text/plain", "headers": {"x": 1}, "delivery_mode": 2}
    assert published[1]["routed_queues"] == [jobs] and delivered[1]["redelivered"] == 0
    call(broker, "PUT", "/api/vhosts/%2F", {"tracing": False})
    channel.basic_publish("amq.direct", "work", b"untraced")
    assert channel.basic_get(copies)[0] is None


def test_a_trace_consumer_is_not_traced(broker, channel):
    copies = listen(channel, "amq.rabbitmq.trace")
    call(broker, "PUT", "/api/vhosts/%2F", {"tracing": True})
    seen = []
    channel.basic_consume(copies, lambda _c, method, _p, _b: seen.append(method.routing_key), auto_ack=True)
    channel.confirm_delivery()
    for _ in range(3):
        channel.basic_publish("amq.topic", "nobody", b"x")
    connection = channel.connection
    wait_until(lambda: len(seen) >= 3, "three copies", step=lambda: connection.process_data_events(0.02))
    connection.process_data_events(0.3)
    assert seen == ["publish.amq.topic"] * 3


def test_events_of_another_connection(broker, channel):
    events = listen(channel, "amq.rabbitmq.event")
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as other:
        theirs = other.channel()
        theirs.queue_declare("jobs", durable=True)
        theirs.basic_consume("jobs", lambda *_: None, consumer_tag="c")
        theirs.queue_delete("jobs")
    expected = {
        "user.authentication.success",
        "connection.created",
        "channel.created",
        "queue.created",
        "consumer.created",
        "consumer.deleted",
        "queue.deleted",
        "channel.closed",
        "connection.closed",
    }
    found = {key: headers for key, headers, body in take(channel, events, len(expected)) if body == b""}
    assert found.keys() == expected
    assert found["queue.created"]["name"] == "jobs" and found["queue.created"]["durable"] is True
    assert found["consumer.created"]["consumer_tag"] == "c" and found["consumer.created"]["queue"] == "jobs"
    assert found["connection.created"]["user"] == "guest" and found["connection.created"]["protocol"] == "AMQP 0-9-1"
    assert found["connection.closed"]["name"] == found["connection.created"]["name"]
    for key, headers in found.items():
        assert headers["timestamp_in_ms"] > 1_600_000_000_000, key
    assert found["queue.deleted"]["user_who_performed_action"] == "guest"


def test_who_administers(broker, channel):
    events = listen(channel, "amq.rabbitmq.event", "user.#")
    call(broker, "PUT", "/api/users/ann", {"password": "secret", "tags": "management"})
    call(broker, "DELETE", "/api/users/ann")
    taken = take(channel, events, 3)
    assert [key for key, *_ in taken] == ["user.created", "user.tags.set", "user.deleted"]
    assert all(headers["user_who_performed_action"] == "rmq-cli" for _, headers, _ in taken)
    with pytest.raises(pika.exceptions.AMQPConnectionError):
        credentials = pika.PlainCredentials("guest", "wrong")
        pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port, credentials=credentials))
    [(key, headers, _)] = take(channel, events, 1)
    assert (key, headers["name"]) == ("user.authentication.failure", "guest")


def test_a_stream_of_lines(broker, channel):
    local = Local(broker)
    local.request("GET", "/api/warren/events")
    response = local.getresponse()
    assert response.status == 200
    channel.queue_declare("lines", exclusive=True)
    line = json.loads(response.readline())
    assert (line["event"], line["name"], line["vhost"]) == ("queue.created", "lines", "/")
    channel.queue_delete("lines")
    assert json.loads(response.readline())["event"] == "queue.deleted"
    local.close()
