#!/usr/bin/env python3
"""The commands of rabbitmqadmin 2.x against the broker of MANAGEMENT_URL and AMQP_URL.

RABBITMQADMIN names the executable. The tables below hold one command a line, after a bar what its output must contain;
between the tables stand checks of what the commands did.
"""

import json
import os
import shlex
import tempfile
import urllib.parse
from pathlib import Path

import pika
from checks import AMQP_URL, MANAGEMENT_URL, Api, Mismatch, Report, declares, eventually, expect, expect_in, run_tool

VHOST = f"tools-v2-{os.getpid()}"
USER = f"{VHOST}-user"
SHOVEL_VALUE = json.dumps(
    {
        "src-protocol": "amqp091",
        "src-uri": "amqp://",
        "src-queue": "q1",
        "dest-protocol": "amqp091",
        "dest-uri": "amqp://",
        "dest-queue": "q2",
    }
)
# The tool's exit codes are those of sysexits.h; EX_DATAERR stands for every request that was refused.
REFUSED = 65

# Commands that need nothing beforehand; `fill` fills in what stands in braces.
READING = """
show overview | RabbitMQ version
show churn | Queues and streams created
show endpoint | {endpoint}
show memory_breakdown_in_bytes --node {node} | Total
show memory_breakdown_in_percent --node {node} | 100%
list nodes | {node}
nodes list | {node}
nodes memory_breakdown_in_bytes --node {node} | Total
nodes memory_breakdown_in_percent --node {node} | 100%
list vhosts | default_queue_type
vhosts list | Default virtual host
list users | password_hash
users list | administrator
--non-interactive users list | guest
list permissions | configure
permissions list | .*
users permissions | .*
list queues | .
list exchanges | amq.fanout
exchanges list | amq.rabbitmq.trace
list bindings | .
bindings list | .
list channels | .
channels list | .
list connections | .
connections list | .
list consumers | .
list parameters --component vhost-limits | .
parameters list_all | .
parameters list_in --component vhost-limits | .
list policies | .
policies list | .
list operator_policies | .
operator_policies list | .
list vhost_limits | .
vhost_limits list | .
list feature_flags | state
feature_flags list | enabled
feature_flags enable --name {flag}
feature_flags enable_all
list deprecated_features | .
deprecated_features list | transient_nonexcl_queues
list deprecated_features_in_use | .
deprecated_features list_used | .
plugins list_all | rabbitmq_management
plugins list_on_node --node {node} | rabbitmq_prometheus
federation list_all_upstreams | .
health_check local_alarms | health check passed
health_check cluster_wide_alarms | health check passed
health_check node_is_quorum_critical | health check passed
health_check port_listener --port {amqp_port} | health check passed
health_check protocol_listener --protocol amqp | health check passed
health_check protocol_listener --protocol http | health check passed
rebalance queues
queues rebalance
passwords salt_and_hash s3cret | password hash
auth_attempts stats --node {node} | http
global_parameters set --name {vhost} --value '{{"a":1}}'
global_parameters list | {vhost}
global_parameters clear --name {vhost}
shell completions --shell bash | _rabbitmqadmin
"""

DECLARING = """
declare vhost --name {vhost} --default-queue-type classic --description 'a description'
declare user --name {user} --password s3cr3t-pass --tags management
declare permissions --user {user} --configure .* --read .* --write .*
--vhost {vhost} declare permissions --user {user} --configure ^a --read ^b --write ^c
--vhost {vhost} permissions declare --user guest --configure .* --read .* --write .*
--vhost {vhost} declare queue --name q1 --type {type} --durable true --auto-delete false --arguments '{arguments}'
--vhost {vhost} declare queue --name q2 --type classic
--vhost {vhost} queues declare --name q3 --type classic --durable false --auto-delete true
--vhost {vhost} declare exchange --name x1 --type topic --durable true
--vhost {vhost} exchanges declare --name x2 --type fanout --auto-delete true
--vhost {vhost} declare binding --source x1 --destination-type queue --destination q1 --routing-key 'a.#'
--vhost {vhost} declare binding --source x1 --destination-type exchange --destination amq.topic --routing-key b
--vhost {vhost} exchanges bind --source x1 --destination-type queue --destination q2 --routing-key c --arguments '{{"k":1}}'
--vhost {vhost} declare policy --name p1 --pattern '^q' --apply-to queues --priority 5 --definition '{{"max-length":10}}'
--vhost {vhost} policies declare --name p2 --pattern '^s' --apply-to all --priority 1 --definition '{{"max-length-bytes":1000}}'
--vhost {vhost} declare operator_policy --name op1 --pattern '.*' --apply-to queues --priority 0 --definition '{{"max-length":1000}}'
--vhost {vhost} declare vhost_limit --name max-queues --value 100
--vhost {vhost} vhost_limits declare --name max-connections --value 90
declare user_limit --user {user} --name max-channels --value 10
user_limits declare --user {user} --name max-connections --value 9
"""

STREAMS = """
--vhost {vhost} declare stream --name s1 --expiration 1D --max-length-bytes 1000000 --stream-max-segment-size-bytes 500000
--vhost {vhost} streams list | s1
--vhost {vhost} streams show --name s1 | s1
--vhost {vhost} delete stream --name s1
"""

USING = """
--vhost {vhost} publish message --exchange amq.default --routing-key q2 --payload hello | routed successfully
--vhost {vhost} publish message --exchange x1 --routing-key c --payload second --properties '{{"content_type":"text/plain"}}' | routed successfully
--vhost {vhost} get messages --queue q2 --count 2 --ack-mode ack_requeue_true | hello
--vhost {vhost} get messages --queue q2 --count 2 --ack-mode ack_requeue_true | text/plain
--vhost {vhost} purge queue --name q2
--vhost {vhost} queues purge --name q2
--vhost {vhost} queues show --name q2 | classic
--vhost {vhost} queues list | q2
--vhost {vhost} list queues | q1
--vhost {vhost} list bindings | a.#
--vhost {vhost} list exchanges | x1
--vhost {vhost} policies list_in | max-length: 10
--vhost {vhost} policies list_matching_object --name q2 --type queues | p1
--vhost {vhost} policies list_conflicting_in | .
policies list_conflicting | .
--vhost {vhost} policies update_definition --name p1 --definition-key max-length --new-value 20
--vhost {vhost} policies patch --name p1 --definition '{{"expires":100000}}'
--vhost {vhost} policies delete_definition_keys --name p1 --definition-keys expires
--vhost {vhost} policies declare_override --name p1 --override-name p1o --definition '{{"max-length":11}}'
--vhost {vhost} policies declare_blanket --name pb --apply-to queues --definition '{{"max-length":12}}'
--vhost {vhost} policies update_definitions_of_all_in --definition-key max-length --new-value 30
--vhost {vhost} operator_policies list_in | op1
--vhost {vhost} operator_policies list_matching_object --name q2 --type queues | op1
--vhost {vhost} operator_policies update_definition --name op1 --definition-key max-length --new-value 2000
--vhost {vhost} operator_policies patch --name op1 --definition '{{"expires":100000}}'
--vhost {vhost} operator_policies delete_definition_keys --name op1 --definition-keys expires
--vhost {vhost} list vhost_limits | max-queues: 100
--vhost {vhost} vhost_limits list | max-connections: 90
list user_limits --user {user} | max-channels: 10
user_limits list --user {user} | max-connections: 9
users limits --user {user} | max-channels: 10
list user_connections --username guest | .
connections list_of_user --username guest | .
users connections --username guest | .
vhosts enable_deletion_protection --name {vhost}
"""

DELETING = """
vhosts disable_deletion_protection --name {vhost}
close user_connections --username {user}
connections close_of_user --username {user}
--vhost {vhost} delete binding --source x1 --destination-type queue --destination q1 --routing-key 'a.#'
--vhost {vhost} exchanges unbind --source x1 --destination-type exchange --destination amq.topic --routing-key b
--vhost {vhost} bindings delete --source x1 --destination-type queue --destination q2 --routing-key c --arguments '{{"k":1}}'
--vhost {vhost} delete policy --name p1
--vhost {vhost} policies delete --name p2
--vhost {vhost} delete policy --name p1o
--vhost {vhost} delete policy --name pb
--vhost {vhost} delete operator_policy --name op1
--vhost {vhost} delete vhost_limit --name max-queues
--vhost {vhost} vhost_limits delete --name max-connections
delete user_limit --user {user} --name max-channels
user_limits delete --user {user} --name max-connections
--vhost {vhost} delete exchange --name x1
--vhost {vhost} exchanges delete --name x2
--vhost {vhost} delete queue --name q1
--vhost {vhost} queues delete --name q2
--vhost {vhost} delete queue --name q3
--vhost {vhost} delete queue --name missing --idempotently
--vhost {vhost} delete permissions --user {user}
"""

address = urllib.parse.urlsplit(MANAGEMENT_URL)
api = Api()
report = Report()
node = api.get("overview")["node"]
flag = api.get("feature-flags")[0]["name"]

has_quorum_queues, has_streams = declares(api, "quorum"), declares(api, "stream")
# The arguments of the queue q1.
q1_arguments = {"x-delivery-limit": 3} if has_quorum_queues else {"x-max-length": 1000}


def main() -> None:
    try:
        run_commands(READING)
        optional("shovels", "shovels list_all")
        optional("federation-links", "federation list_all_links")
        run_commands(DECLARING)
        report.check("what was declared is there", declared)
        if has_streams:
            run_commands(STREAMS)
        else:
            report.skip("declare, list, show and delete a stream", "the broker has no streams")
        run_commands(USING)
        report.check("what was changed is there", changed)
        definitions()
        closes()
        shovel()
        refusals()
        run_commands(DELETING)
        report.check("what was deleted is gone", deleted)
        run_commands("delete user --name {user}\ndelete vhost --name {vhost}")
    finally:
        for path in (f"vhosts/{VHOST}/deletion/protection", f"vhosts/{VHOST}", f"users/{USER}"):
            api.call("DELETE", path)
    report.finish()


def optional(path: str, command: str) -> None:
    """A command whose path only brokers with a plugin have."""
    if api.call("GET", path).status == 404:
        report.skip(command, f"the broker has no /api/{path}")
    else:
        check_command(command, ".")


def fill(text: str) -> str:
    return text.format(
        vhost=VHOST,
        user=USER,
        flag=flag,
        type="quorum" if has_quorum_queues else "classic",
        arguments=json.dumps(q1_arguments),
        node=node,
        amqp_port=urllib.parse.urlsplit(AMQP_URL).port,
        endpoint=f"{MANAGEMENT_URL}/api",
    )


def admin(arguments: list[str], code: int = 0) -> str:
    options = ["--host", address.hostname, "--port", str(address.port)]
    if "--username" not in arguments[:1]:
        options += ["--username", "guest", "--password", "guest"]
    return run_tool([os.environ["RABBITMQADMIN"], *options, *arguments], code)


def run_commands(lines: str) -> None:
    for line in filter(None, lines.splitlines()):
        command, _, text = line.partition(" | ")
        check_command(command, text)


def check_command(command: str, text: str, code: int = 0) -> None:
    """Checks the exit code, and that the output contains the text: `.` stands for any output, a table's frame."""

    def run() -> None:
        wanted = "─" if text == "." else fill(text)
        expect_in(wanted, admin(shlex.split(fill(command)), code))

    report.check(fill(command).replace(VHOST, "VHOST").replace(node, "NODE"), lambda: eventually(run, 6 if text else 0))


def declared() -> None:
    vhost = api.get(f"vhosts/{VHOST}")
    expect((vhost["description"], vhost["default_queue_type"]), ("a description", "classic"), "vhost")
    expect(api.get(f"users/{USER}")["tags"], ["management"], "tags")
    permission = api.get(f"permissions/{VHOST}/{USER}")
    expect([permission[kind] for kind in ("configure", "write", "read")], ["^a", "^c", "^b"], "permissions")
    types = {queue["name"]: queue["type"] for queue in api.get(f"queues/{VHOST}")}
    expect(types, {"q1": fill("{type}"), "q2": "classic", "q3": "classic"}, "queue types")
    arguments = api.get(f"queues/{VHOST}/q1")["arguments"]
    expect({name: arguments.get(name) for name in q1_arguments}, q1_arguments, "arguments of q1")
    exchange = api.get(f"exchanges/{VHOST}/x2")
    expect((exchange["type"], exchange["auto_delete"]), ("fanout", True), "x2")
    keys = sorted(binding["routing_key"] for binding in api.get(f"exchanges/{VHOST}/x1/bindings/source"))
    expect(keys, ["a.#", "b", "c"], "bindings of x1")
    expect(api.get(f"policies/{VHOST}/p1")["priority"], 5, "priority")
    expect(eventually(lambda: policy_of("q1")), "p1", "policy of q1")
    limits = {row["vhost"]: row["value"] for row in api.get("vhost-limits")}
    expect(limits.get(VHOST), {"max-queues": 100, "max-connections": 90}, "limits of the vhost")
    limits = api.get(f"user-limits/{USER}")
    expect(limits, [{"user": USER, "value": {"max-channels": 10, "max-connections": 9}}], "limits of the user")


def policy_of(queue: str) -> str:
    found = api.get(f"queues/{VHOST}/{queue}").get("policy")
    if not found:
        raise Mismatch(f"expected a policy at {queue}, got {found!r}")
    return found


def changed() -> None:
    expect(api.get(f"vhosts/{VHOST}")["protected_from_deletion"], True, "protection")
    policies = {policy["name"]: policy for policy in api.get(f"policies/{VHOST}")}
    definitions = {name: policy["definition"] for name, policy in policies.items()}
    thirty = {"max-length": 30}
    both = {"max-length-bytes": 1000, **thirty}
    expect(definitions, {"p1": thirty, "p2": both, "p1o": thirty, "pb": thirty}, "policies")
    expect(policies["p1o"]["priority"] > policies["p1"]["priority"] > policies["pb"]["priority"], True, "priorities")
    expect(api.get(f"operator-policies/{VHOST}/op1")["definition"], {"max-length": 2000}, "operator policy")


def definitions() -> None:
    with tempfile.TemporaryDirectory() as folder:
        everything, one = Path(folder, "all.json"), Path(folder, "vhost.json")

        def exports() -> None:
            admin(["definitions", "export", "--file", str(everything)])
            found = json.loads(everything.read_text())
            expect_in(VHOST, [vhost["name"] for vhost in found["vhosts"]])
            printed = json.loads(admin(["definitions", "export", "--stdout"]))
            expect(sorted(printed), sorted(found), "sections of the export")

        def exports_one() -> None:
            admin(["--vhost", VHOST, "definitions", "export_from_vhost", "--file", str(one)])
            found = json.loads(one.read_text())
            names = {queue["name"] for queue in found["queues"]}
            expect(names & {"q1", "q2"}, {"q1", "q2"}, "durable queues")

        def imports() -> None:
            admin(["--vhost", VHOST, "delete", "exchange", "--name", "x1"])
            admin(["definitions", "import", "--file", str(everything)])
            expect(len(api.get(f"exchanges/{VHOST}/x1/bindings/source")), 3, "bindings of x1")

        def imports_one() -> None:
            admin(["--vhost", VHOST, "delete", "policy", "--name", "p1"])
            admin(["--vhost", VHOST, "definitions", "import_into_vhost", "--file", str(one)])
            expect(api.get(f"policies/{VHOST}/p1")["definition"], {"max-length": 30}, "p1")

        def refuses() -> None:
            one.write_text(json.dumps({"policies": [{"name": "bad", "vhost": VHOST, "pattern": "("}]}))
            admin(["definitions", "import", "--file", str(one)], REFUSED)

        report.check("definitions export", exports)
        report.check("definitions export_from_vhost", exports_one)
        report.check("definitions import", imports)
        report.check("definitions import_into_vhost", imports_one)
        report.check("definitions import of what is not valid", refuses)


def closes() -> None:
    """Closing by name and by user; what is open shows in the lists."""

    def open_connection(user: str, password: str) -> pika.BlockingConnection:
        where = urllib.parse.urlsplit(AMQP_URL)
        credentials = pika.PlainCredentials(user, password)
        return pika.BlockingConnection(
            pika.ConnectionParameters(where.hostname, where.port, VHOST, credentials)
        )

    def name_of(user: str) -> str:
        for row in api.get("connections"):
            if row.get("user") == user and row.get("vhost") == VHOST:
                return row["name"]
        raise Mismatch(f"expected a connection of {user}, got none")

    def closed(connection: pika.BlockingConnection) -> None:
        try:
            connection.process_data_events(5)
        except pika.exceptions.ConnectionClosedByBroker as problem:
            expect(problem.reply_code, 320, "reply code")
        else:
            raise Mismatch("expected the connection to be closed, it is open")

    def by_name() -> None:
        connection = open_connection("guest", "guest")
        channel = connection.channel()
        channel.basic_consume("q2", lambda *_: None, consumer_tag="tools-v2-tag")
        name = eventually(lambda: name_of("guest"))
        for table in ("channels", "connections"):
            eventually(lambda table=table: expect_in(name, admin(["list", table]), f"list {table}"))
        eventually(lambda: expect_in("tools-v2-tag", admin(["list", "consumers"]), "list consumers"))
        admin(["close", "connection", "--name", name])
        closed(connection)

    def by_user() -> None:
        connection = open_connection(USER, "s3cr3t-pass")
        name = eventually(lambda: name_of(USER))
        expect_in(name, admin(["list", "user_connections", "--username", USER]))
        admin(["close", "user_connections", "--username", USER])
        closed(connection)

    report.check("close connection", by_name)
    report.check("close user_connections with a connection", by_user)


def shovel() -> None:
    """A shovel is a parameter of a component that a broker may not have."""
    answer = api.call("PUT", f"parameters/shovel/{VHOST}/probe", {"value": {}})
    if "component shovel not found" in answer.text:
        report.skip("declare parameter --component shovel", "the broker has no shovels")
        return
    command = f"--vhost {VHOST} declare parameter --component shovel --name sh1 --value {shlex.quote(SHOVEL_VALUE)}"
    check_command(command.replace("{", "{{").replace("}", "}}"), "")
    check_command("--vhost {vhost} shovels list_all", "sh1")
    check_command("--vhost {vhost} delete shovel --name sh1", "")


def refusals() -> None:
    check_command("delete vhost --name {vhost}", "protected from deletion", REFUSED)
    check_command("--vhost {vhost} delete queue --name missing", "404 Not Found", REFUSED)
    check_command("--vhost {vhost} queues show --name missing", "404 Not Found", REFUSED)
    check_command("--vhost {vhost} declare queue --name q2 --type classic --durable false", "inequivalent arg", REFUSED)
    definition = """'{{"max-length":1}}'"""
    bad = f"declare policy --name bad --pattern '(' --apply-to queues --definition {definition}"
    check_command(f"--vhost {{vhost}} {bad}", "", REFUSED)
    check_command("health_check port_listener --port 1", "1", 69)
    check_command("--username guest --password wrong list vhosts", "Not_Authorized", REFUSED)


def deleted() -> None:
    for path in (f"queues/{VHOST}", f"policies/{VHOST}", f"operator-policies/{VHOST}", f"user-limits/{USER}"):
        expect(api.get(path), [], path)
    names = [exchange["name"] for exchange in api.get(f"exchanges/{VHOST}")]
    expect([name for name in names if name and not name.startswith("amq.")], [], "exchanges")
    expect([row["vhost"] for row in api.get(f"users/{USER}/permissions")], ["/"], "permissions")


if __name__ == "__main__":
    main()
