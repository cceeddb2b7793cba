//! Every address of the API: who may ask for what, and who answers. The router and the API's description are made of this
//! one table.

use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap};
use axum::http::{Method, Response, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::broker::events::acting_for;

use super::Management;
use super::answer::{Answer, Content, Failure};
use super::call::{Call, Query, decode};
use super::cors::{Asked, content_type};
use super::definitions;
use super::endpoints::{
    bindings, channels, connections, events, exchanges, health, limits, nodes, overview, parameters, permissions,
    policies, queues, service, users, vhosts, warren,
};
use super::identity::{Guard, Identity, RequestOrigin};

/// How long a request may take, in milliseconds.
const PATIENCE_MS: u64 = 30_000;
/// How long a request's body may take to arrive, in milliseconds.
const BODY_PATIENCE_MS: u64 = 60_000;
/// Bytes of a request's body where no login is asked for.
const STRANGERS_BODY_MAX: usize = 64 * 1024;
/// An import of many definitions, which is not to be left half done.
const IMPORT_PATIENCE_MS: u64 = 600_000;
/// Answers of at least this many bytes are compressed for those who ask for it.
const COMPRESSED_MIN: usize = 1024;

type Handled = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send>>;

/// An address, with placeholders in braces.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) endpoints: &'static [Endpoint],
}

/// What can be asked of an address.
pub(super) struct Endpoint {
    pub(super) method: &'static str,
    pub(super) guard: Guard,
    pub(super) summary: &'static str,
    handler: fn(Call) -> Handled,
}

impl Route {
    /// Milliseconds that a request may take.
    fn patience_ms(&self) -> u64 {
        let imports = ["/api/definitions", "/api/definitions/{vhost}", "/api/all-configuration"];
        if imports.contains(&self.path) { IMPORT_PATIENCE_MS } else { PATIENCE_MS }
    }
}

const fn route(path: &'static str, endpoints: &'static [Endpoint]) -> Route {
    Route { path, endpoints }
}

macro_rules! endpoint {
    ($method:literal, $guard:expr, $($handler:ident)::+, $summary:literal) => {
        Endpoint { method: $method, guard: $guard, summary: $summary, handler: |call| Box::pin($($handler)::+(call)) }
    };
}

const ANY: Guard = Guard::Management;
const VHOST: Guard = Guard::Vhost(0);
const ADMIN: Guard = Guard::Administrator;
const OPEN: Guard = Guard::Nobody;
const MONITOR: Guard = Guard::Monitoring;
const POLICIES: Guard = Guard::Policymaker(None);
const POLICIES_OF_VHOST: Guard = Guard::Policymaker(Some(0));

/// See the module's documentation.
pub(super) static ROUTES: &[Route] = &[
    route("/", &[endpoint!("GET", OPEN, warren::root, "What this broker is")]),
    route("/api", &[endpoint!("GET", OPEN, warren::to_api_page, "Leads to the page about the API")]),
    route("/mgmt", &[endpoint!("GET", OPEN, warren::to_root, "Leads to the first page")]),
    route("/cli", &[endpoint!("GET", OPEN, warren::cli_page, "Where the command line tool is")]),
    route("/cli/index.html", &[endpoint!("GET", OPEN, warren::cli_page, "Where the command line tool is")]),
    route("/cli/rabbitmqadmin", &[endpoint!("GET", OPEN, warren::rabbitmqadmin, "The command line tool")]),
    route("/api/index.html", &[endpoint!("GET", OPEN, warren::api_page, "A page about the API")]),
    route("/api/openapi.json", &[endpoint!("GET", OPEN, warren::openapi, "This description")]),
    route("/metrics", &[endpoint!("GET", OPEN, super::metrics, "Metrics for Prometheus")]),
    route("/metrics/{kind}", &[endpoint!("GET", OPEN, super::metrics, "Other metrics for Prometheus")]),
    route("/api/overview", &[endpoint!("GET", ANY, overview::overview, "The broker at a glance")]),
    route("/api/version", &[endpoint!("GET", OPEN, overview::version, "The version")]),
    route("/api/whoami", &[endpoint!("GET", ANY, users::whoami, "Who is asking")]),
    route(
        "/api/login",
        &[
            endpoint!("POST", OPEN, users::log_in, "Checks a name and a password"),
            endpoint!("DELETE", OPEN, users::log_out, "Ends a login"),
        ],
    ),
    route(
        "/api/cluster-name",
        &[
            endpoint!("GET", ANY, parameters::cluster_name, "The cluster's name"),
            endpoint!("PUT", ADMIN, parameters::set_cluster_name, "Names the cluster"),
        ],
    ),
    route("/api/nodes", &[endpoint!("GET", MONITOR, nodes::list, "Nodes")]),
    route("/api/nodes/{node}", &[endpoint!("GET", MONITOR, nodes::get, "A node")]),
    route("/api/nodes/{node}/memory", &[endpoint!("GET", MONITOR, nodes::memory, "A node's memory")]),
    route("/api/nodes/{node}/memory/relative", &[endpoint!("GET", MONITOR, nodes::memory_relative, "In percent")]),
    route("/api/extensions", &[endpoint!("GET", ANY, overview::extensions, "Extensions of a user interface")]),
    route(
        "/api/definitions",
        &[
            endpoint!("GET", ADMIN, definitions::export, "All definitions"),
            endpoint!("POST", ADMIN, definitions::import, "Adds definitions"),
        ],
    ),
    route(
        "/api/all-configuration",
        &[
            endpoint!("GET", ADMIN, definitions::export, "All definitions"),
            endpoint!("POST", ADMIN, definitions::import, "Adds definitions"),
        ],
    ),
    route(
        "/api/definitions/{vhost}",
        &[
            endpoint!("GET", ADMIN, definitions::export_vhost, "A vhost's definitions"),
            endpoint!("POST", ADMIN, definitions::import_vhost, "Adds definitions to a vhost"),
        ],
    ),
    route("/api/parameters", &[endpoint!("GET", POLICIES, parameters::list, "Runtime parameters")]),
    route("/api/parameters/{component}", &[endpoint!("GET", POLICIES, parameters::of_component, "Of a component")]),
    route(
        "/api/parameters/{component}/{vhost}",
        &[endpoint!(
            "GET",
            Guard::Policymaker(Some(1)),
            parameters::of_component_and_vhost,
            "Of a component in a vhost"
        )],
    ),
    route(
        "/api/parameters/{component}/{vhost}/{name}",
        &[
            endpoint!("GET", Guard::Policymaker(Some(1)), parameters::get, "A runtime parameter"),
            endpoint!("PUT", Guard::Policymaker(Some(1)), parameters::put, "Sets a runtime parameter"),
            endpoint!("DELETE", Guard::Policymaker(Some(1)), parameters::delete, "Removes a runtime parameter"),
        ],
    ),
    route(
        "/api/global-parameters",
        &[endpoint!("GET", POLICIES, parameters::list_global, "Parameters of the cluster")],
    ),
    route(
        "/api/global-parameters/{name}",
        &[
            endpoint!("GET", POLICIES, parameters::get_global, "A parameter of the cluster"),
            endpoint!("PUT", POLICIES, parameters::put_global, "Sets a parameter of the cluster"),
            endpoint!("DELETE", POLICIES, parameters::delete_global, "Removes a parameter of the cluster"),
        ],
    ),
    route("/api/policies", &[endpoint!("GET", ANY, policies::list, "Policies")]),
    route("/api/policies/{vhost}", &[endpoint!("GET", VHOST, policies::of_vhost, "Policies of a vhost")]),
    route(
        "/api/policies/{vhost}/{name}",
        &[
            endpoint!("GET", POLICIES_OF_VHOST, policies::get, "A policy"),
            endpoint!("PUT", POLICIES_OF_VHOST, policies::put, "Sets a policy"),
            endpoint!("DELETE", POLICIES_OF_VHOST, policies::delete, "Removes a policy"),
        ],
    ),
    route("/api/operator-policies", &[endpoint!("GET", ANY, policies::list_operator, "Operator policies")]),
    route("/api/operator-policies/{vhost}", &[endpoint!("GET", VHOST, policies::operator_of_vhost, "Of a vhost")]),
    route(
        "/api/operator-policies/{vhost}/{name}",
        &[
            endpoint!("GET", ADMIN, policies::get_operator, "An operator policy"),
            endpoint!("PUT", ADMIN, policies::put_operator, "Sets an operator policy"),
            endpoint!("DELETE", ADMIN, policies::delete_operator, "Removes an operator policy"),
        ],
    ),
    route("/api/vhost-limits", &[endpoint!("GET", ANY, limits::list_of_vhosts, "Limits of vhosts")]),
    route("/api/vhost-limits/{vhost}", &[endpoint!("GET", Guard::VisibleVhost(0), limits::of_vhost, "Of a vhost")]),
    route(
        "/api/vhost-limits/{vhost}/{name}",
        &[
            endpoint!("PUT", ADMIN, limits::put_of_vhost, "Sets a limit of a vhost"),
            endpoint!("DELETE", ADMIN, limits::delete_of_vhost, "Removes a limit of a vhost"),
        ],
    ),
    route("/api/user-limits", &[endpoint!("GET", ADMIN, limits::list_of_users, "Limits of users")]),
    route("/api/user-limits/{user}", &[endpoint!("GET", Guard::Oneself(0), limits::of_user, "Limits of a user")]),
    route(
        "/api/user-limits/{user}/{name}",
        &[
            endpoint!("PUT", ADMIN, limits::put_of_user, "Sets a limit of a user"),
            endpoint!("DELETE", ADMIN, limits::delete_of_user, "Removes a limit of a user"),
        ],
    ),
    route("/api/connections", &[endpoint!("GET", ANY, connections::list, "Connections")]),
    route(
        "/api/connections/username/{user}",
        &[
            endpoint!("GET", Guard::Oneself(0), connections::of_user, "A user's connections"),
            endpoint!("DELETE", ANY, connections::close_of_user, "Closes a user's connections"),
        ],
    ),
    route(
        "/api/connections/{name}",
        &[
            endpoint!("GET", ANY, connections::get, "A connection"),
            endpoint!("DELETE", ANY, connections::close, "Closes a connection"),
        ],
    ),
    route("/api/connections/{name}/channels", &[endpoint!("GET", ANY, channels::of_connection, "Its channels")]),
    route("/api/connections/{name}/sessions", &[endpoint!("GET", ANY, connections::sessions, "Its sessions")]),
    route("/api/vhosts/{vhost}/connections", &[endpoint!("GET", VHOST, connections::of_vhost, "Of a vhost")]),
    route("/api/channels", &[endpoint!("GET", ANY, channels::list, "Channels")]),
    route("/api/channels/{name}", &[endpoint!("GET", ANY, channels::get, "A channel")]),
    route("/api/vhosts/{vhost}/channels", &[endpoint!("GET", VHOST, channels::of_vhost, "Channels in a vhost")]),
    route("/api/consumers", &[endpoint!("GET", ANY, channels::consumers, "Consumers")]),
    route("/api/consumers/{vhost}", &[endpoint!("GET", VHOST, channels::consumers_of_vhost, "Consumers in a vhost")]),
    route("/api/exchanges", &[endpoint!("GET", ANY, exchanges::list, "Exchanges")]),
    route("/api/exchanges/{vhost}", &[endpoint!("GET", VHOST, exchanges::of_vhost, "Exchanges in a vhost")]),
    route(
        "/api/exchanges/{vhost}/{exchange}",
        &[
            endpoint!("GET", VHOST, exchanges::get, "An exchange"),
            endpoint!("PUT", VHOST, exchanges::put, "Declares an exchange"),
            endpoint!("DELETE", VHOST, exchanges::delete, "Deletes an exchange"),
        ],
    ),
    route(
        "/api/exchanges/{vhost}/{exchange}/publish",
        &[endpoint!("POST", VHOST, exchanges::publish, "Publishes a message")],
    ),
    route(
        "/api/exchanges/{vhost}/{exchange}/bindings/source",
        &[endpoint!("GET", VHOST, bindings::from_exchange, "Bindings from an exchange")],
    ),
    route(
        "/api/exchanges/{vhost}/{exchange}/bindings/destination",
        &[endpoint!("GET", VHOST, bindings::to_exchange, "Bindings to an exchange")],
    ),
    route("/api/queues", &[endpoint!("GET", ANY, queues::list, "Queues")]),
    route("/api/queues/detailed", &[endpoint!("GET", ANY, queues::list_detailed, "Queues, with everything")]),
    route("/api/queues/{vhost}", &[endpoint!("GET", VHOST, queues::of_vhost, "Queues in a vhost")]),
    route(
        "/api/queues/quorum/{vhost}/{queue}/status",
        &[endpoint!("GET", VHOST, queues::quorum_status, "Members of a quorum queue")],
    ),
    route(
        "/api/queues/quorum/{vhost}/{queue}/replicas/add",
        &[endpoint!("POST", ADMIN, queues::change_members, "Adds a member")],
    ),
    route(
        "/api/queues/quorum/{vhost}/{queue}/replicas/delete",
        &[endpoint!("DELETE", ADMIN, queues::change_members, "Removes a member")],
    ),
    route(
        "/api/queues/quorum/replicas/on/{node}/grow",
        &[endpoint!("POST", ADMIN, queues::change_members_on_node, "Adds members on a node")],
    ),
    route(
        "/api/queues/quorum/replicas/on/{node}/shrink",
        &[endpoint!("DELETE", ADMIN, queues::change_members_on_node, "Removes members on a node")],
    ),
    route(
        "/api/queues/{vhost}/{queue}",
        &[
            endpoint!("GET", VHOST, queues::get, "A queue"),
            endpoint!("PUT", VHOST, queues::put, "Declares a queue"),
            endpoint!("DELETE", VHOST, queues::delete, "Deletes a queue"),
        ],
    ),
    route("/api/queues/{vhost}/{queue}/bindings", &[endpoint!("GET", VHOST, bindings::of_queue, "Its bindings")]),
    route("/api/queues/{vhost}/{queue}/contents", &[endpoint!("DELETE", VHOST, queues::purge, "Purges a queue")]),
    route("/api/queues/{vhost}/{queue}/get", &[endpoint!("POST", VHOST, queues::take, "Takes messages")]),
    route("/api/queues/{vhost}/{queue}/actions", &[endpoint!("POST", ADMIN, queues::act, "Actions on a queue")]),
    route("/api/bindings", &[endpoint!("GET", ANY, bindings::list, "Bindings")]),
    route("/api/bindings/{vhost}", &[endpoint!("GET", VHOST, bindings::of_vhost, "Bindings in a vhost")]),
    route(
        "/api/bindings/{vhost}/e/{source}/{kind}/{destination}",
        &[
            endpoint!("GET", VHOST, bindings::list_between, "Bindings between two"),
            endpoint!("POST", VHOST, bindings::post, "Binds"),
        ],
    ),
    route(
        "/api/bindings/{vhost}/e/{source}/{kind}/{destination}/{props}",
        &[endpoint!("GET", VHOST, bindings::get, "A binding"), endpoint!("DELETE", VHOST, bindings::delete, "Unbinds")],
    ),
    route("/api/vhosts", &[endpoint!("GET", ANY, vhosts::list, "Vhosts")]),
    route(
        "/api/vhosts/{vhost}",
        &[
            endpoint!("GET", ADMIN, vhosts::get, "A vhost"),
            endpoint!("PUT", ADMIN, vhosts::put, "Makes or changes a vhost"),
            endpoint!("DELETE", ADMIN, vhosts::delete, "Deletes a vhost"),
        ],
    ),
    route(
        "/api/vhosts/{vhost}/permissions",
        &[endpoint!("GET", ADMIN, permissions::of_vhost, "Permissions in a vhost")],
    ),
    route(
        "/api/vhosts/{vhost}/topic-permissions",
        &[endpoint!("GET", ADMIN, permissions::topics_of_vhost, "Topic permissions in a vhost")],
    ),
    route(
        "/api/vhosts/{vhost}/deletion/protection",
        &[
            endpoint!("POST", ADMIN, vhosts::protect, "Protects a vhost from deletion"),
            endpoint!("DELETE", ADMIN, vhosts::unprotect, "Ends the protection"),
        ],
    ),
    route("/api/vhosts/{vhost}/start/{node}", &[endpoint!("POST", ADMIN, vhosts::start, "Starts a vhost on a node")]),
    route("/api/users", &[endpoint!("GET", ADMIN, users::list, "Users")]),
    route(
        "/api/users/without-permissions",
        &[endpoint!("GET", ADMIN, users::without_permissions, "Without permissions")],
    ),
    route("/api/users/bulk-delete", &[endpoint!("POST", ADMIN, users::bulk_delete, "Deletes users")]),
    route(
        "/api/users/{user}",
        &[
            endpoint!("GET", ADMIN, users::get, "A user"),
            endpoint!("PUT", ADMIN, users::put, "Makes or changes a user"),
            endpoint!("DELETE", ADMIN, users::delete, "Deletes a user"),
        ],
    ),
    route("/api/users/{user}/permissions", &[endpoint!("GET", ADMIN, permissions::of_user, "A user's permissions")]),
    route(
        "/api/users/{user}/topic-permissions",
        &[endpoint!("GET", ADMIN, permissions::topics_of_user, "A user's topic permissions")],
    ),
    route("/api/users/{user}/queues", &[endpoint!("GET", ANY, users::queues, "A user's exclusive queues")]),
    route("/api/permissions", &[endpoint!("GET", ADMIN, permissions::list, "Permissions")]),
    route(
        "/api/permissions/{vhost}/{user}",
        &[
            endpoint!("GET", ADMIN, permissions::get, "Permissions of a user in a vhost"),
            endpoint!("PUT", ADMIN, permissions::put, "Sets them"),
            endpoint!("DELETE", ADMIN, permissions::delete, "Removes them"),
        ],
    ),
    route("/api/topic-permissions", &[endpoint!("GET", ADMIN, permissions::list_topics, "Topic permissions")]),
    route(
        "/api/topic-permissions/{vhost}/{user}",
        &[
            endpoint!("GET", ADMIN, permissions::get_topics, "Of a user in a vhost"),
            endpoint!("PUT", ADMIN, permissions::put_topic, "Sets those for an exchange"),
            endpoint!("DELETE", ADMIN, permissions::delete_topics, "Removes all of them"),
        ],
    ),
    route(
        "/api/topic-permissions/{vhost}/{user}/{exchange}",
        &[
            endpoint!("GET", ADMIN, permissions::get_topics, "For an exchange"),
            endpoint!("PUT", ADMIN, permissions::put_topic, "Sets them"),
            endpoint!("DELETE", ADMIN, permissions::delete_topics, "Removes those for an exchange"),
        ],
    ),
    route("/api/feature-flags", &[endpoint!("GET", ANY, overview::feature_flags, "Feature flags")]),
    route(
        "/api/feature-flags/{name}/enable",
        &[endpoint!("PUT", ADMIN, overview::enable_feature_flag, "Enables a feature flag")],
    ),
    route("/api/deprecated-features", &[endpoint!("GET", ANY, overview::deprecated_features, "Deprecated features")]),
    route(
        "/api/deprecated-features/used",
        &[endpoint!("GET", ANY, overview::deprecated_features_used, "Those that are in use")],
    ),
    route("/api/aliveness-test/{vhost}", &[endpoint!("GET", VHOST, health::aliveness, "Whether a vhost works")]),
    route("/api/healthchecks/node", &[endpoint!("GET", ANY, health::node, "Whether the node works")]),
    route("/api/healthchecks/node/{node}", &[endpoint!("GET", ANY, health::node, "Whether a node works")]),
    route("/api/health/checks/alarms", &[endpoint!("GET", ANY, health::alarms, "No alarm")]),
    route("/api/health/checks/local-alarms", &[endpoint!("GET", ANY, health::local_alarms, "No alarm on this node")]),
    route("/api/health/checks/virtual-hosts", &[endpoint!("GET", ANY, health::running, "All vhosts run")]),
    route(
        "/api/health/checks/node-is-quorum-critical",
        &[endpoint!("GET", ANY, health::quorum_critical, "No majority depends on this node")],
    ),
    route(
        "/api/health/checks/node-is-mirror-sync-critical",
        &[endpoint!("GET", ANY, health::running, "No mirrored queue depends on this node: there are none")],
    ),
    route("/api/health/checks/metadata-store/initialized", &[endpoint!("GET", ANY, health::running, "Definitions")]),
    route(
        "/api/health/checks/metadata-store/initialized/with-data",
        &[endpoint!("GET", ANY, health::running, "Definitions are there")],
    ),
    route(
        "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts",
        &[endpoint!("GET", ANY, health::leaders, "All quorum queues have leaders")],
    ),
    route(
        "/api/health/checks/quorum-queues-without-elected-leaders/all-vhosts/pattern/{pattern}",
        &[endpoint!("GET", ANY, health::leaders, "Those of some names")],
    ),
    route(
        "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{vhost}",
        &[endpoint!("GET", ANY, health::leaders_of_vhost, "Those of a vhost")],
    ),
    route(
        "/api/health/checks/quorum-queues-without-elected-leaders/vhost/{vhost}/pattern/{pattern}",
        &[endpoint!("GET", ANY, health::leaders_of_vhost, "Those of some names in a vhost")],
    ),
    route("/api/health/checks/port-listener/{port}", &[endpoint!("GET", ANY, health::port_listener, "A port is open")]),
    route(
        "/api/health/checks/protocol-listener/{protocols}",
        &[endpoint!("GET", ANY, health::protocol_listener, "A protocol is spoken")],
    ),
    route(
        "/api/health/checks/certificate-expiration/{within}/{unit}",
        &[endpoint!("GET", ANY, health::certificate_expiration, "No certificate ends soon")],
    ),
    route("/api/health/checks/is-in-service", &[endpoint!("GET", OPEN, health::in_service, "The node serves")]),
    route(
        "/api/health/checks/below-node-connection-limit",
        &[endpoint!("GET", OPEN, health::below_connection_limit, "There is room for a connection")],
    ),
    route(
        "/api/health/checks/ready-to-serve-clients",
        &[endpoint!("GET", OPEN, health::ready_to_serve, "Clients are accepted")],
    ),
    route(
        "/api/health/checks/reached-target-cluster-size",
        &[endpoint!("GET", OPEN, health::running, "All nodes are there")],
    ),
    route("/api/reset", &[endpoint!("DELETE", ADMIN, overview::reset, "Forgets statistics")]),
    route("/api/reset/{node}", &[endpoint!("DELETE", ADMIN, overview::reset, "Forgets a node's statistics")]),
    route("/api/rebalance/queues", &[endpoint!("POST", ADMIN, queues::rebalance, "Moves leaders")]),
    route("/api/auth", &[endpoint!("GET", OPEN, warren::auth, "How browsers are to log in")]),
    route(
        "/api/auth/attempts/{node}",
        &[
            endpoint!("GET", MONITOR, warren::auth_attempts, "Logins that were tried"),
            endpoint!("DELETE", ADMIN, warren::forget_auth_attempts, "Forgets them"),
        ],
    ),
    route(
        "/api/auth/attempts/{node}/source",
        &[
            endpoint!("GET", MONITOR, warren::auth_attempts_by_source, "By source"),
            endpoint!("DELETE", ADMIN, warren::forget_auth_attempts_by_source, "Forgets them"),
        ],
    ),
    route("/api/auth/hash_password/{password}", &[endpoint!("GET", ADMIN, users::hash_password, "Hashes a password")]),
    route("/api/config/effective", &[endpoint!("GET", ADMIN, warren::effective_configuration, "The configuration")]),
    route("/api/warren/events", &[endpoint!("GET", ADMIN, events::follow, "Events as they happen, a line each")]),
    route("/api/warren/ping", &[endpoint!("GET", ANY, warren::ping, "Whether the broker answers")]),
    route("/api/warren/stop", &[endpoint!("POST", ADMIN, warren::stop, "Stops the broker")]),
    route(
        "/api/warren/environment",
        &[endpoint!("GET", ADMIN, warren::environment, "The configuration, and from where")],
    ),
    route(
        "/api/warren/configuration/reload",
        &[endpoint!("POST", ADMIN, warren::reload, "Reads the configuration again")],
    ),
    route("/api/warren/log_level", &[endpoint!("PUT", ADMIN, warren::set_log_level, "Sets the log's level")]),
    route("/api/warren/log_tail", &[endpoint!("GET", ADMIN, warren::log_tail, "The last lines of the log's file")]),
    route(
        "/api/warren/rotate_logs",
        &[endpoint!("POST", ADMIN, warren::rotate_logs, "Begins another file of the log")],
    ),
    route(
        "/api/warren/memory_watermark",
        &[endpoint!("PUT", ADMIN, warren::set_memory_watermark, "Moves the memory watermark")],
    ),
    route("/api/warren/disk_free_limit", &[endpoint!("PUT", ADMIN, warren::set_disk_limit, "Moves the disk's limit")]),
    route(
        "/api/warren/listeners/suspended",
        &[
            endpoint!("POST", ADMIN, service::suspend_listeners, "Closes the sockets that clients connect to"),
            endpoint!("DELETE", ADMIN, service::resume_listeners, "Opens them again"),
        ],
    ),
    route(
        "/api/warren/maintenance",
        &[
            endpoint!("POST", ADMIN, service::drain, "Takes the node out of service and closes all connections"),
            endpoint!("DELETE", ADMIN, service::revive, "Takes it back into service"),
        ],
    ),
    route(
        "/api/warren/app/stopped",
        &[
            endpoint!("POST", ADMIN, service::stop_app, "Stops the broker, while the process goes on"),
            endpoint!("DELETE", ADMIN, service::start_app, "Starts it again"),
        ],
    ),
    route(
        "/api/warren/definitions",
        &[endpoint!("DELETE", ADMIN, service::reset, "Removes everything and begins anew, once the broker is stopped")],
    ),
    route("/api/warren/authenticate", &[endpoint!("POST", ADMIN, warren::authenticate, "Tries a login")]),
];

/// The route of a path, and what stands for its placeholders. A slash at the end does not matter.
fn find(path: &str) -> Option<(&'static Route, Vec<String>)> {
    let segments: Vec<&str> = path.split('/').collect();
    let at = |segments: &[&str]| ROUTES.iter().find_map(|route| Some((route, names_of(route.path, segments)?)));
    match segments.split_last() {
        Some((&"", shorter)) => at(shorter).or_else(|| at(&segments)),
        _ => at(&segments),
    }
}

fn names_of(pattern: &str, segments: &[&str]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut expected = pattern.split('/');
    for segment in segments {
        let expected = expected.next()?;
        if expected.starts_with('{') {
            names.push(decode(segment));
        } else if expected != *segment {
            return None;
        }
    }
    expected.next().is_none().then_some(names)
}

fn allow(route: &Route) -> String {
    let mut methods = Vec::new();
    for endpoint in route.endpoints {
        if endpoint.method == "GET" {
            methods.push("HEAD");
        }
        methods.push(endpoint.method);
    }
    methods.push("OPTIONS");
    methods.join(", ")
}

/// What a connection may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Everything,
    /// Health checks and metrics: there are too many connections for more.
    Essentials,
    /// Metrics alone.
    Metrics,
}

impl Scope {
    /// What a connection above the limit may ask for.
    #[must_use]
    pub fn above_the_limit(self) -> Self {
        match self {
            Self::Everything | Self::Essentials => Self::Essentials,
            Self::Metrics => Self::Metrics,
        }
    }

    fn has(self, route: &Route) -> bool {
        self != Self::Metrics || is_metrics(route)
    }

    fn is_too_busy_for(self, route: &Route) -> bool {
        let is_check = route.path.starts_with("/api/health/") || route.path.starts_with("/api/healthchecks/");
        self == Self::Essentials && !is_check && !is_metrics(route)
    }
}

fn is_metrics(route: &Route) -> bool {
    route.path == "/metrics" || route.path.starts_with("/metrics/")
}

/// Answers a request.
pub async fn serve(
    management: Arc<Management>,
    request: Request,
    origin: RequestOrigin,
    scope: Scope,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let accepts_gzip = accepts_gzip(request.headers());
    let is_head = request.method() == Method::HEAD;
    let asked = Asked::of(request.headers(), request.method() == Method::OPTIONS);
    let found = find(&path).filter(|(route, _)| scope.has(route));
    let Some((route, names)) = found else {
        return Failure::not_found().into_answer().into_response("HEAD, GET, OPTIONS");
    };
    let answer = if scope.is_too_busy_for(route) {
        Err(Failure::unavailable(
            "too many HTTP connections: limits.http_connections, limits.http_connections_per_source",
        ))
    } else {
        dispatch(&management, route, names, request, origin).await
    };
    let mut answer = answer.unwrap_or_else(Failure::into_answer);
    if is_head {
        // As the answer to GET would be, without its body.
        let kind = match &answer.content {
            Content::Json(_) | Content::JsonText(_) => Some("application/json"),
            Content::Text(kind, _) | Content::Stream(kind, _) => Some(*kind),
            Content::None => None,
        };
        answer.content = kind.map_or(Content::None, |kind| Content::Text(kind, String::new()));
    }
    if accepts_gzip {
        answer = compress(answer);
    }
    let methods = allow(route);
    let mut response = answer.into_response(&methods);
    management.settings.browsers.add(&asked, &methods, response.headers_mut());
    response
}

async fn dispatch(
    management: &Arc<Management>,
    route: &'static Route,
    names: Vec<String>,
    request: Request,
    origin: RequestOrigin,
) -> Result<Answer, Failure> {
    let method = request.method().clone();
    if method == Method::OPTIONS {
        return Ok(Answer::status(StatusCode::OK));
    }
    let wanted = if method == Method::HEAD { "GET" } else { method.as_str() };
    let endpoint = route.endpoints.iter().find(|endpoint| endpoint.method == wanted);
    let endpoint = endpoint.ok_or_else(Failure::method_not_allowed)?;
    let (parts, body) = request.into_parts();
    if !matches!(method, Method::GET | Method::HEAD) && management.settings.browsers.forbid(&method, &parts.headers) {
        return Err(Failure::forbidden(
            "this request comes from a web page of another site; management.cors_allow_origins says which pages may",
        ));
    }
    let topology = management.broker.topology();
    let identity = match endpoint.guard {
        Guard::Nobody => Identity::Anonymous,
        Guard::Management
        | Guard::Vhost(_)
        | Guard::VisibleVhost(_)
        | Guard::Monitoring
        | Guard::Policymaker(_)
        | Guard::Administrator
        | Guard::Oneself(_) => management.identify(&parts.headers, origin, &topology).await?,
    };
    endpoint.guard.check(&identity, &names, &topology)?;
    if !is_acceptable(&parts.headers, route) {
        return Err(Failure::not_acceptable());
    }
    if !is_understood(&method, route, content_type(&parts.headers).as_deref()) {
        return Err(Failure::unsupported_media_type());
    }
    // Of strangers no more than a name and a password.
    let is_stranger = endpoint.guard == Guard::Nobody;
    let max = if is_stranger { STRANGERS_BODY_MAX } else { management.settings.body_max };
    let body = tokio::select! {
        body = read_body(body, max.min(management.settings.body_max)) => body?,
        () = management.node.pause(BODY_PATIENCE_MS) => return Err(Failure::timed_out()),
    };
    let peer = match origin {
        RequestOrigin::Network(peer) => Some(peer),
        RequestOrigin::LocalSocket => None,
    };
    let call = Call {
        management: Arc::clone(management),
        identity,
        peer,
        names,
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body,
        topology,
    };
    let user = call.identity.acting_user();
    let patience = management.node.pause(route.patience_ms());
    tokio::select! {
        answer = acting_for(Some(user), (endpoint.handler)(call)) => answer,
        () = patience => Err(Failure::unavailable(unfinished(management, route.patience_ms()))),
    }
}

/// Why a request was not finished: what is durable waits for the disk.
fn unfinished(management: &Management, patience_ms: u64) -> String {
    let facts = management.node.facts();
    let cause = if facts.disk_alarm { "the disk is full" } else { "the disk or a queue does not answer" };
    format!("not finished after {} s: {cause}. What was asked for may still take effect", patience_ms / 1000)
}

async fn read_body(body: Body, max: usize) -> Result<Bytes, Failure> {
    to_bytes(body, max).await.map_err(|_| Failure::bad_request("Exceeded HTTP request body size limit"))
}

/// Whether the caller takes JSON, or whatever comes. Pages and metrics are for everybody.
fn is_acceptable(headers: &HeaderMap, route: &Route) -> bool {
    if !route.path.starts_with("/api/") || route.path.ends_with(".html") {
        return true;
    }
    let Some(accept) = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()) else { return true };
    let kinds = accept.split(',').map(|kind| kind.split(';').next().unwrap_or_default().trim());
    let mut kinds = kinds.filter(|kind| !kind.is_empty()).peekable();
    kinds.peek().is_none() || kinds.any(|kind| matches!(kind, "*/*" | "application/*" | "application/json"))
}

/// Whether the body is of a type that is taken: any, but where RabbitMQ is particular.
fn is_understood(method: &Method, route: &Route, kind: Option<&str>) -> bool {
    let taken: &[&str] = match route.path {
        "/api/definitions" | "/api/definitions/{vhost}" | "/api/all-configuration" => {
            &["application/json", "multipart/form-data"]
        }
        _ => return true,
    };
    *method != Method::POST || kind.is_some_and(|kind| taken.contains(&kind))
}

pub(super) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|accepted| accepted.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next() != Some("q=0")
    })
}

fn compress(answer: Answer) -> Answer {
    let text = match &answer.content {
        Content::Json(value) => json_text(value),
        Content::JsonText(text) => text.clone(),
        Content::None | Content::Text(..) | Content::Stream(..) => return answer,
    };
    if text.len() < COMPRESSED_MIN {
        return answer;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    match encoder.write_all(&text).and_then(|()| encoder.finish()) {
        Ok(compressed) => Answer { content: Content::JsonText(compressed), ..answer }.header(CONTENT_ENCODING, "gzip"),
        Err(_) => answer,
    }
}

fn json_text(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(&'static str, Vec<String>)> {
        find(path).map(|(route, names)| (route.path, names))
    }

    #[test]
    fn names_are_decoded_once_after_the_path_is_split() {
        let (path, names) = found("/api/queues/%2F/a%252Fb").unwrap();
        assert_eq!((path, names), ("/api/queues/{vhost}/{queue}", vec!["/".to_owned(), "a%2Fb".to_owned()]));
        let (path, names) = found("/api/bindings/%2f/e//q/jobs").unwrap();
        assert_eq!(path, "/api/bindings/{vhost}/e/{source}/{kind}/{destination}");
        assert_eq!(names, ["/", "", "q", "jobs"]);
        assert_eq!(found("/api/queues/detailed").unwrap().0, "/api/queues/detailed");
        assert_eq!(found("/api/overview/").unwrap().0, "/api/overview");
        assert!(found("/api/bogus").is_none() && found("/api/overview/x").is_none());
    }

    #[test]
    fn bodies_are_refused_where_rabbitmq_refuses_them() {
        let understood = |method: Method, path: &str, kind| is_understood(&method, find(path).unwrap().0, kind);
        let (json, form, multipart) =
            (Some("application/json"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data"));
        for path in ["/api/definitions", "/api/definitions/%2F", "/api/all-configuration"] {
            assert!(understood(Method::POST, path, json) && understood(Method::POST, path, multipart));
            assert!(!understood(Method::POST, path, form) && !understood(Method::POST, path, None));
            assert!(understood(Method::GET, path, None));
        }
        assert!(understood(Method::POST, "/api/login", form) && understood(Method::POST, "/api/login", json));
        // What curl sends unless it is told otherwise.
        assert!(understood(Method::PUT, "/api/queues/%2F/q", form));
        assert!(understood(Method::POST, "/api/exchanges/%2F/x/publish", form));
        assert!(understood(Method::PUT, "/api/users/a", None));
    }

    #[test]
    fn more_special_addresses_come_first() {
        for (at, route) in ROUTES.iter().enumerate() {
            let path = route.path.replace(['{', '}'], "");
            let first =
                ROUTES.iter().position(|other| names_of(other.path, &path.split('/').collect::<Vec<_>>()).is_some());
            assert_eq!(first, Some(at), "{} is hidden", route.path);
        }
    }
}
