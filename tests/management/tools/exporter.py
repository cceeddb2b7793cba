#!/usr/bin/env python3
"""The exporter kbudde/rabbitmq_exporter, which reads the management API, against MANAGEMENT_URL while a load runs.

EXPORTER names the executable.
"""

import os
import re
import socket
import subprocess
import tempfile
import urllib.request

from checks import AMQP_URL, MANAGEMENT_URL, Api, Mismatch, Report, eventually, expect
from load import Load

MODULES = ["aliveness", "connections", "exchange", "memory", "node", "overview", "queue"]
# Metrics that must be above zero while every kind of message flows.
MOVING = [
    "rabbitmq_connections",
    "rabbitmq_channels",
    "rabbitmq_consumers",
    "rabbitmq_queues",
    "rabbitmq_exchanges",
    "rabbitmq_running",
    "rabbitmq_uptime",
    "rabbitmq_fd_available",
    "rabbitmq_node_mem_used",
    "rabbitmq_node_mem_limit",
    "rabbitmq_node_disk_free",
    "rabbitmq_node_disk_free_limit",
    "rabbitmq_memory_total_rss_bytes",
    "rabbitmq_connection_received_bytes",
    "rabbitmq_connection_send_bytes",
    "rabbitmq_exchange_messages_published_in_total",
    "rabbitmq_queue_messages_published_total",
    "rabbitmq_queue_messages_delivered_total",
    "rabbitmq_queue_messages_delivered_noack_total",
    "rabbitmq_queue_messages_ack_total",
    "rabbitmq_queue_messages_get_total",
    "rabbitmq_queue_messages_get_noack_total",
    "rabbitmq_queue_messages_redelivered_total",
    "rabbitmq_queue_messages",
    "rabbitmq_queue_messages_ready",
    "rabbitmq_queue_message_bytes",
]
QUEUE = f"tools-exporter-{os.getpid()}"

report = Report()


def main() -> None:
    api = Api()
    queue = f"queues/%2F/{QUEUE}"
    api.write("PUT", queue, {"durable": True})
    message = {"properties": {}, "routing_key": QUEUE, "payload": "message", "payload_encoding": "string"}
    for _ in range(3):
        api.write("POST", "exchanges/%2F/amq.default/publish", message)
    with Load(AMQP_URL), socket.socket() as free, tempfile.TemporaryFile() as log:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        exporter = start(address, log)
        try:
            examine(address)
        finally:
            exporter.terminate()
            exporter.wait(10)
    api.call("DELETE", queue)
    report.finish()


def start(address: str, log) -> subprocess.Popen:
    environment = {
        "RABBIT_URL": MANAGEMENT_URL,
        "RABBIT_USER": "guest",
        "RABBIT_PASSWORD": "guest",
        "RABBIT_EXPORTERS": ",".join(MODULES),
        "PUBLISH_ADDR": address.split(":")[0],
        "PUBLISH_PORT": address.split(":")[1],
    }
    return subprocess.Popen([os.environ["EXPORTER"]], env=environment, stdout=log, stderr=log)


def examine(address: str) -> None:
    def samples() -> list[tuple[str, str, float]]:
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as response:
                text = response.read().decode()
        except OSError as problem:
            raise Mismatch(f"the exporter does not answer: {problem}") from None
        found = re.findall(r"^(rabbitmq_\w+)(\{.*\})? (\S+)$", text, re.MULTILINE)
        return [(name, labels, float(value)) for name, labels, value in found]

    def value(name: str, part: str = "") -> float:
        found = [value for other, labels, value in samples() if other == name and part in labels]
        if not found:
            raise Mismatch(f"expected {name} with {part!r}, got none")
        return max(found)

    report.check("rabbitmq_up", lambda: eventually(lambda: expect(value("rabbitmq_up"), 1)))
    for module in MODULES:
        report.check(
            f"module {module}",
            lambda module=module: expect(value("rabbitmq_module_up", f'module="{module}"'), 1),
        )
    report.check("aliveness", lambda: expect(value("rabbitmq_aliveness_info", 'status="ok"'), 1))
    report.check(
        "messages of a queue",
        lambda: eventually(lambda: expect(value("rabbitmq_queue_messages", f'queue="{QUEUE}"'), 3)),
    )
    for name in MOVING:
        report.check(
            f"{name} above 0",
            lambda name=name: eventually(lambda: expect(value(name) > 0, True, name)),
        )


if __name__ == "__main__":
    main()
