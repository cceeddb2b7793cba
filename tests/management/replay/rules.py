"""What is compared, and how strictly: the tables behind the comparison. Every exception has its reason."""

import re

# The literal words of the endpoints; every other segment of a path is somebody's name.
WORDS = frozenset(
    "bindings channels connections contents destination detailed get permissions publish queues quorum source start "
    "status topic-permissions without-permissions used e q memory relative deletion protection username node "
    "attempts actions enable checks".split()
)

# Objects that come as `[]` when empty, since an empty map of Erlang is an empty list. Ours are always `{}`.
MAP_KEYS = frozenset(
    "properties arguments client_properties socket_opts channel_details ssl_opts cowboy_opts headers".split()
)

# What names an element of a list.
IDENTITY_KEYS = (
    "vhost",
    "component",
    "name",
    "user",
    "exchange",
    "source",
    "destination",
    "routing_key",
    "queue",
    "channel_details",
    "consumer_tag",
    "protocol",
    "description",
    "javascript",
)

# Objects whose whole content was decided by whoever created the object: every value in them counts.
EXACT_SUBTREES = frozenset(
    "arguments definition effective_policy_definition value limits metadata tags properties error reason".split()
)

# Numbers outside of those that are decided by the request or the client. All others are measurements.
EXACT_NUMBERS = frozenset(
    "priority prefetch_count number peer_port port channel_max frame_max timeout consumer_timeout page page_size "
    "payload_bytes message_count missing item_count storage_version consumer_count".split()
)

# Keys that come and go with the load.
OPTIONAL_KEYS = {
    "idle_since": "only there while nothing happens",
}

# Values that differ from one broker, or one run, to the next: (name of the recording, key, path), patterns that must
# match as a whole; and why.
VARIES = [
    (r".*", r"password_hash", r".*", "salted"),
    (r".*", r"idle_since|timestamp|connected_at|time", r".*", "a time"),
    (
        r".*",
        r"(rabbitmq|rabbit|management|product|erlang|crypto_lib|erlang_full)_version|product_name",
        r".*",
        "release",
    ),
    (r".*", r"version|platform|information|product", r".*client_properties.*", "the client library's"),
    (
        r".*",
        r"ip_address|ip|cowboy_opts|socket_opts|path|linger|.*nodelay|exit_on_close|sendfile",
        r".*(listeners|contexts).*",
        "configuration",
    ),
    (r"get/global-parameters", r"value", r"\$\[internal_cluster_id\].*", "made by the broker"),
    (r"get/version.*", r".*", r"\$", "release"),
    (r"get/auth-hash_password", r"ok", r".*", "salted"),
    (r"get/node.*", r"os_pid|db_dir|rates_mode|mem_calculation_strategy|strategy", r".*", "configuration"),
    (r"(get/overview|quirks/trailing).*", r"rates_mode", r".*", "configuration"),
]

# Lists of which only the shape of the elements counts: (recording, path), and why.
SHAPE_ONLY = [
    (r".*", r".*\.samples", "samples in time"),
    (r"get/connections\.paged", r".*\.items", "which connections are on the page depends on their ports"),
    (r"get/channels\.paged", r".*\.items", "which channel is on the page depends on the load"),
    (r"get/(feature-flags|deprecated-features|deprecated-features-used)", r"\$", "each release has its own"),
    (r"get/nodes?", r".*\.(applications|log_files|config_files|enabled_plugins|partitions)", "the installation's"),
    (r"health/.*", r"\$\.(ports|protocols)", "the listeners there are"),
    (r"get/(overview|node).*|quirks/trailing-slash", r".*\.contexts", "which HTTP servers there are"),
]

# Keys the answer may have although the recording has not: per endpoint, with a name as `*`.
QUEUE_STATISTICS = frozenset(
    "consumer_capacity consumer_details consumer_utilisation consumers deliveries "
    "effective_policy_definition exclusive_consumer_tag garbage_collection head_message_timestamp idle_since incoming "
    "internal_owner memory message_bytes message_bytes_persistent message_bytes_ram "
    "message_bytes_ready message_bytes_unacknowledged message_stats messages messages_details "
    "messages_persistent messages_ram messages_ready messages_ready_details messages_ready_ram "
    "messages_unacknowledged messages_unacknowledged_details messages_unacknowledged_ram operator_policy policy "
    "reductions reductions_details single_active_consumer_tag storage_version".split()
)
MESSAGE_STATISTICS = frozenset(
    f"{counter}{ending}"
    for counter in (
        "ack confirm deliver deliver_get deliver_no_ack drop_unroutable get get_empty get_no_ack publish publish_in "
        "publish_out redeliver return_unroutable disk_reads disk_writes"
    ).split()
    for ending in ("", "_details")
)
RATES = frozenset("avg avg_rate rate samples".split())
VHOST_STATISTICS = frozenset(
    f"{counter}{ending}"
    for counter in "messages messages_ready messages_unacknowledged recv_oct send_oct".split()
    for ending in ("", "_details")
) | {"message_stats"}
ALLOWED_EXTRA_KEYS = {
    "queues": QUEUE_STATISTICS | MESSAGE_STATISTICS | {"policy", "operator_policy"},
    "queues/*": QUEUE_STATISTICS | MESSAGE_STATISTICS,
    "queues/detailed": QUEUE_STATISTICS | MESSAGE_STATISTICS,
    "queues/*/*": QUEUE_STATISTICS | MESSAGE_STATISTICS | RATES,
    "exchanges": MESSAGE_STATISTICS | {"message_stats", "policy"},
    "exchanges/*": MESSAGE_STATISTICS | {"message_stats", "policy"},
    "exchanges/*/*": MESSAGE_STATISTICS | {"message_stats", "policy", "incoming", "outgoing"},
    "channels": MESSAGE_STATISTICS | {"message_stats"},
    "channels/*": MESSAGE_STATISTICS | {"message_stats"},
    "connections/*/channels": MESSAGE_STATISTICS | {"message_stats"},
    "vhosts/*/channels": MESSAGE_STATISTICS | {"message_stats"},
    "vhosts": VHOST_STATISTICS | MESSAGE_STATISTICS,
    "vhosts/*": VHOST_STATISTICS | MESSAGE_STATISTICS,
    "overview": MESSAGE_STATISTICS,
}
# The same for single places: (recording, path, key), and why.
ALLOWED_EXTRA_PLACES = [
    (r".*", r".*\.(listeners|contexts)\[.*\](\.socket_opts)?", r".*", "configuration"),
    (r"get/.*channel.*", r"\$.*", r"global_prefetch_count", "RabbitMQ 3's, for basic.qos with global set"),
    (r"get/queues-detailed", r"\$\[.*\]", r"owner_pid_details", "as of one queue"),
    (r"get/queues\.totals", r"\$\[.*\]", r"internal|internal_owner", "as in any other list"),
]

# Elements that may be in a list although the recording does not have them: (recording, path), and why.
ALLOWED_EXTRA_ELEMENTS = [
    (r"get/vhosts|quirks/sort-unknown-column", r"\$", "the laboratory's vhosts"),
    (r"get/(users|users-without-permissions|permissions)", r"\$", "the laboratory's users"),
    (r"get/auth-attempts-source", r"\$", "Warren always counts by source"),
]

# Values that Warren has better: (recording, path), what it may be instead, and why.
BETTER_VALUES = [
    (r"write/queue-get-amqp-headers", r".*\.headers\.decimal", (1.5,), "a decimal of 1.5 came as 1.15"),
    (r"write/queue-get-amqp-headers", r".*\.headers\.none", (None, "undefined"), "a null came as a word of Erlang"),
    (r".*", r".*\[cluster_tags\]\.value", ({}, []), "an empty map came as an empty list"),
]

# Differences that are not looked at: (on which broker, recording, path), and why.
BASIC_RATES = "statistics of pairs of objects exist only with rates mode `detailed`; the reference broker has `basic`"
OURS_BASIC = "statistics of pairs of objects are not kept: rates mode `basic`"
NO_RUNTIME = "of Erlang, or of plugins, which are not there"
REGULAR_EXPRESSIONS = "the library says in its own words, as text, what is wrong with a regular expression"
NOT_OURS = "the reference broker has fewer plugins than the recorded one"
LEFT_OUT = [
    ("rabbitmq", r"get/(channel|exchange|queue).*", r"\$\.(deliveries|incoming|outgoing|publishes)\[.*", BASIC_RATES),
    ("rabbitmq", r"get/exchanges", r"\$\[//amq\.rabbitmq\.event\]", NOT_OURS),
    ("warren", r"get/(channel|exchange|queue).*", r"\$\.(deliveries|incoming|outgoing|publishes)\[[^\]]*\]", OURS_BASIC),
    ("warren", r".*", r".*\.consumer_timeout", "there is none unless it is configured: 0"),
    ("warren", r"get/exchange.*", r".*user_who_performed_action", "who made an exchange is not kept"),
    ("warren", r"get/exchanges", r"\$\[//amq\.rabbitmq\.event\]", "of the plugin for events"),
    ("warren", r"get/extensions", r"\$\[dispatcher\.js\]", "scripts of a user interface that is not there"),
    ("warren", r"get/global-parameters", r"\$\[internal_cluster_id\]", "there is no cluster to name"),
    ("warren", r"get/nodes?", r".*\.auth_mechanisms\[RABBIT-CR-DEMO[^\]]*\]", NO_RUNTIME),
    ("warren", r"get/.*\.samples", r".*\.reductions_details\.(avg|avg_rate|samples)", NO_RUNTIME),
    ("warren", r"get/nodes?", r".*\.config_files", "the run has no configuration file"),
    ("warren", r"get/queues\.totals", r"\$\[.*\]\.online", "a null in the place of members that classic queues lack"),
    ("warren", r"errors/permission-put-bad-regex", r"\$\.reason\[(1|2\]\[0)\]", REGULAR_EXPRESSIONS),
    ("warren", r"errors/policy-put-bad-regex", r"\$\.reason", REGULAR_EXPRESSIONS),
    ("warren", r"errors/definitions-get-vhost-missing", r"cache-control", "as any other refusal"),
    ("warren", r"write/vhost-(un)?protect", r"allow", "GET is 405, not 500"),
    ("rabbitmq", r"quirks/sort-unknown-column", r"\$\[\S*imp/\]\.messages.*", "statistics of a new vhost lag behind"),
]

# Bodies that are not compared: the page is the broker's own.
PAGES = re.compile(r"ui/(root|api-help|cli-rabbitmqadmin)")


def compares_body(name: str) -> bool:
    return PAGES.fullmatch(name) is None


def varies(name: str, key: str, path: str) -> bool:
    return any(matches(row[:3], (name, key, path)) for row in VARIES)


def shape_only(name: str, _key: str, path: str) -> bool:
    return any(matches(row[:2], (name, path)) for row in SHAPE_ONLY)


def left_out(ours: bool, name: str, path: str) -> bool:
    target = "warren" if ours else "rabbitmq"
    return any(matches(row[:3], (target, name, path)) for row in LEFT_OUT)


def better_values(name: str, path: str) -> tuple | None:
    """What Warren may answer instead of the recorded value; None where that is the recorded one."""
    return next((row[2] for row in BETTER_VALUES if matches(row[:2], (name, path))), None)


def allowed_extra_keys(kind: str) -> frozenset:
    return ALLOWED_EXTRA_KEYS.get(kind, frozenset())


def extra_is_allowed(name: str, path: str, key: str) -> bool:
    return any(matches(row[:3], (name, path, key)) for row in ALLOWED_EXTRA_PLACES)


def extra_elements_are_allowed(name: str, path: str) -> bool:
    return any(matches(row[:2], (name, path)) for row in ALLOWED_EXTRA_ELEMENTS)


def matches(patterns: tuple, values: tuple) -> bool:
    return all(re.fullmatch(pattern, value, re.DOTALL) for pattern, value in zip(patterns, values))
