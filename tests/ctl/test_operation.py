"""The program itself, definitions, settings of a running broker, and its end."""

import json
import os
import pathlib
import socket
import stat
import tempfile
import urllib.parse

from support import TIMEOUT, URI, Broker, CtlTest, program


class Program(CtlTest):
    def test_help(self):
        text = self.works("help").out
        for heading in ("Users:", "Health checks:", "Quorum queues:", "General options", "Examples", "Exit codes"):
            self.assertIn(heading, text)
        self.assertEqual(program("ctl", "--help").out, text)
        self.works("help", "add_user", out="\nUsage\n\nwarren ctl .* add_user <username> .*")
        self.works("add_user", "--help", out="\nUsage\n\nwarren ctl .* add_user .*")
        self.fails(64, "Command 'bogus' not found", "help", "bogus")
        bare = self.ctl()
        self.assertEqual((bare.code, bare.out), (64, ""))
        self.assertIn("Available commands", bare.err)
        self.works("autocomplete", "list_u", out="list_unresponsive_queues\nlist_user_limits\n.*list_users\n")

    def test_typing_mistakes(self):
        self.fails(64, "\\A\nCommand 'list_quueues' not found. \nDid you mean 'list_queues'\\? \n\n\\Z", "list_quueues", tool="rabbitmqctl")
        self.fails(64, "Command 'frobnicate_all' not found", "frobnicate_all")
        error = "\\AError \\(argument validation\\): not enough arguments.\nArguments given:\n\t.* add_user\n\nUsage\n\nrabbitmqctl .* add_user <username>"
        self.fails(64, error, "add_user", tool="rabbitmqctl")
        self.fails(64, "too many arguments", "list_users", "extra")
        self.fails(64, "Invalid options for this command:\n--bogus : ", "list_users", "--bogus")
        self.fails(64, "Invalid options for this command:\n--timeout : x", "list_users", "--timeout", "x")

    def test_a_tool_has_its_verbs_alone(self):
        self.fails(64, "not found. \nIt is a command of rabbitmqctl", "add_user", "x", tool="rabbitmq-diagnostics")
        self.works("list_queues", "-q", tool="rabbitmq-diagnostics")
        for tool in ("rabbitmq-queues", "rabbitmq-streams", "rabbitmq-upgrade"):
            self.works("version", tool=tool)

    def test_a_wrong_verb_finds_the_right_one(self):
        for typed, meant in (("list_quues", "list_queues"), ("list-perm", "list_permissions"), ("user_add", "add_user")):
            self.fails(64, f"Command '{typed}' not found\\. \nDid you mean '{meant}'\\?", typed)
        self.fails(64, "It is a command of rabbitmq-upgrade", "drain", tool="rabbitmqctl")

    def test_what_has_no_meaning_is_refused(self):
        refused = ["eval", "eval_file", "exec", "remote_shell", "observer", "erlang_version", "erlang_cookie_hash",
                   "erlang_cookie_sources", "maybe_stuck", "runtime_thread_stats", "resolver_info", "resolve_hostname",
                   "list_network_interfaces", "os_env", "command_line_arguments", "log_tail_stream", "certificates",
                   "cipher_suites", "tls_versions", "metadata_store_status", "message_size_stats", "encode", "decode",
                   "encrypt_conf_value", "decrypt_conf_value", "list_ciphers", "list_hashes", "force_boot",
                   "force_standalone_khepri_boot", "join_cluster", "forget_cluster_node", "list_channel_interceptors",
                   "set_channel_interceptor_priorities", "transfer_leadership", "deactivate_free_disk_space_monitoring"]
        for verb in refused:
            self.fails(69, f"\\AError:\n{verb} is not available\\. ", verb, "x")
        for verb in ("rename_cluster_node", "update_cluster_nodes", "activate_free_disk_space_monitoring",
                     "remove_classic_queue_mirroring_from_policies", "enable_auth_attempt_source_tracking",
                     "disable_auth_attempt_source_tracking"):
            self.works(verb)

    def test_nobody_there(self):
        with tempfile.TemporaryDirectory() as folder:
            result = program("ctl", "--data-dir", folder, "status")
        self.assertEqual((result.code, result.out), (69, "Status of node unix:" + folder + "/warren.sock ...\n"))
        self.assertRegex(result.err, "\\AError: cannot reach the broker at unix:.*warren.sock: .*\nIs it running\\? .*--uri.*\n\\Z")
        for place in (["--uri", "http://127.0.0.1:1"], ["--uri", "https://127.0.0.1:1"], ["-n", "rabbit@192.0.2.1", "-t", "1"]):
            result = program("ctl", *place, "list_users", "-q", environment={"WARREN_URI": ""})
            self.assertIn(result.code, (69, 75), result)
            self.assertLessEqual(len(result.err.splitlines()), 2, result)
        result = program("ctl", "--uri", "http://127.0.0.1:1", "await_startup", "-t", "1")
        self.assertEqual(result.code, 75, result)
        self.assertEqual(program("ctl", "--uri", "amqp://localhost", "status").code, 65)
        self.assertEqual(program("ctl", "status", environment={"WARREN_URI": "bogus"}).code, 65)

    def test_a_wrong_password(self):
        uri = URI or f"http://{self.broker.listeners['management']}"
        if uri.startswith("unix:"):
            self.skipTest("a socket asks for no password")
        host = uri.split("://")[1].split("@")[-1]
        result = program("ctl", "--uri", f"http://guest:wrong@{host}", "list_users", "-q")
        self.assertEqual(result.code, 65, result)
        self.assertRegex(result.err, "refused the user or the password")
        result = program("ctl", "list_users", "-s", environment={"WARREN_URI": f"http://guest:guest@{host}"})
        self.assertEqual(result.code, 0, result)

    def test_completions(self):
        for shell, word in (("bash", "complete"), ("zsh", "#compdef"), ("fish", "complete -c")):
            script = program("completions", shell)
            self.assertEqual(script.code, 0)
            self.assertIn(word, script.out)
            self.assertIn("list_queues", script.out)
        self.assertIn("rabbitmqctl", program("completions", "bash", "--for", "rabbitmqctl").out)


class Definitions(CtlTest):
    def setUp(self):
        self.ctl("delete_vhost", self.vhost)
        self.works("add_vhost", self.vhost)
        self.addCleanup(self.ctl, "delete_vhost", self.vhost)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name) / "definitions.json"

    def definitions(self, *words, stdin=""):
        return program("definitions", words[0], *self.broker.target(), *words[1:], stdin=stdin)

    def test_export(self):
        text = self.works("export_definitions", "-").out
        self.assertIn(self.vhost, [vhost["name"] for vhost in json.loads(text)["vhosts"]])
        self.works("export_definitions", self.file, out=f'Exporting definitions in JSON to a file at "{self.file}" ...\n')
        self.assertEqual(stat.S_IMODE(self.file.stat().st_mode), 0o600, "it holds password hashes")
        self.assertEqual(sorted(json.loads(self.file.read_text())), sorted(json.loads(text)))
        self.fails(65, "Directory /nodir does not exist", "export_definitions", "/nodir/file")
        self.fails(65, "Format should be either json or erlang", "export_definitions", self.file, "--format", "bogus")
        self.fails(65, "Virtual host 'ctl-none' does not exist", "export_definitions", "-", "--vhost", "ctl-none")
        self.assertEqual(json.loads(self.definitions("export", "--vhost", self.vhost).out).get("queues"), [])

    def test_import(self):
        queue = {"name": "ctl-new", "durable": True, "auto_delete": False, "arguments": {}}
        self.file.write_text(json.dumps({"queues": [{**queue, "vhost": self.vhost}]}))
        self.works("import_definitions", self.file, out=f'Importing definitions in JSON from a file at "{self.file}" ...\n.*')
        self.eventually(lambda: [row["name"] for row in self.rows("list_queues", "-p", self.vhost)] == ["ctl-new"], "imported")
        self.works("import_definitions", self.file, "--skip-if-unchanged", out=".*nothing was imported\n")
        self.fails(65, "File /none.json does not exist", "import_definitions", "/none.json")
        self.fails(65, "Failed to deserialise input", "import_definitions", "-", stdin="{bogus")
        summary = self.definitions("import", self.file)
        self.assertEqual((summary.code, summary.out), (0, "queues: 0 made, 0 changed, 1 unchanged, 0 skipped\n"), summary)
        queues = {"queues": [{**queue, "name": "ctl-newer"}, queue]}
        summary = self.definitions("import", "-", "--vhost", self.vhost, "--json", stdin=json.dumps(queues))
        self.assertEqual(summary.code, 0, summary)
        made = [f"queue 'ctl-newer' in vhost '{self.vhost}'"]
        expected = {"made": made, "changed": [], "unchanged": 1, "skipped": [], "partly": []}
        self.assertEqual(summary.json()["kinds"], {"queues": expected})

    def mixed(self):
        """Ordinary things, and things that this version does not have."""
        queue = {"vhost": self.vhost, "durable": True, "auto_delete": False}
        return {
            "queues": [{**queue, "name": "ctl-classic", "arguments": {"x-queue-type": "classic"}},
                       {**queue, "name": "ctl-quorum", "type": "quorum", "arguments": {"x-queue-type": "quorum"}}],
            "bindings": [{"vhost": self.vhost, "source": "amq.fanout", "destination": name, "destination_type": "queue",
                          "routing_key": "", "arguments": {}} for name in ("ctl-classic", "ctl-quorum")],
            "policies": [{"vhost": self.vhost, "name": "ha", "pattern": "^x", "definition": {"ha-mode": "all", "expires": 9000}}],
        }

    def test_an_import_says_what_it_did_and_what_it_left_out(self):
        self.file.write_text("\ufeff" + json.dumps(self.mixed()))
        told = [f"skipped queue 'ctl-quorum' in vhost '{self.vhost}': queues of type 'quorum' are not available in this version",
                f"skipped binding from exchange 'amq.fanout' to queue 'ctl-quorum' with key '' in vhost '{self.vhost}': "
                "queue 'ctl-quorum' was skipped",
                f"partly policy 'ha' in vhost '{self.vhost}': without 'ha-mode', which has no effect here: there are no mirrored queues"]
        dry = self.definitions("import", "--dry-run", self.file)
        self.assertIn("Dry run, nothing is changed", dry.out)
        self.assertEqual(self.rows("list_queues", "-p", self.vhost), [], "a dry run changes nothing")
        first = self.works("import_definitions", self.file)
        self.assertRegex(first.out, "(?s)queues: 1 made, 0 changed, 0 unchanged, 1 skipped\n.*bindings: 1 made, 0 changed, 0 unchanged, 1 skipped\n")
        self.assertEqual(dry.out.split("\n", 1)[1], first.out.split("\n", 1)[1], "the dry run said the same")
        for line in told:
            self.assertIn(f"  {line}\n", first.out)
        again = self.definitions("import", self.file, "--strict")
        why = "--strict: 2 skipped, 1 partly taken; the rest has been imported\n"
        self.assertEqual((again.code, again.err), (65, why), again)
        self.assertRegex(again.out, "(?s)queues: 0 made, 0 changed, 1 unchanged, 1 skipped\n.*bindings: 0 made, 0 changed, 1 unchanged, 1 skipped\n")
        for line in told:
            self.assertIn(f"  {line}\n", again.out)
        whole = {"queues": self.mixed()["queues"][:1]}
        self.assertEqual(self.definitions("import", "-", "--strict", stdin=json.dumps(whole)).code, 0)
        verbose = self.works("import_definitions", "-", "--verbose", stdin=json.dumps({"queues": [{**whole["queues"][0], "name": "more"}]}))
        self.assertIn(f"  made queue 'more' in vhost '{self.vhost}'\n", verbose.out)

    def test_options_may_stand_before_the_command(self):
        self.file.write_text(json.dumps({"queues": self.mixed()["queues"][:1]}))
        result = program("definitions", *self.broker.target(), "import", self.file)
        self.assertEqual((result.code, result.out), (0, "queues: 1 made, 0 changed, 0 unchanged, 0 skipped\n"), result)
        result = program("definitions", *self.broker.target(), "--vhost", self.vhost, "diff", "-", stdin="{}")
        self.assertEqual((result.code, result.out), (0, ""), result)

    def test_a_difference_of_passwords_is_told_and_not_shown(self):
        self.works("add_user", self.user, "secret")
        self.addCleanup(self.ctl, "delete_user", self.user)
        exported = json.loads(self.works("export_definitions", "-", "-q").out)["users"]
        own = next(user for user in exported if user["name"] == self.user)
        others = [user for user in exported if user["name"] != self.user]
        plain = {"name": self.user, "tags": "", "password": "secret"}
        for users, out in (([own], ""), ([plain], ""), ([{**plain, "password": "s3cret"}], f"~ user {self.user}: password\n")):
            document = json.dumps({"users": others + users})
            self.assertEqual(self.definitions("diff", "-", stdin=document).out, out)
            shown = self.definitions("diff", "-", "--json", stdin=document).out
            self.assertFalse("s3cret" in shown or own["password_hash"] in shown, shown)
        summary = self.definitions("import", "-", stdin=json.dumps({"users": [plain]}))
        self.assertEqual(summary.out, "users: 0 made, 0 changed, 1 unchanged, 0 skipped\n")

    def test_diff(self):
        policy = ["-p", self.vhost, "ttl", "^q"]
        self.works("set_policy", *policy, '{"max-length":10}', "--apply-to", "queues")
        self.file.write_text(self.definitions("export", "--vhost", self.vhost).out)
        same = self.definitions("diff", "--vhost", self.vhost, self.file)
        self.assertEqual((same.code, same.out, same.err), (0, "", ""), same)
        document = json.loads(self.file.read_text())
        document["queues"] = [{"name": "new", "durable": True, "auto_delete": False, "arguments": {}}]
        document["policies"][0]["definition"] = {"max-length": 20}
        different = self.definitions("diff", "--vhost", self.vhost, "-", stdin=json.dumps(document))
        lines = f"~ policy {self.vhost}/ttl: definition.max-length 10 -> 20\n+ queue {self.vhost}/new\n"
        self.assertEqual((different.code, different.out, different.err), (1, lines, ""), different)
        document["policies"] = []
        removed = self.definitions("diff", "--vhost", self.vhost, "-", "--json", stdin=json.dumps(document)).json()
        self.assertIn({"change": "removed", "kind": "policy", "name": f"{self.vhost}/ttl", "fields": {}}, removed)

    def test_the_whole_broker_equals_its_export(self):
        self.works("export_definitions", self.file)
        self.assertEqual(self.definitions("diff", self.file).out, "")


class Settings(CtlTest):
    """What only Warren's API has. From a RabbitMQ the refusal is expected."""

    def test_settings(self):
        commands = [["set_log_level", "info"], ["set_vm_memory_high_watermark", "0.6"],
                    ["set_vm_memory_high_watermark", "absolute", "2GiB"], ["set_disk_free_limit", "mem_relative", "0.001"],
                    ["set_disk_free_limit", "50MB"], ["rotate_logs"], ["set_vm_memory_high_watermark", "0.6"]]
        for words in commands:
            if self.is_warren():
                self.works(*words)
            else:
                self.fails(69, "is not Warren", *words)
        self.fails(69, "level bogus is not supported", "set_log_level", "bogus")
        self.fails(65, "fraction between 0.0 and 1.0", "set_vm_memory_high_watermark", "1.5")
        for words in (["set_vm_memory_high_watermark", "bogus"], ["set_disk_free_limit", "bogus"], ["set_disk_free_limit", "mem_relative", "x"]):
            self.fails(65, "expected a number", *words)

    def test_listeners(self):
        if not self.is_warren():
            for verb in ("suspend_listeners", "resume_listeners", "stop_app", "start_app"):
                self.fails(69, "is not Warren", verb)
            return
        for suspend, resume in (("suspend_listeners", "resume_listeners"), ("stop_app", "start_app")):
            client = self.connected()
            self.works(suspend)
            if suspend == "stop_app":
                self.assertIn(b"CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'", client.recv(4096))
            client.close()
            self.assertFalse(self.answers(), f"connected after {suspend}")
            self.assertFalse(self.connects(), f"a TCP probe connects after {suspend}")
            self.fails(69, "is not accepting client connections", "check_running")
            self.fails(69, "No listener for protocol amqp", "check_protocol_listener", "amqp")
            port = urllib.parse.urlsplit(self.broker.amqp).port
            self.fails(69, f"No listener for port {port}", "check_port_listener", port)
            self.works("ping")
            self.works(resume)
            self.assertTrue(self.answers(), f"not connected after {resume}")
            self.works("check_running")
        self.assertFalse(self.maintenance())
        self.works("drain", tool="rabbitmq-upgrade", out="Will put node .* into maintenance mode.*")
        self.assertTrue(self.maintenance())
        self.assertFalse(self.connects(), "a TCP probe connects under maintenance")
        self.fails(69, "under maintenance", "check_running")
        self.works("revive", tool="rabbitmq-upgrade")
        self.assertFalse(self.maintenance())
        self.assertTrue(self.answers(), "not connected after revive")
        self.works("await_online_quorum_plus_one", "-t", "5", tool="rabbitmq-upgrade")
        self.works("await_online_synchronized_mirror", tool="rabbitmq-upgrade")
        self.works("post_upgrade", tool="rabbitmq-upgrade")
        self.works("stop_app")
        for check, *words in (["check_local_alarms"], ["check_virtual_hosts"], ["check_if_node_is_quorum_critical"],
                              ["check_if_metadata_store_is_initialized"], ["check_certificate_expiration"]):
            self.fails(69, "stop_app", check, *words)
        self.works("start_app")
        self.works("check_local_alarms")

    def maintenance(self):
        return self.rows("status")["is_under_maintenance"]

    def test_streams(self):
        tool = {"tool": "rabbitmq-streams"}
        for verb in ("list_stream_connections", "list_stream_consumers", "list_stream_publishers",
                     "list_stream_consumer_groups", "list_stream_group_consumers"):
            self.assertEqual(self.rows(verb, **tool), [])
        self.ctl("delete_vhost", self.vhost)
        self.works("add_vhost", self.vhost)
        self.addCleanup(self.ctl, "delete_vhost", self.vhost)
        definitions = json.dumps({"queues": [{"vhost": self.vhost, "name": "q", "durable": True}]})
        self.works("import_definitions", "-", stdin=definitions)
        for verb, *words in (["stream_status"], ["add_replica", "n"], ["delete_replica", "n"], ["restart_stream"],
                             ["list_stream_tracking"], ["set_stream_retention_policy", "1D"]):
            self.fails(65, "stream 'none' was not found in virtual host", verb, "-p", self.vhost, "none", *words, **tool)
            self.fails(65, "queue 'q' in virtual host '.*' is no stream but of type classic", verb, "-p", self.vhost, "q", *words, **tool)
        self.fails(65, "is no stream", "reset_offset", "-p", self.vhost, "--stream", "q", "--reference", "r", **tool)
        for verb in ("add_super_stream", "delete_super_stream", "coordinator_status", "activate_stream_consumer"):
            self.fails(69, f"{verb} is not available\\. .* no streams in this version", verb, "x", **tool)

    def test_a_reset_leaves_what_a_new_broker_has(self):
        if not self.is_warren():
            self.skipTest("it would erase a broker that is not ours")
        other = Broker("--set", "defaults.user=first")
        self.addCleanup(other.stop)
        other.start()
        self.addCleanup(setattr, self, "broker", self.broker)
        self.broker = other
        new = json.loads(self.works("export_definitions", "-", "-q").out)
        self.works("add_vhost", self.vhost)
        self.works("enable_vhost_deletion_protection", self.vhost)
        self.works("add_user", self.user, "x")
        self.works("set_global_parameter", "note", '"x"')
        self.works("import_definitions", "-", stdin='{"queues": [{"vhost": "/", "name": "q", "durable": true}]}')
        for verb, *before in (["reset", "stop_app"], ["force_reset"]):
            self.works("add_vhost", "another")
            if before:
                self.fails(69, "stop it with stop_app first", verb)
                self.works(*before)
            self.works(verb, out=".*esetting node .* ...\n")
            again = json.loads(self.works("export_definitions", "-", "-q").out)
            for kind in ("vhosts", "permissions", "queues", "parameters", "global_parameters"):
                self.assertEqual(again[kind], new[kind], kind)
            self.assertEqual([user["name"] for user in again["users"]], ["first"])
            self.works("start_app")

    def test_an_alarm_is_in_force_when_the_command_returns(self):
        if not self.is_warren():
            self.skipTest("what only Warren's API has")
        for verb, high, low, kind in (("set_vm_memory_high_watermark", ["absolute", "1"], ["0.6"], "memory"),
                                      ("set_disk_free_limit", ["1000TB"], ["50MB"], "disk")):
            for _ in range(5):
                self.works(verb, *high)
                self.fails(69, "alarms in effect", "check_local_alarms")
                self.works(verb, *low)
                self.works("check_local_alarms")

    def connects(self):
        place = urllib.parse.urlsplit(self.broker.amqp)
        try:
            socket.create_connection((place.hostname, place.port), TIMEOUT).close()
            return True
        except ConnectionRefusedError:
            return False

    def connected(self):
        """A socket on which an AMQP connection is open, and all of that is read."""
        place = urllib.parse.urlsplit(self.broker.amqp)
        client = socket.create_connection((place.hostname, place.port), TIMEOUT)

        def method(ids, fields):
            payload = bytes(ids) + fields
            client.sendall(b"\x01\0\0" + len(payload).to_bytes(4, "big") + payload + b"\xce")

        client.sendall(b"AMQP\0\0\x09\x01")
        self.assertIn(b"PLAIN", client.recv(4096))
        method((0, 10, 0, 11), b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US")
        self.assertEqual(client.recv(4096)[7:11], b"\0\x0a\0\x1e")
        method((0, 10, 0, 31), b"\x07\xff\0\x02\0\0\0\0")
        method((0, 10, 0, 40), b"\x01/\0\0")
        self.assertEqual(client.recv(4096)[7:11], b"\0\x0a\0\x29")
        return client

    def answers(self):
        """Whether an AMQP client gets an answer to its first bytes."""
        place = urllib.parse.urlsplit(self.broker.amqp)
        try:
            with socket.create_connection((place.hostname, place.port), TIMEOUT) as client:
                client.sendall(b"AMQP\0\0\x09\x01")
                return bool(client.recv(1))
        except OSError:
            return False
