"""Errors as aio-pika and the aiormq below it see them."""

import asyncio
import re

import aio_pika
import aiormq
import pytest
from aiormq.exceptions import (
    AMQPChannelError,
    AMQPConnectionError,
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionNotAllowed,
    ConnectionNotImplemented,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from errors import ALL, BAD_PASSWORD
from yarl import URL

CODES = {
    ChannelAccessRefused: 403,
    ChannelNotFoundEntity: 404,
    ChannelLockedResource: 405,
    ChannelPreconditionFailed: 406,
    ConnectionNotAllowed: 530,
    ConnectionNotImplemented: 540,
}


async def step(channel, method, arguments):
    """Does one step of an error case on a channel of aiormq."""
    if method == "publish":
        fields = dict(arguments)
        properties = aiormq.spec.Basic.Properties(**fields.pop("properties", {}))
        await channel.basic_publish(b"body", properties=properties, **fields)
    elif method == "basic_consume":
        await channel.basic_consume(consumer_callback=lambda _message: asyncio.sleep(0), **arguments)
    else:
        await getattr(channel, method)(**arguments)


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.label)
async def test_error(case, url, name):
    names = {kind: name(kind) for kind in ("queue", "exchange")}
    preparing, connection = await aio_pika.connect(url), await aio_pika.connect(url)
    kind = AMQPConnectionError if case.closes_connection else AMQPChannelError
    try:
        async with asyncio.timeout(15):
            other = await preparing.channel(publisher_confirms=False)
            for method, arguments in case.filled(case.before, names):
                await step(await other.get_underlay_channel(), method, arguments)
            channel = await (await connection.channel(publisher_confirms=False)).get_underlay_channel()
            with pytest.raises(kind) as caught:
                for method, arguments in case.filled(case.steps, names):
                    await step(channel, method, arguments)
                # Asynchronous methods fail by the time of the next answer.
                await channel.basic_qos(prefetch_count=0)
            case.check(CODES[type(caught.value)], str(caught.value.args[-1]), names)
            if not case.closes_connection:
                assert not (await connection.channel()).is_closed
    finally:
        await connection.close()
        await preparing.close()


async def test_bad_password(url):
    with pytest.raises(ProbableAuthenticationError) as caught:
        await aio_pika.connect(str(URL(url).with_password("wrong")))
    assert BAD_PASSWORD[1] in re.sub(r"\s+", " ", str(caught.value))


async def test_unknown_vhost(url):
    # aiormq reports the frame and not the reason in it.
    with pytest.raises(InvalidFrameError, match="got <Connection.Close"):
        await aio_pika.connect(str(URL(url).with_path("/no-such-vhost")))
