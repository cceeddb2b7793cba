"""Publishers and consumers of the killing test: each has a connection of its own, and ends when that is lost."""

import asyncio
import contextlib

import pika
from link import Link, LinkLost
from oracle import PADDING, Message

WINDOW = 100
"""Unconfirmed messages a publisher allows itself."""
OUTSTANDING_MAX = 1500
"""Messages in a queue above which publishers take it easy."""
ANSWER_SECONDS = 0.05
"""Consumers ask the broker something this often, to know that it has their acks."""


class Publisher:
    """Publishes with confirms to one exchange, some messages transient, until the connection is lost."""

    def __init__(self, name, oracle, dice, exchange, routing_key, queues, priorities=0):
        self.name, self.oracle, self.dice = name, oracle, dice
        self.exchange, self.routing_key, self.queues, self.priorities = exchange, routing_key, queues, priorities
        self.number = 0

    async def run(self, url, epoch):
        link = await Link.open(url)
        unconfirmed, tag = {}, 0

        def on_confirm(tags, acked):
            for each in tags:
                message = unconfirmed.pop(each, None)
                if message is not None and acked:
                    self.oracle.confirmed(message)
                elif message is not None:
                    self.oracle.violation(f"the broker refused {message}")

        link.channel.add_on_return_callback(
            lambda _channel, _method, _properties, body: self.oracle.violation(f"returned: {body[:60]!r}")
        )
        await link.confirm_select(on_confirm)
        while not link.lost.done():
            crowded = max(self.oracle.outstanding[queue] for queue in self.queues) > OUTSTANDING_MAX
            for _ in range(0 if crowded else self.dice.randint(1, 10)):
                if len(unconfirmed) < WINDOW and not link.lost.done():
                    tag += 1
                    unconfirmed[tag] = self._publish(link, epoch)
            await asyncio.sleep(self.dice.uniform(0.002, 0.015))
        raise LinkLost(str(link.lost.result()))

    def _publish(self, link, epoch):
        self.number += 1
        dice = self.dice
        message = Message(
            self.name,
            self.number,
            epoch,
            self.queues,
            persistent=dice.random() < 0.8,
            priority=dice.randint(0, self.priorities),
            padding=dice.randint(0, 300) if dice.random() < 0.97 else dice.randint(4096, len(PADDING)),
        )
        self.oracle.published(message)
        properties = pika.BasicProperties(
            delivery_mode=2 if message.persistent else 1, priority=message.priority if self.priorities else None
        )
        link.send("basic_publish", self.exchange, self.routing_key, message.body, properties, mandatory=True)
        return message


class Consumer:
    """Consumes from a queue with manual acks, until the connection is lost."""

    def __init__(self, queue, oracle, dice, dead_from=None, rejects=False):
        self.queue, self.oracle, self.dice, self.dead_from, self.rejects = queue, oracle, dice, dead_from, rejects
        self.returns = True
        """Whether it gives some messages back."""
        self._unanswered = []
        self._held = []
        self._link = None

    async def run(self, url, epoch, manner):
        """`manner` is one of: each (acks every message), batch (some at once), hold (none), absent."""
        self._unanswered, self._held = [], []
        self._link = link = await Link.open(url)
        if manner != "absent":
            prefetch = self.dice.choice([1, 5, 30, 200]) if manner != "batch" else 40
            await link.call("basic_qos", prefetch_count=prefetch)
            await link.call(
                "basic_consume", self.queue, lambda _channel, *delivery: self._on_message(epoch, manner, *delivery)
            )
        while not link.lost.done():
            await asyncio.sleep(ANSWER_SECONDS)
            self._ack_held(manner)
            keys, self._unanswered = self._unanswered, []
            if keys:
                await link.call("basic_qos", prefetch_count=prefetch)
                self.oracle.answered(self.queue, keys)
        raise LinkLost(str(link.lost.result()))

    def _on_message(self, epoch, manner, method, properties, body):
        # Messages that were read before the loss of the connection was noticed count, their acks do not.
        with contextlib.suppress(LinkLost):
            self._take(epoch, manner, method, properties, body)

    def _take(self, epoch, manner, method, properties, body):
        now = asyncio.get_running_loop().time()
        dead_from = self._check_death(properties) if self.dead_from else None
        key = self.oracle.delivered(self.queue, epoch, now, body, properties, method.redelivered, dead_from)
        if key is None or self._link.lost.done() or manner == "hold":
            return
        if self.returns and self.dice.random() < 0.02:
            self._link.send("basic_nack", method.delivery_tag, requeue=True)
            self.oracle.returned(self.queue, key)
        elif self.rejects and self.dice.random() < 0.3:
            self._link.send("basic_reject", method.delivery_tag, requeue=False)
            self._settled([key])
            self.oracle.outstanding["dead"] += 1
        elif manner == "each":
            self._link.send("basic_ack", method.delivery_tag)
            self._settled([key])
        else:
            self._held.append((method.delivery_tag, key))
            if len(self._held) >= 20:
                self._ack_held(manner)

    def _ack_held(self, manner):
        """Acks all that came up to the last message kept; others in between were settled already."""
        if manner == "batch" and self._held and not self._link.lost.done():
            self._link.send("basic_ack", self._held[-1][0], multiple=True)
            self._settled([key for _tag, key in self._held])
            self._held = []

    def _settled(self, keys):
        self.oracle.settled(self.queue, keys, asyncio.get_running_loop().time())
        self._unanswered += keys

    def _check_death(self, properties):
        death = ((properties.headers or {}).get("x-death") or [{}])[0]
        if (death.get("queue"), death.get("reason")) != (self.dead_from, "rejected"):
            self.oracle.violation(f"{self.queue}: x-death is {properties.headers}")
        return self.dead_from
