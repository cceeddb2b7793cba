#!/usr/bin/env python3
"""Topics, a subscriber: prints the log lines whose key matches one of its patterns.

In a pattern `*` stands for one word and `#` for any number of words, also none."""

import argparse
import os

import pika

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, help="stop after so many lines (default: never)")
parser.add_argument("patterns", nargs="+", metavar="PATTERN", help="such as 'kern.*' or '#'")
options = parser.parse_args()
url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
received = 0


def on_line(channel, method, properties, body):
    global received
    received += 1
    print(f"{method.routing_key}: {body.decode()}", flush=True)
    if received == options.count:
        channel.stop_consuming()


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare("topic_logs", exchange_type="topic")
    queue = channel.queue_declare("", exclusive=True).method.queue
    for pattern in options.patterns:
        channel.queue_bind(queue, "topic_logs", routing_key=pattern)
    channel.basic_consume(queue, on_line, auto_ack=True)
    print("Waiting for logs. To exit press CTRL+C", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass
