"""A broker under load is killed at random moments, again and again; nothing it promised may be missing afterwards."""

import asyncio
import os
import random
import time

import pytest
from link import Link, LinkLost
from oracle import CERTAIN_SECONDS, Oracle
from topology import Churn
from traffic import Consumer, Publisher

KILLS = int(os.environ.get("KILLS", "100"))
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
DRAIN_SECONDS = 90
CLOSE_SECONDS = 3

ORDERED = ["direct", "left", "middle", "right", "priorities", "rejecting"]
UNORDERED = ["dead"]
DIRECT, FANOUT, DEAD_LETTERS = "crash-direct", "crash-fanout", "crash-dead-letters"


async def declare(url):
    link = await Link.open(url)
    await link.call("exchange_declare", DIRECT, "direct", durable=True)
    await link.call("exchange_declare", FANOUT, "fanout", durable=True)
    await link.call("exchange_declare", DEAD_LETTERS, "fanout", durable=True)
    arguments = {"priorities": {"x-max-priority": 5}, "rejecting": {"x-dead-letter-exchange": DEAD_LETTERS}}
    for queue in ORDERED + UNORDERED:
        await link.call("queue_declare", queue, durable=True, arguments=arguments.get(queue))
    await link.call("queue_bind", "direct", DIRECT, "some.key")
    await link.call("queue_bind", "dead", DEAD_LETTERS, "")
    for queue in ("left", "middle", "right"):
        await link.call("queue_bind", queue, FANOUT, "")
    await link.close()


async def delete_all(url, churn):
    link = await Link.open(url)
    await churn.clear(link)
    for queue in ORDERED + UNORDERED:
        await link.call("queue_delete", queue)
    for exchange in (DIRECT, FANOUT, DEAD_LETTERS):
        await link.call("exchange_delete", exchange)
    await link.close()


class Scene:
    """All clients of one broker, over all of its lives."""

    def __init__(self, broker, dice):
        self.broker, self.dice = broker, dice
        self.oracle = oracle = Oracle(ORDERED, UNORDERED)
        child = lambda: random.Random(dice.random())  # noqa: E731 - every client decides for itself
        self.churn = Churn(oracle, child(), exchanges_vanish=not broker.is_given)
        self.publishers = [
            Publisher("to-direct", oracle, child(), DIRECT, "some.key", ("direct",)),
            Publisher("also-direct", oracle, child(), DIRECT, "some.key", ("direct",)),
            Publisher("to-fanout", oracle, child(), FANOUT, "", ("left", "middle", "right")),
            Publisher("to-priorities", oracle, child(), "", "priorities", ("priorities",), priorities=5),
            Publisher("to-rejecting", oracle, child(), "", "rejecting", ("rejecting",)),
        ]
        self.consumers = [
            Consumer(
                queue, oracle, child(), rejects=queue == "rejecting", dead_from="rejecting" if queue == "dead" else None
            )
            for queue in ORDERED + UNORDERED
        ]

    def how_long(self):
        """Seconds until the next kill."""
        bounds = self.dice.choices([(0, 0.3), (0.3, 1.2), (1.2, 2.5)], [3, 5, 2])[0]
        return self.dice.uniform(*bounds)

    async def epoch(self, number):
        """One life of a broker that is running: the clients come, work, and lose it."""
        loop = asyncio.get_running_loop()
        url = self.broker.url
        if number:
            await self.churn.check(url, number - 1)
        runs = [publisher.run(url, number) for publisher in self.publishers]
        for consumer in self.consumers:
            manner = self.dice.choices(["each", "batch", "hold", "absent"], [6, 3, 1, 1])[0]
            runs.append(consumer.run(url, number, manner))
        tasks = [asyncio.create_task(run) for run in [*runs, self.churn.run(url, number)]]
        ended, _ = await asyncio.wait(tasks, timeout=self.how_long(), return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            self.oracle.violation(f"a client lost its connection before the kill: {task.exception()!r}")
        killed_at = loop.time()
        await asyncio.to_thread(self.broker.kill)
        # What the broker sent before its end is still read.
        ended, alive = await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        # These were killed before they had a connection, and go on trying.
        for task in alive:
            task.cancel()
        await asyncio.gather(*alive, return_exceptions=True)
        for task in ended:
            if not isinstance(task.exception(), LinkLost):
                raise task.exception()
        self.oracle.killed(killed_at)

    async def restart(self):
        """Starts the broker, and sometimes kills it once more while it recovers."""
        if self.dice.random() < 0.1:
            await asyncio.to_thread(self.broker.launch)
            await asyncio.sleep(self.dice.uniform(0, 0.1))
            await asyncio.to_thread(self.broker.kill)
        await asyncio.to_thread(self.broker.start)

    async def drain(self, epoch):
        """Consumes until nothing is left."""
        loop = asyncio.get_running_loop()
        tasks = []
        for consumer in self.consumers:
            consumer.returns = consumer.rejects = False
            tasks.append(asyncio.create_task(consumer.run(self.broker.url, epoch, "each")))
        link = await Link.open(self.broker.url)
        deadline = loop.time() + DRAIN_SECONDS
        while waiting := [queue for queue in ORDERED + UNORDERED if any(self.missing(queue))]:
            if loop.time() > deadline:
                break
            await asyncio.sleep(0.1)
            if not any([await self.left_in(link, queue) for queue in waiting]):
                # Nothing more will come; a last delivery may be on its way.
                await asyncio.sleep(0.5)
                break
        for queue in ORDERED + UNORDERED:
            for message in list(self.missing(queue))[:5]:
                left = await self.left_in(link, queue)
                self.oracle.violation(f"{queue}: {message} was confirmed and never came, or not again ({left} left)")
        await self.wait_for_acks(loop)
        killed_at = loop.time()
        await asyncio.to_thread(self.broker.kill)
        await asyncio.gather(*tasks, return_exceptions=True)
        self.oracle.killed(killed_at)

    def missing(self, queue):
        return () if queue == "dead" else self.oracle.missing(queue, "dead" if queue == "rejecting" else None)

    async def left_in(self, link, queue):
        return (await link.call("queue_declare", queue, passive=True)).method.message_count

    async def wait_for_acks(self, loop):
        """Waits until all acks are answered and old enough to be remembered."""
        last = loop.time()
        while loop.time() < last + CERTAIN_SECONDS + 0.3:
            await asyncio.sleep(0.1)
            last = max(
                [copy.settled_at or 0 for queue in self.oracle.queues.values() for copy in queue.copies.values()]
                + [last]
            )

    async def check_empty(self):
        link = await Link.open(self.broker.url)
        for queue in ORDERED + UNORDERED:
            if left := await self.left_in(link, queue):
                self.oracle.violation(f"{queue}: {left} messages although all were acked")
        await link.close()


async def kill_again_and_again(scene):
    await declare(scene.broker.url)
    for number in range(KILLS):
        await scene.epoch(number)
        await scene.restart()
        if len(scene.oracle.violations) > 10:
            return
    await scene.churn.check(scene.broker.url, KILLS - 1)
    await scene.drain(KILLS)
    await asyncio.to_thread(scene.broker.start)
    await scene.check_empty()
    await delete_all(scene.broker.url, scene.churn)


@pytest.mark.timeout(600)
def test_nothing_promised_is_lost(broker, capsys):
    begun = time.monotonic()
    scene = Scene(broker, random.Random(SEED))
    with capsys.disabled():
        print(f"\ntest_kill: SEED={SEED} KILLS={KILLS}")
    asyncio.run(kill_again_and_again(scene))
    oracle = scene.oracle
    with capsys.disabled():
        print(f"test_kill: {time.monotonic() - begun:.0f} s, {len(oracle.kills)} kills, {oracle.counts}")
    assert "panicked" not in broker.log(), broker.log_end()
    assert not oracle.violations, "\n".join([f"SEED={SEED}", *oracle.violations, broker.log_end()])
    assert oracle.counts["certain"] > 0 and oracle.counts["redeliveries"] > 0, "the test did not test anything"
