"""Few file descriptors: idle sockets take none that the log, the API and those who log in need."""

import json
import os
import re
import socket
import time
import urllib.error
import urllib.request

import pika
import pytest
from broker import Broker
from conftest import wait_until

LIMIT = 256
IDLE = 400
PERSISTENT = pika.BasicProperties(delivery_mode=2)


@pytest.fixture
def broker(tmp_path):
    """A broker that may open few files, with small files of the log, and the API on a port."""
    ports = ["--set", "management.port=0", "--set", "prometheus.port=0", "--set", "storage.wal_file_size=1MiB"]
    own = Broker(tmp_path, *ports, command=("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh"))
    # The command line turns these ports off otherwise.
    own._command_line = lambda: [
        *own._command, own._binary, "serve", "--data-dir", own.data, "--amqp-port", str(own.port), *ports
    ]
    lines = own.launch()
    ready = dict(re.findall(r"\b(\w+)=127\.0\.0\.1:(\d+)", lines.get(timeout=30)))
    own.port, own.management, own.prometheus = (int(ready[name]) for name in ("amqp", "management", "prometheus"))
    yield own
    own.close()


def open_files(broker):
    return len(os.listdir(f"/proc/{broker._process.pid}/fd"))


def get(port, path, timeout=5):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"authorization": "Basic Z3Vlc3Q6Z3Vlc3Q="})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return answer.read()


def status(port, path):
    try:
        get(port, path)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def publish(connection, count, body):
    channel = connection.channel()
    channel.queue_declare("q", durable=True)
    channel.confirm_delivery()
    for _ in range(count):
        channel.basic_publish("", "q", body, PERSISTENT, mandatory=True)
    channel.close()


def idle_sockets(port, count, greeting=b""):
    sockets = []
    for _ in range(count):
        one = socket.create_connection(("127.0.0.1", port), timeout=10)
        one.sendall(greeting)
        sockets.append(one)
    return sockets


def test_idle_sockets_take_no_descriptor_that_others_need(broker):
    early = pika.BlockingConnection(pika.URLParameters(broker.url))
    idle = idle_sockets(broker.port, IDLE // 2) + idle_sockets(broker.port, IDLE // 2, b"AMQP\0\0\x09\x01")
    # Many files of the log are made and read meanwhile: by one who was there, and by one who comes now.
    publish(early, 100, bytes(100_000))
    late = pika.BlockingConnection(pika.URLParameters(broker.url))
    publish(late, 100, bytes(100_000))
    assert open_files(broker) < LIMIT - 20
    # Both ports of HTTP answer, and say what happened.
    assert json.loads(get(broker.management, "/api/overview"))["object_totals"]["connections"] >= 2
    metrics = get(broker.prometheus, "/metrics").decode()
    turned_away = re.search(r'connections_turned_away_total{listener="amqp"} (\d+)', metrics)
    assert int(turned_away[1]) >= IDLE - LIMIT
    assert "connections found no place" in broker.log()
    # Those that were turned away have been closed: they are not left waiting.
    closed = 0
    for one in idle:
        one.settimeout(0.01)
        try:
            closed += sum(1 for _ in range(2) if one.recv(4096) == b"") > 0
        except ConnectionError:
            closed += 1
        except TimeoutError:
            pass
    assert closed >= IDLE - LIMIT
    for one in idle:
        one.close()
    for connection in (early, late):
        connection.close()
    wait_until(lambda: open_files(broker) < 100, "the sockets to be closed")
    assert broker.is_running()


def test_slow_requests_of_one_source_do_not_keep_metrics_and_checks_from_answering(broker):
    idle = idle_sockets(broker.management, IDLE, b"GET /api/overview HTTP/1.1\r\nHost: x\r\n")
    begun = time.monotonic()
    assert b"rabbitmq_identity_info" in get(broker.management, "/metrics")
    assert json.loads(get(broker.management, "/api/health/checks/local-alarms")) == {"status": "ok"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(broker.management, "/api/overview")
    assert refused.value.code == 503
    assert "limits.http_connections" in json.loads(refused.value.read())["reason"]
    assert time.monotonic() - begun < 5
    connection = pika.BlockingConnection(pika.URLParameters(broker.url))
    publish(connection, 3, b"x")
    connection.close()
    # Who sends no whole head has ten seconds.
    wait_until(lambda: status(broker.management, "/api/overview") == 200, "places", 20)
    for one in idle:
        one.close()
