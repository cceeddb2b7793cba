"""Dead lettering as pika sees it: reasons, `x-death` and its field types, retry loops."""

import pika
import pytest
from blocking import declare, drain, message_count
from pika import data
from support import check_death, check_death_summary, wait_until


def dead_letter_pair(channel, name, **arguments):
    """A queue that dead-letters through an exchange of its own, and the queue behind that exchange."""
    exchange, dead, source = name("dlx"), name("dead"), name("source")
    channel.exchange_declare(exchange, "fanout")
    declare(channel, dead)
    channel.queue_bind(dead, exchange)
    declare(channel, source, arguments={"x-dead-letter-exchange": exchange, **arguments})
    channel.confirm_delivery()
    return source, dead


def take(channel, queue):
    """Waits for one message and takes it."""
    got = wait_until(
        lambda: (message := channel.basic_get(queue, auto_ack=True))[0] and message,
        f"the arrival of a message in {queue}",
    )
    return got


def test_expiry_by_the_queue(channel, name):
    source, dead = dead_letter_pair(channel, name, **{"x-message-ttl": 20})
    channel.basic_publish("", source, b"late", pika.BasicProperties(headers={"mine": 1}, message_id="kept"))
    method, properties, body = take(channel, dead)
    assert (method.routing_key, body, properties.message_id) == (source, b"late", "kept")
    assert properties.headers["mine"] == 1
    (death,) = properties.headers["x-death"]
    check_death(death, queue=source, reason="expired", exchange="", routing_keys=[source])
    check_death_summary(properties.headers, first=(source, "expired", ""), last=(source, "expired", ""))


def test_expiry_by_the_message_removes_the_expiration(channel, name):
    source, dead = dead_letter_pair(channel, name, **{"x-dead-letter-routing-key": "too late"})
    channel.basic_publish("amq.direct", "unrouted", b"")
    channel.queue_bind(source, "amq.direct", source)
    channel.basic_publish("amq.direct", source, b"late", pika.BasicProperties(expiration="20"))
    method, properties, _body = take(channel, dead)
    assert method.routing_key == "too late"
    assert properties.expiration is None
    (death,) = properties.headers["x-death"]
    check_death(death, queue=source, reason="expired", exchange="amq.direct", routing_keys=[source], expiration="20")


def test_time_to_live_zero_expires_without_a_consumer(channel, name):
    source, dead = dead_letter_pair(channel, name)
    channel.basic_publish("", source, b"now", pika.BasicProperties(expiration="0"))
    _method, properties, body = take(channel, dead)
    assert body == b"now"
    assert properties.headers["x-first-death-reason"] == "expired"


def test_maximum_length_drops_from_the_head(channel, name):
    source, dead = dead_letter_pair(channel, name, **{"x-max-length": 2})
    for body in (b"oldest", b"middle", b"newest"):
        channel.basic_publish("", source, body)
    _method, properties, body = take(channel, dead)
    assert body == b"oldest"
    (death,) = properties.headers["x-death"]
    check_death(death, queue=source, reason="maxlen", exchange="", routing_keys=[source])
    check_death_summary(properties.headers, first=(source, "maxlen", ""), last=(source, "maxlen", ""))
    assert drain(channel, source) == [b"middle", b"newest"]


def test_maximum_length_in_bytes(channel, name):
    source, dead = dead_letter_pair(channel, name, **{"x-max-length-bytes": 10})
    for body in (b"12345", b"67890", b"x"):
        channel.basic_publish("", source, body)
    assert take(channel, dead)[2] == b"12345"
    assert drain(channel, source) == [b"67890", b"x"]


def test_reject_publish_dead_letters_the_new_message(channel, name):
    source, dead = dead_letter_pair(channel, name, **{"x-max-length": 1, "x-overflow": "reject-publish-dlx"})
    channel.basic_publish("", source, b"first")
    with pytest.raises(pika.exceptions.NackError):
        channel.basic_publish("", source, b"second")
    _method, properties, body = take(channel, dead)
    assert (body, properties.headers["x-first-death-reason"]) == (b"second", "maxlen")
    assert drain(channel, source) == [b"first"]


@pytest.mark.parametrize("how", ["reject", "nack"])
def test_rejection(channel, name, how):
    source, dead = dead_letter_pair(channel, name)
    channel.basic_publish("", source, b"bad", pika.BasicProperties(headers={"CC": ["also"]}))
    method = take_unacknowledged(channel, source)
    if how == "reject":
        channel.basic_reject(method.delivery_tag, requeue=False)
    else:
        channel.basic_nack(method.delivery_tag, requeue=False)
    _method, properties, body = take(channel, dead)
    assert body == b"bad"
    (death,) = properties.headers["x-death"]
    check_death(death, queue=source, reason="rejected", exchange="", routing_keys=[source, "also"])


def take_unacknowledged(channel, queue):
    return wait_until(lambda: channel.basic_get(queue)[0], f"the arrival of a message in {queue}")


def test_retry_loop_counts_deaths(channel, name):
    """The usual retry topology: rejected into a waiting queue, expired back into the work queue."""
    work, waiting = name("work"), name("waiting")
    declare(channel, work, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": waiting})
    declare(
        channel,
        waiting,
        arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": work, "x-message-ttl": 20},
    )
    channel.basic_publish("", work, b"job")
    for attempt in range(3):
        method, properties, body = wait_until(
            lambda: (message := channel.basic_get(work))[0] and message, "the next attempt"
        )
        assert body == b"job"
        if attempt:
            expired, rejected = properties.headers["x-death"]
            check_death(expired, queue=waiting, reason="expired", exchange="", routing_keys=[waiting], count=attempt)
            check_death(rejected, queue=work, reason="rejected", exchange="", routing_keys=[work], count=attempt)
            check_death_summary(properties.headers, first=(work, "rejected", ""), last=(waiting, "expired", ""))
        channel.basic_reject(method.delivery_tag, requeue=False)


def test_an_automatic_cycle_is_dropped(channel, name):
    queue = name("cycle")
    declare(
        channel,
        queue,
        arguments={"x-message-ttl": 20, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue},
    )
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"round and round")
    wait_until(lambda: message_count(channel, queue) == 0, "the drop of the message")


def test_a_publishers_own_death_header_is_not_interpreted(channel, name):
    source, dead = dead_letter_pair(channel, name)
    forged = {"x-death": [{"count": 41, "reason": "rejected", "queue": source, "exchange": ""}]}
    channel.basic_publish("", source, b"", pika.BasicProperties(headers=forged))
    channel.basic_reject(take_unacknowledged(channel, source).delivery_tag, requeue=False)
    (death,) = take(channel, dead)[1].headers["x-death"]
    check_death(death, queue=source, reason="rejected", exchange="", routing_keys=[source])


def test_a_missing_dead_letter_exchange_drops(channel, name):
    queue = declare(channel, name("source"), arguments={"x-dead-letter-exchange": name("missing")})
    channel.confirm_delivery()
    channel.basic_publish("", queue, b"lost")
    channel.basic_reject(take_unacknowledged(channel, queue).delivery_tag, requeue=False)
    assert message_count(channel, queue) == 0


def test_field_types_of_the_death_headers(channel, name, monkeypatch):
    """pika hides the field types, so its decoder is watched."""
    source, dead = dead_letter_pair(channel, name)
    channel.basic_publish("", source, b"", pika.BasicProperties(expiration="1"))
    wait_until(lambda: message_count(channel, dead) == 1, "the death")
    decode_value, kinds = data.decode_value, []

    def watch(encoded, offset):
        value, end = decode_value(encoded, offset)
        kinds.append((encoded[offset : offset + 1], value))
        return value, end

    monkeypatch.setattr(data, "decode_value", watch)
    headers = take(channel, dead)[1].headers
    (death,) = headers["x-death"]
    expected = {
        "original-expiration": b"S",
        "count": b"l",
        "reason": b"S",
        "queue": b"S",
        "time": b"T",
        "exchange": b"S",
        "routing-keys": b"A",
    }
    for field, kind in expected.items():
        assert (kind, death[field]) in kinds, field
    assert (b"A", headers["x-death"]) in kinds
    assert (b"F", death) in kinds
    assert (b"S", headers["x-first-death-reason"]) in kinds
    # The broker sorts the headers it changes.
    assert list(headers) == sorted(headers)
