#!/usr/bin/env python3
"""Publisher confirms: three ways to know that the broker has taken over the messages.

publisher_confirms.py [NUMBER OF MESSAGES]"""

import os
import sys
import time

import pika
from pika import spec

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
parameters = pika.URLParameters(url)
message_count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000


def publish_one_by_one():
    """Waits for every confirm: simple and slow."""
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.confirm_delivery()
        started = time.monotonic()
        for number in range(message_count):
            # Returns when the message is confirmed and raises an exception when it is refused.
            channel.basic_publish("", queue, str(number))
        return time.monotonic() - started


class StreamingPublisher:
    """Publishes on an asynchronous connection and keeps at most `window` messages unconfirmed.

    A window of the whole number means: publish everything and handle the confirms as they come."""

    def __init__(self, window):
        self._window = window
        self._published = 0
        self._outstanding = {}
        self._started = self._seconds = None
        self._connection = pika.SelectConnection(parameters, on_open_callback=self._on_connected)

    def run(self):
        """Gives the time until the last confirm, in seconds."""
        self._connection.ioloop.start()
        self._connection.ioloop.close()
        return self._seconds

    def _on_connected(self, connection):
        connection.add_on_close_callback(lambda connection, _reason: connection.ioloop.stop())
        connection.channel(on_open_callback=self._on_channel)

    def _on_channel(self, channel):
        self._channel = channel
        channel.queue_declare("", exclusive=True, callback=self._on_queue)

    def _on_queue(self, frame):
        self._queue = frame.method.queue
        self._channel.confirm_delivery(ack_nack_callback=self._on_confirm, callback=self._on_ready)

    def _on_ready(self, _frame):
        self._started = time.monotonic()
        self._publish_more()

    def _publish_more(self):
        while self._published < message_count and len(self._outstanding) < self._window:
            # The broker counts the messages of a channel; it confirms by that number.
            self._published += 1
            body = str(self._published)
            self._outstanding[self._published] = body
            self._channel.basic_publish("", self._queue, body)

    def _on_confirm(self, frame):
        confirm = frame.method
        numbers = [confirm.delivery_tag]
        if confirm.multiple:
            numbers = [number for number in self._outstanding if number <= confirm.delivery_tag]
        for number in numbers:
            body = self._outstanding.pop(number)
            if isinstance(confirm, spec.Basic.Nack):
                print(f"Message {body} was refused; a real program publishes it again")
        if self._outstanding or self._published < message_count:
            self._publish_more()
        else:
            self._seconds = time.monotonic() - self._started
            self._connection.close()


for name, seconds in (
    ("one by one", publish_one_by_one()),
    ("in windows of 100", StreamingPublisher(100).run()),
    ("all at once", StreamingPublisher(message_count).run()),
):
    print(f"Published and confirmed {message_count} messages {name} in {seconds:.3f} s")
