#!/usr/bin/env python3
"""Every kind of command of rabbitmqadmin 3.x, the Python script, against the broker of MANAGEMENT_URL and AMQP_URL.

RABBITMQADMIN names the script. Checks exit codes, what the commands print, and what they did.
"""

import json
import os
import tempfile
import urllib.parse
from pathlib import Path

import pika
from checks import AMQP_URL, MANAGEMENT_URL, Api, Mismatch, Report, eventually, expect, expect_in, quote, run_tool

VHOST = f"tools-v1-{os.getpid()}"
USER = f"{VHOST}-user"
PASSWORD = "with space & sign"
TABLES = [
    ("users", "tags"),
    ("permissions", "configure"),
    ("nodes", "mem_used"),
    ("connections", "channels"),
    ("channels", "user"),
    ("consumers", "consumer_tag"),
    ("queues", "messages"),
    ("exchanges", "type"),
    ("bindings", "destination"),
    ("parameters", "component"),
    ("policies", "pattern"),
    ("operator_policies", "pattern"),
    ("vhost_limits", "value"),
]

address = urllib.parse.urlsplit(MANAGEMENT_URL)
api = Api()
report = Report()


def main() -> None:
    report.check("help", lambda: expect_in("Usage", admin("--help")))
    overview()
    declares()
    lists()
    messages()
    definitions()
    connections()
    errors()
    deletes()
    report.finish()


def admin(*arguments: str, code: int = 0, user: str = "guest", password: str = "guest") -> str:
    """Runs the script; an argument that begins with `in:` stands for --vhost."""
    options = ["--host", address.hostname, "--port", str(address.port), "--username", user, "--password", password]
    for argument in arguments:
        options += ["--vhost", argument[3:]] if argument.startswith("in:") else [argument]
    return run_tool(["python3", os.environ["RABBITMQADMIN"], *options], code)


def command(text: str, *arguments: str) -> None:
    """A check that the command succeeds and prints the text."""
    name = " ".join(argument for argument in arguments if not argument.startswith("in:"))
    report.check(name.replace(VHOST, "VHOST"), lambda: expect_in(text, admin(*arguments)))


def rows(*arguments: str) -> list[dict]:
    return json.loads(admin("--format", "raw_json", *arguments))


def overview() -> None:
    def shows() -> None:
        output = admin("show", "overview")
        for column in ("rabbitmq_version", "cluster_name", "queue_totals.messages", "object_totals.queues"):
            expect_in(column, output)
        expect_in(api.get("overview")["rabbitmq_version"], output)

    report.check("show overview", shows)


def declares() -> None:
    inside = f"in:{VHOST}"
    command("vhost declared", "declare", "vhost", f"name={VHOST}")
    command("user declared", "declare", "user", f"name={USER}", f"password={PASSWORD}", "tags=administrator")
    for user in ("guest", USER):
        command(
            "permission declared",
            *("declare", "permission", f"vhost={VHOST}", f"user={user}", "configure=.*", "write=.*", "read=.*"),
        )
    command(
        "queue declared", inside, "declare", "queue", "name=q1", "durable=true", 'arguments={"x-max-length":5}'
    )
    command("queue declared", inside, "declare", "queue", "name=q 2/ä", "durable=true", "queue_type=classic")
    command("exchange declared", inside, "declare", "exchange", "name=x1", "type=topic", "internal=false")
    command("binding declared", inside, "declare", "binding", "source=x1", "destination=q1", "routing_key=a.#")
    command(
        "binding declared",
        *(inside, "declare", "binding", "source=x1", "destination_type=exchange", "destination=amq.fanout"),
    )
    command(
        "policy declared",
        *(inside, "declare", "policy", "name=p", "pattern=^q", 'definition={"max-length":3}'),
        *("apply-to=queues", "priority=7"),
    )
    command(
        "operator_policy declared",
        *(inside, "declare", "operator_policy", "name=op", "pattern=.*", 'definition={"max-length":90}'),
        "apply-to=queues",
    )
    command("vhost_limit declared", "declare", "vhost_limit", f"vhost={VHOST}", "name=max-queues", "value=50")
    command(
        "parameter declared",
        *(inside, "declare", "parameter", "component=vhost-limits", "name=limits", 'value={"max-queues":40}'),
    )

    def declared() -> None:
        queue = api.get(f"queues/{VHOST}/q1")
        expect((queue["durable"], queue["arguments"].get("x-max-length")), (True, 5), "q1")
        expect_in("q 2/ä", [queue["name"] for queue in api.get(f"queues/{VHOST}")])
        expect(api.get(f"exchanges/{VHOST}/x1")["type"], "topic", "x1")
        policy = api.get(f"policies/{VHOST}/p")
        expect((policy["definition"], policy["priority"], policy["apply-to"]), ({"max-length": 3}, 7, "queues"))
        expect(api.get(f"operator-policies/{VHOST}/op")["definition"], {"max-length": 90})
        expect(api.get(f"vhost-limits/{VHOST}"), [{"vhost": VHOST, "value": {"max-queues": 40}}])
        keys = [binding["routing_key"] for binding in api.get(f"bindings/{VHOST}/e/x1/q/q1")]
        expect(keys, ["a.#"], "bindings of q1")

    report.check("what was declared is there", declared)
    report.check("the declared user can log in", lambda: admin("list", "vhosts", user=USER, password=PASSWORD))


def lists() -> None:
    """Every table while there is something in each of them."""
    connection = pika.BlockingConnection(pika.URLParameters(f"{AMQP_URL}/{VHOST}"))
    connection.channel().basic_consume("q1", lambda *_: None, consumer_tag="tools-v1-tag")

    def table(kind: str, column: str) -> None:
        output = admin("list", kind)
        expect_in(column, output)
        if output.count("\n") < 5:
            raise Mismatch(f"expected rows, got {output!r}")

    report.check("list vhosts", lambda: expect_in(VHOST, admin("list", "vhosts")))
    for kind, column in TABLES:
        report.check(f"list {kind}", lambda kind=kind, column=column: eventually(lambda: table(kind, column)))
    connection.close()

    def columns() -> None:
        found = rows(f"in:{VHOST}", "list", "queues", "vhost", "name")
        expect(sorted(map(tuple, (sorted(row) for row in found))), [("name", "vhost")] * 2)

    def sorts() -> None:
        found = [row["name"] for row in rows("--sort", "name", "--sort-reverse", f"in:{VHOST}", "list", "exchanges")]
        expect(found, sorted(found, reverse=True))

    report.check("list queues with columns", columns)
    report.check("list exchanges sorted", sorts)
    report.check("list queues long, deep", lambda: admin("--format", "long", "--depth", "3", "list", "queues"))
    for form in ("tsv", "kvp", "bash", "pretty_json"):
        report.check(
            f"list exchanges as {form}",
            lambda form=form: expect_in("amq.topic", admin("-f", form, "list", "exchanges", "name")),
        )


def messages() -> None:
    inside = f"in:{VHOST}"
    command("Message published", inside, "publish", "exchange=amq.default", "routing_key=q1", "payload=one")
    command(
        "Message published",
        *(inside, "publish", "exchange=x1", "routing_key=a.b", "payload=two"),
        'properties={"delivery_mode":2,"headers":{"h":1}}',
    )
    command("NOT routed", inside, "publish", "exchange=x1", "routing_key=z", "payload=lost")

    def gets() -> None:
        found = rows(inside, "get", "queue=q1", "count=5")
        expect([(message["payload"], message["redelivered"]) for message in found], [("one", False), ("two", False)])
        expect(found[1]["properties"], {"delivery_mode": 2, "headers": {"h": 1}})
        expect((found[1]["exchange"], found[1]["routing_key"], found[1]["payload_bytes"]), ("x1", "a.b", 3))

    def payload_file() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "payload")
            admin(inside, "get", "queue=q1", f"payload_file={path}", "ackmode=ack_requeue_false")
            expect(path.read_text(), "one")

    report.check("get", gets)
    report.check("get into a file, acknowledged", payload_file)
    command("queue purged", inside, "purge", "queue", "name=q1")
    report.check("the purged queue is empty", lambda: expect(rows(inside, "get", "queue=q1"), []))


def definitions() -> None:
    with tempfile.TemporaryDirectory() as folder:
        everything, one = Path(folder, "all.json"), Path(folder, "vhost.json")
        command("Exported definitions", "export", str(everything))
        command("Exported definitions", f"in:{VHOST}", "export", str(one))

        def exported() -> None:
            found = json.loads(everything.read_text())
            expect_in(VHOST, [vhost["name"] for vhost in found["vhosts"]])
            expect_in(USER, [user["name"] for user in found["users"]])
            found = json.loads(one.read_text())
            expect(sorted(queue["name"] for queue in found["queues"]), ["q 2/ä", "q1"])
            expect([policy["name"] for policy in found["policies"]], ["p"])

        report.check("what was exported", exported)
        admin(f"in:{VHOST}", "delete", "queue", "name=q1")
        command("Uploaded definitions", f"in:{VHOST}", "import", str(one))

        def imported() -> None:
            expect(api.get(f"queues/{VHOST}/q1")["arguments"].get("x-max-length"), 5)
            expect(api.call("GET", f"bindings/{VHOST}/e/x1/q/q1/a.%2523").status, 200, "the binding of q1")

        report.check("what was imported", imported)
        command("Uploaded definitions", "import", str(everything))


def connections() -> None:
    def closes() -> None:
        connection = pika.BlockingConnection(pika.URLParameters(f"{AMQP_URL}/{VHOST}"))

        def name() -> str:
            for row in rows("list", "connections", "name", "vhost"):
                if row["vhost"] == VHOST:
                    return row["name"]
            raise Mismatch(f"expected a connection in {VHOST}, got none")

        expect_in("connection closed", admin("close", "connection", f"name={eventually(name)}"))
        try:
            connection.process_data_events(5)
        except pika.exceptions.ConnectionClosedByBroker as closed:
            expect(closed.reply_code, 320)
            expect_in("CONNECTION_FORCED", closed.reply_text)
        else:
            raise Mismatch("expected the connection to be closed, it is open")

    report.check("close connection", closes)


def errors() -> None:
    report.check("close a connection that is not there", lambda: expect_in(
        "*** Not found: /api/connections/nope", admin("close", "connection", "name=nope", code=1)))
    report.check("wrong password", lambda: expect_in(
        "Access refused: /api/vhosts", admin("list", "vhosts", password="wrong", code=1)))
    report.check("a queue with other arguments", lambda: expect_in(
        "inequivalent arg 'x-max-length'",
        admin(f"in:{VHOST}", "declare", "queue", "name=q1", 'arguments={"x-max-length":6}', code=1)))
    report.check("a policy that is not valid", lambda: expect_in(
        "***", admin(f"in:{VHOST}", "declare", "policy", "name=b", "pattern=(", 'definition={"max-length":3}', code=1)))


def deletes() -> None:
    inside = f"in:{VHOST}"
    command(
        "binding deleted",
        *(inside, "delete", "binding", "source=x1", "destination_type=queue", "destination=q1", "properties_key=a.%23"),
    )
    command("exchange deleted", inside, "delete", "exchange", "name=x1")
    command("queue deleted", inside, "delete", "queue", "name=q1")
    command("queue deleted", inside, "delete", "queue", "name=q 2/ä")
    command("policy deleted", inside, "delete", "policy", "name=p")
    command("operator_policy deleted", inside, "delete", "operator_policy", "name=op")
    command("parameter deleted", inside, "delete", "parameter", "component=vhost-limits", "name=limits")
    api.write("PUT", f"vhost-limits/{VHOST}/max-queues", {"value": 10})
    command("vhost_limit deleted", "delete", "vhost_limit", f"vhost={VHOST}", "name=max-queues")
    command("permission deleted", "delete", "permission", f"vhost={VHOST}", f"user={USER}")

    def left() -> None:
        for path in (f"queues/{VHOST}", f"policies/{VHOST}", f"operator-policies/{VHOST}"):
            expect(api.get(path), [], path)
        expect(api.get(f"users/{quote(USER)}/permissions"), [], "permissions")
        expect([row["value"] for row in api.get(f"vhost-limits/{VHOST}")] in ([], [{}]), True, "no limits left")

    report.check("what was deleted is gone", left)
    command("user deleted", "delete", "user", f"name={USER}")
    command("vhost deleted", "delete", "vhost", f"name={VHOST}")


if __name__ == "__main__":
    main()
