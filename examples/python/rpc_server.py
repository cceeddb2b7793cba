#!/usr/bin/env python3
"""Remote procedure calls, the server: answers with Fibonacci numbers."""

import argparse
import os

import pika

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--count", type=int, help="stop after so many calls (default: never)")
count = parser.parse_args().count
url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
answered = 0


def fibonacci(number):
    this, following = 0, 1
    for _ in range(number):
        this, following = following, this + following
    return this


def on_request(channel, method, properties, body):
    global answered
    number = int(body)
    print(f"fibonacci({number})", flush=True)
    # The answer goes where the client asked for it; the correlation id tells it which call is meant.
    channel.basic_publish(
        exchange="",
        routing_key=properties.reply_to,
        body=str(fibonacci(number)),
        properties=pika.BasicProperties(correlation_id=properties.correlation_id),
    )
    channel.basic_ack(method.delivery_tag)
    answered += 1
    if answered == count:
        channel.stop_consuming()


with pika.BlockingConnection(pika.URLParameters(url)) as connection:
    channel = connection.channel()
    channel.queue_declare("rpc_queue", durable=True)
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("rpc_queue", on_request)
    print("Waiting for calls. To exit press CTRL+C", flush=True)
    try:
        channel.start_consuming()
    except KeyboardInterrupt:
        pass
