#!/usr/bin/env python3
"""Hello world, the sender: puts one message into the queue `hello`."""

import os

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.queue_declare("hello", durable=True)
    # The default exchange, named "", routes by the name of the queue.
    channel.basic_publish(exchange="", routing_key="hello", body="Hello World!")
    print("Sent 'Hello World!'")
