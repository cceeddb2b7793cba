"""Damages files of a data directory, as disks and people do, and knows enough of their formats to do it where it hurts."""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096
NEWER_VERSION = 99
BATCH_MAGIC = b"WBat"
BATCH_HEADER = 64

_CRC32C = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _CRC32C.append(_byte)


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC32C[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


@dataclass(frozen=True)
class WalBatch:
    """A batch of a WAL file, by offsets in it."""

    file: Path
    start: int
    records: int
    """Where the records begin."""
    end: int


def wal_files(data: Path) -> list[Path]:
    """Oldest first."""
    return sorted((data / "wal").glob("*.wal"))


def segments(data: Path) -> list[Path]:
    """Oldest first."""
    return sorted((data / "segments").glob("*.seg"))


def kept_wal_files(data: Path) -> list[Path]:
    """WAL files that became part of segments, oldest first."""
    return sorted((data / "segments").glob("*.wal"))


def snapshots(data: Path) -> list[Path]:
    """Of definitions, oldest first."""
    return sorted((data / "definitions").glob("*.snapshot"))


def damaged_files(data: Path) -> list[str]:
    """The names of files that the broker has put aside."""
    return sorted(path.name for path in (data / "damaged").glob("*"))


def batches(file: Path) -> list[WalBatch]:
    """The batches of a WAL file's present life."""
    content = file.read_bytes()
    found, at = [], BLOCK
    while at + BATCH_HEADER <= len(content):
        magic, _, _, sequence, _, _, length, count = struct.unpack_from("<4sHHQQQQI", content, at)
        checksum = struct.unpack_from("<I", content, at + 60)[0]
        is_ours = magic == BATCH_MAGIC and sequence == int(file.stem)
        if is_ours and checksum == crc32c(content[at : at + 60] + struct.pack("<Q", at)):
            records = at + BATCH_HEADER + 8 * count
            found.append(WalBatch(file, at, records, records + length))
            at = -(-(records + length) // BLOCK) * BLOCK
        else:
            at += BLOCK
    return found


def batch_with(data: Path, body: bytes) -> WalBatch:
    """The batch that has this in one of its records."""
    found = [batch for file in wal_files(data) for batch in batches(file) if body in read(batch)]
    assert len(found) == 1, f"{len(found)} batches have {body[:20]!r}"
    return found[0]


def read(batch: WalBatch) -> bytes:
    with open(batch.file, "rb") as file:
        file.seek(batch.start)
        return file.read(batch.end - batch.start)


def write(file: Path, offset: int, content: bytes) -> None:
    with open(file, "r+b") as opened:
        opened.seek(offset)
        opened.write(content)


def flip_bit(file: Path, offset: int) -> None:
    with open(file, "rb") as opened:
        opened.seek(offset)
        byte = opened.read(1)
    write(file, offset, bytes([byte[0] ^ 0x10]))


def zero_page(file: Path, offset: int) -> None:
    """Zeroes the page that has the offset."""
    write(file, offset // BLOCK * BLOCK, bytes(min(BLOCK, file.stat().st_size - offset // BLOCK * BLOCK)))


def make_newer(file: Path) -> None:
    """Turns the file's header into one of a later version, with a checksum that is right."""
    content = bytearray(file.read_bytes())
    if file.suffix == ".snapshot":
        struct.pack_into("<I", content, 12, NEWER_VERSION)
        struct.pack_into("<I", content, 8, crc32c(content[12:]))
    elif file.suffix == ".wal":
        struct.pack_into("<I", content, 8, NEWER_VERSION)
        struct.pack_into("<I", content, 24, crc32c(content[:24]))
    else:
        struct.pack_into("<I", content, 8, NEWER_VERSION)
        (length,) = struct.unpack_from("<I", content, 12)
        struct.pack_into("<I", content, 16, crc32c(content[:16] + content[20:length]))
    file.write_bytes(content)


def where(file: Path, content: bytes) -> int:
    """The offset of something in a file."""
    offset = file.read_bytes().find(content)
    assert offset >= 0, f"{content[:20]!r} is not in {file}"
    return offset


def lines_about(log: str, file: Path) -> list[str]:
    return [line for line in log.splitlines() if file.name in line]


def assert_tells(log: str, file: Path, *words: str, between: tuple[int, int] | None = None) -> None:
    """One line of the log names the file, has all the words, and an offset in the file that is in the range."""
    for line in lines_about(log, file):
        rest = line.replace(file.name, "").lower()
        numbers = [int(number) for number in re.findall(r"\d+", rest)]
        is_there = between is None or any(between[0] <= number <= between[1] for number in numbers)
        if is_there and all(word in rest for word in words):
            return
    place = f" and an offset from {between[0]} to {between[1]}" if between else ""
    raise AssertionError(f"no line names {file.name} with {words}{place}:\n{log[-4000:]}")


def is_root() -> bool:
    return os.geteuid() == 0
