#!/usr/bin/env python3
"""Publish/subscribe, the publisher: sends a log line to everybody who listens now."""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
line = " ".join(sys.argv[1:]) or "info: Hello World!"

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare("logs", exchange_type="fanout")
    # A fanout exchange copies the message to all its queues and ignores the routing key.
    channel.basic_publish(exchange="logs", routing_key="", body=line)
    print(f"Sent {line!r}")
