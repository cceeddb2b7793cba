"""The AMQP clients the recordings presuppose: publishers, consumers and idle connections, all in one thread."""

import datetime
import decimal
import threading
import time

import pika

from names import Names

TICK_SECONDS = 0.5
START_SECONDS = 30
# The recorded port of each client stands for its connection.
SETUP, PUBLISHER, WORKER, SHIPPED, SAC_1, SAC_2 = 33492, 33508, 33512, 33524, 59494, 59502
UNROUTED, ANALYTICS_1, GETTER, ANALYTICS_2 = 59518, 59536, 59540, 59554
QUORUM_WORKER = 33530
CLIENTS = {
    SETUP: ("topology-setup", "orders"),
    PUBLISHER: ("publisher-1", "orders"),
    WORKER: ("worker-1", "orders"),
    SHIPPED: ("worker-2", "orders"),
    SAC_1: ("sac-1", "orders"),
    SAC_2: ("sac-2", "orders"),
    UNROUTED: ("unrouted-watcher", "orders"),
    ANALYTICS_1: ("analytics-1", "analytics"),
    GETTER: ("getter", "/"),
    ANALYTICS_2: ("analytics-2", "analytics"),
}
RECORDED_GENERATED_QUEUE = "amq.gen-KWBM3UOeB_d2muFCzpfWKQ"
EVERY_HEADER = {
    "bool": True,
    "bytes": b"\x00\x01\xff",
    "decimal": decimal.Decimal("1.5"),
    "int": 42,
    "list": [1, "two", False],
    "long": 1 << 40,
    "neg": -7,
    "none": None,
    "str": "text",
    "table": {"nested": {"deep": 1}},
    "time": datetime.datetime(2024, 1, 2, 3, 4, 5),
}


def parameters(amqp_url: str, vhost: str, connection_name: str) -> pika.ConnectionParameters:
    """Of a connection of guest, with the client properties the recordings show."""
    url = pika.URLParameters(amqp_url)
    return pika.ConnectionParameters(
        host=url.host,
        port=url.port,
        virtual_host=vhost,
        credentials=url.credentials,
        heartbeat=30,
        client_properties={"connection_name": connection_name, "app_id": "order-service"},
    )


def name_of(connection: pika.BlockingConnection) -> str:
    """What the broker calls the connection: peer and own address."""
    socket = connection._impl._transport._sock  # pylint: disable=protected-access
    own, peer = socket.getsockname(), socket.getpeername()
    return f"{own[0]}:{own[1]} -> {peer[0]}:{peer[1]}"


class Traffic:
    """Opens the connections and keeps messages flowing until it is stopped."""

    def __init__(self, amqp_url: str, names: Names, needs: frozenset) -> None:
        self._amqp_url = amqp_url
        self._names = names
        self._needs = needs
        self._connections: dict[int, pika.BlockingConnection] = {}
        self._channels: dict[int, object] = {}
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._waiting: dict[object, list[int]] = {}
        self._sent = 0
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(START_SECONDS) and self.failure is None:
            self.failure = TimeoutError(f"the AMQP clients were not ready in {START_SECONDS} s")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(START_SECONDS)

    def _run(self) -> None:
        try:
            self._open()
            self._fill()
            self._consume()
            self._ready.set()
            while not self._stop.is_set():
                self._publish()
                self._serve(TICK_SECONDS)
        except Exception as failure:  # the run goes on, and says so
            self.failure = failure
            self._ready.set()
        finally:
            for connection in self._connections.values():
                if connection.is_open:
                    connection.close()

    def _open(self) -> None:
        clients = dict(CLIENTS)
        if "quorum" in self._needs:
            clients[QUORUM_WORKER] = ("quorum-worker", "orders")
        for recorded, (name, vhost) in clients.items():
            vhost = vhost if vhost == "/" else self._names.name(vhost)
            connection = pika.BlockingConnection(parameters(self._amqp_url, vhost, name))
            self._connections[recorded] = connection
            self._channels[recorded] = connection.channel()
            actual = name_of(connection)
            self._names.connections[recorded] = actual
            self._names.ports[recorded] = int(actual.partition(" ")[0].rpartition(":")[2])

    def _fill(self) -> None:
        """The messages that lie in queues, and one that was dead-lettered."""
        setup = self._channels[SETUP]
        persistent = pika.BasicProperties(delivery_mode=2)
        setup.basic_publish("orders.topic", "us.shipped", b'{"id": 0}', persistent)
        delivery = self._poll(setup, "jobs.shipped")
        setup.basic_reject(delivery.delivery_tag, requeue=False)
        for _ in range(4):
            setup.basic_publish("", "jobs.priority", b"0123456789")
        self._fill_inbox()
        exclusive = self._channels[GETTER].queue_declare("", exclusive=True)
        self._names.texts[RECORDED_GENERATED_QUEUE] = exclusive.method.queue
        self._channels[ANALYTICS_1].basic_qos(prefetch_count=0)

    def _fill_inbox(self) -> None:
        getter = self._channels[GETTER]
        inbox = self._names.name("inbox")
        for number in range(6):
            properties = pika.BasicProperties(
                content_type="application/json",
                content_encoding="utf-8",
                headers=EVERY_HEADER,
                delivery_mode=2,
                priority=5,
                correlation_id=f"corr-{number}",
                reply_to="reply.q",
                expiration="600000",
                message_id=f"msg-{number:04}",
                timestamp=1700000000,
                type="order.created",
                user_id="guest",
                app_id="order-service",
                cluster_id="c1",
            )
            getter.basic_publish("", inbox, f"hello {number}".encode(), properties)
        self._poll(getter, inbox)

    def _consume(self) -> None:
        self._subscribe(WORKER, "jobs.created", "created-worker", prefetch=10, arguments={"x-priority": 5})
        self._subscribe(SHIPPED, "jobs.shipped", "ctag1.59fd060ca4d9414695362d09435b9d6d", prefetch=5)
        self._subscribe(SAC_1, "jobs.sac", "ctag1.68d87beac96e487c9c443d7605196ba3", prefetch=1)
        self._subscribe(SAC_2, "jobs.sac", "ctag1.bbaad4e988c74dcdb2268fa65d818d73", prefetch=1)
        tag = "ctag1.a5938963bd924aa38b7318725c69619d"
        self._channels[UNROUTED].basic_consume("unrouted", lambda *_: None, auto_ack=True, consumer_tag=tag)
        if "quorum" in self._needs:
            self._subscribe(QUORUM_WORKER, "orders.quorum", "quorum-worker", prefetch=20)
        self._channels[PUBLISHER].confirm_delivery()

    def _subscribe(self, client: int, queue: str, tag: str, prefetch: int, arguments: dict | None = None) -> None:
        channel = self._channels[client]
        channel.basic_qos(prefetch_count=prefetch)
        on_message = self._acknowledge if client in (WORKER, QUORUM_WORKER) else (lambda *_: None)
        channel.basic_consume(queue, on_message, consumer_tag=tag, arguments=arguments)

    def _acknowledge(self, channel, method, _properties, _body) -> None:
        """Acknowledges all but the last two messages of the channel."""
        waiting = self._waiting.setdefault(channel, [])
        waiting.append(method.delivery_tag)
        if len(waiting) > 2:
            channel.basic_ack(waiting.pop(0))

    def _publish(self) -> None:
        publisher = self._channels[PUBLISHER]
        for exchange, key in (
            ("orders.topic", "eu.order.created"),
            ("orders.topic", "us.shipped"),
            ("orders.topic", "nowhere"),
            ("amq.direct", "nobody"),
        ):
            self._sent += 1
            body = b'{"id": %d, "padding": "%s"}' % (self._sent, b"x" * 90)
            properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
            try:
                publisher.basic_publish(exchange, key, body, properties, mandatory=True)
            except (pika.exceptions.UnroutableError, pika.exceptions.NackError):
                pass

    def _serve(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stop.is_set():
            for connection in self._connections.values():
                connection.process_data_events(time_limit=0)
            self._stop.wait(0.02)

    @staticmethod
    def _poll(channel, queue: str):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            method, _properties, _body = channel.basic_get(queue)
            if method is not None:
                return method
            time.sleep(0.02)
        raise TimeoutError(f"no message in {queue}")
