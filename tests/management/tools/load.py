"""A small load of every kind that the broker counts: `with Load(url, vhost): ...`."""

import threading
import time

import pika

LOOP_SECONDS = 0.05


class Load:
    """A thread that publishes, consumes, gets, returns and reopens until the block ends.

    Leaving the block raises what the thread met. `rounds` tells how often everything was done.
    """

    def __init__(self, url: str, vhost: str = "%2F", prefix: str = "tools-load") -> None:
        self._parameters = pika.URLParameters(f"{url}/{vhost}")
        self._prefix = prefix
        self._stop = threading.Event()
        self._problem: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.rounds = 0

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        if self._thread.is_alive():
            raise TimeoutError("the load did not end in 30 s: the broker does not answer")
        if self._problem:
            raise self._problem

    def _run(self) -> None:
        try:
            connection = pika.BlockingConnection(self._parameters)
            queue = f"{self._prefix}-work"
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare(queue, durable=True)
            consumed = self._consumers(connection)
            while not self._stop.is_set():
                self._round(connection, channel, queue)
                self.rounds += 1
                time.sleep(LOOP_SECONDS)
            for name in consumed:
                channel.queue_delete(name)
            channel.queue_delete(queue)
            connection.close()
        except Exception as problem:  # Raised again where the block ends.
            self._problem = problem

    def _consumers(self, connection: pika.BlockingConnection) -> list[str]:
        """Two queues with a consumer each, named by what it does: acknowledge, or not need to."""
        names = [f"{self._prefix}-auto", f"{self._prefix}-manual"]
        for name in names:
            channel = connection.channel()
            channel.queue_declare(name, durable=True)
            auto = name.endswith("auto")

            def received(channel, method, _properties, _body, auto=auto):
                if not auto and not method.redelivered:
                    channel.basic_nack(method.delivery_tag, requeue=True)
                elif not auto:
                    channel.basic_ack(method.delivery_tag)

            channel.basic_consume(name, received, auto_ack=auto)
        return names

    def _round(self, connection: pika.BlockingConnection, channel, queue: str) -> None:
        for key in (queue, queue, f"{self._prefix}-auto", f"{self._prefix}-manual"):
            channel.basic_publish("", key, b"x" * 500, pika.BasicProperties(delivery_mode=2), mandatory=True)
        method, _, _ = channel.basic_get(queue, auto_ack=False)
        if method:
            channel.basic_ack(method.delivery_tag)
        channel.basic_get(queue, auto_ack=True)
        channel.basic_get(queue, auto_ack=True)
        try:
            channel.basic_publish("amq.direct", f"{self._prefix}-nowhere", b"returned", mandatory=True)
        except pika.exceptions.UnroutableError:
            pass
        else:
            raise AssertionError("a mandatory message without a queue was not returned")
        channel.basic_publish("amq.direct", f"{self._prefix}-nowhere", b"dropped")
        other = pika.BlockingConnection(self._parameters)
        briefly = other.channel()
        briefly.queue_declare(f"{self._prefix}-briefly", auto_delete=True)
        briefly.queue_delete(f"{self._prefix}-briefly")
        briefly.close()
        other.close()
        connection.process_data_events(0)
