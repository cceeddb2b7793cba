"""A damaged data directory: what is provably good is kept, what is lost is said, and nothing ends in a panic."""

import contextlib
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import damage
import pika
import pytest
from broker import Broker, broker_binary
from conftest import SMALL_FILES, wait_until
from damage import assert_tells
from pika.exceptions import AMQPError

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("AMQP_URL")), reason="it needs the data directory of its own broker"
)

PERSISTENT = pika.BasicProperties(delivery_mode=2)
NOBODY = 65534
QUEUE = "damaged"


def bodies(count, size):
    """Bodies that occur nowhere else, and are told apart by any 16 bytes of them."""
    dice = random.Random(7)
    return [b"body %04d " % number + dice.randbytes(size) for number in range(count)]


def connect(broker):
    return pika.BlockingConnection(pika.URLParameters(broker.url))


def publish_each(broker, sent, queue=QUEUE):
    """Publishes and waits for each confirm, so that every message is in a batch of its own."""
    with connect(broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(queue, durable=True)
        for body in sent:
            channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)


def drain(broker, queue=QUEUE):
    """All messages of a queue, acknowledged."""
    with connect(broker) as connection:
        channel = connection.channel()
        found = []
        while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
            found.append(message[2])
        return found


def without(sent, *lost):
    return [body for number, body in enumerate(sent) if number not in lost]


def numbers(found):
    """Short, for assertions."""
    return [int(body[5:9]) for body in found]


def restart_with_log(broker):
    """Starts the broker; what it wrote to standard error by the time it was ready."""
    before = len(broker.log())
    broker.start()
    return lambda: broker.log()[before:]


def verify(broker):
    """Exit code and output of `warren log verify`."""
    command = [broker_binary(), "log", "verify", "--data-dir", broker.data]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "panicked" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout + ended.stderr


def assert_verify_finds(broker, file, between=None):
    code, text = verify(broker)
    assert code != 0, text
    assert_tells(text, file, between=between)


@pytest.fixture
def killed(broker):
    """A broker killed with 40 messages in the WAL, each in a batch of its own; the bodies."""
    sent = bodies(40, 1000)
    publish_each(broker, sent)
    broker.kill()
    return broker, sent


@pytest.fixture
def stored(broker):
    """A stopped broker with messages copied to several segments, since they came in small batches, and the bodies."""
    sent = bodies(100, 24_000)
    publish_each(broker, sent)
    wait_until(lambda: len(damage.segments(broker.data)) >= 2, "segments")
    broker.stop()
    assert not damage.kept_wal_files(broker.data)
    return broker, sent


@pytest.fixture
def kept(broker):
    """A stopped broker with messages in WAL files that became part of segments, and the bodies."""
    sent = bodies(100, 50_000)
    publish_each(broker, sent)
    wait_until(lambda: len(damage.kept_wal_files(broker.data)) >= 2, "WAL files in segments")
    broker.stop()
    return broker, sent


def segment_with(broker, body):
    found = [file for file in damage.segments(broker.data) if body in file.read_bytes()]
    assert len(found) == 1, f"{len(found)} segments have {body[:9]!r}"
    return found[0]


def in_wal(file, sent):
    """The numbers of the messages that are in a WAL file, in its present life."""
    contents = [damage.read(batch) for batch in damage.batches(file)]
    return [number for number, body in enumerate(sent) if any(body in content for content in contents)]


def in_segments(broker, sent):
    """The numbers of the messages that are in segments."""
    files = damage.segments(broker.data) + damage.kept_wal_files(broker.data)
    contents = [file.read_bytes() for file in files]
    return [number for number, body in enumerate(sent) if any(body in content for content in contents)]


# The WAL ---------------------------------------------------------------------------------------------------------------


def test_an_undamaged_wal_is_read_without_complaint(killed):
    broker, sent = killed
    assert verify(broker)[0] == 0, verify(broker)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == list(range(40))
    assert "lost" not in log() and "damaged" not in log()
    assert damage.damaged_files(broker.data) == []


def tear_header(batch):
    damage.zero_page(batch.file, batch.start)


def tear_end(batch):
    damage.write(batch.file, batch.end - 500, bytes(500))


def cut_file(batch):
    os.truncate(batch.file, batch.end - 500)


def cut_file_in_header(batch):
    os.truncate(batch.file, batch.start + 10)


@pytest.mark.parametrize("tear", [tear_header, tear_end, cut_file, cut_file_in_header])
def test_a_torn_end_of_the_wal_is_cut_off(killed, tear):
    """A write that the crash cut short: nothing was confirmed that is in it."""
    broker, sent = killed
    last = damage.batch_with(broker.data, sent[-1])
    if damage.batches(last.file)[-1] != last:
        pytest.fail("something was written behind the last message")
    tear(last)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == list(range(39))
    if tear not in (tear_header, cut_file_in_header):
        assert_tells(log(), last.file, "cut off", between=(last.start, last.end))
    assert "lost" not in log()
    # The end is found again at the same place, and what follows is written there.
    publish_each(broker, sent[-1:])
    broker.kill()
    broker.start()
    assert drain(broker) == sent[-1:]


def flip_in_body(batch, body):
    damage.flip_bit(batch.file, batch.start + damage.read(batch).find(body) + len(body) // 2)


def flip_in_header(batch, _body):
    damage.flip_bit(batch.file, batch.start + 40)


def zero_batch(batch, _body):
    damage.zero_page(batch.file, batch.start)


@pytest.mark.parametrize("harm", [flip_in_body, flip_in_header, zero_batch])
@pytest.mark.parametrize("which", [1, 20])
def test_damage_in_the_middle_of_the_wal(killed, harm, which):
    broker, sent = killed
    batch = damage.batch_with(broker.data, sent[which])
    harm(batch, sent[which])
    assert_verify_finds(broker, batch.file, (batch.start, batch.end))
    log = restart_with_log(broker)
    found = drain(broker)
    assert found == without(sent, which), numbers(found)
    assert_tells(log(), batch.file, "lost", between=(batch.start, batch.end))
    wait_until(lambda: batch.file.name in damage.damaged_files(broker.data), "the file to be put aside")
    assert not batch.file.exists()
    # It is said once: the next start finds nothing wrong.
    broker.stop()
    assert verify(broker)[0] == 0, verify(broker)
    log = restart_with_log(broker)
    assert "lost" not in log()


def test_damage_of_a_record_leaves_the_others_of_its_batch(broker):
    """Publishes of one transaction are in one batch."""
    sent = bodies(30, 300)
    with connect(broker) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True)
        channel.tx_select()
        for body in sent:
            channel.basic_publish("", QUEUE, body, PERSISTENT)
        channel.tx_commit()
    publish_each(broker, [b"behind"], "other")
    broker.kill()
    batch = damage.batch_with(broker.data, sent[10])
    assert damage.batch_with(broker.data, sent[20]) == batch, "the test needs messages in one batch"
    flip_in_body(batch, sent[10])
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == without(list(range(30)), 10)
    assert_tells(log(), batch.file, "lost", between=(batch.start, batch.end))


def test_the_header_of_a_wal_file_is_damaged(killed):
    broker, sent = killed
    file = damage.batch_with(broker.data, sent[0]).file
    damage.zero_page(file, 0)
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == list(range(40))
    assert_tells(log(), file, "header")


def test_a_wal_file_is_cut_in_the_middle(killed):
    """As a copy that was not finished: the end was confirmed, and nothing is left that says so."""
    broker, sent = killed
    batch = damage.batch_with(broker.data, sent[20])
    os.truncate(batch.file, batch.start + 100)
    restart_with_log(broker)
    assert numbers(drain(broker)) == list(range(20))
    publish_each(broker, sent[:3])
    broker.kill()
    broker.start()
    assert numbers(drain(broker)) == [0, 1, 2]


def test_a_wal_file_is_missing(broker):
    """Several WAL files wait to be flushed when the broker is killed; one of them is removed."""
    sent = bodies(200, 50_000)
    for _attempt in range(10):
        with contextlib.suppress(AMQPError), connect(broker) as connection:
            channel = connection.channel()
            channel.queue_declare(QUEUE, durable=True)
            channel.queue_purge(QUEUE)
            for body in sent:
                channel.basic_publish("", QUEUE, body, PERSISTENT)
            # The broker has them all, and is busy with writing and flushing.
            channel.queue_declare(QUEUE, passive=True)
            broker.kill()
        files = [file for file in damage.wal_files(broker.data) if damage.batches(file)]
        flushed = in_segments(broker, sent)
        waiting = {file: [n for n in in_wal(file, sent) if n not in flushed] for file in files}
        # The newest one may be where the log ends: that it is gone, nobody could know.
        victim = next((file for file in files[:-1] if waiting[file]), None)
        if victim is not None:
            break
        broker.start()
    else:
        pytest.skip("all but the newest WAL file were always flushed")
    victim.unlink()
    there = set(flushed).union(*(waiting[file] for file in files if file != victim))
    log = restart_with_log(broker)
    found = numbers(drain(broker))
    # Of the newest file an unfinished batch may be cut off.
    assert set(found) <= there and there - set(found) <= set(waiting[files[-1]])
    assert found == sorted(found)
    assert_tells(log(), victim, "missing")


def test_the_only_wal_file_is_missing(killed):
    """With it went everything, also all that could say so: but the broker starts, and works."""
    broker, sent = killed
    for file in damage.wal_files(broker.data):
        file.unlink()
    restart_with_log(broker)
    publish_each(broker, sent[:5])
    broker.kill()
    broker.start()
    assert numbers(drain(broker)) == [0, 1, 2, 3, 4]


def test_random_damage_of_the_wal(killed):
    """Whatever is overwritten: the broker starts, what it delivers was sent, and what is elsewhere is not touched."""
    broker, sent = killed
    pristine = broker.data.with_name("pristine")
    # A killed broker leaves its control socket behind, which cannot be copied.
    shutil.copytree(broker.data, pristine, ignore=shutil.ignore_patterns("*.sock"))
    dice = random.Random(11)
    for _round in range(12):
        shutil.rmtree(broker.data)
        shutil.copytree(pristine, broker.data)
        places = [damage.batch_with(broker.data, body) for body in (sent[0], sent[-1])]
        start = dice.randrange(places[0].start, places[1].end)
        harm = dice.randbytes(dice.choice([1, 10, 1000, 5000, 20_000]))
        touched = [
            number
            for number, body in enumerate(sent)
            if (batch := damage.batch_with(broker.data, body)).start < start + len(harm) and start < batch.end
        ]
        damage.write(places[0].file, start, harm)
        log = restart_with_log(broker)
        found = drain(broker)
        assert set(found) <= set(sent) and numbers(found) == sorted(numbers(found))
        gone = [number for number in range(40) if sent[number] not in found]
        # When the very end is touched, that is where the log ends.
        assert set(gone) <= set(touched), (gone, touched, log())
        if gone and 39 not in gone:
            assert_tells(log(), places[0].file, "lost")
        broker.stop()


# Segments --------------------------------------------------------------------------------------------------------------


def test_undamaged_segments_are_read_without_complaint(stored):
    broker, sent = stored
    assert verify(broker)[0] == 0, verify(broker)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == list(range(100))
    assert "lost" not in log() and "damaged" not in log()


@pytest.mark.parametrize("harm", [damage.flip_bit, damage.zero_page])
def test_damaged_messages_of_a_segment(stored, harm):
    broker, sent = stored
    there = in_segments(broker, sent)
    victims = [there[0], there[len(there) // 2]]
    for victim in victims:
        file = segment_with(broker, sent[victim])
        offset = damage.where(file, sent[victim]) + 10_000
        harm(file, offset)
        code, text = verify(broker)
        assert code != 0
        assert_tells(text, file, between=(offset - 25_000, offset + 35_000))
    files = {victim: segment_with(broker, sent[victim][-5_000:]) for victim in victims}
    log = restart_with_log(broker)
    found = drain(broker)
    assert found == without(sent, *victims), numbers(found)
    for victim in victims:
        wait_until(lambda: damage.lines_about(log(), files[victim]), "a line about the damage")  # noqa: B023
        assert_tells(log(), files[victim], "damaged")


@pytest.mark.parametrize("harm", [damage.flip_bit, damage.zero_page])
def test_a_damaged_footer_of_a_segment(stored, harm):
    broker, sent = stored
    file = segment_with(broker, sent[in_segments(broker, sent)[0]])
    end = file.read_bytes()[-8192:]
    harm(file, file.stat().st_size - 60)
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    found = drain(broker)
    # The page of the footer is also the one where the last message ends.
    last = {n for n in range(100) if sent[n][-1000:] in end} if harm is damage.zero_page else set()
    assert set(range(100)) - set(numbers(found)) <= last
    assert_tells(log(), file, "damaged")


@pytest.mark.parametrize("harm", [damage.flip_bit, damage.zero_page])
def test_a_damaged_header_of_a_segment(stored, harm):
    broker, sent = stored
    file = segment_with(broker, sent[in_segments(broker, sent)[0]])
    harm(file, 22)
    content = file.read_bytes()
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    found = drain(broker)
    first = min((content.find(body[-1000:]), n) for n, body in enumerate(sent) if body[-1000:] in content)[1]
    # The page of the header is also the one where the first message begins.
    assert set(range(100)) - set(numbers(found)) <= ({first} if harm is damage.zero_page else set())
    assert_tells(log(), file, "damaged")


def test_a_segment_is_cut_in_the_middle(stored):
    broker, sent = stored
    file = segment_with(broker, sent[in_segments(broker, sent)[0]])
    had = [number for number in range(100) if sent[number] in file.read_bytes()]
    os.truncate(file, file.stat().st_size // 2)
    lost = [number for number in had if sent[number] not in file.read_bytes()]
    assert lost and len(lost) < len(had)
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == without(list(range(100)), *lost)
    assert_tells(log(), file, "damaged")


def test_a_segment_is_empty(stored):
    broker, sent = stored
    file = segment_with(broker, sent[in_segments(broker, sent)[0]])
    lost = [number for number in range(100) if sent[number] in file.read_bytes()]
    os.truncate(file, 0)
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == without(list(range(100)), *lost)
    assert_tells(log(), file, "damaged")


def test_a_segment_is_missing(stored):
    broker, sent = stored
    file = segment_with(broker, sent[in_segments(broker, sent)[0]])
    lost = [number for number in range(100) if sent[number] in file.read_bytes()]
    file.unlink()
    code, text = verify(broker)
    assert code != 0, text
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == without(list(range(100)), *lost)
    # Which file they were in nobody knows any more, but that they were there.
    told = [line for line in log().splitlines() if "entries" in line and str(len(lost)) in line]
    assert told, log()


def in_file(file, sent):
    """The numbers of the messages that are in a file as a whole."""
    content = file.read_bytes()
    return [number for number, body in enumerate(sent) if body in content]


def test_undamaged_kept_wal_files_are_read_without_complaint(kept):
    broker, sent = kept
    assert verify(broker)[0] == 0, verify(broker)
    log = restart_with_log(broker)
    assert drain(broker) == sent
    assert "lost" not in log() and "damaged" not in log()


@pytest.mark.parametrize("harm", [damage.flip_bit, damage.zero_page])
def test_a_damaged_message_of_a_kept_wal_file(kept, harm):
    broker, sent = kept
    file = damage.kept_wal_files(broker.data)[0]
    there = in_file(file, sent)
    victim = there[len(there) // 2]
    harm(file, damage.where(file, sent[victim]) + 20_000)
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    assert drain(broker) == without(sent, victim)
    wait_until(lambda: damage.lines_about(log(), file), "a line about the damage")
    assert_tells(log(), file, "damaged")


def test_a_kept_wal_file_is_missing(kept):
    broker, sent = kept
    file = damage.kept_wal_files(broker.data)[0]
    lost = in_file(file, sent)
    file.unlink()
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == without(list(range(100)), *lost)
    assert_tells(log(), file, "missing", "lost")


def test_the_index_of_a_kept_wal_file_is_empty(kept):
    broker, sent = kept
    file = damage.kept_wal_files(broker.data)[0].with_suffix(".seg")
    os.truncate(file, 0)
    assert_verify_finds(broker, file)
    log = restart_with_log(broker)
    # The WAL file has all that it had.
    assert drain(broker) == sent
    assert_tells(log(), file, "damaged")


def test_unfinished_files_are_removed(stored):
    broker, sent = stored
    for directory, name in (("segments", "00000000000000009999.tmp"), ("definitions", "unfinished")):
        (broker.data / directory).mkdir(exist_ok=True)
        (broker.data / directory / name).write_bytes(b"half of something")
    log = restart_with_log(broker)
    assert numbers(drain(broker)) == list(range(100))
    assert "lost" not in log()


# Definitions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def defined(broker):
    """A stopped broker with at least two snapshots of definitions, and a function that checks all definitions."""
    declared = []

    def declare(first):
        with connect(broker) as connection:
            channel = connection.channel()
            for number in range(first, first + 20):
                channel.queue_declare(f"queue-{number}", durable=True, arguments={"x-max-length": number})
                channel.exchange_declare(f"exchange-{number}", "topic", durable=True)
                channel.queue_bind(f"queue-{number}", f"exchange-{number}", "key.#")
                declared.append(number)

    def check():
        with connect(broker) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for number in declared:
                channel.queue_declare(f"queue-{number}", passive=True)
                channel.queue_declare(f"queue-{number}", durable=True, arguments={"x-max-length": number})
                channel.exchange_declare(f"exchange-{number}", passive=True)
                channel.basic_publish(f"exchange-{number}", "key.a", b"", mandatory=True)

    for first in (0, 20, 40):
        declare(first)
        broker.stop()
        broker.start()
    for first in range(60, 4000, 20):
        if len(damage.snapshots(broker.data)) >= 2:
            break
        declare(first)
    else:
        pytest.fail(f"no two snapshots of definitions after {len(declared)} of each kind")
    declare(9000)
    broker.stop()
    return broker, check


def cut_in_half(file):
    os.truncate(file, file.stat().st_size // 2)


def cut_to_nothing(file):
    os.truncate(file, 0)


def flip_middle(file):
    damage.flip_bit(file, file.stat().st_size // 2)


def zero_first_page(file):
    damage.zero_page(file, 0)


@pytest.mark.parametrize("harm", [cut_in_half, cut_to_nothing, flip_middle, zero_first_page])
def test_a_damaged_snapshot_of_definitions(defined, harm):
    broker, check = defined
    newest = damage.snapshots(broker.data)[-1]
    harm(newest)
    assert_verify_finds(broker, newest)
    log = restart_with_log(broker)
    check()
    assert_tells(log(), newest, "damaged")
    assert newest.name in damage.damaged_files(broker.data)
    broker.stop()
    broker.start()
    check()


def test_the_newest_snapshot_is_missing(defined):
    broker, check = defined
    damage.snapshots(broker.data)[-1].unlink()
    restart_with_log(broker)
    check()


def test_the_oldest_snapshot_is_damaged(defined):
    broker, check = defined
    flip_middle(damage.snapshots(broker.data)[0])
    broker.start()
    check()


def test_all_snapshots_are_damaged(defined):
    """What is left would be a broker without most queues, whose messages it would throw away: it does not start."""
    broker, _check = defined
    files = damage.snapshots(broker.data)
    for file in files:
        flip_middle(file)
    code, text = broker.start_refused()
    assert code != 0 and "panicked" not in text
    for file in files:
        assert_tells(text, file)
    assert damage.snapshots(broker.data) == files, "it has thrown away what somebody may repair"


# Refusals --------------------------------------------------------------------------------------------------------------


def wal_in_use(data):
    return [file for file in damage.wal_files(data) if damage.batches(file)][-1]


@pytest.fixture(params=["wal", "segment", "snapshot"])
def kind_of_file(request):
    """A function that gives the newest file of a kind in a data directory."""
    find = {"wal": wal_in_use, "segment": lambda data: damage.segments(data)[-1]}
    return find.get(request.param, lambda data: damage.snapshots(data)[-1])


def fill_with_all_kinds(broker):
    """Leaves a killed broker that has all kinds of files."""
    publish_each(broker, bodies(60, 50_000))
    wait_until(lambda: damage.segments(broker.data), "segments")
    broker.stop()
    broker.start()
    with connect(broker) as connection:
        channel = connection.channel()
        for number in range(4000):
            if number % 20 == 0 and damage.snapshots(broker.data):
                break
            channel.exchange_declare(f"exchange-{number}", durable=True)
        else:
            pytest.fail("no snapshot of definitions")
    publish_each(broker, bodies(3, 100))
    broker.kill()


def test_a_newer_version_is_refused(broker, kind_of_file):
    fill_with_all_kinds(broker)
    file = kind_of_file(broker.data)
    damage.make_newer(file)
    before = file.read_bytes()
    code, text = broker.start_refused()
    assert code != 0 and "panicked" not in text
    assert_tells(text, file, "version", between=(damage.NEWER_VERSION, damage.NEWER_VERSION))
    assert file.read_bytes() == before
    assert_verify_finds(broker, file)


@pytest.fixture
def unprivileged():
    """A broker that does not run as root, for whom permissions count."""
    if not damage.is_root():
        with tempfile.TemporaryDirectory() as directory:
            own = Broker(Path(directory), *SMALL_FILES)
            yield own
            own.close()
        return
    if shutil.which("setpriv") is None:
        pytest.skip("root may read everything, and there is no setpriv to be somebody else")
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        binary = shutil.copy(broker_binary(), directory / "warren")
        os.chown(directory, NOBODY, NOBODY)
        ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        own = Broker(directory, *SMALL_FILES, command=("setpriv", *ids), binary=binary)
        yield own
        own.close()


def test_a_file_without_permission_is_refused(unprivileged, kind_of_file):
    broker = unprivileged
    broker.start()
    fill_with_all_kinds(broker)
    file = kind_of_file(broker.data)
    file.chmod(0)
    code, text = broker.start_refused()
    assert code != 0 and "panicked" not in text
    assert_tells(text, file, "ermission")
    file.chmod(0o600)
    broker.start()
    assert len(drain(broker)) == 63


def test_a_directory_without_permission_is_refused(unprivileged):
    broker = unprivileged
    broker.start()
    publish_each(broker, bodies(3, 100))
    broker.stop()
    for directory in (broker.data / "wal", broker.data):
        directory.chmod(0)
        code, text = broker.start_refused()
        assert code != 0 and "panicked" not in text
        assert directory.name in text and "ermission" in text, text
        directory.chmod(0o700)
    broker.start()
    assert len(drain(broker)) == 3


def test_a_data_directory_serves_one_broker(broker, tmp_path):
    sent = bodies(5, 100)
    publish_each(broker, sent)
    other = Broker(tmp_path)
    code, text = other.start_refused()
    assert code != 0 and "panicked" not in text
    assert str(broker.data) in text or "lock" in text, text
    publish_each(broker, sent[:1])
    assert len(drain(broker)) == 6
    # Its lock ends with it, however it ends.
    broker.kill()
    other.start()
    other.stop()
    broker.start()


# Tools -----------------------------------------------------------------------------------------------------------------


def dump(broker):
    command = [broker_binary(), "log", "dump", "--data-dir", broker.data]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_dump_shows_entries(broker):
    publish_each(broker, bodies(7, 100))
    broker.kill()
    lines = dump(broker).splitlines()
    assert len(lines) >= 8, "fewer lines than entries"
    broker.start()
    publish_each(broker, bodies(7, 100))
    broker.stop()
    assert len(dump(broker).splitlines()) > len(lines)


def test_tools_change_nothing(killed):
    broker, sent = killed

    def files():
        # The lock has the number of the process that looked last.
        return {file: file.read_bytes() for file in broker.data.rglob("*") if file.is_file() and file.name != "lock"}

    before = files()
    verify(broker)
    dump(broker)
    assert files() == before
    broker.start()
    assert numbers(drain(broker)) == list(range(40))


def test_tools_refuse_what_is_no_data_directory(broker, tmp_path):
    for command in ("verify", "dump"):
        absent = tmp_path / "nowhere"
        ended = subprocess.run(
            [broker_binary(), "log", command, "--data-dir", absent], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode != 0 and str(absent) in ended.stderr, ended.stderr
        assert not absent.exists()
