"""What the broker must do, told once for all clients: routing tables, death headers, deadlines."""

import time
from datetime import datetime, timedelta, timezone

DEADLINE_SECONDS = 15


def wait_until(condition, what="the condition", seconds=DEADLINE_SECONDS, step=None):
    """Calls `condition` until it returns something true, which is returned.

    `step` is called between the attempts; by default it sleeps for 20 ms."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds} s"
        if step is None:
            time.sleep(0.02)
        else:
            step()
    return result


TOPIC_BINDINGS = ["kern.*", "*.critical", "kern.#", "#", "#.disk.#", "*"]
"""Binding keys of the topic tests, one queue each."""

TOPIC_MATCHES = {
    "kern.critical": {"kern.*", "*.critical", "kern.#", "#"},
    "kern": {"kern.#", "#", "*"},
    "kern.disk.full": {"kern.#", "#", "#.disk.#"},
    "disk": {"#", "#.disk.#", "*"},
    "cron.info": {"#"},
    "": {"#"},
    "kern.": {"kern.*", "kern.#", "#"},
    ".critical": {"*.critical", "#"},
}
"""Routing keys and the binding keys that match them."""

X_MATCH_VALUES = ["all", "any", "all-with-x", "any-with-x"]


def headers_binding(x_match):
    """Binding arguments of the headers tests."""
    return {"x-match": x_match, "format": "pdf", "kind": "report", "x-level": 3}


HEADERS_MATCHES = [
    ({"format": "pdf", "kind": "report"}, {"all", "any", "any-with-x"}),
    ({"format": "pdf", "kind": "report", "x-level": 3, "more": True}, set(X_MATCH_VALUES)),
    ({"format": "pdf", "kind": "letter"}, {"any", "any-with-x"}),
    ({"x-level": 3}, {"any-with-x"}),
    ({"format": "zip", "x-level": 4}, set()),
    ({}, set()),
]
"""Message headers and the x-match values whose binding they satisfy."""


def check_death(entry, *, queue, reason, exchange, routing_keys, count=1, expiration=None):
    """Checks one entry of `x-death` completely: its fields, their order and their values."""
    fields = ["count", "reason", "queue", "time", "exchange", "routing-keys"]
    if expiration is not None:
        fields.insert(0, "original-expiration")
    assert list(entry) == fields
    assert entry["count"] == count
    assert entry["reason"] == reason
    assert entry["queue"] == queue
    assert entry["exchange"] == exchange
    assert entry["routing-keys"] == routing_keys
    assert entry.get("original-expiration") == expiration
    died_at = entry["time"]
    assert isinstance(died_at, datetime)
    if died_at.tzinfo is None:
        died_at = died_at.replace(tzinfo=timezone.utc)
    assert abs(datetime.now(timezone.utc) - died_at) < timedelta(minutes=1)


def check_death_summary(headers, *, first, last):
    """Checks the `x-first-death-*` and `x-last-death-*` headers; both are (queue, reason, exchange)."""
    for which, expected in (("first", first), ("last", last)):
        found = tuple(headers[f"x-{which}-death-{part}"] for part in ("queue", "reason", "exchange"))
        assert found == expected


LARGE_BODY = bytes(range(256)) * (5 * 1024 * 1024 // 256)
"""5 MiB in which every byte value occurs."""
