"""Starts a broker if none is named, and runs commands against it."""

import fcntl
import json
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest
import urllib.parse

HERE = pathlib.Path(__file__).resolve().parent
BINARY = pathlib.Path(os.environ.get("WARREN_BIN", HERE / "../../target/release/warren")).resolve()
URI = os.environ.get("WARREN_URI")
TIMEOUT = 60


class Broker:
    """A Warren in a directory of its own, or the one that WARREN_URI names. With flags it is started later, by start()."""

    def __init__(self, *flags):
        self.flags = flags
        self.process = None
        self.folder = tempfile.TemporaryDirectory(prefix="warren-ctl-")
        self.path = pathlib.Path(self.folder.name)
        for tool in ("rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-queues", "rabbitmq-plugins", "rabbitmq-streams",
                     "rabbitmq-upgrade", "rabbitmq-server"):
            (self.path / tool).symlink_to(BINARY)
        if URI and not flags:
            self.amqp = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/")
        elif not flags:
            self.start()

    def start(self, stderr=None):
        ports = ["--amqp-port", "0", "--management-port", "0", "--prometheus-port", "0"]
        command = [self.path / "rabbitmq-server", "--data-dir", self.path / "data", *ports, *self.flags]
        self.log = open(self.path / "log", "ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr or self.log, text=True)
        ready = self.process.stdout.readline()
        assert ready.startswith("ready "), f"no ready line but {ready!r}: {(self.path / 'log').read_text()}"
        self.listeners = dict(word.split("=", 1) for word in ready.split()[1:])
        self.amqp = f"amqp://guest:guest@{self.listeners['amqp']}/"

    def stop(self):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(TIMEOUT)
            self.process.stdout.close()
            self.log.close()
        self.folder.cleanup()

    def amqp_of(self, vhost):
        return self.amqp.rstrip("/") + "/" + urllib.parse.quote(vhost, safe="")

    def target(self):
        return ["--uri", URI] if URI else ["--data-dir", str(self.path / "data")]


class Result:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\n--- stdout\n{self.out}--- stderr\n{self.err}"


BROKER = None
RUN = set()


def broker():
    global BROKER
    if BROKER is None:
        BROKER = Broker()
    return BROKER


def program(*words, stdin="", environment=None):
    """Runs the program itself."""
    variables = {**os.environ, **(environment or {})}
    command = [str(BINARY), *map(str, words)]
    return Result(subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT, env=variables))


class Terminal:
    """The program on a terminal of 30 lines of 120 columns."""

    def __init__(self, *words):
        self.words = [str(BINARY), *map(str, words)]
        self.text = ""

    def __enter__(self):
        self.process, self.screen = pty.fork()
        if self.process == 0:
            os.environ["TERM"] = "xterm-256color"
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
            os.execv(self.words[0], self.words)
        return self

    def __exit__(self, *_):
        if self.process:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        os.close(self.screen)

    def shows(self, *texts):
        """Reads until all of them were written since the last time."""
        end = time.monotonic() + 20
        while not all(text in self.text for text in texts):
            if not select.select([self.screen], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"not shown: {texts} in {self.text[-3000:]!r}")
            try:
                self.text += os.read(self.screen, 65536).decode(errors="replace")
            except OSError as error:
                raise AssertionError(f"ended without: {texts} in {self.text[-3000:]!r}") from error
        self.text = ""

    def press(self, *keys):
        for key in keys:
            os.write(self.screen, key.encode())

    def exit_code(self):
        _, status = os.waitpid(self.process, 0)
        self.process = None
        return os.waitstatus_to_exitcode(status)


class CtlTest(unittest.TestCase):
    maxDiff = None
    # The names of everything that is created.
    vhost, user = "ctl-test", "ctl-user"

    @classmethod
    def setUpClass(cls):
        cls.broker = broker()

    def ctl(self, *words, tool=None, stdin=""):
        """Runs a command, through `warren ctl` or under the name of a tool."""
        words = [str(word) for word in words]
        RUN.update(words)
        command = [str(self.broker.path / tool)] if tool else [str(BINARY), "ctl"]
        command += [*self.broker.target(), *words]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT)
        return Result(done)

    def works(self, *words, out=None, **how):
        """The command exits with 0, says nothing on standard error, and prints `out` (a regular expression)."""
        result = self.ctl(*words, **how)
        self.assertEqual((result.code, result.err), (0, ""), f"{words}: {result}")
        if out is not None:
            self.assertRegex(result.out, f"(?s)\\A{out}\\Z", f"{words}")
        return result

    def fails(self, code, err, *words, **how):
        """The command exits with `code`, and its standard error holds `err` (a regular expression)."""
        result = self.ctl(*words, **how)
        self.assertEqual(result.code, code, f"{words}: {result}")
        self.assertRegex(result.err, err, f"{words}")
        return result

    def rows(self, *words, **how):
        """The rows of a list, as JSON."""
        return self.works(*words, "--formatter", "json", **how).json()

    def eventually(self, check, what, seconds=20):
        """Asks until `check` gives something true; statistics come with a delay."""
        end = time.monotonic() + seconds
        while not (found := check()):
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.1)
        return found

    def is_warren(self):
        return self.works("server_version", "-q").code == 0 and self.product() != "RabbitMQ"

    def product(self):
        return self.works("status", "--formatter", "json").json()["product_name"]
