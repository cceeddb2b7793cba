"""The objects the recordings presuppose: vhosts, users, rights, policies, exchanges, queues, bindings."""

import time

from client import Client
from names import QUEUES_OF_DEFAULT_VHOST, Names

ALL = {"configure": ".*", "write": ".*", "read": ".*"}
TAGS = {
    "alice": "administrator",
    "bob": "monitoring",
    "carol": "policymaker,management",
    "dave": "management",
    "app": "",
    "orphan": "management",
}
PERMISSIONS_ON_ORDERS = {
    "alice": ALL,
    "app": {"configure": "^app-.*", "write": "^(app-.*|orders.*)$", "read": ".*"},
    "bob": {"configure": "", "write": "", "read": ".*"},
    "carol": ALL,
    "dave": {"configure": "", "write": "", "read": "^jobs\\."},
    "guest": ALL,
}
VHOSTS = {
    "orders": {"description": "Order processing", "tags": "production,orders", "default_queue_type": "classic"},
    "analytics": {"description": "Analytics", "tags": "staging", "default_queue_type": "classic"},
}
EXCHANGES = [
    ("analytics", "orders.topic", {"type": "topic"}),
    ("orders", "orders.topic", {"type": "topic"}),
    ("orders", "orders.direct", {"type": "direct"}),
    ("orders", "orders.fanout", {"type": "fanout"}),
    ("orders", "orders.headers", {"type": "headers"}),
    ("orders", "orders.unrouted", {"type": "fanout"}),
    ("orders", "orders.dlx", {"type": "fanout"}),
    ("orders", "orders.internal", {"type": "topic", "internal": True}),
    ("orders", "orders.hash", {"type": "x-consistent-hash", "arguments": {"hash-header": "customer"}}),
    ("orders", "orders.history", {"type": "x-recent-history", "arguments": {"x-recent-history-length": 5}}),
    ("orders", "orders.local", {"type": "x-local-random"}),
    ("orders", "orders.modulus", {"type": "x-modulus-hash"}),
    ("orders", "orders.random", {"type": "x-random"}),
]
SHIPPED_ARGUMENTS = {
    "x-dead-letter-exchange": "orders.dlx",
    "x-dead-letter-routing-key": "expired",
    "x-expires": 86400000,
    "x-max-length": 1000,
    "x-message-ttl": 600000,
    "x-overflow": "reject-publish",
}
QUORUM_ARGUMENTS = {
    "x-dead-letter-exchange": "orders.dlx",
    "x-dead-letter-strategy": "at-least-once",
    "x-delivery-limit": 5,
    "x-overflow": "reject-publish",
    "x-queue-type": "quorum",
    "x-quorum-initial-group-size": 1,
}
STREAM_ARGUMENTS = {
    "x-max-age": "7D",
    "x-max-length-bytes": 20000000,
    "x-queue-type": "stream",
    "x-stream-max-segment-size-bytes": 1000000,
}
QUEUES = [
    ("/", "inbox", {}),
    ("/", "h1", {}),
    ("analytics", "an.q", {}),
    ("orders", "jobs.created", {}),
    ("orders", "jobs.shipped", SHIPPED_ARGUMENTS),
    ("orders", "jobs.priority", {"x-max-priority": 10}),
    ("orders", "jobs.sac", {"x-single-active-consumer": True}),
    ("orders", "jobs.lazy", {}),
    ("orders", "dead.letters", {}),
    ("orders", "unrouted", {}),
    ("orders", "h1", {}),
    ("orders", "h2", {}),
    ("orders", "orders.quorum", QUORUM_ARGUMENTS),
    ("orders", "orders.stream", STREAM_ARGUMENTS),
]
BINDINGS = [
    ("analytics", "orders.topic", "q", "an.q", "#", {}),
    ("orders", "orders.topic", "q", "jobs.created", "*.order.created", {}),
    ("orders", "orders.topic", "q", "jobs.shipped", "#.shipped", {}),
    ("orders", "orders.topic", "e", "orders.fanout", "us.#", {}),
    ("orders", "orders.topic", "e", "orders.internal", "audit.*", {"note": "e2e"}),
    ("orders", "orders.direct", "q", "jobs.created", "created", {}),
    ("orders", "orders.headers", "q", "jobs.priority", "", {"x-match": "all", "region": "eu", "vip": True}),
    ("orders", "orders.unrouted", "q", "unrouted", "", {}),
    ("orders", "orders.dlx", "q", "dead.letters", "", {}),
    ("orders", "orders.hash", "q", "h1", "1", {}),
    ("orders", "orders.hash", "q", "h2", "2", {}),
    ("orders", "orders.topic", "q", "orders.quorum", "#", {}),
    ("orders", "orders.topic", "q", "orders.stream", "#.shipped", {}),
]
# Objects that some brokers cannot have, with what they need.
NEEDS_OF = {"orders.hash": "x-consistent-hash", "orders.quorum": "quorum", "orders.stream": "stream"}
POLICIES = {
    "policies/orders/ttl-dlx": {
        "pattern": "^jobs\\.",
        "apply-to": "queues",
        "definition": {"dead-letter-exchange": "orders.dlx", "max-length": 100000, "message-ttl": 3600000},
        "priority": 10,
    },
    "policies/orders/ae": {
        "pattern": "^orders\\.topic$",
        "apply-to": "exchanges",
        "definition": {"alternate-exchange": "orders.unrouted"},
        "priority": 1,
    },
    "operator-policies/orders/cap": {
        "pattern": ".*",
        "apply-to": "queues",
        "definition": {"max-length-bytes": 104857600},
        "priority": 0,
    },
}
DEFAULT_VHOST = "%2F"


def segment(vhost: str) -> str:
    return DEFAULT_VHOST if vhost == "/" else vhost


class Topology:
    """Creates the objects, and removes them again."""

    def __init__(self, client: Client, names: Names, needs: frozenset) -> None:
        self._client = client
        self._names = names
        self._needs = needs
        self.problems: list[str] = []
        self.exchange_types: set[str] = set()

    def create(self) -> None:
        overview = self._client.call("GET", "/api/overview").body or {}
        self.exchange_types = {kind.get("name") for kind in overview.get("exchange_types", [])}
        for vhost, definition in VHOSTS.items():
            self.put(f"vhosts/{vhost}", definition)
        self._create_users()
        self._create_limits()
        for path, definition in POLICIES.items():
            self.put(path, definition)
        self._create_objects()
        self.put("topic-permissions/orders/app", {"exchange": "orders.topic", "write": "^eu\\..*", "read": ".*"})
        self._learn_hashes()

    def has(self, need: str) -> bool:
        """Whether the broker has an exchange type, or what else it was said to have."""
        return need in self._needs or need in self.exchange_types

    def put(self, path: str, body: object) -> None:
        self._call("PUT", path, body)

    def post(self, path: str, body: object) -> object:
        return self._call("POST", path, body)

    def remove(self) -> None:
        for vhost in VHOSTS:
            self._delete(f"vhosts/{vhost}")
        for user in TAGS:
            self._delete(f"users/{user}")
        self._delete("global-parameters/cluster_name_note")
        for queue in QUEUES_OF_DEFAULT_VHOST:
            self._delete(f"queues/{DEFAULT_VHOST}/{queue}")

    def wait_for(self, what: str, path: str, condition, seconds: float = 30) -> None:
        """Polls until `condition` holds for the body at `path`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = self._client.call("GET", self._names.path(f"/api/{path}"))
            if answer.status == 200 and condition(answer.body):
                return
            time.sleep(0.2)
        self.problems.append(f"{what} did not happen in {seconds:.0f} s (GET /api/{path})")

    def _create_users(self) -> None:
        for user, tags in TAGS.items():
            self.put(f"users/{user}", {"password": f"{user}-secret", "tags": tags})
        for user, permission in PERMISSIONS_ON_ORDERS.items():
            self.put(f"permissions/orders/{user}", permission)
        for user in ("alice", "guest"):
            self.put(f"permissions/analytics/{user}", ALL)
            self.put(f"permissions/{DEFAULT_VHOST}/{user}", ALL)

    def _create_limits(self) -> None:
        for path, value in (
            ("user-limits/app/max-channels", 200),
            ("user-limits/app/max-connections", 50),
            ("vhost-limits/orders/max-connections", 500),
            ("vhost-limits/orders/max-queues", 200),
        ):
            self.put(path, {"value": value})
        note = {"value": {"owner": "team-messaging", "tier": 1}}
        self.put("global-parameters/cluster_name_note", note)

    def _create_objects(self) -> None:
        for vhost, name, definition in EXCHANGES:
            if definition["type"] in self.exchange_types:
                self.put(f"exchanges/{segment(vhost)}/{name}", {"durable": True, **definition})
        for vhost, name, arguments in QUEUES:
            if self._is_possible(name):
                arguments = {"x-queue-type": "classic", **arguments}
                self.put(f"queues/{segment(vhost)}/{name}", {"durable": True, "arguments": arguments})
        transient = {"durable": False, "auto_delete": True, "arguments": {"x-queue-type": "classic"}}
        self.put("queues/orders/app-transient", transient)
        for vhost, source, kind, destination, key, arguments in BINDINGS:
            if self._is_possible(source) and self._is_possible(destination):
                path = f"bindings/{segment(vhost)}/e/{source}/{kind}/{destination}"
                self.post(path, {"routing_key": key, "arguments": arguments})

    def _is_possible(self, name: str) -> bool:
        return name not in NEEDS_OF or self.has(NEEDS_OF[name])

    def _learn_hashes(self) -> None:
        """The hash of binding arguments in `properties_key` is the broker's own."""
        for path, recorded in (
            ("bindings/orders/e/orders.headers/q/jobs.priority", "~7iYw0g"),
            ("bindings/orders/e/orders.topic/e/orders.internal", "~svO_WQ"),
        ):
            answer = self._client.call("GET", self._names.path(f"/api/{path}"))
            if answer.status == 200 and answer.body and "~" in answer.body[0].get("properties_key", ""):
                self._names.texts[recorded] = "~" + answer.body[0]["properties_key"].rpartition("~")[2]

    def _call(self, method: str, path: str, body: object) -> object:
        path = self._names.path(f"/api/{path}")
        answer = self._client.call(method, path, self._names.value(body))
        if answer.status >= 300:
            self.problems.append(f"{method} {path}: {answer}")
        return answer.body

    def _delete(self, path: str) -> None:
        self._client.call("DELETE", self._names.path(f"/api/{path}"))
