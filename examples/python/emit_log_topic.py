#!/usr/bin/env python3
"""Topics, the publisher: sends a log line with a key of words such as `kern.critical`.

emit_log_topic.py [KEY [TEXT ...]]"""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
key = sys.argv[1] if len(sys.argv) > 1 else "anonymous.info"
text = " ".join(sys.argv[2:]) or "Hello World!"

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.exchange_declare("topic_logs", exchange_type="topic")
    channel.basic_publish(exchange="topic_logs", routing_key=key, body=text)
    print(f"Sent {key}: {text!r}")
