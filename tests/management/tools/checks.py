"""What the suites share: lines of results, requests to the management API, commands, waiting."""

import base64
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MANAGEMENT_URL = os.environ.get("MANAGEMENT_URL", "").rstrip("/")
AMQP_URL = os.environ.get("AMQP_URL", "").rstrip("/")
PROMETHEUS_URL = os.environ.get("PROMETHEUS_URL", "").rstrip("/")


class Mismatch(Exception):
    """A check found something else than it expected; the text says both."""


class Report:
    """Prints a line for each check, counts them, and turns them into an exit code."""

    def __init__(self) -> None:
        self._passed = self._failed = self._skipped = 0

    def check(self, name: str, action: Callable[[], Any]) -> bool:
        """Runs the action; what it raises is the failure's text."""
        try:
            action()
        except Exception as problem:  # Any failure of a check is the check's result.
            text = str(problem) if isinstance(problem, Mismatch) else f"{type(problem).__name__}: {problem}"
            self.fail(name, text)
            return False
        self._passed += 1
        print(f"ok   {name}", flush=True)
        return True

    def fail(self, name: str, reason: str) -> None:
        self._failed += 1
        print(f"FAIL {name}: {reason[:1500]}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        self._skipped += 1
        print(f"skip {name}: {reason}", flush=True)

    def finish(self) -> None:
        """Prints the sum and ends the process."""
        print(f"{self._passed} passed, {self._failed} failed, {self._skipped} skipped", flush=True)
        sys.exit(0 if self._failed == 0 and self._passed > 0 else 1)


def expect(actual: Any, wanted: Any, what: str = "") -> None:
    if actual != wanted:
        raise Mismatch(f"{what + ': ' if what else ''}expected {wanted!r}, got {actual!r}")


def expect_in(part: Any, whole: Any, what: str = "") -> None:
    if part not in whole:
        raise Mismatch(f"{what + ': ' if what else ''}expected {part!r} in {whole!r}")


def eventually(action: Callable[[], Any], seconds: float = 10) -> Any:
    """Repeats the action until it raises no Mismatch; statistics of a broker may lag behind what it did."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return action()
        except Mismatch:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@dataclass
class Answer:
    status: int
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Api:
    """The management API for one user, over one connection that is kept. Not for use by two threads at once."""

    def __init__(self, url: str = MANAGEMENT_URL, user: str = "guest", password: str = "guest") -> None:
        address = urllib.parse.urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"authorization": f"Basic {login}", "content-type": "application/json"}

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Sends one request; `path` follows `/api/` and is encoded already. A kept connection that the server closed
        meanwhile is opened again, but only for requests that may be repeated."""
        payload = None if body is None else json.dumps(body)
        for attempt in (1, 2):
            try:
                self._connection.request(method, f"/api/{path}", payload, self._headers)
                response = self._connection.getresponse()
                return Answer(response.status, response.read().decode())
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self._connection.close()
                if attempt == 2 or method == "POST":
                    raise
        raise AssertionError("unreachable")

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        expect(answer.status, 200, f"GET /api/{path}: {answer.text[:200]}")
        return answer.json()

    def write(self, method: str, path: str, body: Any = None, statuses: tuple[int, ...] = (200, 201, 204)) -> Answer:
        answer = self.call(method, path, body)
        if answer.status not in statuses:
            raise Mismatch(f"{method} /api/{path}: expected status {statuses}, got {answer.status} {answer.text[:300]}")
        return answer


def quote(name: str) -> str:
    """A name as one segment of a path."""
    return urllib.parse.quote(name, safe="")


def declares(api: Api, queue_type: str) -> bool:
    """Whether the broker has queues of that type."""
    path = f"queues/%2F/tools-probe-{os.getpid()}"
    answer = api.write("PUT", path, {"durable": True, "arguments": {"x-queue-type": queue_type}}, (201, 400))
    api.call("DELETE", path)
    return answer.status == 201


def run_tool(arguments: list[str], code: int = 0, seconds: float = 60, directory: str | None = None) -> str:
    """Runs a command and returns what it printed, standard error after standard output; another exit code fails."""
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, cwd=directory
    )
    output = done.stdout + done.stderr
    if done.returncode != code:
        raise Mismatch(f"expected exit code {code}, got {done.returncode}: {output.strip()[-700:]}")
    return output
