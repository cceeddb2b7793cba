#!/usr/bin/env python3
"""Work queue, the client: sends one task; every dot in its text means a second of work."""

import os
import sys

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
task = " ".join(sys.argv[1:]) or "A task..."

with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    # A durable queue and persistent messages: tasks outlive a restart of the broker that stores them.
    channel.queue_declare("task_queue", durable=True)
    channel.basic_publish(
        exchange="",
        routing_key="task_queue",
        body=task,
        properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
    )
    print(f"Sent {task!r}")
