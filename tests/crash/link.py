"""One connection with one channel of pika's asyncio adapter, whose calls can be awaited."""

import asyncio

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPError, ChannelWrongStateError, ConnectionWrongStateError


class LinkLost(Exception):
    """The connection is gone."""


class Refused(Exception):
    """The broker closed the channel."""

    def __init__(self, reason):
        super().__init__(str(reason))
        self.code = reason.reply_code


class Link:
    """A connection with a channel. After the channel was closed by the broker, `reopen` makes another one."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._connection = None
        self._pending = set()
        self.channel = None
        self.lost = self._loop.create_future()
        """Done when the connection is gone; the reason."""

    @classmethod
    async def open(cls, url):
        """Connects; raises LinkLost when that fails."""
        link = cls()
        try:
            await link._connect(url)
        except AMQPError as error:
            raise LinkLost(str(error)) from None
        return link

    async def _connect(self, url):
        opened = self._loop.create_future()
        parameters = pika.URLParameters(url)
        parameters.heartbeat = 0
        parameters.socket_timeout = 10
        self._connection = AsyncioConnection(
            parameters,
            on_open_callback=lambda connection: _resolve(opened, connection),
            on_open_error_callback=lambda _connection, error: _fail(opened, _as_amqp_error(error)),
            on_close_callback=self._on_lost,
            custom_ioloop=self._loop,
        )
        await opened
        await self.reopen()

    async def reopen(self):
        opened = self._expect()
        channel = self._connection.channel(on_open_callback=lambda channel: _resolve(opened, channel))
        channel.add_on_close_callback(self._on_channel_closed)
        self.channel = await opened

    def _on_lost(self, _connection, reason):
        _resolve(self.lost, reason)
        for waiting in list(self._pending):
            _fail(waiting, LinkLost(str(reason)))

    def _on_channel_closed(self, channel, reason):
        if channel is self.channel and not self._connection.is_closed and hasattr(reason, "reply_code"):
            for waiting in list(self._pending):
                _fail(waiting, Refused(reason))

    def _expect(self):
        """A future that fails when the connection goes."""
        waiting = self._loop.create_future()
        self._pending.add(waiting)
        waiting.add_done_callback(self._pending.discard)
        if self.lost.done():
            _fail(waiting, LinkLost(str(self.lost.result())))
        return waiting

    async def call(self, method, *arguments, **options):
        """Calls a method of the channel by its name, and waits for the broker's answer, which is returned."""
        answered = self._expect()
        self.send(method, *arguments, callback=lambda frame: _resolve(answered, frame), **options)
        return await answered

    def send(self, method, *arguments, **options):
        """Calls a method of the channel that is not answered."""
        try:
            return getattr(self.channel, method)(*arguments, **options)
        except (ChannelWrongStateError, ConnectionWrongStateError) as error:
            raise LinkLost(str(error)) from None

    async def confirm_select(self, on_confirm):
        """Turns confirms on; `on_confirm(tags, acked)` is called with what each one covers."""
        unconfirmed = {"next": 1}

        def resolve(frame):
            method = frame.method
            tags = range(unconfirmed["next"], method.delivery_tag + 1) if method.multiple else [method.delivery_tag]
            on_confirm(tags, method.NAME == "Basic.Ack")
            if method.multiple:
                unconfirmed["next"] = method.delivery_tag + 1

        await self.call("confirm_delivery", resolve)

    async def ask(self, method, *arguments, **options):
        """As `call`, but gives the code of the refusal, or nothing; the channel is opened anew after one."""
        try:
            await self.call(method, *arguments, **options)
            return None
        except Refused as refused:
            await self.reopen()
            return refused.code

    async def close(self):
        if not self.lost.done():
            self._connection.close()
            await self.lost


def _as_amqp_error(error):
    return error if isinstance(error, AMQPError) else AMQPError(str(error))


def _resolve(future, value):
    if not future.done():
        future.set_result(value)


def _fail(future, error):
    if not future.done():
        future.set_exception(error)
        # Not every loser is awaited.
        future.exception()
