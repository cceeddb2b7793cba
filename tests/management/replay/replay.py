#!/usr/bin/env python3
"""Replays the recordings of RabbitMQ 4.3.6's management API against a broker and compares the answers."""

import argparse
import contextlib
import http.client
import json
import re
import sys
import threading
import time
from dataclasses import replace

import pika

import authorisation
import comparison
import expectations
from broker import broker_under_test
from client import Answer, Client
from laboratory import IMPORT, Laboratory
from names import RECORDED_AMQP_PORT, RECORDED_MANAGEMENT_PORT, RECORDED_PROMETHEUS_PORT, Names
from recordings import Recording, recordings, rights
from topology import Topology
from traffic import Traffic, name_of, parameters

WRONG_PASSWORDS = {"errors/bad-password": "wrong", "errors/unknown-user": "nobody"}
CONNECTION_TO_CLOSE = 48056
CLOSE_SECONDS = 20
STATISTICS_SECONDS = 45


def has_totals(queue: dict) -> bool:
    return "messages" in queue and "consumers" in queue


def has_acknowledgements(queue: dict) -> bool:
    return queue.get("message_stats", {}).get("ack", 0) > 0


def has_blocked_consumer(queue: dict) -> bool:
    return any(consumer.get("activity_status") == "blocked" for consumer in queue.get("consumer_details", []))


def has_samples(entry: dict) -> bool:
    details = [entry.get(key) for key in ("messages_details", "recv_oct_details")]
    return any(found and found.get("samples") for found in details)


# Paths, and what their answers have to say before anything is compared.
SHOWS_TRAFFIC = [
    ("queues/orders/jobs.created", has_acknowledgements),
    ("queues/orders/jobs.created", lambda queue: queue.get("consumer_details")),
    ("queues/orders/jobs.shipped", has_blocked_consumer),
    ("queues/orders/dead.letters", has_totals),
    ("queues/orders/jobs.sac", has_totals),
    ("queues/%2F/inbox", has_totals),
    ("queues/analytics/an.q", has_totals),
    ("queues/orders?lengths_age=60&lengths_incr=5", lambda queues: all(has_samples(queue) for queue in queues)),
    ("connections?data_rates_age=60&data_rates_incr=5", lambda found: all(has_samples(entry) for entry in found)),
    ("vhosts/orders/channels", lambda channels: any(channel.get("consumer_count") for channel in channels)),
    ("vhosts/orders/channels", lambda channels: any(channel.get("confirm") for channel in channels)),
    ("vhosts/orders/connections", lambda found: all(connection.get("state") for connection in found)),
]
SHOWS_QUORUM = [("queues/orders/orders.quorum", lambda queue: queue.get("single_active_consumer_tag"))]


class Suite:
    """One run of the recordings against one broker."""

    def __init__(self, options: argparse.Namespace, broker) -> None:
        self._options = options
        self._broker = broker
        self._client = Client(broker.management_url)
        overview = self._client.call("GET", "/api/overview")
        if overview.status != 200:
            raise SystemExit(f"GET /api/overview: {overview}")
        cluster = overview.body.get("cluster_name", "")
        self.names = Names(options.prefix, overview.body.get("node", ""), cluster)
        self._learn_ports()
        self._topology = Topology(self._client, self.names, options.needs)
        self._traffic = Traffic(broker.amqp_url, self.names, options.needs)
        self._laboratory = Laboratory(self._client, self.names)
        self.failures = 0
        self.passed = 0
        self.skipped: list[tuple[str, str]] = []

    def run(self) -> None:
        self._laboratory.clear()
        self._topology.remove()
        self._topology.create()
        self._traffic.start()
        try:
            if self._options.wait:
                self._wait_for_statistics()
            self._run_all()
            if self._traffic.failure is not None:
                self._fail("traffic", "", [f"the AMQP clients failed: {self._traffic.failure!r}"])
        except ConnectionRefusedError:
            self._fail("broker", "", ["it does not take HTTP connections any more; the rest was not run"])
        finally:
            self._traffic.stop()
            with contextlib.suppress(OSError):
                self._laboratory.clear()
                self._topology.remove()

    def _run_all(self) -> None:
        for problem in self._topology.problems:
            self._fail("topology", "", [problem])
        for recording in recordings():
            if re.search(self._options.pattern, recording.name):
                self._replay(recording)
        for row in rights():
            if re.search(self._options.pattern, row.name):
                self._check_right(row)

    def _learn_ports(self) -> None:
        amqp = pika.URLParameters(self._broker.amqp_url).port
        self.names.ports = {
            RECORDED_AMQP_PORT: amqp,
            RECORDED_MANAGEMENT_PORT: self._client.port,
            RECORDED_PROMETHEUS_PORT: self._broker.prometheus_port,
        }

    def _wait_for_statistics(self) -> None:
        """Until the traffic shows in the statistics, which may lag behind by an interval."""

        for message in ("one", "two"):
            body = {"properties": {}, "routing_key": "x", "payload": message, "payload_encoding": "string"}
            self._topology.post("exchanges/analytics/orders.topic/publish", body)
            if self._topology.has("x-consistent-hash"):
                body = {**body, "properties": {"headers": {"customer": message}}}
                self._topology.post("exchanges/orders/orders.hash/publish", body)
        for path, shows in [*SHOWS_TRAFFIC, *(SHOWS_QUORUM if "quorum" in self._options.needs else [])]:
            self._topology.wait_for("the traffic's statistics", path, shows, STATISTICS_SECONDS)

    def _replay(self, recording: Recording) -> None:
        reason = self._reason_to_skip(recording)
        if reason:
            self.skipped.append((recording.name, reason))
            return
        try:
            differences = self._laboratory.prepare(recording)
            if not differences:
                wanted = self._expected(recording)
                answer = self._send(recording)
                if recording.method != "GET" and answer.status < 400:
                    self._laboratory.changed()
                differences = self._compare(wanted, answer)
        except ConnectionRefusedError:
            raise
        except (OSError, http.client.HTTPException, pika.exceptions.AMQPError) as failure:
            self._laboratory.changed()
            differences = [repr(failure)]
        if differences:
            self._fail(recording.name, f"{recording.method} {recording.path}", differences)
        else:
            self.passed += 1

    def _reason_to_skip(self, recording: Recording) -> str | None:
        if recording.needs and not self._topology.has(recording.needs):
            return f"needs: {recording.needs}"
        if self._options.target == "rabbitmq":
            return expectations.NOT_ON_REFERENCE.get(recording.name)
        return None

    def _expected(self, recording: Recording) -> Recording:
        """The recording as it has to look on this broker."""
        if self._options.target == "warren":
            recording = expectations.expected(recording)
        headers = recording.headers
        if headers is not None and "location" in headers:
            headers = {**headers, "location": self.names.path(headers["location"])}
        body = self._without_missing_types(self.names.value(recording.body))
        shortened = recording.shortened or body != self.names.value(recording.body)
        return replace(recording, headers=headers, body=body, shortened=shortened)

    def _without_missing_types(self, value: object) -> object:
        """Takes out what belongs to exchange types the broker does not have."""
        if isinstance(value, list):
            kept = [element for element in value if not self._is_of_missing_type(element)]
            return [self._without_missing_types(element) for element in kept]
        if isinstance(value, dict):
            return {key: self._without_missing_types(member) for key, member in value.items()}
        return value

    def _is_of_missing_type(self, element: object) -> bool:
        if not isinstance(element, dict):
            return False
        missing = "x-consistent-hash" not in self._topology.exchange_types
        kind = element.get("type")
        if isinstance(kind, str) and kind.startswith("x-") and kind not in self._topology.exchange_types:
            return True
        name = element.get("name")
        if isinstance(name, str) and name.startswith("x-") and name not in self._topology.exchange_types:
            return True
        return missing and element.get("source") == "orders.hash"

    def _send(self, recording: Recording) -> Answer:
        headers = dict(recording.request.get("headers", {}))
        login = None
        if recording.user is not None:
            login = self._login(recording)
        body = self._body(recording, headers)
        if recording.name == "write/connection-delete":
            return self._close_connection(recording, login, headers)
        path = self.names.path(recording.path)
        return self._client.send(recording.method, path, login=login, headers=headers, body=body)

    def _login(self, recording: Recording) -> tuple[str, str]:
        user = recording.user
        password = "guest" if user == "guest" else f"{user}-secret"
        if user == "guest" and recording.name not in WRONG_PASSWORDS:
            return self._client.administrator
        return self.names.name(user), WRONG_PASSWORDS.get(recording.name, password)

    def _body(self, recording: Recording, headers: dict) -> bytes | None:
        request = recording.request
        if "body" in request:
            return json.dumps(self.names.value(request["body"])).encode()
        if "raw" in request:
            return self.names.form(request["raw"]).encode()
        if "multipart" in request:
            headers["content-type"] = "multipart/form-data; boundary=recorded"
            definitions = json.dumps(self.names.value(IMPORT))
            disposition = f'form-data; name="file"; filename="{request["multipart"]["file"]}"'
            part = f"Content-Disposition: {disposition}\r\nContent-Type: application/json\r\n\r\n{definitions}\r\n"
            return f"--recorded\r\n{part}--recorded--\r\n".encode()
        return None

    def _close_connection(self, recording: Recording, login: tuple, headers: dict) -> Answer:
        """Closes a connection over HTTP; the client has to be told why."""
        connection = pika.BlockingConnection(parameters(self._broker.amqp_url, "/", "to-be-closed"))
        actual = name_of(connection)
        self.names.connections[CONNECTION_TO_CLOSE] = actual
        path = self.names.path(recording.path)
        self._topology.wait_for("a new connection in the list", f"connections/{path.rpartition('/')[2]}", bool)
        closed = threading.Event()
        reply: list[tuple[int, str]] = []

        def wait() -> None:
            try:
                deadline = time.monotonic() + CLOSE_SECONDS
                while time.monotonic() < deadline:
                    connection.process_data_events(time_limit=0.1)
            except pika.exceptions.ConnectionClosed as reason:
                reply.append((reason.reply_code, reason.reply_text))
            except pika.exceptions.AMQPError as reason:
                reply.append((0, repr(reason)))
            closed.set()

        threading.Thread(target=wait, daemon=True).start()
        answer = self._client.send(recording.method, path, login=login, headers=headers)
        closed.wait(CLOSE_SECONDS)
        wanted = (320, f"CONNECTION_FORCED - {headers['X-Reason']}")
        if reply != [wanted]:
            raise OSError(f"the AMQP client saw {reply} instead of {wanted}")
        return answer

    def _compare(self, wanted: Recording, answer: Answer) -> list[str]:
        if wanted.headers is None:
            wanted = replace(wanted, headers={name: answer.headers[name] for name in answer.headers})
        return comparison.compare(
            wanted,
            answer,
            prefix=self._options.prefix,
            ours=self._options.target == "warren",
        )

    def _check_right(self, row) -> None:
        if row.needs and not self._topology.has(row.needs):
            self.skipped.append((row.name, f"needs: {row.needs}"))
            return
        if row.path.endswith("/port-listener/5672"):
            # The recorded broker listened on another port than the one its recordings name; ours does on this one.
            row = replace(row, answers={kind: text.replace("503", "200") for kind, text in row.answers.items()})
        warren = self._options.target == "warren"
        try:
            differences = authorisation.check(self._client, self.names, row, ours=warren)
        except ConnectionRefusedError:
            raise
        except (OSError, http.client.HTTPException) as failure:
            differences = [repr(failure)]
        if differences:
            self._fail("authorisation", f"{row.method} {row.path}", differences)
        else:
            self.passed += 1

    def _fail(self, name: str, request: str, differences: list[str]) -> None:
        self.failures += 1
        print(f"{name}: {request}: {'; '.join(differences)}", flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", dest="pattern", default="", help="only what this regular expression is found in")
    parser.add_argument("--prefix", default="", help="goes before the names of vhosts, users and global parameters")
    parser.add_argument("--needs", default="", help="what else the broker has: quorum,stream,mqtt,shovel")
    parser.add_argument(
        "--target",
        choices=("warren", "rabbitmq"),
        default="warren",
        help="rabbitmq: expect the recorded answers even where ours are better",
    )
    parser.add_argument("--no-wait", dest="wait", action="store_false", help="do not wait for the statistics")
    parser.add_argument("--list", action="store_true", help="only list the names")
    found = parser.parse_args()
    found.needs = frozenset(found.needs.split(",")) - {""}
    return found


def main() -> int:
    chosen = options()
    if chosen.list:
        for entry in [*recordings(), *rights()]:
            if re.search(chosen.pattern, entry.name):
                print(entry.name)
        return 0
    with broker_under_test() as broker:
        suite = Suite(chosen, broker)
        suite.run()
    for name, reason in suite.skipped:
        print(f"skipped {name}: {reason}")
    print(f"{suite.passed} passed, {suite.failures} failed, {len(suite.skipped)} skipped")
    return 1 if suite.failures or not suite.passed else 0


if __name__ == "__main__":
    sys.exit(main())
