"""Clients find their way back after a restart of the broker: they reconnect, and what is durable is still there."""

import asyncio
import contextlib
import threading
import uuid

import aio_pika
import kombu
import pika
import pytest
from aio_pika import Message
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, ConnectionClosedByBroker
from select_driver import Client
from support import wait_until
from test_aio_pika import Inbox

RECONNECT_SECONDS = 0.2


@pytest.fixture
def survivor():
    """The name of the queue, and of the exchange, that are there after the restart."""
    return f"survivor-{uuid.uuid4().hex[:8]}"


def declare(channel, name):
    """The whole topology, declared on every connection anew."""
    channel.exchange_declare(name, "topic", durable=True)
    channel.queue_declare(name, durable=True)
    channel.queue_bind(name, name, "#")


def reconnect(url):
    """A new connection, as soon as the broker is there."""

    def attempt():
        try:
            return pika.BlockingConnection(pika.URLParameters(url))
        except AMQPConnectionError:
            return None

    return wait_until(attempt, "the reconnection")


def test_a_stopping_broker_says_so(restartable):
    connection = pika.BlockingConnection(pika.URLParameters(restartable.url))
    restarter = threading.Thread(target=restartable.restart)
    restarter.start()
    with pytest.raises(ConnectionClosedByBroker) as caught:
        connection.process_data_events(time_limit=15)
    restarter.join()
    assert caught.value.reply_code == 320
    assert caught.value.reply_text.startswith("CONNECTION_FORCED - ")


def test_pika_blocking(restartable, survivor):
    connection = reconnect(restartable.url)
    received, restarts = [], 0
    channel = connection.channel()
    while len(received) < 6:
        try:
            declare(channel, survivor)
            channel.confirm_delivery()
            channel.basic_publish(survivor, "key", b"%d" % len(received), mandatory=True)
            method, _properties, body = channel.basic_get(survivor)
            channel.basic_ack(method.delivery_tag)
            received.append(int(body))
            if len(received) in (2, 4) and restarts < len(received) // 2:
                restarts += 1
                restartable.restart()
        except AMQPConnectionError:
            connection = reconnect(restartable.url)
            channel = connection.channel()
    connection.close()
    assert (received, restarts) == ([0, 1, 2, 3, 4, 5], 2)


def test_what_is_durable_survives(restartable, survivor):
    with reconnect(restartable.url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        declare(channel, survivor)
        channel.queue_declare(f"{survivor}-transient")
        for number in range(6):
            properties = pika.BasicProperties(delivery_mode=1 + number % 2)
            channel.basic_publish(survivor, "key", b"%d" % number, properties, mandatory=True)
    restartable.restart()
    with reconnect(restartable.url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(survivor, "key", b"6", mandatory=True)
        bodies = [channel.basic_get(survivor, auto_ack=True)[2] for _ in range(5)]
        assert bodies == [b"1", b"3", b"5", b"6", None]
        with pytest.raises(ChannelClosedByBroker, match="404"):
            channel.queue_declare(f"{survivor}-transient", passive=True)


def test_pika_select(restartable, survivor):
    async def scenario(client):
        for round_number in range(2):
            connection = await client.connect()
            channel = await client.channel(connection)
            await client.call(channel.queue_declare, survivor, durable=True)
            inbox = await client.consume(channel, survivor, auto_ack=True)
            channel.basic_publish("", survivor, b"%d" % round_number)
            assert (await inbox.take())[2] == b"%d" % round_number
            if round_number == 0:
                restarter = threading.Thread(target=restartable.restart)
                restarter.start()
                reason = await connection.closing
                assert isinstance(reason, AMQPConnectionError)
                restarter.join()

    Client(restartable.url, 30, {}).run(scenario)


async def test_aio_pika_robust_connection(restartable, survivor):
    """The library itself connects, declares, binds and consumes again."""
    async with asyncio.timeout(40):
        connection = await aio_pika.connect_robust(restartable.url, reconnect_interval=RECONNECT_SECONDS)
        reconnected = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_arguments: reconnected.set())
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=5)
            exchange = await channel.declare_exchange(survivor, "topic", durable=True)
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange, "key.#")
            inbox = Inbox()
            await queue.consume(inbox)
            for round_number in range(3):
                if round_number:
                    reconnected.clear()
                    await asyncio.to_thread(restartable.restart)
                    await reconnected.wait()
                await exchange.publish(Message(b"%d" % round_number), "key.value")
                message = await inbox.get()
                await message.ack()
                assert message.body == b"%d" % round_number


def test_kombu_ensure(restartable, survivor):
    """kombu's `ensure` and `ensure_connection`: the publication is tried again after the restart."""
    exchange = kombu.Exchange(survivor, "topic", durable=True)
    queue = kombu.Queue(survivor, exchange, "key", durable=True)
    with kombu.Connection(restartable.url) as connection:
        producer = kombu.Producer(connection.channel(), exchange=exchange, serializer="json")
        producer.publish({"round": 0}, routing_key="key", declare=[queue])
        errors = []
        restartable.restart()
        producer.publish(
            {"round": 1},
            routing_key="key",
            declare=[queue],
            retry=True,
            retry_policy={"max_retries": 20, "interval_start": 0.1, "interval_step": 0, "errback": None},
        )
        connection.ensure_connection(errback=lambda error, _interval: errors.append(error), max_retries=20)
        rounds = []

        def keep(body, message):
            rounds.append(body["round"])
            message.ack()

        with connection.Consumer([queue], callbacks=[keep]):
            wait_until(lambda: 1 in rounds, "the message", step=lambda: drain_once(connection))
        # kombu publishes persistent messages: the one from before the restart is still there.
        assert rounds == [0, 1]


def drain_once(connection):
    with contextlib.suppress(TimeoutError):
        connection.drain_events(timeout=0.2)


def test_kombu_consumer_mixin(restartable, survivor):
    """A ConsumerMixin reconnects and declares by itself."""
    from kombu.mixins import ConsumerMixin

    queue = kombu.Queue(survivor, kombu.Exchange(survivor, "topic"), "key")

    class Worker(ConsumerMixin):
        connect_max_retries = None

        def __init__(self, connection):
            self.connection = connection
            self.received = []
            self.ready = threading.Event()

        def get_consumers(self, consumer_class, channel):
            return [consumer_class([queue], callbacks=[self.on_task])]

        def on_consume_ready(self, connection, channel, consumers, **_options):
            self.ready.set()

        def on_task(self, body, message):
            message.ack()
            self.received.append(body)

    worker = Worker(kombu.Connection(restartable.url))
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        for round_number in range(2):
            assert worker.ready.wait(20)
            with kombu.Connection(restartable.url) as connection:
                connection.Producer().publish({"round": round_number}, exchange=survivor, routing_key="key")
                wait_until(lambda: len(worker.received) > round_number, "the message")
            if round_number == 0:
                worker.ready.clear()
                restartable.restart()
    finally:
        worker.should_stop = True
        thread.join(20)
    assert not thread.is_alive()
    assert worker.received == [{"round": 0}, {"round": 1}]
