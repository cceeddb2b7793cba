"""Small helpers for pika's blocking channels."""

from support import wait_until


def declare(channel, name, **options):
    """Declares an exclusive queue and returns its name."""
    return channel.queue_declare(name, exclusive=True, **options).method.queue


def receive(connection, inbox, count):
    """Dispatches events until `inbox` has `count` messages."""
    wait_until(
        lambda: len(inbox) >= count,
        f"the arrival of {count} messages",
        step=lambda: connection.process_data_events(time_limit=0.05),
    )
    assert len(inbox) == count, inbox


def drain(channel, queue):
    """Takes everything out of a queue and returns the bodies."""
    bodies = []
    while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
        bodies.append(message[2])
    return bodies


def message_count(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count
