#!/usr/bin/env python3
"""Remote procedure calls, the client: asks for a Fibonacci number.

rpc_client.py [NUMBER]"""

import os
import sys
import uuid

import pika

# Direct reply-to: answers come back on this channel without a queue for them.
REPLY_TO = "amq.rabbitmq.reply-to"


class FibonacciClient:
    """Calls the server; one call at a time."""

    def __init__(self, connection):
        self._connection = connection
        self._channel = connection.channel()
        # Declared here too: a call made before the server starts waits in the queue.
        self._channel.queue_declare("rpc_queue", durable=True)
        self._channel.basic_consume(REPLY_TO, self._on_answer, auto_ack=True)
        self._correlation_id = None
        self._answer = None

    def _on_answer(self, channel, method, properties, body):
        if properties.correlation_id == self._correlation_id:
            self._answer = int(body)

    def call(self, number):
        self._correlation_id, self._answer = str(uuid.uuid4()), None
        self._channel.basic_publish(
            exchange="",
            routing_key="rpc_queue",
            body=str(number),
            properties=pika.BasicProperties(reply_to=REPLY_TO, correlation_id=self._correlation_id),
        )
        while self._answer is None:
            self._connection.process_data_events(time_limit=None)
        return self._answer


url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
number = int(sys.argv[1]) if len(sys.argv) > 1 else 30

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    print(f"Requesting fibonacci({number})", flush=True)
    print(f"Got {FibonacciClient(connection).call(number)}")
