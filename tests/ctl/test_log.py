"""Where the log goes: a file that is turned over, and a standard error that nobody reads."""

import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import time
import unittest

import support


class LogTest(unittest.TestCase):
    def broker(self, *flags, stderr=None):
        broker = support.Broker(*flags)
        self.addCleanup(broker.stop)
        broker.start(stderr)
        return broker

    def ctl(self, broker, *words):
        result = support.program("ctl", *words, "--data-dir", str(broker.path / "data"))
        self.assertEqual((result.code, result.err), (0, ""), f"{words}: {result}")
        return result.out

    def wait_for(self, check, what):
        end = time.monotonic() + 20
        while not check():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.1)

    def test_a_file_is_turned_over_and_begun_anew_when_it_is_moved(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="warren-log-"))
        self.addCleanup(shutil.rmtree, folder)
        file, older, moved = folder / "broker.log", folder / "broker.log.0", folder / "moved"
        broker = self.broker("--set", f"log.file={file}", "--set", "log.console=false")
        self.wait_for(lambda: "amqp=" in file.read_text(), "the broker is ready")
        self.assertEqual((broker.path / "log").read_text(), "")
        self.assertEqual(self.ctl(broker, "log_location", "-q"), f"{file}\n")

        self.assertIn("amqp=", self.ctl(broker, "log_tail", "-q").splitlines()[-1])
        self.assertEqual(len(self.ctl(broker, "log_tail", "-q", "-N", "2").splitlines()), 2)
        self.ctl(broker, "rotate_logs")
        self.assertIn("amqp=", older.read_text())
        self.assertEqual(file.read_text(), "")

        file.rename(moved)
        self.speak_http(broker)
        self.wait_for(lambda: file.exists() and file.read_text(), "a new file is begun")
        self.assertEqual(moved.read_text(), "")

    def test_a_file_that_cannot_be_opened_is_told(self):
        result = support.program("serve", "--data-dir", "/proc/nonexistent/data", "--set", "log.file=/proc/nonexistent/broker.log")
        self.assertEqual(result.code, 1, result)
        self.assertEqual(result.err, "log.file: cannot open /proc/nonexistent/broker.log: No such file or directory (os error 2)\n")

    def test_a_standard_error_that_nobody_reads_stops_nothing(self):
        reader, writer = os.pipe()
        broker = self.broker("--set", "log.format=text", stderr=writer)
        os.close(writer)
        # A line each, of about 100 bytes: more than the pipe (64 KiB) and those that wait (8,192 lines) can be.
        for _ in range(12_000):
            self.speak_http(broker)
        self.assertIn("Ping succeeded", self.ctl(broker, "ping"))
        # The rest is read while the broker stops.
        with open(reader, "rb") as pipe:
            broker.process.terminate()
            text = pipe.read().decode()
        self.assertEqual(broker.process.wait(support.TIMEOUT), 0)
        dropped = re.search(r"\n\d+ lines of the log were dropped: they come faster than they are written\n", text)
        self.assertTrue(dropped, text[-1000:])

    def test_nobody_writes_lines_into_the_log_or_moves_the_cursor(self):
        """A user name before the login is all that it took."""
        evil = "x\n2026-01-01T00:00:00Z  INFO forged: all is well\r\x1b[2J\x7f\u009b1m\u2028\u202e"
        for format in ("text", "json"):
            with self.subTest(format=format):
                folder = pathlib.Path(tempfile.mkdtemp(prefix="warren-log-"))
                self.addCleanup(shutil.rmtree, folder)
                file = folder / "broker.log"
                broker = self.broker("--set", f"log.file={file}", "--set", f"log.format={format}")
                self.log_in(broker, evil)
                self.wait_for(lambda: "login refused" in file.read_text(), "the login is refused")
                self.wait_for(lambda: "login refused" in (broker.path / "log").read_text(), "on standard error, too")
                tail = self.ctl(broker, "log_tail", "-q", "-N", "100")
                for text in (file.read_text(), (broker.path / "log").read_text(), tail):
                    lines = text.split("\n")
                    self.assertFalse([line for line in lines if "forged" in line and "login refused" not in line], text)
                    self.assertFalse([char for char in text if char != "\n" and not char.isprintable()], ascii(text))
                    if format == "json":
                        refused = json.loads(next(line for line in lines if "login refused" in line))
                        self.assertEqual(refused["user"], evil)

    def log_in(self, broker, user):
        host, port = broker.listeners["amqp"].rsplit(":", 1)
        response = b"\0" + user.encode() + b"\0x"
        arguments = bytes(4) + b"\5PLAIN" + len(response).to_bytes(4, "big") + response + b"\5en_US"
        payload = b"\0\x0a\0\x0b" + arguments
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"AMQP\0\0\x09\x01" + b"\1\0\0" + len(payload).to_bytes(4, "big") + payload + b"\xce")
            while connection.recv(4096):
                pass

    def speak_http(self, broker):
        """Something that the log has a line for."""
        host, port = broker.listeners["amqp"].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            connection.recv(100)
