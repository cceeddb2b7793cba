"""Declares and deletes queues, exchanges and bindings until the broker is killed, and looks for them afterwards."""

import asyncio

import pika
from link import Link, LinkLost

EXCHANGE_TYPES = ["direct", "fanout", "topic"]
ARGUMENTS = [
    None,
    {"x-max-length": 1000},
    {"x-message-ttl": 600_000, "x-dead-letter-exchange": "amq.fanout"},
    {"x-max-priority": 3, "x-expires": 600_000},
]
GONE_CHECKED = 3
"""So many of those that were deleted are looked for after a restart."""


class Churn:
    """What the broker has said `-ok` to, one call at a time; the call it was killed in counts as neither."""

    def __init__(self, oracle, dice, exchanges_vanish):
        """`exchanges_vanish`: transient ones, with the broker's life. RabbitMQ keeps them since it has Khepri."""
        self.oracle, self.dice, self.exchanges_vanish = oracle, dice, exchanges_vanish
        self.queues = {}
        """Name to arguments."""
        self.exchanges = {}
        """Name to type."""
        self.bindings = set()
        """(exchange, queue, key)"""
        self.gone = {"queue": [], "exchange": [], "binding": []}
        self._unsure = None
        """The object of the call that has not been answered."""
        self._count = 0

    async def run(self, url, epoch):
        link = await Link.open(url)
        await link.call("queue_declare", f"exclusive-{epoch}", exclusive=True)
        await link.call("queue_declare", f"transient-{epoch}")
        await link.call("exchange_declare", f"transient-{epoch}")
        await link.call("queue_bind", f"transient-{epoch}", "amq.direct", "transient")
        while not link.lost.done():
            await self._step(link)
            await asyncio.sleep(self.dice.uniform(0, 0.01))
        raise LinkLost(str(link.lost.result()))

    async def _step(self, link):
        dice = self.dice
        full = len(self.queues) + len(self.exchanges) > 20
        choice = dice.choice(["queue", "exchange", "bind", "bind", "unbind"] + ["delete"] * (4 if full else 1))
        if choice == "queue":
            self._count += 1
            name, arguments = f"churn-queue-{self._count}", dice.choice(ARGUMENTS)
            await self._sure(("queue", name), link.call("queue_declare", name, durable=True, arguments=arguments))
            self.queues[name] = arguments
        elif choice == "exchange":
            self._count += 1
            name, kind = f"churn-exchange-{self._count}", dice.choice(EXCHANGE_TYPES)
            await self._sure(("exchange", name), link.call("exchange_declare", name, kind, durable=True))
            self.exchanges[name] = kind
        elif choice == "bind" and self.queues and self.exchanges:
            binding = (dice.choice(list(self.exchanges)), dice.choice(list(self.queues)), f"key-{dice.randint(1, 3)}")
            await self._sure(("binding", binding), link.call("queue_bind", binding[1], binding[0], binding[2]))
            self.bindings.add(binding)
        elif choice == "unbind" and self.bindings:
            await self._unbind(link, dice.choice(sorted(self.bindings)))
        elif choice == "delete":
            await self._delete(link, dice.choice(["queue", "exchange"]))

    async def _sure(self, what, calling):
        """Waits for an answer; what is called for is in doubt until it comes."""
        self._unsure = what
        await calling
        self._unsure = None

    async def _unbind(self, link, binding):
        self.bindings.discard(binding)
        await self._sure(("binding", binding), link.call("queue_unbind", binding[1], binding[0], binding[2]))
        self.gone["binding"].append(binding)

    async def _delete(self, link, kind):
        names = self.queues if kind == "queue" else self.exchanges
        if not names:
            return
        name = self.dice.choice(list(names))
        del names[name]
        self.bindings = {binding for binding in self.bindings if name not in binding}
        await self._sure((kind, name), link.call(f"{kind}_delete", name))
        self.gone[kind].append(name)

    async def check(self, url, epoch):
        """Looks for everything after a restart; `epoch` is the one before."""
        link = await Link.open(url)
        await self._settle_doubt(link)
        for kind in ("queue", "exchange"):
            if kind == "queue" or self.exchanges_vanish:
                await self._absent(link, kind, f"transient-{epoch}")
            else:
                await link.call("exchange_delete", f"transient-{epoch}")
            for name in self.gone[kind][-GONE_CHECKED:]:
                await self._absent(link, kind, name)
        await self._absent(link, "queue", f"exclusive-{epoch}")
        for name, arguments in self.queues.items():
            if await link.ask("queue_declare", name, passive=True) == 404:
                self.oracle.violation(f"the declared queue {name} is gone")
            elif code := await link.ask("queue_declare", name, durable=True, arguments=arguments):
                self.oracle.violation(f"the queue {name} changed: {code}")
        for name, kind in self.exchanges.items():
            if await link.ask("exchange_declare", name, passive=True) == 404:
                self.oracle.violation(f"the declared exchange {name} is gone")
            elif code := await link.ask("exchange_declare", name, kind, durable=True):
                self.oracle.violation(f"the exchange {name} changed: {code}")
        await self._check_bindings(link)
        await link.close()

    async def _settle_doubt(self, link):
        """Makes sure that what the last call was about is not there."""
        if self._unsure is None:
            return
        kind, what = self._unsure
        if kind == "binding":
            await link.ask("queue_unbind", what[1], what[0], what[2])
            self.bindings.discard(what)
        else:
            await link.ask(f"{kind}_delete", what)
        self._unsure = None

    async def _absent(self, link, kind, name):
        if await link.ask(f"{kind}_declare", name, passive=True) != 404:
            self.oracle.violation(f"the {kind} {name} came back")

    async def _check_bindings(self, link):
        """Publishes with every key to every exchange; what arrives must be what the bindings say."""
        expected = dict.fromkeys(self.queues, 0)
        for exchange, kind in self.exchanges.items():
            for key in ("key-1", "key-2", "key-3"):
                bound = {b[1] for b in self.bindings if b[0] == exchange and (kind == "fanout" or b[2] == key)}
                for queue in bound:
                    expected[queue] += 1
                link.send("basic_publish", exchange, key, b"", pika.BasicProperties(delivery_mode=1))
        for queue, count in expected.items():
            found = (await link.call("queue_purge", queue)).method.message_count
            if found != count:
                bindings = sorted(binding for binding in self.bindings if binding[1] == queue)
                self.oracle.violation(f"{found} messages in {queue} instead of {count} by {bindings}")

    async def clear(self, link):
        for kind, names in (("queue", self.queues), ("exchange", self.exchanges)):
            for name in names:
                await link.call(f"{kind}_delete", name)
