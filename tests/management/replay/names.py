"""Translates the names that differ between the recorded broker and the one under test.

Everything goes through one translation, requests, preparations and expected answers alike, so that a run with a
prefix stays consistent with itself."""

import base64
import re
from urllib.parse import quote

RECORDED_NODE = "rabbit@node1"
RECORDED_CLUSTER = "demo-cluster"
RECORDED_AMQP_PORT = 5672
RECORDED_MANAGEMENT_PORT = 15672
RECORDED_PROMETHEUS_PORT = 15692

VHOSTS = ("orders", "analytics", "lab", "lab2", "lab3", "labx", "laby", "big", "imp")
USERS = ("alice", "bob", "carol", "dave", "app", "orphan", "imp", "zz", *(f"u{n}" for n in range(1, 12)))
GLOBAL_PARAMETERS = ("cluster_name_note", "gp1")
QUEUES_OF_DEFAULT_VHOST = ("inbox", "h1")
PREFIXED = frozenset(VHOSTS + USERS + GLOBAL_PARAMETERS + QUEUES_OF_DEFAULT_VHOST)

_QUOTED = re.compile(r"""(['"])(%s)\1""" % "|".join(sorted(PREFIXED)))
_PEER = re.compile(r"127\.0\.0\.1:(\d+) -> 127\.0\.0\.1:5672")
_PEER_ENCODED = re.compile(r"127\.0\.0\.1%3A(\d+)%20-%3E%20127\.0\.0\.1%3A5672")


class Names:
    """What the recorded names are called on the broker under test."""

    def __init__(self, prefix: str, node: str, cluster: str) -> None:
        self.prefix = prefix
        self.node = node
        self.cluster = cluster
        self.ports: dict[int, int] = {}
        self.connections: dict[int, str] = {}
        self.texts: dict[str, str] = {}

    def name(self, name: str) -> str:
        """A vhost, user, global parameter or queue of the default vhost."""
        return self.prefix + name if name in PREFIXED else name

    def path(self, path: str) -> str:
        path = _PEER_ENCODED.sub(self._encoded_connection, path).replace(RECORDED_NODE, self.node)
        for recorded, actual in self.texts.items():
            path = path.replace(quote(recorded, safe="~"), quote(actual, safe="~"))
        path = re.sub(r"(?<=/port-listener/)5672$", str(self.ports.get(RECORDED_AMQP_PORT, 5672)), path)
        bare, question, query = path.partition("?")
        return "/".join(self.name(segment) for segment in bare.split("/")) + question + query

    def value(self, value: object, key: str = "") -> object:
        """Translates a JSON value; `key` is the member it stands in."""
        if isinstance(value, dict):
            return {self.text(name): self.value(member, name) for name, member in value.items()}
        if isinstance(value, list):
            return [self.value(element, key) for element in value]
        if isinstance(value, str):
            if key in ("port", "name") and value.isdigit():
                return str(self.ports.get(int(value), value))
            return value if key == "tags" else self.name(self.text(value))
        if isinstance(value, int) and not isinstance(value, bool) and key in ("port", "peer_port", "ports"):
            return self.ports.get(value, value)
        return value

    def text(self, text: str) -> str:
        text = _PEER.sub(self._connection, text)
        text = text.replace(RECORDED_NODE, self.node).replace(RECORDED_CLUSTER, self.cluster)
        for recorded, actual in self.texts.items():
            text = text.replace(recorded, actual)
        text = _QUOTED.sub(lambda match: f"{match[1]}{self.name(match[2])}{match[1]}", text)
        return self._login_token(text)

    def form(self, text: str) -> str:
        return re.sub(r"(?<=username=)\w+", lambda match: self.name(match[0]), text)

    def _login_token(self, text: str) -> str:
        if text == base64.b64encode(b"alice:alice-secret").decode():
            return base64.b64encode(f"{self.name('alice')}:alice-secret".encode()).decode()
        return text

    def _connection(self, match: re.Match) -> str:
        return self.connections.get(int(match[1]), match[0])

    def _encoded_connection(self, match: re.Match) -> str:
        actual = self.connections.get(int(match[1]))
        return match[0] if actual is None else quote(actual, safe="")
