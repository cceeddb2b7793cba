"""The vhost `lab` and its company: brought into the state each recording starts from."""

from client import Client
from names import Names
from recordings import Recording

CLASSIC = {"x-queue-type": "classic"}
AND_REQUEUE = {"ackmode": "ack_requeue_true", "encoding": "auto"}


def message(payload: str, encoding: str = "string", **properties) -> tuple:
    body = {"properties": properties, "routing_key": "q1", "payload": payload, "payload_encoding": encoding}
    return ("POST", "exchanges/lab/amq.default/publish", body)


def binding(source: str, destination: str, key: str, **arguments) -> list:
    return [("POST", f"bindings/lab/e/{source}/{destination}", {"routing_key": key, "arguments": arguments})]


def queue(name: str, **definition) -> list:
    return [("PUT", f"queues/lab/{name}", {"durable": True, "arguments": CLASSIC, **definition})]


def user(name: str, **definition) -> list:
    return [("PUT", f"users/{name}", {"password": "p4ss", "tags": "management", **definition})]


ALL_PROPERTIES = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "headers": {"s": "x", "i": 1, "f": 1.5, "b": True, "l": [1, "a"], "t": {"k": "v"}},
    "delivery_mode": 2,
    "priority": 4,
    "correlation_id": "c",
    "reply_to": "r",
    "expiration": "600000",
    "message_id": "m",
    "timestamp": 1700000000,
    "type": "t",
    "user_id": "guest",
    "app_id": "app",
    "cluster_id": "cl",
}
IMPORT = {
    "vhosts": [{"name": "imp"}],
    "queues": [
        {"name": "iq", "vhost": "imp", "durable": True, "auto_delete": False, "arguments": CLASSIC},
    ],
}
# What can exist in the laboratory, each with the requests that make it.
PIECES = {
    "lab": [("PUT", "vhosts/lab", {})],
    "lab2": [("PUT", "vhosts/lab2", {})],
    "lab3": [("PUT", "vhosts/lab3", {})],
    "lab3 protected": [("POST", "vhosts/lab3/deletion/protection", None)],
    "imp": [("PUT", "vhosts/imp", {})],
    "imported": [("POST", "definitions", IMPORT)],
    "ex1": [("PUT", "exchanges/lab/ex1", {"type": "topic", "durable": True})],
    "ex2": [("PUT", "exchanges/lab/ex2", {"type": "fanout", "durable": True})],
    "ex3": [("PUT", "exchanges/lab/ex3", {"type": "direct", "durable": True})],
    "ex4": [("PUT", "exchanges/lab/ex4", {"type": "direct", "durable": True})],
    "ex5": [("PUT", "exchanges/lab/ex5", {"type": "x-consistent-hash", "arguments": {"hash-header": "k"}})],
    "q1": queue("q1"),
    "q2": queue("q2", durable=False),
    "q3": queue("q3", arguments={"x-queue-type": "quorum"}),
    "q4": queue("q4", arguments={"x-queue-type": "stream"}),
    "q5": queue("q5"),
    "q6": queue("q6"),
    "a.#": binding("ex1", "q/q1", "a.#"),
    "empty key": binding("ex1", "q/q1", ""),
    "slash key": binding("ex1", "q/q1", "a/b c%~"),
    "headers": binding("amq.headers", "q/q1", "rk", **{"x-match": "any", "n": 1, "s": "x y"}),
    "weight": binding("ex5", "q/q1", "2"),
    "u1": user("u1"),
    "u2": user("u2"),
    "u3": user("u3"),
    "u4": user("u4"),
    "u5": user("u5"),
    "permission": [("PUT", "permissions/lab/u1", {"configure": ".*", "write": "^a", "read": ".*"})],
    "topic permission": [("PUT", "topic-permissions/lab/u1", {"exchange": "amq.topic", "write": "^a", "read": ".*"})],
    "p1": [("PUT", "policies/lab/p1", {"pattern": "^q", "definition": {"max-length": 10}, "priority": 1})],
    "p2": [("PUT", "policies/lab/p2", {"pattern": ".*", "definition": {"max-length": 5}})],
    "op1": [("PUT", "operator-policies/lab/op1", {"pattern": ".*", "definition": {"max-length": 1000}})],
    "gp1": [("PUT", "global-parameters/gp1", {"value": {"a": 1}})],
    "max-queues": [("PUT", "vhost-limits/lab/max-queues", {"value": 50})],
    "max-queues 0": [("PUT", "vhost-limits/lab/max-queues", {"value": 0})],
    "max-connections": [("PUT", "vhost-limits/lab/max-connections", {"value": 4})],
    "max-channels": [("PUT", "user-limits/u1/max-channels", {"value": 10})],
    "changed": [
        ("PUT", "vhosts/lab", {"description": "changed", "tags": "a,b", "default_queue_type": "quorum"}),
    ],
    "one message": [message("hello")],
    "messages": [
        message("hello"),
        message('{"a":1}', **ALL_PROPERTIES),
        message("AP/+", "base64", delivery_mode=2),
        *(message(f"message {number}", delivery_mode=2) for number in range(4)),
    ],
    "two seen": [("POST", "queues/lab/q1/get", {"count": 2, **AND_REQUEUE})],
    "all seen": [("POST", "queues/lab/q1/get", {"count": 10, **AND_REQUEUE})],
    "first taken": [("POST", "queues/lab/q1/get", {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"})],
    "second taken": [("POST", "queues/lab/q1/get", {"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"})],
    "inbox seen": [("POST", "queues/%2F/inbox/get", {"count": 1, **AND_REQUEUE})],
    "dead letter seen": [("POST", "queues/orders/dead.letters/get", {"count": 1, **AND_REQUEUE})],
}
USUAL = ("lab", "ex1", "ex2", "q1", "u1")
# The recordings that start from something else than the usual: what else there must be, what must be missing.
MORE = {
    "get/bindings.queue-after": ("ex5", "a.#", "empty key", "slash key", "headers", "weight"),
    "get/queue.vhost-default-type": ("q2",),
    "get/queue.with-messages": ("messages",),
    "get/vhost.after-put": ("changed",),
    "errors/exchange-delete-if-unused": ("a.#",),
    "errors/definitions-import-bad-policy": ("imp",),
    "errors/queue-delete-if-empty": ("one message",),
    "errors/queue-put-over-limit": ("max-queues 0",),
    "errors/queue-get-stream": ("q4",),
    "errors/queue-purge-stream": ("q4",),
    "errors/quorum-replica-delete-unknown": ("q3",),
    "errors/vhost-delete-protected": ("lab3", "lab3 protected"),
    "quirks/definitions-import-bad-queue": ("imp",),
    "quirks/definitions-import-conflict": ("imported",),
    "quirks/definitions-import-vhost-in-single": ("imp",),
    "quirks/sort-unknown-column": ("imported",),
    "quirks/queue-get-zero": ("one message",),
    "write/binding-delete": ("a.#",),
    "write/binding-delete-empty-key": ("empty key",),
    "write/binding-get": ("a.#",),
    "write/binding-post-again": ("a.#",),
    "write/binding-post-hash-weight": ("ex5",),
    "write/definitions-import-again": ("imported",),
    "write/definitions-import-vhost": ("imp",),
    "write/exchange-delete": ("ex3",),
    "write/exchange-delete-if-unused-ok": ("ex4",),
    "write/global-parameter-delete": ("gp1",),
    "write/global-parameter-put-again": ("gp1",),
    "write/operator-policy-delete": ("op1",),
    "write/permission-delete": ("permission",),
    "write/permission-put-again": ("permission",),
    "write/policy-delete": ("p2",),
    "write/policy-put-again": ("p1",),
    "write/queue-delete": ("q6",),
    "write/queue-delete-if-empty-ok": ("q5",),
    "write/queue-get-ack": ("messages", "all seen"),
    "write/queue-get-amqp-headers": ("inbox seen",),
    "write/queue-get-base64": ("messages", "all seen"),
    "write/queue-get-reject": ("messages", "all seen", "first taken"),
    "write/queue-get-requeue": ("messages",),
    "write/queue-get-requeue-again": ("messages", "two seen"),
    "write/queue-get-string-count": ("messages", "all seen", "first taken", "second taken"),
    "write/queue-get-truncate": ("messages", "all seen"),
    "write/queue-get-x-death": ("dead letter seen",),
    "write/queue-purge": ("messages",),
    "write/quorum-replica-add": ("q3",),
    "write/topic-permission-delete-one": ("topic permission",),
    "write/topic-permission-put-again": ("topic permission",),
    "write/user-delete": ("u4",),
    "write/user-limit-delete": ("max-channels",),
    "write/users-bulk-delete": ("u2", "u3", "u5"),
    "write/vhost-delete": ("lab3",),
    "write/vhost-delete-2": ("lab2",),
    "write/vhost-limit-delete": ("max-connections",),
    "write/vhost-limit-put-again": ("max-connections",),
    "write/vhost-put-tracing": ("lab2",),
    "write/vhost-protect": ("lab3",),
    "write/vhost-unprotect": ("lab3", "lab3 protected"),
}
LESS = {
    "write/exchange-put-create": ("ex1",),
    "write/exchange-put-type-only": ("ex2",),
    "write/queue-put-create": ("q1",),
    "write/user-put-create": ("u1",),
    "write/vhost-put-create": USUAL,
}
# Everything a recording could leave behind.
VHOSTS = ("lab", "lab2", "lab3", "labx", "laby", "big", "imp", "zz")
USERS = (*(f"u{number}" for number in range(1, 12)), "imp", "zz")


class Laboratory:
    """Rebuilds the laboratory whenever a recording changed it, or starts from another state."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names
        self._state: tuple | None = None

    def prepare(self, recording: Recording) -> list[str]:
        """Makes the state the recording starts from; the problems there were."""
        less = LESS.get(recording.name, ())
        wanted = tuple(piece for piece in USUAL if piece not in less) + MORE.get(recording.name, ())
        if wanted == self._state:
            return []
        self.clear()
        problems = []
        for piece in wanted:
            for method, path, body in PIECES[piece]:
                path = self._names.path(f"/api/{path}")
                answer = self._client.call(method, path, self._names.value(body))
                if answer.status >= 300:
                    problems.append(f"preparation of '{piece}': {method} {path}: {answer}")
        self._state = None if problems else wanted
        return problems

    def changed(self) -> None:
        """A recording wrote something: the next one starts anew."""
        self._state = None

    def clear(self) -> None:
        self._state = None
        for vhost in self._existing("vhosts", VHOSTS):
            self._client.call("DELETE", f"/api/vhosts/{vhost}/deletion/protection")
            self._client.call("DELETE", f"/api/vhosts/{vhost}")
        for user_name in self._existing("users", USERS):
            self._client.call("DELETE", f"/api/users/{user_name}")
        self._client.call("DELETE", self._names.path("/api/global-parameters/gp1"))

    def _existing(self, kind: str, names: tuple) -> list[str]:
        listed = self._client.call("GET", f"/api/{kind}?columns=name").body
        found = {entry.get("name") for entry in listed} if isinstance(listed, list) else set()
        return [self._names.name(name) for name in names if self._names.name(name) in found]
