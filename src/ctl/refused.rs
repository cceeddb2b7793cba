//! Verbs of RabbitMQ's tools that have no meaning here: each is refused with a sentence, or accepted as a no-op where that is
//! what RabbitMQ does as well.

use super::call::Call;
use super::error::{CtlError, code};
use super::verb::{BOTH, DIAGNOSTICS, Done, Group, QUEUES, Tool, Verb};

const CTL: &[Tool] = &[Tool::Rabbitmqctl];

const fn refused(tools: &'static [Tool], name: &'static str, about: &'static str) -> Verb {
    Verb::new(Group::NotHere, name, "[<argument> ...]", about, refuse).of(tools)
}

const fn no_op(tools: &'static [Tool], name: &'static str, about: &'static str) -> Verb {
    Verb::new(Group::NotHere, name, "[<argument> ...]", about, accept).of(tools)
}

pub(crate) const VERBS: &[Verb] = &[
    refused(CTL, "eval", "Evaluates Erlang: there is no Erlang here. Use the management API"),
    refused(CTL, "eval_file", "Evaluates Erlang: there is no Erlang here. Use the management API"),
    refused(CTL, "exec", "Evaluates Elixir: there is no Elixir here. Use the management API"),
    refused(DIAGNOSTICS, "remote_shell", "Starts an Erlang shell: there is no Erlang here"),
    refused(DIAGNOSTICS, "observer", "Starts an Erlang observer: there is no Erlang here. See `warren top`"),
    refused(DIAGNOSTICS, "erlang_version", "There is no Erlang here"),
    refused(
        DIAGNOSTICS,
        "erlang_cookie_hash",
        "There is no Erlang cookie: the socket's file mode and passwords decide who may",
    ),
    refused(
        DIAGNOSTICS,
        "erlang_cookie_sources",
        "There is no Erlang cookie: the socket's file mode and passwords decide who may",
    ),
    refused(DIAGNOSTICS, "maybe_stuck", "Looks for stuck Erlang processes: there are none. See `warren top`"),
    refused(DIAGNOSTICS, "runtime_thread_stats", "There is no Erlang runtime. See the Prometheus listener"),
    refused(DIAGNOSTICS, "resolver_info", "The resolver is the system's: see /etc/resolv.conf"),
    refused(DIAGNOSTICS, "resolve_hostname", "The resolver is the system's: `getent hosts NAME` asks it"),
    refused(DIAGNOSTICS, "list_network_interfaces", "The system lists them: `ip address`"),
    refused(DIAGNOSTICS, "os_env", "Settings from the environment are marked in `warren ctl environment`"),
    refused(
        DIAGNOSTICS,
        "command_line_arguments",
        "Settings from the command line are marked in `warren ctl environment`",
    ),
    refused(
        DIAGNOSTICS,
        "log_tail_stream",
        "Follow the log where it goes: `journalctl -u warren -f`, or `tail -F` and the file that log_location names",
    ),
    refused(
        DIAGNOSTICS,
        "certificates",
        "Use `openssl s_client -connect HOST:PORT -showcerts`, or check_certificate_expiration",
    ),
    refused(
        DIAGNOSTICS,
        "cipher_suites",
        "The suites are rustls' defaults for TLS 1.2 and 1.3; there is no list to ask for",
    ),
    refused(DIAGNOSTICS, "tls_versions", "TLS 1.3 and 1.2; there is no list to ask for"),
    refused(
        DIAGNOSTICS,
        "metadata_store_status",
        "Definitions are in the broker's own log: `warren log verify` checks it",
    ),
    refused(DIAGNOSTICS, "message_size_stats", "Message sizes are a histogram of the Prometheus listener"),
    refused(
        CTL,
        "encode",
        "Encrypts values for RabbitMQ's configuration: here secrets come from files or the environment",
    ),
    refused(
        CTL,
        "decode",
        "Decrypts values of RabbitMQ's configuration: here secrets come from files or the environment",
    ),
    refused(
        CTL,
        "encrypt_conf_value",
        "Encrypts values for RabbitMQ's configuration: here secrets come from files or the environment",
    ),
    refused(
        CTL,
        "decrypt_conf_value",
        "Decrypts values of RabbitMQ's configuration: here secrets come from files or the environment",
    ),
    refused(CTL, "list_ciphers", "Lists ciphers of encode: there is no such encryption here"),
    refused(CTL, "list_hashes", "Lists hashes of encode: there is no such encryption here"),
    refused(CTL, "force_boot", "A node starts without its peers: there is nothing to force"),
    refused(CTL, "force_standalone_khepri_boot", "There is no Khepri here"),
    refused(CTL, "join_cluster", "There is no cluster to join yet: a node stands alone"),
    refused(CTL, "forget_cluster_node", "There is no cluster yet: a node stands alone"),
    refused(CTL, "list_channel_interceptors", "There are no channel interceptors"),
    refused(CTL, "set_channel_interceptor_priorities", "There are no channel interceptors"),
    refused(QUEUES, "transfer_leadership", "There is no other node to lead a queue yet"),
    no_op(CTL, "rename_cluster_node", "Does nothing, as in RabbitMQ"),
    no_op(CTL, "update_cluster_nodes", "Does nothing, as in RabbitMQ"),
    no_op(CTL, "activate_free_disk_space_monitoring", "Does nothing: the disk is always watched"),
    no_op(CTL, "remove_classic_queue_mirroring_from_policies", "Does nothing: there are no mirrored queues"),
    refused(
        CTL,
        "deactivate_free_disk_space_monitoring",
        "The disk is always watched; set_disk_free_limit 0 ends the alarm",
    ),
    no_op(BOTH, "enable_auth_attempt_source_tracking", "Does nothing: logins are always counted by source"),
    no_op(BOTH, "disable_auth_attempt_source_tracking", "Does nothing: logins are always counted by source"),
];

fn refuse(call: &Call<'_>) -> Done {
    let (verb, about) = (call.verb.name, call.verb.about);
    Err(CtlError::failed(code::UNAVAILABLE, format!("{verb} is not available. {about}")))
}

fn accept(call: &Call<'_>) -> Done {
    call.banner(call.verb.about);
    Ok(())
}
