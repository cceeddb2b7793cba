"""As much of an AMQP 0-9-1 client as a login takes, over a plain socket."""

import socket
import struct


class Refused(Exception):
    """The broker closed the connection; the message is its code and text."""


def login(address, user, password, vhost="/", source=None):
    """Opens a connection, closes it, and returns the broker's mechanisms; raises Refused where the broker does not agree."""
    with socket.create_connection(address, timeout=20, source_address=source) as connection:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        arguments = _expect(connection, 10, 10)  # start
        mechanisms = _mechanisms(arguments)
        capabilities = _table_entry("authentication_failure_close", b"t\x01")
        properties = _long_string(_table_entry("capabilities", b"F" + _long_string(capabilities)))
        response = _long_string(b"\0" + user.encode() + b"\0" + password.encode())
        _send(connection, 10, 11, properties + _short_string("PLAIN") + response + _short_string("en_US"))
        tune = _expect(connection, 10, 30)
        _send(connection, 10, 31, tune[:6] + b"\0\0")  # what was proposed, without heartbeats
        _send(connection, 10, 40, _short_string(vhost) + b"\0\0")
        _expect(connection, 10, 41)  # open-ok
        _send(connection, 10, 50, struct.pack(">H", 200) + _short_string("done") + b"\0\0\0\0")
        _expect(connection, 10, 51)
        return mechanisms


def _short_string(text):
    return bytes([len(text)]) + text.encode()


def _long_string(data):
    return struct.pack(">I", len(data)) + data


def _table_entry(name, value):
    return _short_string(name) + value


def _mechanisms(start):
    properties_end = 6 + struct.unpack_from(">I", start, 2)[0]
    length = struct.unpack_from(">I", start, properties_end)[0]
    return start[properties_end + 4 : properties_end + 4 + length].decode().split()


def _send(connection, class_id, method_id, arguments):
    payload = struct.pack(">HH", class_id, method_id) + arguments
    connection.sendall(struct.pack(">BHI", 1, 0, len(payload)) + payload + b"\xce")


def _expect(connection, class_id, method_id):
    kind, _, length = struct.unpack(">BHI", _read(connection, 7))
    payload = _read(connection, length + 1)
    got = struct.unpack_from(">HH", payload)
    if kind == 1 and got == (10, 50):
        code, text_length = struct.unpack_from(">HB", payload, 4)
        raise Refused(f"{code} {payload[7:7 + text_length].decode()}")
    if kind != 1 or got != (class_id, method_id):
        raise AssertionError(f"expected method {class_id}.{method_id}, got frame {kind} {payload!r}")
    return payload[4:-1]


def _read(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise Refused("the connection was closed without a word")
        data += piece
    return data
