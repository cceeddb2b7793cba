"""aio-pika: the same patterns in asyncio."""

import asyncio
import contextlib
import json

import aio_pika
import aiormq
import pytest
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.patterns import RPC, Master
from support import (
    HEADERS_MATCHES,
    LARGE_BODY,
    TOPIC_BINDINGS,
    TOPIC_MATCHES,
    X_MATCH_VALUES,
    check_death,
    check_death_summary,
    headers_binding,
)

REPLY_TO = "amq.rabbitmq.reply-to"
SECONDS = 15


@contextlib.asynccontextmanager
async def open_channel(url, **options):
    """A connection with one channel."""
    async with await aio_pika.connect(url) as connection:
        async with asyncio.timeout(SECONDS):
            yield await connection.channel(**options)


class Inbox(asyncio.Queue):
    """An asynchronous message callback that keeps what it gets."""

    async def __call__(self, message):
        await self.put(message)


async def drain(queue):
    """The bodies of everything in the queue."""
    bodies = []
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        bodies.append(message.body)
    return bodies


async def test_work_queue_with_prefetch_one_dispatches_fairly(url, name):
    async with await aio_pika.connect(url) as connection, asyncio.timeout(SECONDS):
        inboxes, queue_name = {}, name("tasks")
        for worker in ("busy", "idle"):
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            queue = await channel.declare_queue(queue_name, durable=True)
            inboxes[worker] = Inbox()
            await queue.consume(inboxes[worker])
        for number in range(8):
            task = Message(b"task %d" % number, delivery_mode=DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(task, queue_name)
        done = []
        for _ in range(7):
            message = await inboxes["idle"].get()
            done.append(message.body)
            await message.ack()
        message = await inboxes["busy"].get()
        assert inboxes["busy"].empty()
        assert sorted([message.body, *done]) == [b"task %d" % number for number in range(8)]
        await message.ack()


async def test_publish_subscribe(url, name):
    async with open_channel(url) as channel:
        exchange = await channel.declare_exchange(name("logs"), ExchangeType.FANOUT)
        inboxes = [Inbox() for _ in range(3)]
        for inbox in inboxes:
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(exchange)
            await queue.consume(inbox, no_ack=True)
        await exchange.publish(Message(b"news"), "")
        assert [(await inbox.get()).body for inbox in inboxes] == [b"news"] * 3


async def test_routing_by_exact_key(url, name):
    async with open_channel(url) as channel:
        exchange = await channel.declare_exchange(name("direct"), ExchangeType.DIRECT)
        errors = await channel.declare_queue(exclusive=True)
        everything = await channel.declare_queue(exclusive=True)
        await errors.bind(exchange, "error")
        for key in ("error", "warning", "info"):
            await everything.bind(exchange, key)
        for key in ("info", "error", "debug", "warning"):
            await exchange.publish(Message(key.encode()), key, mandatory=False)
        assert await drain(errors) == [b"error"]
        assert await drain(everything) == [b"info", b"error", b"warning"]
        await everything.unbind(exchange, "info")
        await exchange.publish(Message(b"unbound"), "info", mandatory=False)
        assert await drain(everything) == []


async def test_topics(url, name):
    async with open_channel(url) as channel:
        exchange = await channel.declare_exchange(name("topics"), ExchangeType.TOPIC)
        queues = {key: await channel.declare_queue(exclusive=True) for key in TOPIC_BINDINGS}
        for key, queue in queues.items():
            await queue.bind(exchange, key)
        for key, expected in TOPIC_MATCHES.items():
            await exchange.publish(Message(b"x"), key)
            assert {binding for binding, queue in queues.items() if await drain(queue)} == expected, key


async def test_headers_exchange(url, name):
    async with open_channel(url) as channel:
        exchange = await channel.declare_exchange(name("headers"), ExchangeType.HEADERS)
        queues = {x_match: await channel.declare_queue(exclusive=True) for x_match in X_MATCH_VALUES}
        for x_match, queue in queues.items():
            await queue.bind(exchange, "", arguments=headers_binding(x_match))
        for headers, expected in HEADERS_MATCHES:
            await exchange.publish(Message(b"x", headers=headers), "", mandatory=False)
            assert {x_match for x_match, queue in queues.items() if await drain(queue)} == expected, headers


async def test_rpc_with_direct_reply_to(url, name):
    async with open_channel(url) as server, open_channel(url) as client:
        requests = await server.declare_queue(name("rpc"), auto_delete=True, durable=True)

        async def serve(message):
            async with message.process():
                answer = Message(b"%d" % int(message.body) ** 2, correlation_id=message.correlation_id)
                await server.default_exchange.publish(answer, message.reply_to)

        await requests.consume(serve)
        replies = Inbox()
        reply_queue = await client.get_queue(REPLY_TO, ensure=False)
        await reply_queue.consume(replies, no_ack=True)
        for number in range(5):
            request = Message(b"%d" % number, reply_to=REPLY_TO, correlation_id=str(number))
            await client.default_exchange.publish(request, requests.name)
        answers = {}
        for _ in range(5):
            reply = await replies.get()
            assert (reply.exchange, reply.redelivered) == ("", False)
            answers[reply.correlation_id] = int(reply.body)
        assert answers == {str(number): number**2 for number in range(5)}


async def test_rpc_pattern(url, name, transient_queues_allowed):
    """aio-pika's own RPC: result queue, dead letters for expired calls, mandatory requests."""
    async with open_channel(url) as channel:
        rpc = await RPC.create(channel)
        method = name("multiply")

        async def multiply(*, left, right):
            return left * right

        await rpc.register(method, multiply, auto_delete=True, durable=not transient_queues_allowed)
        results = await asyncio.gather(*(rpc.call(method, {"left": n, "right": n}) for n in range(10)))
        assert results == [n * n for n in range(10)]
        with pytest.raises(aio_pika.exceptions.MessageProcessError):
            await rpc.call(name("unknown"), {})
        await rpc.close()


async def test_master_and_worker_pattern(url, name):
    async with open_channel(url) as channel:
        master, task, done = Master(channel), name("task"), asyncio.Queue()

        async def work(*, number):
            await done.put(number)

        worker = await master.create_worker(task, work, durable=True)
        for number in range(10):
            await master.create_task(task, {"number": number})
        assert sorted([await done.get() for _ in range(10)]) == list(range(10))
        await worker.close()


async def test_confirms_of_many_messages(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("confirmed"), exclusive=True)
        publications = (channel.default_exchange.publish(Message(b"%d" % number), queue.name) for number in range(500))
        for confirmation in await asyncio.gather(*publications):
            assert isinstance(confirmation, aiormq.spec.Basic.Ack)
        declared = await channel.declare_queue(queue.name, passive=True)
        assert declared.declaration_result.message_count == 500


async def test_mandatory_messages_are_returned(url, name):
    async with open_channel(url, on_return_raises=True) as channel:
        with pytest.raises(aio_pika.exceptions.DeliveryError) as caught:
            await channel.default_exchange.publish(Message(b"lost", message_id="1"), name("nowhere"))
        assert caught.value.message.header.properties.message_id == "1"
        assert caught.value.message.delivery.reply_code == 312
        assert caught.value.message.delivery.reply_text == "NO_ROUTE"
    async with open_channel(url) as channel:
        returned = await channel.default_exchange.publish(Message(b"lost"), name("nowhere"))
        assert returned.body == b"lost"
        confirmed = await channel.default_exchange.publish(Message(b"lost"), name("nowhere"), mandatory=False)
        assert isinstance(confirmed, aiormq.spec.Basic.Ack)


async def test_reject_publish_nacks(url, name):
    async with open_channel(url) as channel:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue(name("full"), exclusive=True, arguments=arguments)
        await channel.default_exchange.publish(Message(b"fits"), queue.name)
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await channel.default_exchange.publish(Message(b"does not"), queue.name)
        assert await drain(queue) == [b"fits"]


async def dead_letter_pair(channel, name, **arguments):
    """A queue that dead-letters through an exchange of its own, and the queue behind that exchange."""
    exchange = await channel.declare_exchange(name("dlx"), ExchangeType.FANOUT)
    dead = await channel.declare_queue(name("dead"), exclusive=True)
    await dead.bind(exchange)
    arguments["x-dead-letter-exchange"] = exchange.name
    return await channel.declare_queue(name("source"), exclusive=True, arguments=arguments), dead


async def test_dead_lettering_by_time_to_live(url, name):
    async with open_channel(url) as channel:
        source, dead = await dead_letter_pair(channel, name, **{"x-message-ttl": 60_000})
        inbox = Inbox()
        await dead.consume(inbox, no_ack=True)
        # aio-pika counts in seconds.
        await channel.default_exchange.publish(Message(b"late", expiration=0.02), source.name)
        message = await inbox.get()
        assert (message.body, message.expiration, message.routing_key) == (b"late", None, source.name)
        (death,) = message.headers["x-death"]
        check_death(
            death, queue=source.name, reason="expired", exchange="", routing_keys=[source.name], expiration="20"
        )
        why = (source.name, "expired", "")
        check_death_summary(message.headers, first=why, last=why)


async def test_dead_lettering_by_maximum_length(url, name):
    async with open_channel(url) as channel:
        source, dead = await dead_letter_pair(channel, name, **{"x-max-length": 1})
        for body in (b"1", b"2"):
            await channel.default_exchange.publish(Message(body), source.name)
        inbox = Inbox()
        await dead.consume(inbox, no_ack=True)
        message = await inbox.get()
        assert message.body == b"1"
        (death,) = message.headers["x-death"]
        check_death(death, queue=source.name, reason="maxlen", exchange="", routing_keys=[source.name])
        assert await drain(source) == [b"2"]


async def test_dead_lettering_by_rejection_in_process(url, name):
    async with open_channel(url) as channel:
        source, dead = await dead_letter_pair(channel, name)
        await channel.default_exchange.publish(Message(b"bad"), source.name)
        message = await source.get()
        with pytest.raises(ZeroDivisionError):
            async with message.process():
                1 / 0
        inbox = Inbox()
        await dead.consume(inbox, no_ack=True)
        (death,) = (await inbox.get()).headers["x-death"]
        check_death(death, queue=source.name, reason="rejected", exchange="", routing_keys=[source.name])


async def test_priorities(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("urgent"), exclusive=True, arguments={"x-max-priority": 3})
        for priority in (0, 3, 1, 3, 2, 9):
            await channel.default_exchange.publish(Message(b"%d" % priority, priority=priority), queue.name)
        assert await drain(queue) == [b"3", b"3", b"9", b"2", b"1", b"0"]


async def test_client_cancels_consumer(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("cancelled"), exclusive=True)
        inbox = Inbox()
        tag = await queue.consume(inbox)
        await channel.default_exchange.publish(Message(b"one"), queue.name)
        message = await inbox.get()
        assert isinstance(await queue.cancel(tag), aiormq.spec.Basic.CancelOk)
        await channel.default_exchange.publish(Message(b"two"), queue.name)
        await message.ack()
        assert await drain(queue) == [b"two"]
        assert inbox.empty()


async def test_queue_iterator(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("iterated"), exclusive=True)
        for number in range(5):
            await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
        seen = []
        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    seen.append(message.body)
                if len(seen) == 3:
                    break
        assert seen == [b"0", b"1", b"2"]
        assert await drain(queue) == [b"3", b"4"]


async def test_server_cancels_consumer_when_the_queue_is_deleted(url, name):
    async with await aio_pika.connect(url) as connection, asyncio.timeout(SECONDS):
        channel, other = await connection.channel(), await connection.channel()
        queue = await channel.declare_queue(name("deleted"), exclusive=True)
        underlay = await channel.get_underlay_channel()
        tag = await queue.consume(Inbox())
        assert tag in underlay.consumers
        await other.queue_delete(queue.name)
        while tag in underlay.consumers:
            await asyncio.sleep(0.01)
        assert not channel.is_closed
        # The tag is free again.
        again = await channel.declare_queue(name("again"), exclusive=True)
        assert await again.consume(Inbox(), consumer_tag=tag) == tag


async def test_nack_requeues_to_the_original_position(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("requeued"), exclusive=True)
        for number in range(4):
            await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
        messages = [await queue.get() for _ in range(3)]
        assert [message.message_count for message in messages] == [3, 2, 1]
        assert not any(message.redelivered for message in messages)
        await messages[1].reject(requeue=True)
        again = await queue.get()
        assert (again.body, again.redelivered) == (b"1", True)
        await again.nack(multiple=True, requeue=True)
        seen = [await queue.get(no_ack=True) for _ in range(4)]
        assert [(message.body, message.redelivered) for message in seen] == [
            (b"0", True),
            (b"1", True),
            (b"2", True),
            (b"3", False),
        ]
        with pytest.raises(aio_pika.exceptions.QueueEmpty):
            await queue.get()


async def test_transactions(url, name):
    async with open_channel(url, publisher_confirms=False) as channel:
        queue = await channel.declare_queue(name("transaction"), exclusive=True)
        exchange = channel.default_exchange
        async with channel.transaction():
            await exchange.publish(Message(b"kept"), queue.name)
        with pytest.raises(ZeroDivisionError):
            async with channel.transaction():
                await exchange.publish(Message(b"dropped"), queue.name)
                1 / 0
        assert (await queue.get(no_ack=True)).body == b"kept"
        assert await queue.get(fail=False) is None


async def test_exchange_to_exchange_bindings(url, name):
    async with open_channel(url) as channel:
        source = await channel.declare_exchange(name("source"), ExchangeType.TOPIC)
        target = await channel.declare_exchange(name("target"), ExchangeType.FANOUT)
        queue = await channel.declare_queue(exclusive=True)
        await target.bind(source, "a.#")
        await queue.bind(target)
        await source.publish(Message(b"through"), "a.b.c")
        await source.publish(Message(b"past"), "b", mandatory=False)
        assert await drain(queue) == [b"through"]


async def test_all_message_properties(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("properties"), exclusive=True)
        sent = Message(
            json.dumps({"a": 1}).encode(),
            headers={"key": "välue", "nested": {"list": [1, 2, 70_000]}},
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=DeliveryMode.PERSISTENT,
            priority=7,
            correlation_id="correlation",
            reply_to="reply",
            expiration=60,
            message_id="message",
            timestamp=1_700_000_000,
            type="type",
            user_id="guest",
            app_id="application",
        )
        await channel.default_exchange.publish(sent, queue.name)
        received = await queue.get(no_ack=True)
        assert received.body == sent.body
        for property_name in (
            "headers content_type content_encoding delivery_mode priority correlation_id reply_to "
            "expiration message_id timestamp type user_id app_id"
        ).split():
            assert getattr(received, property_name) == getattr(sent, property_name), property_name


async def test_large_message(url, name):
    async with open_channel(url) as channel:
        queue = await channel.declare_queue(name("large"), exclusive=True)
        await channel.default_exchange.publish(Message(LARGE_BODY), queue.name)
        assert (await queue.get(no_ack=True)).body == LARGE_BODY


async def test_heartbeats_keep_an_idle_connection(url, name):
    async with await aio_pika.connect(url, heartbeat=1) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(name("idle"), exclusive=True)
        assert connection.transport.connection.connection_tune.heartbeat == 1
        await asyncio.sleep(3.5)
        await channel.default_exchange.publish(Message(b"alive"), queue.name)
        assert await drain(queue) == [b"alive"]


async def test_update_secret(url):
    async with await aio_pika.connect(url) as connection:
        answer = await connection.update_secret("guest", reason="renewed")
        assert isinstance(answer, aiormq.spec.Connection.UpdateSecretOk)
        assert not (await connection.channel()).is_closed


async def test_concurrent_channels(url, name):
    async with await aio_pika.connect(url) as connection, asyncio.timeout(SECONDS):

        async def use_channel(number):
            async with connection.channel() as channel:
                queue = await channel.declare_queue(exclusive=True)
                await channel.default_exchange.publish(Message(b"%d" % number), queue.name)
                return await drain(queue)

        results = await asyncio.gather(*(use_channel(number) for number in range(30)))
        assert results == [[b"%d" % number] for number in range(30)]
