#!/usr/bin/env python3
"""Work queue, a worker: does one task after the other. Start as many workers as you like."""

import argparse
import os

import pika

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, help="stop after so many tasks (default: never)")
count = parser.parse_args().count
url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
finished = 0


def work(channel, method, properties, body):
    global finished
    print(f"Received {body.decode()!r}", flush=True)
    # The connection's own sleep goes on sending heartbeats.
    channel.connection.sleep(body.count(b"."))
    print(f"Done with {body.decode()!r}", flush=True)
    # Without this acknowledgement the broker gives the task to another worker.
    channel.basic_ack(method.delivery_tag)
    finished += 1
    if finished == count:
        channel.stop_consuming()


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.queue_declare("task_queue", durable=True)
    # One task at a time: a busy worker gets no further one while others are idle.
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("task_queue", work)
    print("Waiting for tasks. To exit press CTRL+C", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass
