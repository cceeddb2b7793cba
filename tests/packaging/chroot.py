"""A Debian system to try things in: a copy of the base system, entered with chroot(1), and programs that run in it."""

import os
import shutil
import subprocess
import time

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Chroot:
    """A copy of `base` at `path`, gone when the block ends. The mounts belong to this process's name space."""

    def __init__(self, base, path):
        self.base, self.path = base, path

    def __enter__(self):
        shutil.rmtree(self.path, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", self.base, self.path], check=True)
        subprocess.run(["mount", "-t", "proc", "proc", self.inside("/proc")], check=True)
        subprocess.run(["mount", "--bind", "/dev", self.inside("/dev")], check=True)
        # Nothing that a package installs is started.
        policy = self.inside("/usr/sbin/policy-rc.d")
        with open(policy, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(policy, 0o755)
        return self

    def __exit__(self, *_):
        for mount in ("/proc", "/dev"):
            subprocess.run(["umount", "--lazy", self.inside(mount)], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", self.path], check=True)

    def inside(self, path):
        """A path of the chroot as seen from outside."""
        return os.path.join(self.path, path.lstrip("/"))

    def command(self, arguments, environment=None, directory="/"):
        """What to execute so that `arguments` run in the chroot with this environment and no other variable."""
        given = {"PATH": PATH, **(environment or {})}
        variables = [f"{name}={value}" for name, value in given.items()]
        shell = ["sh", "-c", 'cd "$0" && exec "$@"', directory]
        return ["chroot", self.path, "env", "-i", *variables, *shell, *arguments]

    def run(self, *arguments, environment=None, directory="/", expect=0):
        """Runs to the end; both outputs in one text. Any other exit code than `expect` is a failure."""
        command = self.command(arguments, environment, directory)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=300, check=False)
        assert done.returncode == expect, f"{arguments}: exit code {done.returncode}, not {expect}:\n{done.stdout}"
        return done.stdout


class Program:
    """A broker that was started; killed when the block ends."""

    def __init__(self, command, log):
        self.log = log
        with open(log, "wb") as file:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def ready(self):
        """Waits for the line that names the listeners and returns it."""
        def line():
            return next((text for text in self.output().splitlines() if text.startswith("ready ")), None)
        return until(line, self)

    def ends(self, code):
        """Waits until the program has ended by itself, with this exit code."""
        try:
            got = self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.output()}") from None
        assert got == code, f"exit code {got}, not {code}:\n{self.output()}"

    def stop(self):
        self.process.terminate()
        self.ends(0)


def until(condition, program, seconds=30):
    """The first true value of `condition()`, unless the program ends before or the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        assert program.process.poll() is None, f"it ended with {program.process.returncode}:\n{program.output()}"
        time.sleep(0.02)
    raise AssertionError(f"nothing happened within {seconds} s:\n{program.output()}")
