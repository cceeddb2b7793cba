"""What an administrator relies on: the Debian package with its unit, and the container image.

Started by `run`, in name spaces of its own: the network has a loopback interface and nothing else.
"""

import argparse
import fcntl
import os
import resource
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import traceback

import amqp
import dockerfile
from chroot import Chroot, Program, until

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
UNIT = "/lib/systemd/system/warren.service"
UNIT_PLACES = (UNIT, "/usr" + UNIT)
TOOLS = ("rabbitmq-server", "rabbitmqctl", "rabbitmq-diagnostics", "rabbitmq-queues", "rabbitmq-plugins", "rabbitmq-streams",
         "rabbitmq-upgrade")
LOCAL = ("127.0.0.1", 5672)
# An address of this host that is none of the loopback network: who comes from it counts as a stranger.
STRANGER = "10.9.8.7"


# The Debian package --------------------------------------------------------------------------------------------------


class Unit:
    """The settings of a unit file."""

    def __init__(self, path):
        self.settings = {}
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, is_setting, value = line.strip().partition("=")
                if is_setting and not line.startswith("#"):
                    self.settings[name] = value

    def command(self, chroot):
        """What systemd would execute, as far as that is possible without it."""
        settings = self.settings
        assert settings["CapabilityBoundingSet"] == "" and settings["NoNewPrivileges"] == "yes", settings
        drop = ["setpriv", f"--reuid={settings['User']}", f"--regid={settings['Group']}", "--init-groups",
                "--bounding-set=-all", "--no-new-privs"]
        # As far as this machine lets root go.
        limit = ["prlimit", f"--nofile={min(int(settings['LimitNOFILE']), resource.getrlimit(resource.RLIMIT_NOFILE)[1])}"]
        umask = ["sh", "-c", f"umask {settings['UMask']}; exec \"$@\"", "sh"]
        arguments = [*limit, *drop, *umask, *shlex.split(settings["ExecStart"])]
        return chroot.command(arguments, {"NOTIFY_SOCKET": "/run/notify"}, settings["WorkingDirectory"])


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, chroot):
        path = chroot.inside("/run/notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        os.chmod(path, 0o777)
        self.socket.settimeout(0)

    def hears(self, program, line):
        """Waits for a message with this line and returns all its lines."""
        def message():
            try:
                lines = self.socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return None
            return lines if line in lines else None
        return until(message, program)


def install(chroot, package):
    shutil.copy(package, chroot.inside("/tmp/warren.deb"))
    chroot.run("dpkg", "--force-confold", "-i", "/tmp/warren.deb", environment={"DEBIAN_FRONTEND": "noninteractive"})


def unit_path(chroot):
    return next(path for path in UNIT_PLACES if os.path.exists(chroot.inside(path)))


def check_files(chroot):
    for tool in TOOLS:
        assert os.readlink(chroot.inside(f"/usr/bin/{tool}")) == "warren", tool
    assert chroot.run("warren", "--version").startswith("warren "), "it runs"
    user = next(line.split(":") for line in chroot.run("getent", "passwd").splitlines() if line.startswith("rabbitmq:"))
    mode = chroot.run("stat", "-c", "%U:%G %a", "/var/lib/warren", "/etc/warren/broker.toml").splitlines()
    assert mode == ["rabbitmq:rabbitmq 750", "root:rabbitmq 640"], mode
    assert user[5:] == ["/var/lib/warren", "/usr/sbin/nologin"], user
    shown = chroot.run("warren", "config", "show")
    origins = [line for line in shown.splitlines() if line and not line.startswith("[") and not line.endswith("# default")]
    assert len(origins) == 1 and origins[0].startswith('data_dir = "/var/lib/warren"'), origins
    for page in ("README.md", "docs/operations.md", "copyright"):
        assert os.path.exists(chroot.inside(f"/usr/share/doc/warren/{page}")), page
    if "completions" in chroot.run("warren", "--help"):
        for tool in ("warren", "rabbitmqctl"):
            with open(chroot.inside(f"/usr/share/bash-completion/completions/{tool}"), encoding="utf-8") as file:
                assert f"complete -F _{tool}" in file.read(), tool


def check_unit(chroot):
    if shutil.which("systemd-analyze") is None:
        print("systemd-analyze is not installed: the unit is not verified")
        return
    unit = os.path.join(REPOSITORY, "packaging/systemd/warren.service")
    # It looks for the programs and the pages that the unit names, which are in the chroot.
    copy = chroot.inside("/tmp/warren.service")
    with open(unit, encoding="utf-8") as file, open(copy, "w", encoding="utf-8") as out:
        text = file.read().replace("ExecStart=/usr", f"ExecStart={chroot.inside('/usr')}")
        out.write(text.replace("file:/usr", f"file:{chroot.inside('/usr')}"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    # What it says of other units of the machine is none of ours.
    own = [line for line in done.stderr.splitlines() if "warren" in line]
    assert done.returncode == 0 and not own, done.stderr


def check_service(chroot, log):
    unit, manager = Unit(chroot.inside(unit_path(chroot))), Manager(chroot)
    assert unit.settings["Type"] == "notify", unit.settings
    with Program(unit.command(chroot), log) as broker:
        told = manager.hears(broker, "READY=1")
        assert f"STATUS={broker.ready()}" in told and "amqp=127.0.0.1:5672" in told[1], told
        owner = os.stat(f"/proc/{broker.process.pid}").st_uid
        assert str(owner) == chroot.run("id", "-u", "rabbitmq").strip(), f"it runs as {owner}"
        assert "PLAIN" in amqp.login(LOCAL, "guest", "guest")
        refused(LOCAL, "guest", "wrong", "403 ACCESS_REFUSED")
        listed = chroot.run("find", "/var/lib/warren", "-perm", "/o=rwx", "-not", "-type", "l")
        assert not listed, f"open to others: {listed}"
        broker.process.send_signal(signal.SIGTERM)
        assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in manager.hears(broker, "STOPPING=1"))
        broker.ends(0)
    config = chroot.inside("/etc/warren/broker.toml")
    with open(config, encoding="utf-8") as file:
        text = file.read()
    with open(config, "w", encoding="utf-8") as file:
        file.write(text + "\n[amqp]\nhartbeat = 1\n")
    with Program(unit.command(chroot), log) as broker:
        broker.ends(int(unit.settings["RestartPreventExitStatus"]))
        assert "did you mean amqp.heartbeat?" in broker.output(), broker.output()
    with open(config, "w", encoding="utf-8") as file:
        file.write(text + "# a change\n")


def check_package(chroot, package, log):
    install(chroot, package)
    check_files(chroot)
    check_unit(chroot)
    check_service(chroot, log)
    install(chroot, package)
    with open(chroot.inside("/etc/warren/broker.toml"), encoding="utf-8") as file:
        assert file.read().endswith("# a change\n"), "an upgrade keeps the configuration"
    chroot.run("dpkg", "--remove", "warren")
    assert not os.path.lexists(chroot.inside("/usr/bin/warren"))
    assert not any(os.path.lexists(chroot.inside(f"/usr/bin/{tool}")) for tool in TOOLS)
    for kept in ("/etc/warren/broker.toml", "/var/lib/warren/wal"):
        assert os.path.exists(chroot.inside(kept)), f"{kept} is gone before a purge"
    chroot.run("dpkg", "--purge", "warren")
    left = chroot.run("find", "/etc", "/usr", "/lib", "/var/lib", "-name", "*warren*", "-not", "-path", "/var/lib/dpkg/*")
    assert not left, f"left behind: {left}"
    assert chroot.run("dpkg", "--audit") == ""


# The image -----------------------------------------------------------------------------------------------------------


class Container:
    """Starts programs as a container of an image would."""

    def __init__(self, chroot, image, log):
        self.chroot, self.image, self.log = chroot, image, log

    def start(self, *command, **variables):
        return Program(self.command(command, variables), self.log)

    def as_user(self, user, **variables):
        """As `docker run --user`."""
        command = self.command((), variables)
        at = command.index("sh")
        return Program(command[:at] + ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] + command[at:],
                       self.log)

    def command(self, command, variables):
        arguments = [*self.image.entrypoint, *(command or self.image.command)]
        return self.chroot.command(arguments, {**self.image.environment, **variables}, self.image.directory)

    def is_healthy(self):
        """The HEALTHCHECK, as the container's user and with the image's variables alone."""
        command = self.chroot.command(self.image.health, self.image.environment, self.image.directory)
        return subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=False).returncode == 0

    def empty_volume(self):
        for name in os.listdir(self.chroot.inside(self.image.volumes[0])):
            shutil.rmtree(self.chroot.inside(f"{self.image.volumes[0]}/{name}"))

    def write(self, path, text):
        with open(self.chroot.inside(path), "w", encoding="utf-8") as file:
            file.write(text)

    def remove(self, path):
        os.remove(self.chroot.inside(path))


def check_image(image):
    assert {5672, 5671, 15672, 15671, 15692, 25672} <= image.ports, image.ports
    assert image.volumes == ["/var/lib/rabbitmq"], image.volumes
    assert image.user == "root", "the entrypoint owns the volume and then steps down"


def check_default_user(container):
    with container.start(RABBITMQ_DEFAULT_USER="alice", RABBITMQ_DEFAULT_PASS="secret", RABBITMQ_DEFAULT_VHOST="shop",
                         RABBITMQ_NODENAME="rabbit@one") as broker:
        assert "amqp=0.0.0.0:5672" in broker.ready()
        assert os.stat(f"/proc/{broker.process.pid}").st_uid == 999
        amqp.login((STRANGER, 5672), "alice", "secret", "shop", source=(STRANGER, 0))
        refused(LOCAL, "guest", "guest", "403 ACCESS_REFUSED")
        refused(LOCAL, "alice", "secret", "530 NOT_ALLOWED", vhost="/")
        assert os.path.isdir(container.chroot.inside("/var/lib/rabbitmq/warren/wal")), "the data are in the volume"
        check_health(container)
        broker.stop()
    assert not container.is_healthy(), "healthy without a broker"
    container.empty_volume()


def check_health(container):
    """The tools answer over the broker's socket; a broker without one has no health to ask for."""
    if not os.path.exists(container.chroot.inside("/var/lib/rabbitmq/warren/warren.sock")):
        print("the broker has no socket for the tools: HEALTHCHECK is not tried")
        return
    assert container.is_healthy(), container.image.health


def check_guest_and_file(container):
    # The file goes before what a container adds; what the file leaves out still comes from the container.
    container.write("/etc/warren/broker.toml", "[amqp]\nport = 5673\nchannel_max = 7\n")
    with container.start() as broker:
        assert "amqp=0.0.0.0:5673" in broker.ready()
        amqp.login((STRANGER, 5673), "guest", "guest", source=(STRANGER, 0))
        broker.stop()
    container.write("/etc/warren/broker.toml", '[amqp]\nbind = "127.0.0.1"\n')
    with container.start() as broker:
        assert "amqp=127.0.0.1:5672" in broker.ready()
        broker.stop()
    container.write("/etc/warren/broker.toml", "[amqp]\nhartbeat = 1\n")
    with container.start() as broker:
        broker.ends(64)
        assert "did you mean amqp.heartbeat?" in broker.output(), broker.output()
    container.remove("/etc/warren/broker.toml")
    container.write("/etc/rabbitmq/broker.toml", "[amqp]\nport = 5674\n")
    with container.start() as broker:
        assert "amqp=0.0.0.0:5674" in broker.ready()
        broker.stop()
    container.remove("/etc/rabbitmq/broker.toml")
    with container.start("rabbitmq-server", "--bind", "127.0.0.1", "--amqp-port", "5675") as broker:
        assert "amqp=127.0.0.1:5675" in broker.ready()
        broker.stop()
    container.empty_volume()


def check_other_user(container):
    with container.as_user(4711) as broker:
        assert "amqp=0.0.0.0:5672" in broker.ready()
        assert os.stat(f"/proc/{broker.process.pid}").st_uid == 4711
        broker.stop()
    # And a volume of somebody else becomes the broker's own.
    with container.start() as broker:
        broker.ready()
        broker.stop()
    container.empty_volume()


def check_refusals(container):
    for variable in ("RABBITMQ_SSL_CERTFILE", "RABBITMQ_VM_MEMORY_HIGH_WATERMARK", "RABBITMQ_DEFAULT_PASS_FILE"):
        with container.start(**{variable: "x"}) as broker:
            broker.ends(1)
            assert f"error: {variable} is set but deprecated" in broker.output(), broker.output()
    with container.start(RABBITMQ_CONFIG_FILE="/etc/rabbitmq/my.conf") as broker:
        broker.ends(64)
        assert "RABBITMQ_CONFIG_FILE: cannot read /etc/rabbitmq/my.conf" in broker.output(), broker.output()
    container.write("/etc/rabbitmq/advanced.config", "[{rabbit, [{tcp_listeners, []}]}].\n")
    with container.start() as broker:
        broker.ends(64)
        assert "/etc/rabbitmq/advanced.config:1: is Erlang" in broker.output(), broker.output()
    container.remove("/etc/rabbitmq/advanced.config")


def check_rabbitmqs_files(container):
    """The files of a deployment of the official image, mounted as they are."""
    container.write("/etc/rabbitmq/rabbitmq.conf", "default_user = shop\ndefault_pass = secret\nlisteners.tcp.1 = 0.0.0.0:5676\n"
                    "management.tcp.ip = 0.0.0.0\nlog.file = shop.log\n")
    container.write("/etc/rabbitmq/conf.d/20-more.conf", "channel_max = 9\ncluster_formation.node_type = disc\n")
    container.write("/etc/rabbitmq/enabled_plugins", "[rabbitmq_management].\n")
    with container.start() as broker:
        ready = broker.ready()
        assert "amqp=0.0.0.0:5676" in ready and "management=0.0.0.0:15672" in ready and "prometheus=127.0.0.1:15692" in ready, ready
        amqp.login((STRANGER, 5676), "shop", "secret", source=(STRANGER, 0))
        broker.stop()
        assert "cluster_formation.node_type has no effect" in broker.output(), broker.output()
    assert os.path.exists(container.chroot.inside("/var/log/rabbitmq/shop.log"))
    for file in ("rabbitmq.conf", "conf.d/20-more.conf", "enabled_plugins"):
        container.remove(f"/etc/rabbitmq/{file}")
    container.empty_volume()


def check_other_commands(container):
    with container.start("warren", "--version") as program:
        program.ends(0)
        assert program.output().startswith("warren "), program.output()
    with container.start("sh", "-c", "id -u") as program:
        program.ends(0)
        assert program.output() == "0\n", program.output()


def check_container(chroot, binary, log):
    with open(os.path.join(REPOSITORY, "packaging/docker/Dockerfile"), encoding="utf-8") as file:
        text = file.read()
    image = dockerfile.build(text, REPOSITORY, chroot, {("build", "/src/target/dist/warren"): binary})
    check_image(image)
    container = Container(chroot, image, log)
    for check in (check_default_user, check_guest_and_file, check_other_user, check_refusals, check_rabbitmqs_files,
                  check_other_commands):
        check(container)
        print(f"    {check.__name__}")


# Both ----------------------------------------------------------------------------------------------------------------


def refused(address, user, password, start, vhost="/"):
    try:
        amqp.login(address, user, password, vhost)
    except amqp.Refused as refusal:
        assert str(refusal).startswith(start), refusal
        return
    raise AssertionError(f"{user} could log in")


def raise_loopback():
    """Turns the loopback interface on, with a second address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        set_flags, set_address, up, running = 0x8914, 0x8916, 0x1, 0x40
        fcntl.ioctl(control, set_flags, struct.pack("16sh22x", b"lo", up | running))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(STRANGER))
        fcntl.ioctl(control, set_address, struct.pack("16s16s8x", b"lo:1", address))


def main():
    parser = argparse.ArgumentParser()
    for option in ("--base", "--work", "--package", "--binary"):
        parser.add_argument(option, required=True)
    options = parser.parse_args()
    raise_loopback()
    failed = 0
    for name, check, argument in (("package", check_package, options.package), ("image", check_container, options.binary)):
        try:
            log = os.path.join(options.work, f"{name}.log")
            with Chroot(options.base, os.path.join(options.work, f"{name}-root")) as chroot:
                check(chroot, os.path.abspath(argument), log)
            print(f"ok      {name}")
        except Exception:  # whatever it was, the other one is tried too
            traceback.print_exc()
            print(f"FAILED  {name}")
            failed += 1
    print(f"{2 - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
