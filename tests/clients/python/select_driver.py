"""Runs a coroutine on the event loop of pika's SelectConnection.

pika's asynchronous interface is made of callbacks. Here every callback is a `Reply` that can be
awaited, so a test reads from top to bottom while the connection works as it does in an application."""

import inspect

import pika
from pika import spec
from pika.adapters.select_connection import IOLoop, SelectConnection


class Reply:
    """A callback whose call can be awaited. It gives the argument, or all of them as a tuple."""

    def __init__(self, client):
        self._client = client
        self._waiter = None
        self._error = None
        self._value = None
        self.done = False

    def __call__(self, *arguments):
        self._finish(arguments[0] if len(arguments) == 1 else arguments, None)

    def fail(self, error):
        self._finish(None, error)

    def _finish(self, value, error):
        if not self.done:
            self.done, self._value, self._error = True, value, error
            if self._waiter is not None:
                # Never from inside a callback of pika: the coroutine may call pika again.
                self._client.ioloop.add_callback_threadsafe(self._waiter)

    def when_done(self, waiter):
        self._waiter = waiter

    def __await__(self):
        if not self.done:
            yield self
        if self._error is not None:
            raise self._error
        return self._value


class Inbox:
    """A message callback that keeps what it gets: (method, properties, body)."""

    def __init__(self, client):
        self._client = client
        self._waiting = None
        self.messages = []

    def __call__(self, _channel, *message):
        self.messages.append(message)
        if self._waiting is not None:
            self._waiting(None)

    async def take(self):
        """The next message."""
        while not self.messages:
            self._waiting = Reply(self._client)
            await self._waiting
        return self.messages.pop(0)


class Confirms:
    """Publishes on a channel in confirm mode; every publication is a `Reply` with 'ack' or 'nack'."""

    def __init__(self, client, channel):
        self._client = client
        self._channel = channel
        self._published = 0
        self._pending = {}

    async def select(self):
        await self._client.call(self._channel.confirm_delivery, ack_nack_callback=self._on_confirm)
        return self

    def _on_confirm(self, frame):
        method = frame.method
        verdict = "ack" if isinstance(method, spec.Basic.Ack) else "nack"
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._pending if tag <= method.delivery_tag]
        for tag in tags:
            self._pending.pop(tag)(verdict)

    def publish(self, exchange, routing_key, body, properties=None, mandatory=False):
        self._published += 1
        reply = self._pending[self._published] = self._client.reply(self._channel)
        self._channel.basic_publish(exchange, routing_key, body, properties, mandatory)
        return reply


class Client:
    """A SelectConnection and the coroutine that uses it."""

    def __init__(self, url, seconds, parameters):
        self.parameters = pika.URLParameters(url)
        for key, value in parameters.items():
            setattr(self.parameters, key, value)
        self.ioloop = IOLoop()
        self._coroutine = None
        self._error = None
        self._open_connections = []
        self._ending = False
        self._deadline = self.ioloop.call_later(seconds, lambda: self._end(TimeoutError(f"{seconds} s")))

    def run(self, scenario):
        """Runs the coroutine function to its end and closes what it has opened."""
        self._coroutine = scenario(self)
        self.ioloop.add_callback_threadsafe(self._advance)
        self.ioloop.start()
        self._coroutine.close()
        self.ioloop.close()
        if self._error is not None:
            raise self._error

    def _advance(self):
        if self._ending:
            return
        try:
            reply = self._coroutine.send(None)
        except StopIteration:
            self._end(None)
        except BaseException as error:  # Raised again by `run`.
            self._end(error)
        else:
            if reply.done:
                self.ioloop.add_callback_threadsafe(self._advance)
            else:
                reply.when_done(self._advance)

    def _end(self, error):
        self._ending, self._error = True, error
        self.ioloop.remove_timeout(self._deadline)
        # Closing is part of the test, but a broker that does not answer must not hang it.
        self.ioloop.call_later(5, self.ioloop.stop)
        for connection in self._open_connections:
            if connection.is_open:
                connection.close()
        self._stop_when_closed()

    def _stop_when_closed(self):
        if self._ending and not self._open_connections:
            self.ioloop.stop()

    def reply(self, channel=None):
        """A new `Reply`; it fails when the channel is closed."""
        reply = Reply(self)
        if channel is not None:
            channel.add_on_close_callback(lambda _channel, reason: reply.fail(reason))
        return reply

    def inbox(self):
        return Inbox(self)

    async def connect(self, parameters=None):
        """Opens a connection. `connection.closing` is a `Reply` with the reason of its end."""
        opened, closing = Reply(self), Reply(self)

        def on_close(connection, reason):
            self._open_connections.remove(connection)
            closing(reason)
            self._stop_when_closed()

        connection = SelectConnection(
            parameters or self.parameters,
            on_open_callback=opened,
            on_open_error_callback=lambda _connection, error: opened.fail(error),
            on_close_callback=on_close,
            custom_ioloop=self.ioloop,
        )
        await opened
        connection.closing = closing
        self._open_connections.append(connection)
        return connection

    async def channel(self, connection=None):
        """Opens a channel. `channel.closing` is a `Reply` with the reason of its end."""
        opened = Reply(self)
        channel = (connection or await self.connect()).channel(on_open_callback=opened)
        closing = channel.closing = Reply(self)
        channel.add_on_close_callback(lambda _channel, reason: closing(reason))
        channel.add_on_close_callback(lambda _channel, reason: opened.fail(reason))
        return await opened

    async def call(self, method, *arguments, **options):
        """Calls a synchronous method of a channel and awaits its answer."""
        reply = self.reply(method.__self__)
        method(*arguments, callback=reply, **options)
        return await reply

    async def confirms(self, channel):
        return await Confirms(self, channel).select()

    async def declare(self, channel, queue="", **options):
        """Declares an exclusive queue and gives its name."""
        return (await self.call(channel.queue_declare, queue, exclusive=True, **options)).method.queue

    async def consume(self, channel, queue, **options):
        """Starts a consumer and gives its inbox."""
        inbox = self.inbox()
        await self.call(channel.basic_consume, queue, inbox, **options)
        return inbox

    async def get(self, channel, queue, auto_ack=True):
        """(method, properties, body) of one message, or None."""
        reply = self.reply(channel)
        channel.add_callback(lambda _frame: reply(None), [spec.Basic.GetEmpty])
        channel.basic_get(queue, callback=lambda _channel, *message: reply(message), auto_ack=auto_ack)
        return await reply

    async def drain(self, channel, queue):
        """The bodies of everything in the queue."""
        bodies = []
        while (message := await self.get(channel, queue)) is not None:
            bodies.append(message[2])
        return bodies

    async def sleep(self, seconds):
        elapsed = Reply(self)
        self.ioloop.call_later(seconds, lambda: elapsed(None))
        await elapsed


def on_select_connection(test=None, *, seconds=20, **parameters):
    """Makes a test of a coroutine function whose first argument is a `Client`."""

    def decorate(function):
        def run_test(url, **fixtures):
            Client(url, seconds, parameters).run(lambda client: function(client, **fixtures))

        own = list(inspect.signature(function).parameters.values())[1:]
        url = inspect.Parameter("url", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        run_test.__signature__ = inspect.Signature([url, *own])
        run_test.__name__ = function.__name__
        run_test.__doc__ = function.__doc__
        run_test.__module__ = function.__module__
        return run_test

    return decorate(test) if test else decorate
