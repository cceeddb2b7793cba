"""The broker of a test: started with a data directory of its own, asked over HTTP and over AMQP."""

import contextlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import quote

import pika

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "replay"))

from client import Answer, Client  # noqa: E402

START_SECONDS = 30
STOP_SECONDS = 30
WAIT_SECONDS = 15
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


class Warren:
    """A broker that can be stopped and started again with what it kept."""

    def __init__(self, *options: str) -> None:
        self._binary = HERE / os.environ.get("WARREN_BIN", "../../../target/release/warren")
        if not self._binary.exists():
            raise SystemExit(f"no broker at {self._binary}: set WARREN_BIN")
        self._options = options
        self._directory = Path(tempfile.mkdtemp(prefix="warren-cases-"))
        self._process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        ports = ["--amqp-port", "0", "--management-port", "0", "--prometheus-port", "-1"]
        command = [self._binary, "serve", "--data-dir", self._directory / "data", *ports, *self._options]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=lambda: lines.put(self._process.stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=START_SECONDS)
        except queue.Empty:
            line = ""
        listeners = dict(re.findall(r"\b(\w+)=(\S+:\d+)", line))
        if not {"amqp", "management"} <= set(listeners):
            log = self.log()[-2000:]
            self.remove()
            raise RuntimeError(f"the broker did not become ready: {line!r}\n{log}")
        self.client = Client(f"http://guest:guest@{listeners['management']}")
        host, _, port = listeners["amqp"].rpartition(":")
        self._amqp = (host, int(port))

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_SECONDS)
        self._process.stdout.close()
        return code

    def remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def log(self) -> str:
        return (self._directory / "log").read_text(errors="replace")

    def connect(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> pika.BlockingConnection:
        host, port = self._amqp
        credentials = pika.PlainCredentials(user, password)
        return pika.BlockingConnection(pika.ConnectionParameters(host, port, vhost, credentials, heartbeat=0))


class Case(unittest.TestCase):
    """Tests that share a broker; each works in a vhost of its own, `self.vhost`."""

    OPTIONS: tuple[str, ...] = ()
    broker: Warren

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = Warren(*cls.OPTIONS)
        cls.addClassCleanup(cls.broker.remove)

    def setUp(self) -> None:
        self.vhost = self._testMethodName
        self.put(f"vhosts/{self.vhost}")

    def call(self, method: str, path: str, body: object = None) -> Answer:
        return self.broker.client.call(method, f"/api/{path}", body)

    def get(self, path: str) -> object:
        answer = self.call("GET", path)
        self.assertEqual(answer.status, 200, f"GET {path}: {answer}")
        return answer.body

    def put(self, path: str, body: object = None) -> None:
        answer = self.call("PUT", path, {} if body is None else body)
        self.assertIn(answer.status, (201, 204), f"PUT {path}: {answer}")

    def post(self, path: str, body: object = None) -> Answer:
        answer = self.call("POST", path, body)
        self.assertLess(answer.status, 300, f"POST {path}: {answer}")
        return answer

    def delete(self, path: str) -> None:
        answer = self.call("DELETE", path)
        self.assertEqual(answer.status, 204, f"DELETE {path}: {answer}")

    def refused(self, method: str, path: str, body: object, status: int, reason: object) -> None:
        answer = self.call(method, path, body)
        found = answer.body.get("reason") if isinstance(answer.body, dict) else answer.body
        self.assertEqual((answer.status, found), (status, reason), f"{method} {path}")

    def user(self, name: str, **permission: str) -> str:
        """A user of this test alone, whose password is its name, with permissions in the vhost."""
        name = f"{self.vhost}.{name}"
        self.put(f"users/{name}", {"password": name, "tags": ""})
        self.put(f"permissions/{self.vhost}/{name}", {**EVERYTHING, **permission})
        self.addCleanup(self.call, "DELETE", f"users/{name}")
        return name

    def connect(self, user: str | None = None, vhost: str | None = None) -> pika.BlockingConnection:
        """Closed at the end of the test, if it is open then."""
        user = user or "guest"
        connection = self.broker.connect(vhost or self.vhost, user, user)
        self.addCleanup(close, connection)
        return connection

    def publish(self, exchange: str, key: str, payload: str = "x", **properties: object) -> bool:
        """Publishes over HTTP; whether it was routed."""
        body = {"properties": properties, "routing_key": key, "payload": payload, "payload_encoding": "string"}
        return self.post(f"exchanges/{self.vhost}/{quote(exchange, '')}/publish", body).body["routed"]

    def take(self, queue_name: str, count: int = 100) -> list[str]:
        """Takes messages over HTTP; their payloads."""
        body = {"count": count, "ackmode": "ack_requeue_false", "encoding": "auto"}
        answer = self.post(f"queues/{self.vhost}/{queue_name}/get", body)
        return [message["payload"] for message in answer.body]

    def depth(self, queue_name: str) -> int:
        return self.get(f"queues/{self.vhost}/{queue_name}")["messages_ready"]

    def wait_until(self, what: str, condition, seconds: float = WAIT_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.02)

    def reply_to(self, connection: pika.BlockingConnection) -> tuple[int, str]:
        """Code and text with which the broker closes a connection."""
        deadline = time.monotonic() + WAIT_SECONDS
        with self.assertRaises(pika.exceptions.ConnectionClosedByBroker) as closed:
            while time.monotonic() < deadline:
                connection.process_data_events(time_limit=0.1)
        return closed.exception.reply_code, closed.exception.reply_text

    def refused_channel(self, code: int, text: str, operation) -> None:
        """The broker closes the channel of an operation with this code and text."""
        with self.assertRaises(pika.exceptions.ChannelClosedByBroker) as closed:
            operation()
        self.assertEqual((closed.exception.reply_code, closed.exception.reply_text), (code, text))


def close(connection: pika.BlockingConnection) -> None:
    with contextlib.suppress(pika.exceptions.AMQPError):
        if connection.is_open:
            connection.close()
