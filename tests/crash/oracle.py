"""What publishers and consumers saw of a broker that was killed again and again, and whether it may have been so.

An *epoch* is one life of the broker. A message is told by its publisher and its number there, which are in its body."""

import random
from dataclasses import dataclass, field

CERTAIN_SECONDS = 1.0
"""What the broker was told this long before it was killed, it remembers, even if it does so lazily."""

VIOLATIONS_MAX = 30
PADDING = random.Random(0).randbytes(256 * 1024)
"""The end of every body is cut from this."""


@dataclass(slots=True)
class Message:
    publisher: str
    number: int
    epoch: int
    queues: tuple[str, ...]
    persistent: bool
    priority: int
    padding: int
    confirmed: bool = False

    @property
    def body(self) -> bytes:
        head = b"%s %d %d " % (self.publisher.encode(), self.number, self.epoch)
        return head + PADDING[: self.padding]

    def __str__(self) -> str:
        kind = "persistent" if self.persistent else "transient"
        return f"{self.publisher}/{self.number} ({kind}, priority {self.priority}, epoch {self.epoch})"


@dataclass(slots=True)
class Copy:
    """A message in one queue, from the first delivery on."""

    delivered_at: float
    epoch: int
    """Of the last delivery."""
    returned: bool = False
    """The consumer gave it back in this epoch."""
    settled_at: float | None = None
    """When the last ack, or reject, was sent."""
    answered: bool = False
    """The broker answered something that was sent behind the last ack."""
    settled_ever: bool = False
    settled_for_good: bool = False
    must_be_redelivered: bool = False


@dataclass
class Queue:
    name: str
    keeps_order: bool
    copies: dict[tuple[str, int], Copy] = field(default_factory=dict)
    settling: set[tuple[str, int]] = field(default_factory=set)
    """Settled in this epoch."""
    handed: set[tuple[str, int]] = field(default_factory=set)
    """Delivered in this epoch."""
    last: dict = field(default_factory=dict)
    """By publisher and priority: the number of the last delivery in this epoch that was no redelivery."""


class Oracle:
    def __init__(self, ordered: list[str], unordered: list[str]) -> None:
        """The names of the queues in which messages of one publisher and priority keep their order, and of others."""
        self.queues = {name: Queue(name, name in ordered) for name in ordered + unordered}
        self.messages: dict[tuple[str, int], Message] = {}
        self.violations: list[str] = []
        self.kills: list[float] = []
        self.counts = dict.fromkeys(["published", "confirmed", "deliveries", "redeliveries", "certain"], 0)
        self.outstanding = dict.fromkeys(self.queues, 0)
        """Published, not settled, by queue; about."""
        self._transient: list[Message] = []
        """Of this epoch."""

    def violation(self, text: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"after kill {len(self.kills)}: {text}")

    def published(self, message: Message) -> None:
        self.messages[message.publisher, message.number] = message
        self.counts["published"] += 1
        for queue in message.queues:
            self.outstanding[queue] += 1
        if not message.persistent:
            self._transient.append(message)

    def confirmed(self, message: Message) -> None:
        self.counts["confirmed"] += not message.confirmed
        message.confirmed = True

    def delivered(self, queue_name, epoch, now, body, properties, redelivered, dead_from=None):
        """A delivery; its key, which the calls about it take, or nothing when it is no message of ours."""
        queue = self.queues[queue_name]
        message = self._recognize(queue_name, body, dead_from)
        if message is None:
            return None
        self.counts["deliveries"] += 1
        self.counts["redeliveries"] += redelivered
        said = (properties.delivery_mode == 2, properties.priority or 0)
        if said != (message.persistent, message.priority):
            self.violation(f"{queue_name}: {message} arrived as {said}")
        if not message.persistent and message.epoch != epoch:
            self.violation(f"{queue_name}: {message} came back in epoch {epoch}")
        key = (message.publisher, message.number)
        copy = queue.copies.get(key)
        if copy is None:
            copy = queue.copies[key] = Copy(now, epoch)
        else:
            self._check_again(queue, message, copy, epoch, redelivered)
            copy.returned, copy.settled_at, copy.answered = False, None, False
            copy.delivered_at, copy.epoch = now, epoch
        queue.handed.add(key)
        if queue.keeps_order and not redelivered:
            self._check_order(queue, message)
        return key

    def _recognize(self, queue, body, dead_from):
        parts = body.split(b" ", 3)
        try:
            message = self.messages[parts[0].decode(), int(parts[1])]
        except (KeyError, ValueError, IndexError):
            return self.violation(f"{queue}: unknown message {body[:60]!r}")
        if body != message.body:
            self.violation(f"{queue}: the body of {message} is damaged: {len(body)} bytes, {body[:60]!r}")
        if (dead_from or queue) not in message.queues:
            self.violation(f"{queue}: {message} belongs into {message.queues}")
        return message

    def _check_again(self, queue, message, copy, epoch, redelivered):
        about = f"{queue.name}: {message}, last delivered in epoch {copy.epoch},"
        if copy.settled_for_good:
            self.violation(f"{about} came back in epoch {epoch} although its ack was certain")
        if copy.must_be_redelivered and not redelivered:
            self.violation(f"{about} came back in epoch {epoch} without the redelivered flag")
        if copy.epoch == epoch:
            if not copy.returned:
                self.violation(f"{about} was delivered twice in it")
            elif not redelivered:
                self.violation(f"{about} came back in it after a nack without the redelivered flag")

    def _check_order(self, queue, message):
        stream = (message.publisher, message.priority)
        last = queue.last.get(stream, -1)
        if message.number <= last:
            self.violation(f"{queue.name}: {message} came after {last}")
        queue.last[stream] = message.number

    def settled(self, queue_name, keys, now):
        """Acks, or rejects, were sent."""
        queue = self.queues[queue_name]
        for key in keys:
            copy = queue.copies[key]
            if not copy.settled_ever:
                self.outstanding[queue_name] -= 1
            copy.settled_ever = True
            copy.settled_at, copy.answered = now, False
            queue.settling.add(key)

    def answered(self, queue_name, keys):
        """The broker answered a call that was made after these were settled."""
        for key in keys:
            self.queues[queue_name].copies[key].answered = True

    def returned(self, queue_name, key):
        self.queues[queue_name].copies[key].returned = True

    def killed(self, now):
        """All that was settled and delivered in this epoch is now judged."""
        self.kills.append(now)
        self._forget_transient()
        for queue in self.queues.values():
            for key in queue.settling:
                copy = queue.copies[key]
                if copy.answered and copy.settled_at < now - CERTAIN_SECONDS:
                    copy.settled_for_good = True
                    self.counts["certain"] += 1
            for key in queue.handed:
                copy = queue.copies[key]
                copy.must_be_redelivered |= copy.delivered_at < now - CERTAIN_SECONDS
            queue.settling.clear()
            queue.handed.clear()
            queue.last.clear()

    def _forget_transient(self):
        for message in self._transient:
            for queue in message.queues:
                copy = self.queues[queue].copies.get((message.publisher, message.number))
                self.outstanding[queue] -= copy is None or not copy.settled_ever
        self._transient.clear()

    def missing(self, queue_name, dead_in=None):
        """Confirmed persistent messages of a queue that no consumer settled since they were last delivered.

        Those that were dead-lettered are looked for in the queue `dead_in` too."""
        copies = self.queues[queue_name].copies
        dead = self.queues[dead_in].copies if dead_in else {}
        for key, message in self.messages.items():
            if not (message.confirmed and message.persistent and queue_name in message.queues):
                continue
            here, there = copies.get(key), dead.get(key)
            if not any(copy is not None and copy.settled_at is not None for copy in (here, there)):
                yield message
