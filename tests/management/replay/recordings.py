"""The recordings, as facts: what was asked, and what RabbitMQ 4.3.6 answered."""

import json
from dataclasses import dataclass, field
from pathlib import Path

DIRECTORY = Path(__file__).resolve().parent / "recordings"
FOLDERS = ("get", "health", "ui", "errors", "quirks", "write")


@dataclass
class Recording:
    """One request and its answer. `shortened`: lists in the body hold only some of the elements there were."""

    name: str
    method: str
    path: str
    user: str | None
    status: int
    headers: dict
    body: object
    request: dict = field(default_factory=dict)
    needs: str | None = None
    shortened: bool = False


@dataclass
class Right:
    """One row of the table of rights: the answer to each kind of user, such as `401 Not monitor user`."""

    method: str
    path: str
    answers: dict
    needs: str | None = None

    @property
    def name(self) -> str:
        return f"authorisation/{self.method} {self.path}"


def recordings() -> list[Recording]:
    """All recordings, in the order they are replayed in."""
    found = []
    for folder in FOLDERS:
        for row in _rows(folder):
            found.append(Recording(**{**row, "name": f"{folder}/{row['name']}"}))
    return found


def rights() -> list[Right]:
    return [Right(**row) for row in _rows("authorisation")]


def _rows(name: str) -> list[dict]:
    text = (DIRECTORY / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]
