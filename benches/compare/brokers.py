"""The brokers that are compared."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Broker:
    """A process that listens at an address."""

    name = address = pid = None

    def uri(self):
        return f"amqp://guest:guest@{self.address}/"

    def memory(self):
        """Resident KiB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError(f"{self.name}: process {self.pid} has no VmRSS")

    def start(self):
        """Starts it, with what an earlier life has left on the disk; returns once it says that it is ready."""

    def stop(self):
        """Ends it gracefully."""

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        while Path(f"/proc/{self.pid}").exists():
            time.sleep(0.01)

    def remove(self):
        """Ends it, and removes what it has left on the disk."""


class Running(Broker):
    """One that somebody else has started and will stop."""

    def __init__(self, name, address, pid):
        self.name, self.address, self.pid = name, address, pid
        self.memory()  # is it there?


class Warren(Broker):
    """A broker of its own, with its defaults."""

    def __init__(self, binary, http=False):
        self.binary = binary
        self.http_port = "0" if http else "-1"
        self.management = self.metrics = None
        version = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()[-1]
        self.name = f"Warren {version}"
        self.directory = tempfile.mkdtemp(prefix="warren-compare-")
        self.log = open(Path(self.directory) / "log", "a")
        self.process = None

    def data(self):
        return Path(self.directory) / "data"

    def start(self):
        port = self.address.rpartition(":")[2] if self.address else "0"
        self.process = subprocess.Popen(
            [self.binary, "serve", "--data-dir", self.data(), "--amqp-port", port, "--management-port", self.http_port,
             "--prometheus-port", self.http_port], stdout=subprocess.PIPE, stderr=self.log, text=True)
        ready = self.process.stdout.readline()
        listeners = dict(word.split("=", 1) for word in ready.split()[1:] if "=" in word)
        if "amqp" not in listeners:
            raise RuntimeError(f"{self.binary} did not start: {Path(self.log.name).read_text()}")
        self.address, self.pid = listeners["amqp"], self.process.pid
        self.management, self.metrics = listeners.get("management"), listeners.get("prometheus")

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def kill(self):
        self.process.kill()
        self.process.wait(60)

    def remove(self):
        if self.process and self.process.poll() is None:
            self.stop()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class RabbitMQ(Broker):
    """The newest one of Debian, in a folder of its own."""

    def __init__(self):
        self.script("install")
        self.script("clear")
        self.name = "RabbitMQ " + self.script("version", capture=True)

    @staticmethod
    def script(command, capture=False):
        # What it says while it installs goes to standard error: standard output is the table's.
        out = subprocess.PIPE if capture else sys.stderr
        done = subprocess.run([HERE / "rabbitmq", command], check=True, text=True, stdout=out)
        return done.stdout.strip() if capture else ""

    def data(self):
        return Path(self.script("data", capture=True))

    def start(self):
        self.script("start")
        self.address, self.pid = self.script("address", capture=True), int(self.script("pid", capture=True))

    def stop(self):
        self.script("stop")

    def remove(self):
        self.script("stop")
        self.script("clear")


def generate(generator, broker, *words):
    """The summary of a run of `warren perf`."""
    command = [generator, "perf", "--json", "--uri", broker.uri(), "--name", "compare", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{broker.name}: {' '.join(command)}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), "unknown processor")
    return f"{os.cpu_count()} × {model}, Linux {os.uname().release}"


def show(number):
    if number >= 100:
        return f"{float(f'{number:.3g}'):,.0f}"
    return f"{number:.3g}"
