"""Field tables: every type goes through the broker unchanged, tag and bytes."""

import decimal
import struct
from datetime import datetime, timezone

import aio_pika
import pika
import pytest
from blocking import declare
from pika import data
from support import wait_until


class Raw:
    """A field value given by its type tag and its encoded bytes."""

    def __init__(self, tag, encoded=b""):
        self.encoded = tag + encoded

    def __repr__(self):
        return f"Raw({self.encoded!r})"


def text(value):
    return struct.pack(">I", len(value)) + value


FIELDS = {
    "bool": Raw(b"t", b"\x01"),
    "byte": Raw(b"b", struct.pack(">b", -128)),
    "unsigned byte": Raw(b"B", b"\xff"),
    "short": Raw(b"s", struct.pack(">h", -32768)),
    "unsigned short": Raw(b"u", struct.pack(">H", 65535)),
    "int": Raw(b"I", struct.pack(">i", -(2**31))),
    "unsigned int": Raw(b"i", struct.pack(">I", 2**32 - 1)),
    "long": Raw(b"l", struct.pack(">q", -(2**63))),
    "float": Raw(b"f", struct.pack(">f", 1.5)),
    "double": Raw(b"d", struct.pack(">d", -2.25)),
    "decimal": Raw(b"D", struct.pack(">BI", 2, 31415)),
    "long string": Raw(b"S", text("grüße".encode())),
    "not UTF-8": Raw(b"S", text(b"\xff\xfe\x00")),
    "binary": Raw(b"x", text(b"\x00\x01\xce")),
    "array": Raw(b"A", text(b"b\x05" + b"S" + text(b"two") + b"V" + b"A" + text(b"t\x00"))),
    "timestamp": Raw(b"T", struct.pack(">Q", 1_700_000_000)),
    "table": Raw(b"F", text(b"\x05inner" + b"F" + text(b"\x01v" + b"V"))),
    "void": Raw(b"V"),
    "empty table": Raw(b"F", text(b"")),
    "empty array": Raw(b"A", text(b"")),
}


@pytest.fixture
def raw_tables(monkeypatch):
    """Makes pika encode `Raw` values as they are and remember the bytes of decoded values."""
    encode_value, decode_value = data.encode_value, data.decode_value
    decoded = {}

    def encode(pieces, value):
        if isinstance(value, Raw):
            pieces.append(value.encoded)
            return len(value.encoded)
        return encode_value(pieces, value)

    def decode_table(encoded, offset):
        (size,) = struct.unpack_from(">I", encoded, offset)
        offset += 4
        limit, result = offset + size, {}
        while offset < limit:
            key, start = data.decode_short_string(encoded, offset)
            result[key], offset = decode_value(encoded, start)
            decoded[key] = encoded[start:offset]
        return result, offset

    monkeypatch.setattr(data, "encode_value", encode)
    monkeypatch.setattr(data, "decode_table", decode_table)
    return decoded


def test_every_field_type_is_kept_byte_by_byte(channel, name, raw_tables):
    queue = declare(channel, name("raw"))
    raw_tables.clear()
    channel.basic_publish("", queue, b"", pika.BasicProperties(headers=FIELDS))
    _method, properties, _body = channel.basic_get(queue, auto_ack=True)
    assert set(properties.headers) == set(FIELDS)
    for key, sent in FIELDS.items():
        assert raw_tables[key] == sent.encoded, key


def test_every_field_type_is_kept_when_the_broker_adds_headers(channel, name, raw_tables):
    dead = declare(channel, name("dead"))
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, "x-message-ttl": 1}
    queue = declare(channel, name("raw"), arguments=arguments)
    channel.basic_publish("", queue, b"", pika.BasicProperties(headers=FIELDS))
    wait_until(lambda: channel.basic_get(dead, auto_ack=True)[0], "the dead letter")
    for key, sent in FIELDS.items():
        assert raw_tables[key] == sent.encoded, key


def test_queue_arguments_of_every_integer_width_are_equivalent(channel, name, raw_tables):
    queue = name("widths")
    for kind, packing in ((b"b", ">b"), (b"B", ">B"), (b"s", ">h"), (b"u", ">H"), (b"I", ">i"), (b"l", ">q")):
        declare(channel, queue, arguments={"x-max-length": Raw(kind, struct.pack(packing, 7))})


PIKA_VALUES = {
    "bool": False,
    "int": -5,
    "long": 2**40,
    "decimal": decimal.Decimal("3.14"),
    "text": "grüße",
    "binary": b"\x00\xff",
    "array": [1, "two", [None, {"three": 3}]],
    "timestamp": datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc),
    "table": {"deep": {"deeper": {"deepest": True}}},
    "void": None,
}


def test_pika_values(channel, name):
    queue = declare(channel, name("values"))
    channel.basic_publish("", queue, b"", pika.BasicProperties(headers=PIKA_VALUES))
    assert channel.basic_get(queue, auto_ack=True)[1].headers == PIKA_VALUES


AIO_PIKA_VALUES = {
    "bool": True,
    "byte": -7,
    "short": -3000,
    "unsigned short": 60_000,
    "int": -2_000_000_000,
    "unsigned int": 4_000_000_000,
    "long": 2**62,
    "double": 2.5,
    "decimal": decimal.Decimal("1.25"),
    "text": "grüße",
    "binary": bytearray(b"\x00\xff"),
    "array": [1, 300, "two", [None, {"three": 70_000}]],
    "timestamp": datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc),
    "table": {"deep": {"deeper": [True, False]}},
    "void": None,
}


async def test_aio_pika_values(url):
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await channel.default_exchange.publish(aio_pika.Message(b"", headers=AIO_PIKA_VALUES), routing_key=queue.name)
        message = await queue.get(no_ack=True)
        assert dict(message.headers) == AIO_PIKA_VALUES
