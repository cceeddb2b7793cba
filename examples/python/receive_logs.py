#!/usr/bin/env python3
"""Publish/subscribe, a subscriber: prints every log line sent while it runs."""

import argparse
import os

import pika

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, help="stop after so many lines (default: never)")
count = parser.parse_args().count
url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
received = 0


def on_line(channel, method, properties, body):
    global received
    received += 1
    print(body.decode(), flush=True)
    if received == count:
        channel.stop_consuming()


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare("logs", exchange_type="fanout")
    # A queue for this subscriber alone: the broker invents its name and removes it with the connection.
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "logs")
    channel.basic_consume(queue, on_line, auto_ack=True)
    print("Waiting for logs. To exit press CTRL+C", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass
