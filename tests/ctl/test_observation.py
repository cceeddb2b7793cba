"""Lists, status, health checks, and the clients that they show."""

import os
import re
import subprocess
import threading
import urllib.parse

from support import BINARY, TIMEOUT, CtlTest, Terminal, program


class Lists(CtlTest):
    def setUp(self):
        self.ctl("delete_vhost", self.vhost)
        self.works("add_vhost", self.vhost)
        self.addCleanup(self.ctl, "delete_vhost", self.vhost)
        self.works("set_permissions", "-p", self.vhost, "guest", ".*", ".*", ".*")
        arguments = '{"x-max-length":100,"x-message-ttl":60000}'
        definitions = f"""{{
            "queues": [{{"name": "q1", "vhost": "{self.vhost}", "durable": true, "auto_delete": false, "arguments": {arguments}}},
                       {{"name": "a b", "vhost": "{self.vhost}", "durable": true, "auto_delete": false, "arguments": {{}}}}],
            "exchanges": [{{"name": "x1", "vhost": "{self.vhost}", "type": "headers", "durable": true, "auto_delete": false,
                            "internal": true, "arguments": {{}}}}],
            "bindings": [{{"source": "x1", "vhost": "{self.vhost}", "destination": "q1", "destination_type": "queue",
                           "routing_key": "", "arguments": {{"x-match": "all", "n": 5, "b": true}}}}]}}"""
        self.works("import_definitions", "-", stdin=definitions, out="Importing definitions in JSON from standard input ...\n.*")
        # What is declared is in the statistics a little later.
        self.eventually(lambda: len(self.rows("list_queues", "-p", self.vhost)) == 2, "two queues")

    def test_queues(self):
        banner = f"Timeout: 60.0 seconds ...\nListing queues for vhost {self.vhost} ...\n"
        self.works("list_queues", "-p", self.vhost, out=f"{banner}name\tmessages\n(a b\t0\nq1\t0|q1\t0\na b\t0)\n")
        columns = ["name", "durable", "auto_delete", "type", "state", "consumers", "leader", "memory", "arguments"]
        rows = {row["name"]: row for row in self.rows("list_queues", "-p", self.vhost, *columns)}
        self.assertEqual((rows["q1"]["durable"], rows["q1"]["type"], rows["q1"]["state"]), (True, "classic", "running"))
        self.assertIn(["x-max-length", "long", 100], rows["q1"]["arguments"])
        table = self.works("-q", "list_queues", "-p", self.vhost, "name", "arguments").out
        self.assertRegex(table, 'q1\t\\[.*{"x-max-length",100}.*\\]\n')
        self.works("list_queues", "-p", self.vhost, "--offline", out=banner)
        for option in ("--online", "--local"):
            self.assertEqual(len(self.rows("list_queues", "-p", self.vhost, option)), 2)
        self.works("list_queues", "-p", "ctl-none", "-q", out="")
        self.works("list_queues", "-p", "ctl-none", "--formatter", "json", out="\\[\n\\]\n")
        self.fails(64, "Info key\\(s\\) bogus are not supported", "list_queues", "name", "bogus")
        self.works("list_unresponsive_queues", "-p", self.vhost, out=f"Listing unresponsive queues for vhost {self.vhost} ...\n")

    def test_exchanges_and_bindings(self):
        names = [row["name"] for row in self.rows("list_exchanges", "-p", self.vhost)]
        self.assertTrue({"", "amq.direct", "amq.topic", "x1"} <= set(names), names)
        columns = ["name", "type", "durable", "auto_delete", "internal", "arguments"]
        table = self.works("-q", "list_exchanges", "-p", self.vhost, *columns).out
        self.assertIn("x1\theaders\ttrue\tfalse\ttrue\t[]\n", table)
        table = self.works("list_bindings", "-p", self.vhost).out
        self.assertTrue(table.startswith(f"Listing bindings for vhost {self.vhost}...\nsource_name\tsource_kind\tdestination_name\t"))
        self.assertIn("\texchange\tq1\tqueue\tq1\t[]\n", table)
        self.assertRegex(table, 'x1\texchange\tq1\tqueue\t\t\\[.*{"n",5}.*\\]\n')

    def test_queues_are_purged_and_deleted(self):
        self.works("purge_queue", "-p", self.vhost, "q1", out=f"Purging queue 'q1' in vhost '{self.vhost}' ...\n")
        self.fails(65, "\\AObject .* was not found\n\\Z", "purge_queue", "-p", self.vhost, "none")
        deleted = f"Deleting queue 'q1' on vhost '{self.vhost}' if queue is empty and if queue is unused ...\n" \
                  "Queue was successfully deleted with 0 ready messages\n"
        self.works("delete_queue", "-p", self.vhost, "q1", "--if-empty", "--if-unused", out=deleted)
        self.fails(64, "\\AError:\nNo such queue was found\n\\Z", "delete_queue", "-p", self.vhost, "q1")

    def test_policies_that_match(self):
        for name, priority, kind in (("low", "1", "queues"), ("high", "5", "all"), ("other", "9", "exchanges")):
            self.works("set_policy", "-p", self.vhost, name, "^q", '{"max-length":1}', "--priority", priority, "--apply-to", kind)
        rows = self.rows("list_policies_that_match", "-p", self.vhost, "q1")
        self.assertEqual([row["name"] for row in rows], ["high", "low"])

    def test_a_quorum_status(self):
        self.fails(65, "queue 'none' was not found in virtual host", "quorum_status", "-p", self.vhost, "none")
        self.fails(65, ".", "quorum_status", "-p", self.vhost, "q1")
        self.fails(69, "does not have a message at that position", "peek", "-p", self.vhost, "q1", "1")
        self.fails(65, "position must be a positive number", "peek", "-p", self.vhost, "q1", "x")
        for verb in ("add_member", "delete_member"):
            result = self.ctl(verb, "-p", self.vhost, "none", "rabbit@none")
            self.assertNotEqual(result.code, 0, f"{verb}: {result}")
        self.assertNotEqual(self.ctl("reclaim_quorum_memory", "-p", self.vhost, "none").code, 0)

    def test_messages_are_peeked_at_and_counted(self):
        uri = self.broker.amqp_of(self.vhost)
        published = program("perf", "--uri", uri, "--consumers", "0", "--messages", "3", "--name", "ctl", "--keep", "--size", "5")
        self.assertEqual(published.code, 0, published)
        count = lambda: [row for row in self.rows("list_queues", "-p", self.vhost, "name", "messages") if row == {"name": "ctl-0", "messages": 3}]
        self.eventually(count, "three messages")
        self.assertIn("payload", self.works("peek", "-p", self.vhost, "ctl-0", "2").out)
        self.fails(69, "if|not empty", "delete_queue", "-p", self.vhost, "ctl-0", "--if-empty")
        self.works("purge_queue", "-p", self.vhost, "ctl-0")
        self.eventually(lambda: {"name": "ctl-0", "messages": 0} in self.rows("list_queues", "-p", self.vhost), "purged")


class Clients(CtlTest):
    """Connections, channels and consumers of a load generator that runs meanwhile."""

    def setUp(self):
        self.ctl("delete_vhost", self.vhost)
        self.works("add_vhost", self.vhost)
        self.addCleanup(self.ctl, "delete_vhost", self.vhost)
        self.works("set_permissions", "-p", self.vhost, "guest", ".*", ".*", ".*")
        uri = self.broker.amqp_of(self.vhost)
        command = [BINARY, "perf", "--uri", uri, "--rate", "20", "--duration", "120", "--name", "ctl", "--ack-every", "1", "--prefetch", "7"]
        client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def end():
            client.kill()
            client.wait(TIMEOUT)

        self.addCleanup(end)
        self.eventually(lambda: self.own("list_connections", "vhost", "name", "user"), "a connection")
        self.eventually(lambda: self.rows("list_consumers", "-p", self.vhost), "a consumer")

    def own(self, *words):
        return [row for row in self.rows(*words) if row.get("vhost") == self.vhost]

    def test_lists(self):
        columns = ["pid", "name", "user", "vhost", "protocol", "state", "peer_host", "ssl", "channels", "frame_max", "client_properties"]
        connection = self.eventually(lambda: self.own("list_connections", *columns), "a connection")[0]
        self.assertEqual((connection["user"], connection["protocol"], connection["state"]), ("guest", [0, 9, 1], "running"))
        self.works("list_connections", out="Listing connections ...\nuser\tpeer_host\tpeer_port\tstate\n.*guest\t127.0.0.1\t\\d+\trunning\n.*")
        channels = self.eventually(lambda: self.own("list_channels", "vhost", "name", "connection", "number", "prefetch_count"), "a channel")
        self.assertTrue(all(channel["number"] == 1 for channel in channels), channels)
        self.works("list_channels", out="Listing channels ...\npid\tuser\tconsumer_count\tmessages_unacknowledged\n.*")
        consumer = self.rows("list_consumers", "-p", self.vhost)[0]
        self.assertEqual((consumer["queue_name"], consumer["ack_required"], consumer["prefetch_count"]), ("ctl-0", True, 7))
        self.fails(69, "in use", "delete_queue", "-p", self.vhost, "ctl-0", "--if-unused")
        for verb in ("list_connections", "list_channels", "list_consumers"):
            self.fails(64, "Info key\\(s\\) bogus are not supported", verb, "bogus")

    def test_top(self):
        def frame(*words):
            result = program("top", *self.broker.target(), "--once", "--no-tty", *words)
            self.assertEqual((result.code, result.err), (0, ""), result)
            return result.out

        shown = self.eventually(lambda: (text := frame("--filter", "ctl-0")) and "ctl-0" in text and text, "the queue in top")
        self.assertRegex(shown, "NAME +VHOST +TYPE +READY +UNACKED +IN/S +OUT/S +CONSUMERS +MEMORY")
        self.assertRegex(shown, f"ctl-0 +{self.vhost} +classic +\\d+ +\\d+ ")
        self.eventually(lambda: self.vhost in frame("--connections"), "the connection in top")
        self.assertNotIn("ctl-0", frame("--filter", "ctl-none"))
        result = program("top", *self.broker.target(), "--once", "--sort", "bogus")
        self.assertEqual(result.code, 65, result)
        self.assertIn("\nwarren top [--interval", program("top", "--help").out)

    def test_top_on_a_terminal(self):
        with Terminal("top", *self.broker.target(), "--interval", "1", "--filter", "ctl-0") as terminal:
            terminal.shows("ctl-0", "q quit")
            terminal.press("?")
            terminal.shows("`trouble`:")
            terminal.press("?", "\t")
            terminal.shows("CHANNELS")
            terminal.press("q")
            # The screen from before comes back, and the cursor.
            terminal.shows("\x1b[?1049l", "\x1b[?25h")
            self.assertEqual(terminal.exit_code(), 0)

    def test_one_connection_is_closed(self):
        # The first one, which declared the queues, reads its socket no more.
        name = self.own("list_connections", "vhost", "pid")[-1]["pid"]
        self.works("close_connection", name, "bye", out=f"Closing connection {re.escape(name)}, reason: bye...\n")
        self.eventually(lambda: name not in self.works("list_connections", "pid").out, "closed")
        self.fails(69, "there is no connection 'bogus'", "close_connection", "bogus", "bye")

    def test_all_connections_of_a_vhost_are_closed(self):
        closed = f"Closing all connections in vhost {self.vhost}, reason: bye...\nClosed [1-9]\\d* connections\n"
        self.works("close_all_connections", "-p", self.vhost, "bye", out=closed)
        self.eventually(lambda: not self.own("list_connections", "vhost"), "closed")
        self.works("close_all_user_connections", "ctl-nobody", "bye", out="Closing connections of user ctl-nobody, reason: bye...\n")


class Node(CtlTest):
    def test_status(self):
        page = self.works("status").out
        for line in ("Status of node .* ...", "Runtime", "OS PID: \\d+", "Uptime \\(seconds\\): \\d+", "RabbitMQ version: [\\d.]+",
                     "Alarms", "Memory", "Total memory used: [\\d.]+ gb", "Free disk space: [\\d.]+ gb", "Listeners",
                     "Interface: .*, port: \\d+, protocol: amqp, purpose: AMQP 0-9-1"):
            self.assertRegex(page, f"(?m)^{line}$")
        self.works("status", "-q", "--unit", "mb", out="Runtime\n\n.*Total memory used: [\\d.]+ mb\n.*")
        document = self.works("status", "--formatter", "json").json()
        self.assertGreater(document["pid"], 0)
        self.assertGreaterEqual(document["totals"]["virtual_host_count"], 1)
        self.fails(65, "unit 'bogus' is not supported", "status", "--unit", "bogus")

    def test_cluster_status(self):
        self.works("cluster_status", out="Cluster status of node .* ...\nBasics\n\nCluster name: .*\n.*Running Nodes\n\n.*Listeners\n\n.*Feature flags\n.*")
        document = self.works("cluster_status", "--formatter", "json").json()
        self.assertEqual(len(document["running_nodes"]), len(document["disk_nodes"]))

    def test_other_pages(self):
        self.works("environment", out="Application environment of node .* ...\n.+")
        self.assertIn("Virtual hosts\n", self.works("report").out)
        self.works("listeners", out="Asking node .*protocol: amqp, .*")
        listeners = self.works("listeners", "--formatter", "json").json()
        self.assertEqual(listeners["result"], "ok")
        self.works("memory_breakdown", out="Reporting memory breakdown on node .*...\n.*: [\\d.]+ gb \\([\\d.]+%\\)\n.*")
        self.works("log_location", "-q")
        self.fails(69, "log.file is empty", "log_tail")
        self.works("server_version", out="Asking node .*\n[\\d.]+\n")
        self.works("version", out="\\d+\\.\\d+\\.\\d+\n")
        self.works("list_feature_flags", out="Listing feature flags ...\n.*")
        self.works("list_deprecated_features", out="Listing deprecated features ...\n.*")
        self.works("list_deprecated_features", "--used", out="Listing deprecated features in use ...\n.*")
        self.works("list_node_auth_attempt_stats", out='Listing authentication\n attempts for node ".*" ...\n.*')
        self.works("list_node_auth_attempt_stats", "--by-source")
        self.works("discover_peers", out="Discovering peers nodes ...\n\\[:.*\\]\n")
        self.works("force_gc")

    def test_statistics_are_reset(self):
        self.works("reset_stats_db", out="Resetting statistics database on node .*\n")
        # Some come back only after a while.
        self.eventually(lambda: "OS PID: " in self.works("status").out, "the node's statistics")

    def test_flags(self):
        self.works("enable_feature_flag", "all", out="Enabling all feature flags ...\n")
        self.fails(64, "This feature flag is not supported by node", "enable_feature_flag", "ctl-none")

    def test_waiting(self):
        self.works("ping", out="Will ping .*\nPing succeeded\n")
        self.works("ping", "-q", out="Ping succeeded\n")
        self.works("ping", "--json", out='{"message":"Ping succeeded"}\n')
        self.works("await_startup", out="")
        self.works("await_online_nodes", "1", out="Will wait for at least 1 nodes .*\n")
        self.fails(70, "Not enough nodes joined", "await_online_nodes", "9", "-t", "1")
        self.works("wait", "--pid", os.getpid(), out="Waiting for .*\n")
        self.fails(69, "process_not_running", "wait", "--pid", "4194305", "-t", "5")
        self.fails(75, "timed out. Timeout value used: 1000", "wait", self.broker.path / "none.pid", "-t", "1")
        (self.broker.path / "pid").write_text(f"{os.getpid()}\n")
        self.works("wait", self.broker.path / "pid", out=f"Waiting for pid file .*\npid is {os.getpid()}\n.*")
        self.works("is_running", out=".*is fully booted and running\n")
        self.works("is_booting", out=".*is fully booted .*\n")
        self.works("has_reached_target_cluster_size", out=".*Target cluster size has been reached on node .*\n")

    def test_health_checks(self):
        tool = "rabbitmq-diagnostics"
        self.works("check_running", tool=tool, out="Checking if RabbitMQ is running on node .*\nRabbitMQ on node .* is fully booted and running\n")
        self.works("alarms", tool=tool, out=".*reported no alarms, local or clusterwide\n")
        self.assertEqual(self.works("alarms", "--formatter", "json", tool=tool).json()["alarms"], [])
        self.works("check_alarms", tool=tool, out=".*reported no alarms, local or clusterwide\n")
        self.works("check_local_alarms", tool=tool, out=".*reported no local alarms\n")
        self.works("check_port_connectivity", tool=tool, out="Testing TCP connections .*Successfully connected to ports .*\n")
        self.works("check_port_connectivity", "--address", "127.0.0.1", tool=tool)
        self.works("check_virtual_hosts", tool=tool, out=".*reported all vhosts as running\n")
        self.works("check_certificate_expiration", tool=tool, out=".*No certificates are expiring within 4 weeks.\n")
        self.works("check_certificate_expiration", "--within", "2", "--unit", "days", tool=tool)
        self.fails(65, "unit 'moons' is not supported", "check_certificate_expiration", "--unit", "moons", tool=tool)
        self.works("check_protocol_listener", "amqp", tool=tool, out=".*A listener for protocol amqp is running on node .*\n")
        self.fails(69, "No listener for protocol pigeon is active", "check_protocol_listener", "pigeon", tool=tool)
        port = urllib.parse.urlsplit(self.broker.amqp).port
        self.works("check_port_listener", port, tool=tool, out=f".*A listener for port {port} is running on node .*\n")
        self.fails(69, "No listener for port 1 is active", "check_port_listener", "1", tool=tool)
        self.fails(65, "not an integer", "check_port_listener", "x", tool=tool)
        self.works("check_if_node_is_quorum_critical", tool=tool)
        self.works("check_for_quorum_queues_without_an_elected_leader", "--across-all-vhosts", ".*", tool=tool)
        self.works("check_for_quorum_queues_without_an_elected_leader", "-p", "/", ".*", tool=tool)
        self.works("check_if_metadata_store_is_initialized", tool=tool)
        self.works("check_if_metadata_store_is_initialized_with_data", tool=tool)
        self.works("check_if_cluster_has_classic_queue_mirroring_policy", tool=tool)
        self.works("node_health_check", tool=tool, out="This command is DEPRECATED.*")
        self.works("check_if_new_quorum_queue_replicas_have_finished_initial_sync", tool="rabbitmq-queues")
        self.works("check_if_node_is_mirror_sync_critical", tool="rabbitmq-queues")
        used = self.ctl("check_if_any_deprecated_features_are_used", tool=tool)
        self.assertIn(used.code, (0, 69), used)
        self.works("reset_node_auth_attempt_metrics", tool=tool)

    def test_quorum_verbs_for_all_queues(self):
        self.works("rebalance", "all", tool="rabbitmq-queues", out="Re-balancing leaders of all queues...\n.*")
        self.works("rebalance", "quorum", "--dry-run", tool="rabbitmq-queues", out="Re-balancing leaders of quorum queues...\n")
        self.fails(65, "not supported", "rebalance", "bogus", tool="rabbitmq-queues")
        self.works("force_checkpoint", tool="rabbitmq-queues")
        for verb, *words in (["grow", "rabbit@none", "all"], ["shrink", "rabbit@none"]):
            result = self.ctl(verb, *words, tool="rabbitmq-queues")
            self.assertNotEqual(result.code, 0, f"{verb}: {result}")
        self.fails(65, "strategy", "grow", "rabbit@none", "bogus", tool="rabbitmq-queues")

    def test_plugins(self):
        tool = "rabbitmq-plugins"
        self.works("list", tool=tool, out='Listing plugins with pattern ".\\*" ...\n Configured: .*\\[E\\*\\] rabbitmq_management .*')
        self.works("list", "-m", "-q", "^rabbitmq_management$", tool=tool, out="rabbitmq_management\n")
        self.works("list", "-v", "management", tool=tool, out=".*Version:.*")
        names = [plugin["name"] for plugin in self.works("list", "--formatter", "json", tool=tool).json()["plugins"]]
        self.assertIn("rabbitmq_management", names)
        self.works("is_enabled", "rabbitmq_management", tool=tool, out=".*Plugin rabbitmq_management is enabled on node .*\n")
        self.fails(69, "Plugin ctl_none is not enabled", "is_enabled", "ctl_none", tool=tool)
        for verb in ("enable", "set"):
            self.works(verb, "rabbitmq_management", tool=tool, out=".*Plugin configuration unchanged.\n")
        self.fails(69, "ctl_none cannot be enabled: there is no such plugin", "enable", "ctl_none", tool=tool)
        self.fails(69, "rabbitmq_shovel cannot be enabled: there are no shovels in this version", "enable", "rabbitmq_management",
                   "rabbitmq_shovel", tool=tool)
        for name in ("consistent_hash_exchange", "event_exchange", "recent_history_exchange", "auth_backend_oauth2",
                     "auth_mechanism_ssl", "management_agent", "prometheus"):
            self.works("is_enabled", f"rabbitmq_{name}", tool=tool)
            self.works("enable", f"rabbitmq_{name}", tool=tool)
        self.assertEqual(self.ctl("disable", "rabbitmq_management", tool=tool).code, 0)
        self.works("directories", tool=tool)
        self.fails(64, "not found", "list", tool="rabbitmqctl")

    def test_the_cluster_has_a_name(self):
        name = self.works("cluster_status", "--formatter", "json").json()["cluster_name"]
        self.addCleanup(self.ctl, "set_cluster_name", name)
        self.works("set_cluster_name", "ctl-test", out="Setting cluster name to ctl-test ...\n")
        self.assertEqual(self.works("cluster_status", "--formatter", "json").json()["cluster_name"], "ctl-test")


class Events(CtlTest):
    def test_events_are_lines_of_json(self):
        if not self.is_warren():
            self.fails(69, "is not Warren", "consume_event_stream", "--duration", "1")
            return
        words = ["consume_event_stream", "--duration", "5"]
        results = []
        reader = threading.Thread(target=lambda: results.append(self.works(*words)))
        reader.start()
        # Until the reader listens, events pass by.
        while reader.is_alive():
            self.ctl("add_user", "ctl-events", "x")
            self.ctl("delete_user", "ctl-events")
        events = results[0].out.splitlines()
        self.assertTrue(any("ctl-events" in event for event in events), events)
