"""The last stage of a Dockerfile, carried out in a chroot. It knows what our Dockerfile uses and refuses anything else."""

import json
import os
import re
import shlex
import shutil

UNKNOWN = "line {}: {} is not known to this interpreter"


class Image:
    """What a Dockerfile makes beside the files: the settings that a container starts with."""

    def __init__(self):
        self.base = None
        self.environment = {}
        self.directory = "/"
        self.user = "root"
        self.ports = set()
        self.volumes = []
        self.entrypoint, self.command, self.health = [], [], []


def instructions(text):
    """(line number, instruction, the rest) with continued lines joined and comments left out."""
    joined, begins = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not line.strip():
            continue
        begins = begins or number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        name, _, rest = (joined + line).strip().partition(" ")
        yield begins, name.upper(), rest.strip()
        joined, begins = "", None
    assert not joined, "the last line is continued"


def last_stage(text):
    found = list(instructions(text))
    start = max(index for index, (_, name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def build(text, context, chroot, built):
    """Carries out the last stage. `built` has the files that earlier stages make: (stage, path) to a file here."""
    image = Image()
    for number, name, rest in last_stage(text):
        step = STEPS.get(name)
        assert step, UNKNOWN.format(number, name)
        step(image, rest, number, context, chroot, built)
    return image


def _from(image, rest, number, *_):
    assert re.fullmatch(r"debian:[a-z]+-slim", rest), UNKNOWN.format(number, f"FROM {rest}")
    image.base = rest


def _env(image, rest, number, *_):
    assert "$" not in rest, UNKNOWN.format(number, "a variable in ENV")
    for assignment in shlex.split(rest):
        name, _, value = assignment.partition("=")
        image.environment[name] = value


def _run(image, rest, number, _context, chroot, _built):
    assert not rest.startswith(("-", "[")), UNKNOWN.format(number, f"RUN {rest[:9]}")
    print(chroot.run("/bin/sh", "-c", rest, environment=image.environment, directory=image.directory), end="")


def _copy(_image, rest, number, context, chroot, built):
    words = rest.split()
    stage = None
    while words[0].startswith("--"):
        option, _, value = words.pop(0).partition("=")
        assert option == "--from", UNKNOWN.format(number, f"COPY {option}")
        stage = value
    *sources, target = words
    assert len(sources) == 1 and target.startswith("/") and "$" not in rest, UNKNOWN.format(number, f"COPY {rest}")
    source = built[(stage, sources[0])] if stage else os.path.join(context, sources[0])
    destination = chroot.inside(target)
    if target.endswith("/"):
        os.makedirs(destination, exist_ok=True)
        destination = os.path.join(destination, os.path.basename(sources[0]))
    else:
        os.makedirs(os.path.dirname(destination), exist_ok=True)
    shutil.copy(source, destination)


def _expose(image, rest, *_):
    image.ports.update(int(port) for port in rest.split())


def _volume(image, rest, *_):
    image.volumes += rest.split()


def _workdir(image, rest, *_):
    image.directory = rest


def _user(image, rest, *_):
    image.user = rest


def _entrypoint(image, rest, *_):
    image.entrypoint = json.loads(rest)


def _cmd(image, rest, *_):
    image.command = json.loads(rest)


def _healthcheck(image, rest, number, *_):
    options, found, command = rest.partition("CMD ")
    known = all(re.fullmatch(r"--(interval|timeout|start-period)=\d+s", option) for option in options.split())
    assert found and known, UNKNOWN.format(number, f"HEALTHCHECK {rest}")
    image.health = json.loads(command)


STEPS = {
    "FROM": _from, "ENV": _env, "RUN": _run, "COPY": _copy, "EXPOSE": _expose, "VOLUME": _volume, "WORKDIR": _workdir,
    "USER": _user, "ENTRYPOINT": _entrypoint, "CMD": _cmd, "HEALTHCHECK": _healthcheck,
}
