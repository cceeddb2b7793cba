"""Dead letters between shards: a stop settles what died, a kill loses none of it."""

import threading

import pika
import pytest
from broker import Broker
from conftest import SMALL_FILES

SOURCES = 6
MESSAGES = 2000
"""To each source in each round."""
ROUNDS = 3
PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture
def shards(tmp_path):
    """A broker with three shards, so that letters change theirs."""
    own = Broker(tmp_path, *SMALL_FILES, "--set", "queues.shards=3")
    own.start()
    yield own
    own.close()


def connect(broker):
    parameters = pika.URLParameters(broker.url)
    parameters.heartbeat = 0
    return pika.BlockingConnection(parameters)


def letter_queues(source):
    return [f"letters-{source}-{end}" for end in ("a", "b")]


def declare(broker):
    connection = connect(broker)
    channel = connection.channel()
    for source in range(SOURCES):
        exchange = f"letters-{source}"
        channel.exchange_declare(exchange, "fanout", durable=True)
        arguments = {"x-max-length": 1, "x-dead-letter-exchange": exchange}
        channel.queue_declare(f"source-{source}", durable=True, arguments=arguments)
        for queue in letter_queues(source):
            channel.queue_declare(queue, durable=True)
            channel.queue_bind(queue, exchange)
    connection.close()


def publish(broker, sources, round_number):
    """Publishes to these sources; returns when everything is confirmed."""
    connection = connect(broker)
    channel = connection.channel()
    for number in range(MESSAGES - 1):
        for source in sources:
            channel.basic_publish("", f"source-{source}", b"%d %d" % (round_number, number), PERSISTENT)
    channel.confirm_delivery()
    for source in sources:
        channel.basic_publish("", f"source-{source}", b"%d %d" % (round_number, MESSAGES - 1), PERSISTENT)
    connection.close()


def publish_to_all(broker, round_number):
    publishers = [
        threading.Thread(target=publish, args=(broker, (first, first + 3), round_number)) for first in range(SOURCES // 2)
    ]
    for publisher in publishers:
        publisher.start()
    for publisher in publishers:
        publisher.join()


def empty(channel, queue):
    """The bodies in a queue, which has none afterwards."""
    bodies = []
    for method, _properties, body in channel.consume(queue, auto_ack=True, inactivity_timeout=1):
        if method is None:
            break
        bodies.append(body)
    channel.cancel()
    return bodies


@pytest.mark.timeout(240)
def test_a_stop_leaves_no_source_behind(shards):
    declare(shards)
    for round_number in range(ROUNDS):
        publish_to_all(shards, round_number)
        shards.stop()
        shards.start()
        connection = connect(shards)
        channel = connection.channel()
        expected = sorted(b"%d %d" % (round_number, number) for number in range(MESSAGES))
        for source in range(SOURCES):
            left = empty(channel, f"source-{source}")
            assert len(left) == 1, f"messages of source {source} came back: {len(left)}"
            for queue in letter_queues(source):
                assert sorted(empty(channel, queue) + left) == expected, f"{queue} in round {round_number}"
        connection.close()


@pytest.mark.timeout(240)
def test_a_kill_loses_no_letter(shards):
    declare(shards)
    for round_number in range(ROUNDS):
        publish_to_all(shards, round_number)
        shards.kill()
        shards.start()
        connection = connect(shards)
        channel = connection.channel()
        expected = {b"%d %d" % (round_number, number) for number in range(MESSAGES)}
        for source in range(SOURCES):
            left = set(empty(channel, f"source-{source}"))
            for queue in letter_queues(source):
                found = set(empty(channel, queue)) | left
                assert found == expected, f"{queue} in round {round_number} lacks {len(expected - found)}"
        connection.close()
