"""kombu over py-amqp: entities, pools, serializers, SimpleQueue, mailboxes."""

import contextlib
import itertools
import socket
import threading
import time
import uuid
from queue import Empty

import amqp.exceptions
import kombu
import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.common import maybe_declare
from kombu.exceptions import ContentDisallowed, OperationalError
from kombu.pidbox import Mailbox
from kombu.pools import connections, producers, reset
from support import LARGE_BODY, wait_until


@pytest.fixture
def connection(url, name):
    # `name` comes first, so its queues are deleted after the connection has ended.
    with Connection(url) as connection:
        yield connection


@pytest.fixture(autouse=True)
def pools():
    """Pools are global to the process; each test leaves them empty."""
    yield
    reset()


def drain_until(connection, condition, what):
    """Handles events until the condition holds."""

    def step():
        with contextlib.suppress(socket.timeout):
            connection.drain_events(timeout=0.1)

    wait_until(condition, what, step=step)


def collect(connection, queues, count, **options):
    """Consumes `count` messages, acknowledges them and returns their bodies."""
    bodies = []

    def keep(body, message):
        bodies.append(body)
        message.ack()

    with Consumer(connection.channel(), queues, callbacks=[keep], **options):
        drain_until(connection, lambda: len(bodies) >= count, f"the arrival of {count} messages")
    return bodies


def test_producer_and_consumer(connection, name):
    exchange = Exchange(name("media"), "direct")
    queue = Queue(name("video"), exchange, "video")
    producer = connection.Producer()
    for number in range(3):
        producer.publish({"number": number}, exchange=exchange, routing_key="video", declare=[queue])
    assert collect(connection, [queue], 3) == [{"number": 0}, {"number": 1}, {"number": 2}]


@pytest.mark.parametrize(
    ("kind", "key", "binding", "other"),
    [("fanout", "anything", "", None), ("topic", "a.b.c", "a.#", "b"), ("direct", "x", "x", "y")],
)
def test_exchange_types(connection, name, kind, key, binding, other):
    exchange = Exchange(name(kind), kind)
    queue = Queue(name("bound"), exchange, binding)
    bound = queue(connection.default_channel)
    bound.declare()
    producer = connection.Producer(exchange=exchange)
    if other is not None:
        producer.publish("not routed", routing_key=other)
    producer.publish("routed", routing_key=key)
    assert collect(connection, [queue], 1) == ["routed"]
    assert bound.purge() == 0


def test_headers_exchange(connection, name):
    exchange = Exchange(name("headers"), "headers")
    queues = {
        x_match: Queue(name(x_match), exchange, binding_arguments={"x-match": x_match, "format": "pdf", "size": 4})
        for x_match in ("all", "any")
    }
    for queue in queues.values():
        queue(connection.default_channel).declare()
    producer = connection.Producer(exchange=exchange)
    producer.publish("both", headers={"format": "pdf", "size": 4})
    producer.publish("one", headers={"format": "pdf", "size": 5})
    assert collect(connection, [queues["any"]], 2) == ["both", "one"]
    assert collect(connection, [queues["all"]], 1) == ["both"]


def test_bindings_to_several_exchanges(connection, name):
    first, second = Exchange(name("first"), "direct"), Exchange(name("second"), "topic")
    queue = Queue(
        name("several"),
        bindings=[kombu.binding(first, "one"), kombu.binding(second, "two.*")],
    )
    queue(connection.default_channel).declare()
    producer = connection.Producer()
    producer.publish(1, exchange=first, routing_key="one")
    producer.publish(2, exchange=second, routing_key="two.b")
    assert collect(connection, [queue], 2) == [1, 2]
    first(connection.default_channel).bind_to(second, routing_key="three")
    producer.publish(3, exchange=second, routing_key="three")
    assert queue(connection.default_channel).get() is None


def test_connection_and_producer_pools(url, name):
    queue = Queue(name("pooled"), Exchange(name("pool"), "direct"), "key")
    pool = producers[Connection(url)]

    def publish(number):
        with pool.acquire(block=True, timeout=10) as producer:
            producer.publish({"number": number}, exchange=queue.exchange, routing_key="key", declare=[queue])

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connections[Connection(url)].acquire(block=True, timeout=10) as connection:
        bodies = collect(connection, [queue], 8)
    assert sorted(body["number"] for body in bodies) == list(range(8))


def test_simple_queue(connection, name):
    with connection.SimpleQueue(name("simple")) as queue:
        for number in range(3):
            queue.put({"number": number}, headers={"index": number})
        wait_until(lambda: queue.qsize() == 3, "the arrival")
        for number in range(3):
            message = queue.get(block=True, timeout=5)
            assert (message.payload, message.headers["index"]) == ({"number": number}, number)
            assert not message.delivery_info["redelivered"]
            if number < 2:
                message.ack()
        message.requeue()
        again = queue.get(timeout=5)
        assert (again.payload["number"], again.delivery_info["redelivered"]) == (2, True)
        again.ack()
        with pytest.raises(Empty):
            queue.get(timeout=0.1)


def test_simple_buffer(connection, name, transient_queues_allowed):
    if not transient_queues_allowed:
        pytest.skip("a SimpleBuffer is a transient queue and the broker refuses those")
    with connection.SimpleBuffer(name("buffer")) as buffer:
        buffer.put("fast")
        message = buffer.get(timeout=5)
        assert message.payload == "fast"


@pytest.mark.parametrize("serializer", ["json", "raw"])
@pytest.mark.parametrize("compression", [None, "zlib", "bzip2"])
def test_serializers_and_compression(connection, name, serializer, compression):
    queue = Queue(name("serialized"), Exchange(name("serializers"), "direct"), "key")
    body = b"\x00\x01raw" if serializer == "raw" else {"text": "grüße", "list": [1, 2.5, None, True]}
    connection.Producer().publish(
        body,
        exchange=queue.exchange,
        routing_key="key",
        serializer=serializer,
        compression=compression,
        declare=[queue],
    )
    assert collect(connection, [queue], 1, accept=["json", "application/data"]) == [body]


def test_pickle_is_not_accepted(connection, name):
    queue = Queue(name("pickled"), Exchange(name("serializers"), "direct"), "key")
    connection.Producer().publish(
        {1, 2}, exchange=queue.exchange, routing_key="key", serializer="pickle", declare=[queue]
    )
    bound = queue(connection.default_channel)
    message = wait_until(lambda: bound.get(accept=["json"]), "the message")
    assert message.content_type == "application/x-python-serialize"
    with pytest.raises(ContentDisallowed):
        message.decode()
    message.reject()


def test_maybe_declare_and_maybe_bind(connection, name):
    channel = connection.channel()
    queue = Queue(name("maybe"), Exchange(name("maybe"), "topic"), "a.*")
    bound = queue.maybe_bind(channel)
    assert bound.is_bound
    assert bound.maybe_bind(channel) is bound
    assert maybe_declare(queue, channel) is True
    assert maybe_declare(queue, channel) is False
    declared = bound.queue_declare(passive=True)
    assert (declared.queue, declared.message_count, declared.consumer_count) == (queue.name, 0, 0)
    bound.unbind_from(queue.exchange, "a.*")
    Producer(channel, queue.exchange).publish("lost", routing_key="a.b")
    assert bound.get() is None
    assert bound.delete(if_unused=True, if_empty=True) == 0


def test_queue_arguments(connection, name):
    """kombu turns its options into arguments, times into milliseconds."""
    dead = Queue(name("dead"), Exchange(name("dead"), "fanout"))
    dead(connection.default_channel).declare()
    queue = Queue(
        name("limited"),
        message_ttl=0.05,
        expires=60,
        max_length=100,
        max_length_bytes=10_000,
        queue_arguments={"x-dead-letter-exchange": dead.exchange.name},
    )
    queue(connection.default_channel).declare()
    connection.Producer().publish("late", routing_key=queue.name)
    assert collect(connection, [dead], 1) == ["late"]
    connection.Producer().publish("late by itself", routing_key=queue.name, expiration=0.01)
    assert collect(connection, [dead], 1) == ["late by itself"]


def test_priority_queue(connection, name):
    queue = Queue(name("urgent"), max_priority=10)
    queue(connection.default_channel).declare()
    producer = connection.Producer()
    for priority in (0, 9, 5, 9, 1):
        producer.publish(priority, routing_key=queue.name, priority=priority)
    wait_until(lambda: queue(connection.default_channel).queue_declare(passive=True).message_count == 5, "the arrival")
    assert collect(connection, [queue], 5) == [9, 9, 5, 1, 0]


def test_consumer_priority(connection, name):
    queue = Queue(name("preferred"))
    queue(connection.default_channel).declare()
    low, high = [], []
    preferred = Queue(queue.name, consumer_arguments={"x-priority": 10})
    with (
        Consumer(connection.channel(), [queue], on_message=lambda m: (low.append(m), m.ack())),
        Consumer(connection.channel(), [preferred], on_message=lambda m: (high.append(m), m.ack())),
    ):
        for number in range(5):
            connection.Producer().publish(number, routing_key=queue.name)
        drain_until(connection, lambda: len(low) + len(high) == 5, "the arrival")
    assert (len(low), len(high)) == (0, 5)


def test_prefetch_count(connection, name):
    queue = Queue(name("prefetch"))
    queue(connection.default_channel).declare()
    for number in range(5):
        connection.Producer().publish(number, routing_key=queue.name)
    received = []
    channel = connection.channel()
    consumer = Consumer(channel, [queue], on_message=received.append, prefetch_count=2)
    with consumer:
        drain_until(connection, lambda: len(received) == 2, "two messages")
        # Anything above the limit would come before this answer.
        channel.basic_qos(0, 2, False)
        assert len(received) == 2
        received[0].ack()
        drain_until(connection, lambda: len(received) == 3, "one more message")
        received[1].reject()
        received[2].requeue()
        drain_until(connection, lambda: len(received) == 5, "the rest")
    assert [message.decode() for message in received[:3]] == [0, 1, 2]
    # The requeued message and the next one, in this or the other order.
    rest = {message.decode(): message.delivery_info["redelivered"] for message in received[3:]}
    assert rest == {2: True, 3: False}


def test_global_prefetch_count(connection, name, global_qos):
    queues = [Queue(name("shared")) for _ in range(2)]
    for queue in queues:
        queue(connection.default_channel).declare()
        for number in range(3):
            connection.Producer().publish(number, routing_key=queue.name)
    received = []
    channel = connection.channel()
    channel.basic_qos(0, 2, True)
    with Consumer(channel, queues, on_message=received.append):
        drain_until(connection, lambda: len(received) == 2, "two messages")
        # Anything above the limit would come before this answer.
        channel.basic_qos(0, 2, True)
        assert len(received) == 2
        received[0].ack()
        drain_until(connection, lambda: len(received) == 3, "one more message")
        channel.basic_qos(0, 4, True)
        drain_until(connection, lambda: len(received) == 5, "two more messages")


def test_publish_with_confirms(url, name):
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        queue = Queue(name("confirmed"), max_length=2, queue_arguments={"x-overflow": "reject-publish"})
        queue(connection.default_channel).declare()
        producer = connection.Producer()
        for number in range(2):
            producer.publish(number, routing_key=queue.name)
        # Every message was confirmed, so it is there.
        assert queue(connection.default_channel).queue_declare(passive=True).message_count == 2
        with pytest.raises(amqp.exceptions.MessageNacked):
            producer.publish("too many", routing_key=queue.name)


def test_mandatory_messages_are_returned(connection):
    returned = []
    producer = connection.Producer(on_return=lambda *arguments: returned.append(arguments))
    producer.publish("lost", routing_key=uuid.uuid4().hex, mandatory=True)
    drain_until(connection, lambda: returned, "the return")
    error, exchange, _routing_key, message = returned[0]
    assert (error.reply_code, error.reply_text, exchange) == (312, "NO_ROUTE", "")
    assert message.body == "lost"


def test_publish_retry_policy(url, name):
    """The publication is retried until the connection is there again."""
    queue = Queue(name("retried"), Exchange(name("retried"), "direct"), "key")
    with Connection(url) as connection:
        producer = connection.Producer()
        producer.publish(0, exchange=queue.exchange, routing_key="key", declare=[queue])
        # The connection breaks below the library.
        connection.connection.transport.sock.shutdown(socket.SHUT_RDWR)
        errors = []
        producer.publish(
            1,
            exchange=queue.exchange,
            routing_key="key",
            retry=True,
            retry_policy={
                "interval_start": 0,
                "interval_step": 0.1,
                "max_retries": 5,
                "errback": lambda error, interval: errors.append((error, interval)),
            },
        )
        wait_until(
            lambda: queue(connection.default_channel).queue_declare(passive=True).message_count == 2, "both messages"
        )
        assert collect(connection, [queue], 2) == [0, 1]


def test_publish_retry_gives_up(url):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with Connection(f"amqp://guest:guest@127.0.0.1:{unused.getsockname()[1]}//") as connection:
            attempts = itertools.count()
            with pytest.raises(OperationalError):
                connection.ensure_connection(
                    errback=lambda _error, _interval: next(attempts), max_retries=2, interval_start=0, interval_step=0
                )
            assert next(attempts) == 2


def test_errors(connection, name):
    channel = connection.channel()
    with pytest.raises(amqp.exceptions.NotFound) as not_found:
        Queue(name("absent"))(channel).queue_declare(passive=True)
    assert not_found.value.reply_code == 404
    channel = connection.channel()
    queue = Queue(name("different"), durable=True)
    queue(channel).declare()
    with pytest.raises(amqp.exceptions.PreconditionFailed) as failed:
        Queue(queue.name, durable=True, max_length=7)(channel).declare()
    assert failed.value.reply_text.startswith(
        f"PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue '{queue.name}' in vhost '/': "
        "received the value '7' of type "
    )
    assert connection.connected


def test_bad_credentials(connection):
    wrong = connection.clone(password="wrong")
    with pytest.raises(amqp.exceptions.AccessRefused) as refused:
        wrong.connect()
    assert refused.value.reply_code == 403
    with pytest.raises(amqp.exceptions.NotAllowed) as not_allowed:
        connection.clone(virtual_host="no-such-vhost").connect()
    assert not_allowed.value.reply_code == 530


def test_server_cancels_consumer_when_the_queue_is_deleted(connection, name):
    queue = Queue(name("deleted"))
    channel = connection.channel()
    cancelled = []
    with Consumer(channel, [queue], on_message=print) as consumer:
        (tag,) = consumer._active_tags.values()
        channel.cancel_callbacks[tag] = cancelled.append
        queue(connection.default_channel).delete()
        drain_until(connection, lambda: cancelled, "the cancellation")
        assert cancelled == [tag]
        consumer._active_tags.clear()


def test_header_values(connection, name):
    """py-amqp has field types of its own choice: `l` for long integers, `d` for floats, `x` for bytes."""
    headers = {
        "text": "grüße",
        "small": 1,
        "large": 2**40,
        "negative": -(2**31),
        "float": 0.25,
        "bool": False,
        "list": [1, "two", [3]],
        "table": {"nested": {"deep": True}},
        "void": None,
    }
    queue = Queue(name("headers"))
    queue(connection.default_channel).declare()
    connection.Producer().publish("x", routing_key=queue.name, headers=headers)
    message = wait_until(lambda: queue(connection.default_channel).get(no_ack=True), "the message")
    assert message.headers == headers


def test_large_message(connection, name):
    queue = Queue(name("large"))
    queue(connection.default_channel).declare()
    connection.Producer().publish(LARGE_BODY, routing_key=queue.name, serializer="raw")
    message = wait_until(lambda: queue(connection.default_channel).get(no_ack=True), "the message")
    assert message.body == LARGE_BODY


def test_heartbeats_keep_an_idle_connection(url, name):
    with Connection(url, heartbeat=1) as connection:
        queue = Queue(name("idle"), exclusive=True)
        queue(connection.default_channel).declare()
        assert connection.get_heartbeat_interval() == 1

        def check():
            connection.heartbeat_check()
            with contextlib.suppress(socket.timeout):
                connection.drain_events(timeout=0.25)

        end = time.monotonic() + 3.5
        wait_until(lambda: time.monotonic() > end, "the end of the idle time", step=check)
        connection.Producer().publish("alive", routing_key=queue.name)
        assert collect(connection, [queue], 1) == ["alive"]


def test_mailbox(connection, name):
    """The broadcast mailbox that Celery's remote control is made of."""
    namespace = name("mailbox")
    mailbox = Mailbox(namespace, type="fanout")(connection)
    nodes = {}
    for hostname in ("one", "two"):
        node = mailbox.Node(hostname, state=hostname, channel=connection.channel())
        node.handler(hello)
        node.listen()
        nodes[hostname] = node
    answers = []
    replies = mailbox.get_reply_queue()(connection.channel())
    replies.declare()
    ticket = uuid.uuid4().hex
    mailbox._publish("hello", {"name": "you"}, reply_ticket=ticket, channel=connection.channel())
    with Consumer(connection.channel(), [replies], callbacks=[lambda body, _m: answers.append(body)], no_ack=True):
        drain_until(connection, lambda: len(answers) == 2, "both answers")
    assert {host: answer for each in answers for host, answer in each.items()} == {
        "one": "hello you, I am one",
        "two": "hello you, I am two",
    }
    channel = connection.channel()
    for exchange in (mailbox.exchange, mailbox.reply_exchange):
        exchange(channel).delete()


def hello(state, name):
    return f"hello {name}, I am {state}"


def test_a_durable_queue_is_deleted_by_who_consumes_from_it(connection, name):
    """py-amqp takes a basic.cancel that comes before delete-ok for the end of what it waits for."""
    channel = connection.channel()
    own = name("own")
    queue = Queue(own, channel=channel, durable=True)
    queue.declare()
    ended = []
    channel.basic_consume(own, callback=lambda message: None, on_cancel=ended.append, consumer_tag="own")
    assert channel.queue_delete(own) == 0
    drain_until(connection, lambda: ended == ["own"], "the consumer has ended")
    queue.declare()
