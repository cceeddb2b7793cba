"""Where the expectation is not the recorded answer: ours is better, or the reference broker is set up differently."""

import re
from dataclasses import replace

from recordings import Recording

NOT_FOUND = {"error": "Object Not Found", "reason": "Not Found"}
JSON = {"content-type": "application/json"}

# name: (changed fields, why). Applies to Warren alone.
OURS = {
    "errors/binding-bad-dtype": (
        {"status": 404, "headers": None, "body": NOT_FOUND},
        "500 without a body: there is no such kind of destination",
    ),
    "errors/connection-channels-missing": (
        {"status": 404, "headers": None, "body": NOT_FOUND},
        "500 without a body: the connection does not exist",
    ),
    "errors/get-vhost-deletion-protection": (
        {"status": 405, "headers": None, "body": None},
        "500 without a body: the resource knows POST and DELETE only",
    ),
    "get/overview.columns": (
        {
            "body": {
                "rabbitmq_version": "4.3.6",
                "message_stats": {"publish_details": {"rate": 0.0}},
                "object_totals": {"queues": 21},
            }
        },
        "`columns` gives what was asked for; RabbitMQ gives more than that here",
    ),
    "quirks/sort-unknown-column": (
        {"body": [{"name": "/"}, {"name": "analytics"}, {"name": "imp"}]},
        "`columns` gives what was asked for; RabbitMQ gives everything here",
    ),
    "health/node-is-mirror-sync-critical": (
        {"status": 200, "headers": None, "body": {"status": "ok"}},
        "404 since 4.0: older scripts ask for it, and there are no mirrors that could be lost",
    ),
    "ui/cli-rabbitmqadmin": (
        {"status": 200, "headers": None},
        "404 since 4.3: where the first version of rabbitmqadmin was to be had",
    ),
    "errors/get-auth": (
        {"status": 200, "headers": None, "body": {"oauth_enabled": False}},
        "404 since 4.3: older user interfaces and tools ask for it before the login",
    ),
    "errors/publish-array-properties": (
        {"status": 200, "headers": None, "body": {"routed": True}},
        "500: PHP clients send [] for an empty map",
    ),
}

# name: why. Recordings that the reference broker at hand cannot answer as the recorded one did, for another set-up.
NOT_ON_REFERENCE: dict[str, str] = {
    "write/reset-stats-node": "clears the statistics of everybody who uses the broker",
    "write/auth-attempts-delete": "clears the counters of everybody who uses the broker",
}


def expected(recording: Recording) -> Recording:
    """The recording with our better answer put in."""
    changes, _reason = OURS.get(recording.name, ({}, ""))
    return replace(recording, **changes)


# Bodies of the rows of the table of rights that write: refused for everybody who may send them. Any other is `{}`.
REFUSED_BODIES = [
    (r"PUT /api/(vhosts|users)/.*", '{"tags": 1'),
    (r"PUT /api/exchanges/.*", '{"type": "x-bogus"}'),
    (r"PUT /api/queues/.*", '{"arguments": {"x-queue-type": "bogus"}}'),
    (r"PUT /api/policies/.*|PUT /api/operator-policies/.*", '{"pattern": "("}'),
    (
        r"POST /api/exchanges/.*/publish",
        '{"properties": {}, "routing_key": "q", "payload": "x", "payload_encoding": "string"}',
    ),
    (r"POST /api/queues/.*/get", '{"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}'),
    (r"POST /api/queues/.*/actions", '{"action": "dance"}'),
    (r"POST /api/definitions.*", "[]"),
    (r"POST /api/rebalance/queues", ""),
]

# Rows of the table of rights with another answer: (row, kind of user): accepted instead, and why.
RIGHTS_OURS = [
    (r"GET /api/vhosts/orders/deletion/protection", ".*", ("405",), "500: POST and DELETE only"),
    (r"GET /api/extensions", "administrator|monitoring|.*management", ("200",), "no scripts of a user interface"),
    (
        r"GET /api/health/checks/node-is-mirror-sync-critical",
        "administrator|monitoring|.*management",
        ("200",),
        "404 since 4.0: older scripts ask for it",
    ),
    (r"GET /api/health/checks/node-is-mirror-sync-critical", "no tag|anonymous", ("401",), "as any other check"),
    (r"GET /api/auth", ".*", ("200",), "404 since 4.3: older user interfaces ask for it before the login"),
    (r"GET /api/auth/attempts/.*/source", "administrator|monitoring", ("200",), "attempts are counted by source"),
    (r"DELETE /api/connections/zz", r"monitoring|.*management", ("404", "401"), "500: there is no such connection"),
]


def refused_body(row: str) -> str:
    return next((body for pattern, body in REFUSED_BODIES if re.fullmatch(pattern, row)), "{}")


def accepted_instead(row: str, kind: str) -> tuple:
    for pattern, kinds, answers, _reason in RIGHTS_OURS:
        if re.fullmatch(pattern, row) and re.fullmatch(kinds, kind):
            return answers
    return ()
