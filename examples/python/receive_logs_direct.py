#!/usr/bin/env python3
"""Routing, a subscriber: prints the log lines of the severities it is told."""

import argparse
import os

import pika

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, help="stop after so many lines (default: never)")
parser.add_argument("severities", nargs="+", metavar="SEVERITY", help="such as info, warning, error")
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
    channel.exchange_declare("direct_logs", exchange_type="direct")
    queue = channel.queue_declare("", exclusive=True).method.queue
    # One binding for each severity; a direct exchange compares the keys exactly.
    for severity in options.severities:
        channel.queue_bind(queue, "direct_logs", routing_key=severity)
    channel.basic_consume(queue, on_line, auto_ack=True)
    print("Waiting for logs. To exit press CTRL+C", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass
