#!/usr/bin/env python3
"""Operators at work at the same time, over MANAGEMENT_URL, while messages flow over AMQP_URL.

Each operator has a virtual host's objects of its own, changes them at random and remembers the last write that was
answered with success: at the end exactly that must be there (no lost update). Beside these, all operators write the
same contended objects: at the end each holds the last write of one of them, undamaged. Any status that the rules of the
API do not explain fails, 500 above all.

  OPERATORS  how many (default 4)
  SECONDS    how long they work (default 10)
  SEED       of their choices (default: the time); it is printed
"""

import os
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from checks import AMQP_URL, Api, Mismatch, Report, eventually, expect, quote
from load import Load

OPERATORS = int(os.environ.get("OPERATORS", "4"))
SECONDS = float(os.environ.get("SECONDS", "10"))
SEED = int(os.environ.get("SEED", str(int(time.time()))))
VHOST = f"tools-operators-{os.getpid()}"
NAMES = 4
WRITTEN = (201, 204)
# What an object looks like that is not there.
GONE = None


class Operator(threading.Thread):
    """Works on its own objects and on the contended ones. `own` and `contended` tell the last successful writes: a
    path with the value read there, GONE after a deletion."""

    def __init__(self, number: int, stop: threading.Event) -> None:
        super().__init__(name=f"operator {number}", daemon=True)
        self.number = number
        self.own: dict[str, Any] = {}
        self.contended: dict[str, Any] = {}
        self.statuses: Counter[str] = Counter()
        self.problem: str | None = None
        self._stopping = stop
        self._random = random.Random(SEED * 100 + number)
        self._api = Api()
        self._counter = 0

    def run(self) -> None:
        actions: list[Callable[[], None]] = [
            self._policy,
            self._operator_policy,
            self._queue,
            self._exchange,
            self._binding,
            self._user,
            self._permission,
            self._parameter,
            self._limit,
            self._import,
            self._contend,
            self._read,
        ]
        try:
            while not self._stopping.is_set():
                self._random.choice(actions)()
        except Mismatch as mismatch:
            self.problem = str(mismatch)
        except Exception:  # Told by the check of this operator.
            self.problem = traceback.format_exc(limit=3)

    def _own_name(self, kind: str) -> str:
        return f"{kind}-{self.number}-{self._random.randrange(NAMES)}"

    def _next(self) -> int:
        self._counter += 1
        return self._counter * 10 + self.number

    def _write(self, method: str, path: str, body: Any = None, statuses: tuple[int, ...] = WRITTEN) -> int:
        status = self._api.write(method, path, body, statuses).status
        self.statuses[f"{method} {status}"] += 1
        return status

    def _put_or_delete(self, path: str, body: Any, value: Any, known: dict[str, Any]) -> None:
        """Writes the object, or deletes it one time in three. The status tells whether it was there, which only for
        an object that others write too is not known."""
        contended, is_there = known is self.contended, known.get(path) is not GONE
        if self._random.randrange(3):
            self._write("PUT", path, body, WRITTEN if contended else ((204,) if is_there else (201,)))
            known[path] = value
        elif self._write("DELETE", path, statuses=(204, 404) if contended else ((204,) if is_there else (404,))) == 204:
            known[path] = GONE

    def _policy(self, name: str | None = None, known: dict[str, Any] | None = None) -> None:
        known = self.own if known is None else known
        value = self._next()
        name = name or self._own_name("policy")
        body = {"pattern": f"^{name}$", "definition": {"max-length": value}, "priority": 1, "apply-to": "queues"}
        self._put_or_delete(f"policies/{VHOST}/{name}", body, {"definition": {"max-length": value}}, known)

    def _operator_policy(self) -> None:
        name, value = self._own_name("cap"), self._next()
        body = {"pattern": f"^{name}$", "definition": {"max-length": value}, "apply-to": "queues"}
        expected = {"definition": {"max-length": value}}
        self._put_or_delete(f"operator-policies/{VHOST}/{name}", body, expected, self.own)

    def _queue(self) -> None:
        body = {"durable": True, "arguments": {"x-max-length": 1000 + self.number}}
        name = self._own_name("queue")
        expected = {"arguments.x-max-length": 1000 + self.number, "durable": True}
        self._put_or_delete(f"queues/{VHOST}/{name}", body, expected, self.own)
        if self.own.get(f"queues/{VHOST}/{name}") is GONE:
            self._forget_bindings(f"/q/{name}/")

    def _exchange(self) -> None:
        name = self._own_name("exchange")
        self._put_or_delete(f"exchanges/{VHOST}/{name}", {"type": "topic"}, {"type": "topic"}, self.own)
        if self.own.get(f"exchanges/{VHOST}/{name}") is GONE:
            self._forget_bindings(f"/e/{name}/")

    def _forget_bindings(self, part: str) -> None:
        """Bindings go with either end."""
        for path in [path for path in self.own if path.startswith("bindings/") and part in path]:
            self.own[path] = GONE

    def _binding(self) -> None:
        source, queue, key = self._own_name("exchange"), self._own_name("queue"), f"key{self._random.randrange(NAMES)}"
        ends = (self.own.get(f"exchanges/{VHOST}/{source}"), self.own.get(f"queues/{VHOST}/{queue}"))
        pair = f"bindings/{VHOST}/e/{source}/q/{queue}"
        if GONE in ends:
            self._write("POST", pair, {"routing_key": key}, (404,))
        elif self.own.get(f"{pair}/{key}") is GONE:
            self._write("POST", pair, {"routing_key": key}, (201,))
            self.own[f"{pair}/{key}"] = {"routing_key": key}
        else:
            self._write("DELETE", f"{pair}/{key}", statuses=(204,))
            self.own[f"{pair}/{key}"] = GONE

    def _user(self) -> None:
        name, tags = f"{VHOST}-{self._own_name('user')}", self._random.choice(["", "management", "monitoring"])
        body = {"password": f"secret-{self._next()}", "tags": tags}
        self._put_or_delete(f"users/{name}", body, {"tags": [tags] if tags else []}, self.own)
        if self.own.get(f"users/{name}") is GONE:
            self.own[f"permissions/{VHOST}/{name}"] = GONE

    def _permission(self) -> None:
        name = f"{VHOST}-{self._own_name('user')}"
        if self.own.get(f"users/{name}") is GONE:
            return
        path, configure = f"permissions/{VHOST}/{name}", f"^a{self._next()}"
        body = {"configure": configure, "write": "^b", "read": "^c"}
        is_there = self.own.get(path) is not GONE
        if not is_there or self._random.randrange(2):
            self._write("PUT", path, body, (204,) if is_there else (201,))
            self.own[path] = body
        else:
            self._write("DELETE", path, statuses=(204,))
            self.own[path] = GONE

    def _parameter(self) -> None:
        path, value = f"global-parameters/{VHOST}-{self._own_name('parameter')}", self._next()
        self._put_or_delete(path, {"value": {"number": value}}, {"value": {"number": value}}, self.own)

    def _limit(self) -> None:
        """All write the limits of one virtual host: the contended object is a map, whose keys are apart."""
        self._write("PUT", f"vhost-limits/{VHOST}/max-queues", {"value": 100000 + self.number}, (204,))

    def _import(self) -> None:
        """Definitions that create or change several objects in one request; queues that are there stay as they are."""
        policy, parameter = self._own_name("policy"), f"{VHOST}-{self._own_name('parameter')}"
        queue, value = self._own_name("queue"), self._next()
        body = {
            "policies": [
                {
                    "vhost": VHOST,
                    "name": policy,
                    "pattern": f"^{policy}$",
                    "definition": {"max-length": value},
                    "priority": 2,
                    "apply-to": "queues",
                }
            ],
            "global_parameters": [{"name": parameter, "value": {"number": value}}],
            "queues": [
                {
                    "vhost": VHOST,
                    "name": queue,
                    "durable": True,
                    "auto_delete": False,
                    "arguments": {"x-max-length": 1000 + self.number},
                }
            ],
        }
        self._write("POST", "definitions", body, (200, 204))
        self.own[f"policies/{VHOST}/{policy}"] = {"definition": {"max-length": value}, "priority": 2}
        self.own[f"global-parameters/{parameter}"] = {"value": {"number": value}}
        self.own[f"queues/{VHOST}/{queue}"] = {"arguments.x-max-length": 1000 + self.number, "durable": True}

    def _contend(self) -> None:
        name = f"contended-{self._random.randrange(NAMES)}"
        if self._random.randrange(2):
            self._policy(name, self.contended)
        else:
            value = self._next()
            body = {"value": {"number": value, "twice": value * 2}}
            self._put_or_delete(f"global-parameters/{VHOST}-{name}", body, body, self.contended)

    def _read(self) -> None:
        """Lists while others change what is in them."""
        inside = [f"{kind}/{VHOST}" for kind in ("queues", "exchanges", "policies", "bindings", "definitions")]
        path = self._random.choice([*inside, "users", "definitions", "overview", "permissions", "vhosts"])
        answer = self._api.call("GET", path)
        expect(answer.status, 200, f"GET /api/{path}: {answer.text[:300]}")
        answer.json()
        self.statuses["GET 200"] += 1


report = Report()


def main() -> None:
    print(f"{OPERATORS} operators, {SECONDS:g} s, SEED={SEED}")
    api = Api()
    api.write("PUT", f"vhosts/{VHOST}", {})
    api.write("PUT", f"permissions/{VHOST}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
    operators: list[Operator] = []
    try:
        operators = work()
        for operator in operators:
            counts = ", ".join(f"{count} {what}" for what, count in sorted(operator.statuses.items()))
            report.check(f"{operator.name}: {counts}", lambda operator=operator: expect(operator.problem, None))
        for operator in operators:
            report.check(f"{operator.name}: no update was lost", lambda operator=operator: verify(api, operator.own))
        report.check("contended objects hold the last write of one operator", lambda: verify_contended(api, operators))
        report.check("the limit is that of one operator", lambda: verify_limit(api))
        report.check("lists hold what single objects hold", lambda: verify_lists(api, operators))
    finally:
        clean_up(api, operators)
    report.finish()


def work() -> list[Operator]:
    stop = threading.Event()
    operators = [Operator(number, stop) for number in range(OPERATORS)]

    def under_load() -> None:
        with Load(AMQP_URL, quote(VHOST)) as load:
            eventually(lambda: expect(load.rounds > 0, True, "rounds of the load"))
            for operator in operators:
                operator.start()
            stop.wait(SECONDS)
            stop.set()
            for operator in operators:
                operator.join(30)
                expect(operator.is_alive(), False, f"{operator.name} still waits for an answer")

    report.check("messages flow meanwhile", under_load)
    if any(not operator.ident for operator in operators):
        report.finish()
    return operators


def differs(api: Api, path: str, value: Any) -> str | None:
    """What is wrong with the object at the path, None when it has the value. A dot in a key leads into a map."""
    answer = api.call("GET", path)
    if value is GONE:
        return None if answer.status == 404 else f"{path}: expected it deleted, got {answer.status} {answer.text[:200]}"
    if answer.status != 200:
        return f"{path}: expected {value}, got {answer.status}"
    found = answer.json()
    for key, wanted in value.items():
        actual = found
        for part in key.split("."):
            actual = actual.get(part) if isinstance(actual, dict) else None
        if actual != wanted:
            return f"{path}: expected {key} {wanted!r}, got {actual!r}"
    return None


def verify(api: Api, known: dict[str, Any]) -> None:
    wrong = [text for path, value in known.items() if (text := differs(api, path, value))]
    if wrong:
        raise Mismatch(f"{len(wrong)} of {len(known)}: {'; '.join(wrong[:5])}")


def verify_contended(api: Api, operators: list[Operator]) -> None:
    wrong = []
    for path in {path for operator in operators for path in operator.contended}:
        last = [operator.contended[path] for operator in operators if path in operator.contended]
        problems = [differs(api, path, value) for value in last]
        if all(problems):
            wrong.append(f"{path}: expected one of {last}; {problems[0]}")
    if wrong:
        raise Mismatch("; ".join(wrong[:4]))


def verify_limit(api: Api) -> None:
    value = api.get(f"vhost-limits/{VHOST}")[0]["value"]
    expect(value["max-queues"] in range(100000, 100000 + OPERATORS), True, f"max-queues {value}")


def verify_lists(api: Api, operators: list[Operator]) -> None:
    kept = [path for operator in operators for path, value in operator.own.items() if value is not GONE]
    for kind, listed in (("queues", f"queues/{VHOST}"), ("policies", f"policies/{VHOST}"), ("users", "users")):
        names = {path.rsplit("/", 1)[1] for path in kept if path.startswith(f"{kind}/")}
        found = {row["name"] for row in api.get(listed)}
        expect(names - found, set(), f"{kind} that the list lacks")
    exported = {policy["name"] for policy in api.get(f"definitions/{VHOST}")["policies"]}
    expect({row["name"] for row in api.get(f"policies/{VHOST}")}, exported, "exported policies")


def clean_up(api: Api, operators: list[Operator]) -> None:
    for operator in operators:
        for path in {**operator.own, **operator.contended}:
            if path.startswith(("users/", "global-parameters/")):
                api.call("DELETE", path)
    api.call("DELETE", f"vhosts/{VHOST}")


if __name__ == "__main__":
    sys.exit(main())
