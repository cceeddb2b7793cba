#!/usr/bin/env python3
"""Hello world, the receiver: prints what comes out of the queue `hello`."""

import argparse
import os

import pika

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, help="stop after so many messages (default: never)")
count = parser.parse_args().count
url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
received = 0


def on_message(channel, method, properties, body):
    global received
    received += 1
    print(f"Received {body.decode()!r}", flush=True)
    if received == count:
        channel.stop_consuming()


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    # Both sides declare the queue, so it does not matter which one starts first.
    channel.queue_declare("hello", durable=True)
    channel.basic_consume("hello", on_message, auto_ack=True)
    print("Waiting for messages. To exit press CTRL+C", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass
