"""The errors a client can provoke, described once and provoked by every client library.

A step is a method name of pika's channel and its arguments. `{queue}`, `{other}` and `{exchange}`
in arguments and texts stand for fresh names. A step named `publish` takes the fields of
basic.publish and, as `properties`, a dictionary."""

from dataclasses import dataclass, field

CONNECTION_CODES = {501, 502, 503, 504, 505, 506, 530, 540, 541}


@dataclass(frozen=True)
class ErrorCase:
    """What to do and what the broker must answer."""

    label: str
    code: int
    text: str
    steps: list
    before: list = field(default_factory=list)
    """Steps that another connection has done before."""
    exact: bool = True
    """Whether the text is the whole reply text and not only its beginning."""

    @property
    def closes_connection(self):
        return self.code in CONNECTION_CODES

    def filled(self, steps, names):
        """The steps with the names put in."""
        return [(method, fill(arguments, names)) for method, arguments in steps]

    def check(self, code, text, names):
        """Compares what the client saw."""
        expected = self.text.format(**names)
        assert code == self.code, text
        if self.exact:
            assert text == expected
        else:
            assert text.startswith(expected), text


def fill(value, names):
    """Puts the names into every string of a nested value."""
    if isinstance(value, str):
        return value.format(**names)
    if isinstance(value, dict):
        return {key: fill(each, names) for key, each in value.items()}
    return value


QUEUE_ABSENT = "NOT_FOUND - no queue '{queue}' in vhost '/'"
EXCHANGE_ABSENT = "NOT_FOUND - no exchange '{exchange}' in vhost '/'"
DEFAULT_EXCHANGE = "ACCESS_REFUSED - operation not permitted on the default exchange"
LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost '/'. It could be "
    "originally declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)


def declare(**options):
    return ("queue_declare", {"queue": "{queue}", **options})


EXCLUSIVE = declare(exclusive=True)


def declared_with(**arguments):
    return declare(exclusive=True, arguments={key.replace("_", "-"): each for key, each in arguments.items()})


def not_equivalent(label, argument, received, current, first, second):
    """A queue declared twice, differently."""
    text = (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue '{{queue}}' in vhost '/': "
        f"received {received} but current is {current}"
    )
    return ErrorCase(label, 406, text, [first, second])


def exchange(**options):
    return ("exchange_declare", {"exchange": "{exchange}", **options})


def exchange_not_equivalent(label, argument, received, current, first, second):
    """An exchange declared twice, differently."""
    text = (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for exchange '{{exchange}}' in vhost '/': "
        f"received {received} but current is {current}"
    )
    return ErrorCase(label, 406, text, [exchange(**first), exchange(**second)])


NOT_FOUND = [
    ErrorCase("passive declare of an absent queue", 404, QUEUE_ABSENT, [declare(passive=True)]),
    ErrorCase("passive declare of an absent exchange", 404, EXCHANGE_ABSENT, [exchange(passive=True)]),
    ErrorCase("consume from an absent queue", 404, QUEUE_ABSENT, [("basic_consume", {"queue": "{queue}"})]),
    ErrorCase("get from an absent queue", 404, QUEUE_ABSENT, [("basic_get", {"queue": "{queue}"})]),
    ErrorCase("purge of an absent queue", 404, QUEUE_ABSENT, [("queue_purge", {"queue": "{queue}"})]),
    ErrorCase(
        "binding an absent queue",
        404,
        QUEUE_ABSENT,
        [("queue_bind", {"queue": "{queue}", "exchange": "amq.direct", "routing_key": "key"})],
    ),
    ErrorCase(
        "binding to an absent exchange",
        404,
        EXCHANGE_ABSENT,
        [EXCLUSIVE, ("queue_bind", {"queue": "{queue}", "exchange": "{exchange}", "routing_key": "key"})],
    ),
    ErrorCase(
        "publishing to an absent exchange",
        404,
        EXCHANGE_ABSENT,
        [("publish", {"exchange": "{exchange}", "routing_key": "key"})],
    ),
    ErrorCase(
        "no queue name and none declared",
        404,
        "NOT_FOUND - no previously declared queue",
        [("basic_consume", {"queue": ""})],
    ),
]

ACCESS_REFUSED = [
    ErrorCase(
        "reserved queue name",
        403,
        "ACCESS_REFUSED - queue name 'amq.{queue}' contains reserved prefix 'amq.*'",
        [("queue_declare", {"queue": "amq.{queue}", "exclusive": True})],
    ),
    ErrorCase(
        "reserved exchange name",
        403,
        "ACCESS_REFUSED - exchange name 'amq.{exchange}' contains reserved prefix 'amq.*'",
        [("exchange_declare", {"exchange": "amq.{exchange}", "exchange_type": "direct"})],
    ),
    ErrorCase(
        "declare of the default exchange",
        403,
        DEFAULT_EXCHANGE,
        [("exchange_declare", {"exchange": "", "exchange_type": "direct", "durable": True})],
    ),
    ErrorCase("delete of the default exchange", 403, DEFAULT_EXCHANGE, [("exchange_delete", {"exchange": ""})]),
    ErrorCase(
        "binding to the default exchange",
        403,
        DEFAULT_EXCHANGE,
        [EXCLUSIVE, ("queue_bind", {"queue": "{queue}", "exchange": "", "routing_key": "key"})],
    ),
    ErrorCase(
        "delete of a system exchange",
        403,
        "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        [("exchange_delete", {"exchange": "amq.direct"})],
    ),
    ErrorCase(
        "publishing to an internal exchange",
        403,
        "ACCESS_REFUSED - cannot publish to internal exchange '{exchange}' in vhost '/'",
        [
            exchange(exchange_type="fanout", internal=True),
            ("publish", {"exchange": "{exchange}", "routing_key": ""}),
        ],
    ),
    ErrorCase(
        "exclusive consumer beside another",
        403,
        "ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use",
        [("basic_consume", {"queue": "{queue}", "exclusive": True})],
        before=[declare(durable=True), ("basic_consume", {"queue": "{queue}"})],
    ),
    ErrorCase(
        "consumer beside an exclusive one",
        403,
        "ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use",
        [("basic_consume", {"queue": "{queue}"})],
        before=[declare(durable=True), ("basic_consume", {"queue": "{queue}", "exclusive": True})],
    ),
]

RESOURCE_LOCKED = [
    ErrorCase("declare of a locked queue", 405, LOCKED, [EXCLUSIVE], before=[EXCLUSIVE]),
    ErrorCase("passive declare of a locked queue", 405, LOCKED, [declare(passive=True)], before=[EXCLUSIVE]),
    ErrorCase(
        "consume from a locked queue", 405, LOCKED, [("basic_consume", {"queue": "{queue}"})], before=[EXCLUSIVE]
    ),
    ErrorCase("get from a locked queue", 405, LOCKED, [("basic_get", {"queue": "{queue}"})], before=[EXCLUSIVE]),
    ErrorCase("delete of a locked queue", 405, LOCKED, [("queue_delete", {"queue": "{queue}"})], before=[EXCLUSIVE]),
    ErrorCase("exclusive redeclare of a shared queue", 405, LOCKED, [EXCLUSIVE], before=[declare(durable=True)]),
]

NOT_EQUIVALENT = [
    ErrorCase(
        "not durable any more",
        406,
        "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '{queue}' in vhost '/': "
        "received 'false' but current is 'true'",
        [declare(auto_delete=True)],
        before=[declare(durable=True)],
    ),
    not_equivalent(
        "auto-delete", "auto_delete", "'true'", "'false'", EXCLUSIVE, declare(exclusive=True, auto_delete=True)
    ),
    not_equivalent(
        "argument left out",
        "x-max-length",
        "none",
        "the value '100000' of type 'signedint'",
        declared_with(x_max_length=100_000),
        EXCLUSIVE,
    ),
    not_equivalent(
        "argument added",
        "x-message-ttl",
        "the value '100000' of type 'signedint'",
        "none",
        EXCLUSIVE,
        declared_with(x_message_ttl=100_000),
    ),
    not_equivalent(
        "argument changed",
        "x-max-length",
        "'11'",
        "'10'",
        declared_with(x_max_length=10),
        declared_with(x_max_length=11),
    ),
    not_equivalent(
        "dead letter exchange changed",
        "x-dead-letter-exchange",
        "'amq.topic'",
        "'amq.direct'",
        declared_with(x_dead_letter_exchange="amq.direct"),
        declared_with(x_dead_letter_exchange="amq.topic"),
    ),
    exchange_not_equivalent(
        "exchange type", "type", "'topic'", "'direct'", {"exchange_type": "direct"}, {"exchange_type": "topic"}
    ),
    exchange_not_equivalent(
        "exchange durability",
        "durable",
        "'true'",
        "'false'",
        {"exchange_type": "direct"},
        {"exchange_type": "direct", "durable": True},
    ),
    exchange_not_equivalent(
        "alternate exchange",
        "alternate-exchange",
        "none",
        "the value 'amq.fanout' of type 'longstr'",
        {"exchange_type": "direct", "arguments": {"alternate-exchange": "amq.fanout"}},
        {"exchange_type": "direct"},
    ),
]

PRECONDITION_FAILED = [
    ErrorCase(
        "unknown exchange type",
        406,
        "PRECONDITION_FAILED - unknown exchange type 'x-no-such-type'",
        [exchange(exchange_type="x-no-such-type")],
    ),
    ErrorCase(
        "negative time to live",
        406,
        "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue '{queue}' in vhost '/': ",
        [declared_with(x_message_ttl=-1)],
        exact=False,
    ),
    ErrorCase(
        "length that is no number",
        406,
        "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue '{queue}' in vhost '/': ",
        [declared_with(x_max_length="many")],
        exact=False,
    ),
    ErrorCase(
        "dead letter key without an exchange",
        406,
        "PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue '{queue}' in vhost '/': ",
        [declared_with(x_dead_letter_routing_key="key")],
        exact=False,
    ),
    ErrorCase(
        "delete of a queue in use",
        406,
        "PRECONDITION_FAILED - queue '{queue}' in vhost '/' in use",
        [
            EXCLUSIVE,
            ("basic_consume", {"queue": "{queue}"}),
            ("queue_delete", {"queue": "{queue}", "if_unused": True}),
        ],
    ),
    ErrorCase(
        "delete of a queue that is not empty",
        406,
        "PRECONDITION_FAILED - queue '{queue}' in vhost '/' not empty",
        [
            EXCLUSIVE,
            ("publish", {"exchange": "", "routing_key": "{queue}"}),
            ("queue_delete", {"queue": "{queue}", "if_empty": True}),
        ],
    ),
    ErrorCase(
        "delete of an exchange in use",
        406,
        "PRECONDITION_FAILED - exchange '{exchange}' in vhost '/' in use",
        [
            exchange(exchange_type="fanout"),
            EXCLUSIVE,
            ("queue_bind", {"queue": "{queue}", "exchange": "{exchange}", "routing_key": ""}),
            ("exchange_delete", {"exchange": "{exchange}", "if_unused": True}),
        ],
    ),
    ErrorCase(
        "unknown delivery tag",
        406,
        "PRECONDITION_FAILED - unknown delivery tag 99",
        [("basic_ack", {"delivery_tag": 99})],
    ),
    ErrorCase(
        "unknown delivery tag of several",
        406,
        "PRECONDITION_FAILED - unknown delivery tag 7",
        [("basic_nack", {"delivery_tag": 7, "multiple": True})],
    ),
    ErrorCase(
        "rejecting an unknown delivery tag",
        406,
        "PRECONDITION_FAILED - unknown delivery tag 3",
        [("basic_reject", {"delivery_tag": 3})],
    ),
    ErrorCase(
        "acknowledging twice",
        406,
        "PRECONDITION_FAILED - unknown delivery tag 1",
        [
            EXCLUSIVE,
            ("publish", {"exchange": "", "routing_key": "{queue}"}),
            ("basic_get", {"queue": "{queue}"}),
            ("basic_ack", {"delivery_tag": 1}),
            ("basic_ack", {"delivery_tag": 1}),
        ],
    ),
    ErrorCase(
        "transaction on a confirming channel",
        406,
        "PRECONDITION_FAILED - cannot switch from confirm to tx mode",
        [("confirm_delivery", {}), ("tx_select", {})],
    ),
    ErrorCase(
        "confirms on a transactional channel",
        406,
        "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
        [("tx_select", {}), ("confirm_delivery", {})],
    ),
    ErrorCase(
        "commit without a transaction",
        406,
        "PRECONDITION_FAILED - channel is not transactional",
        [("tx_commit", {})],
    ),
    ErrorCase(
        "bad expiration",
        406,
        "PRECONDITION_FAILED - invalid expiration '10s': ",
        [("publish", {"exchange": "", "routing_key": "{queue}", "properties": {"expiration": "10s"}})],
        exact=False,
    ),
    ErrorCase(
        "another user's id",
        406,
        "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'",
        [("publish", {"exchange": "", "routing_key": "{queue}", "properties": {"user_id": "somebody"}})],
    ),
    ErrorCase(
        "bad x-match",
        406,
        "PRECONDITION_FAILED - Invalid x-match field value ",
        [
            EXCLUSIVE,
            (
                "queue_bind",
                {
                    "queue": "{queue}",
                    "exchange": "amq.headers",
                    "routing_key": "",
                    "arguments": {"x-match": "some"},
                },
            ),
        ],
        exact=False,
    ),
]

CONNECTION_ERRORS = [
    ErrorCase(
        "immediate",
        540,
        "NOT_IMPLEMENTED - immediate=true",
        [("publish", {"exchange": "", "routing_key": "{queue}", "immediate": True})],
    ),
    ErrorCase(
        "prefetch size",
        540,
        "NOT_IMPLEMENTED - prefetch_size!=0 (10)",
        [("basic_qos", {"prefetch_size": 10})],
    ),
    ErrorCase(
        "recover without requeue",
        540,
        "NOT_IMPLEMENTED - requeue=false",
        [("basic_recover", {"requeue": False})],
    ),
    ErrorCase("stopping the flow", 540, "NOT_IMPLEMENTED - active=false", [("flow", {"active": False})]),
]

ALL = [
    *NOT_FOUND,
    *ACCESS_REFUSED,
    *RESOURCE_LOCKED,
    *NOT_EQUIVALENT,
    *PRECONDITION_FAILED,
    *CONNECTION_ERRORS,
]

BAD_PASSWORD = (
    403,
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.",
)
UNKNOWN_VHOST = (530, "NOT_ALLOWED - vhost no-such-vhost not found")
REUSED_TAG = (530, "NOT_ALLOWED - attempt to reuse consumer tag 'twice'")
