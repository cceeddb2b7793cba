#!/usr/bin/env python3
"""Routing, the publisher: sends a log line with its severity as the routing key.

emit_log_direct.py [SEVERITY [TEXT ...]]"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
severity = sys.argv[1] if len(sys.argv) > 1 else "info"
text = " ".join(sys.argv[2:]) or "Hello World!"

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare("direct_logs", exchange_type="direct")
    channel.basic_publish(exchange="direct_logs", routing_key=severity, body=text)
    print(f"Sent {severity}: {text!r}")
