//! What RabbitMQ's API has no address for: the command line's ways to look at the process and to change it.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::broker::Credentials;
use crate::model::names::UserName;

use super::super::answer::{Answer, Failure};
use super::super::call::Call;

pub(crate) async fn ping(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(json!({"status": "ok"})))
}

pub(crate) async fn stop(call: Call) -> Result<Answer, Failure> {
    call.management.node.stop();
    Ok(Answer::done())
}

pub(crate) async fn environment(call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(call.management.node.configuration()))
}

/// Reads the configuration again: the keys that have changed, and those whose other value needs a restart.
pub(crate) async fn reload(call: Call) -> Result<Answer, Failure> {
    let reloaded = call.management.node.reload().await.map_err(Failure::bad_request)?;
    Ok(Answer::json(json!({"changed": reloaded.changed, "needs_restart": reloaded.needs_restart})))
}

/// The configuration, as text for those who read RabbitMQ's.
pub(crate) async fn effective_configuration(call: Call) -> Result<Answer, Failure> {
    let configuration = call.management.node.configuration();
    Ok(Answer::json(Value::String(serde_json::to_string_pretty(&configuration).unwrap_or_default())))
}

pub(crate) async fn set_log_level(call: Call) -> Result<Answer, Failure> {
    let object = call.object_with(&["level"])?;
    let level = object.get("level").and_then(Value::as_str).unwrap_or_default();
    call.management.node.set_log_level(level).map_err(Failure::bad_request)?;
    Ok(Answer::done())
}

pub(crate) async fn rotate_logs(call: Call) -> Result<Answer, Failure> {
    call.management.node.rotate_logs().await;
    Ok(Answer::done())
}

/// The last lines of the log's file, 50 unless `lines` says how many. 400 when there is none.
pub(crate) async fn log_tail(call: Call) -> Result<Answer, Failure> {
    let count = call.query.number("lines").unwrap_or(50);
    let lines = call.management.node.log_tail(usize::try_from(count).unwrap_or(usize::MAX)).await;
    Ok(Answer::json(json!({"lines": lines.map_err(Failure::bad_request)?})))
}

pub(crate) async fn set_memory_watermark(call: Call) -> Result<Answer, Failure> {
    let object = call.object()?;
    let total = call.management.node.facts().memory_total;
    let relative = object.get("relative").and_then(Value::as_f64);
    let absolute = object.get("absolute").and_then(Value::as_u64);
    let bytes = match (relative, absolute) {
        (_, Some(bytes)) => bytes,
        (Some(share), None) if share > 0.0 && share <= 1.0 => (total as f64 * share) as u64,
        _ => return Err(Failure::bad_request("a watermark is relative (above 0, up to 1) or absolute (bytes)")),
    };
    call.management.node.set_memory_limit(bytes);
    Ok(Answer::done())
}

pub(crate) async fn set_disk_limit(call: Call) -> Result<Answer, Failure> {
    let object = call.object()?;
    let total = call.management.node.facts().memory_total;
    let relative = object.get("mem_relative").and_then(Value::as_f64);
    let absolute = object.get("absolute").and_then(Value::as_u64);
    let bytes = match (relative, absolute) {
        (_, Some(bytes)) => bytes,
        (Some(share), None) if share > 0.0 => (total as f64 * share) as u64,
        _ => return Err(Failure::bad_request("a limit is mem_relative (above 0) or absolute (bytes)")),
    };
    call.management.node.set_disk_limit(bytes);
    Ok(Answer::done())
}

/// Whether somebody could log in so. 401 when not.
pub(crate) async fn authenticate(call: Call) -> Result<Answer, Failure> {
    let object = call.object_with(&["username", "password"])?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let credentials = Credentials {
        user: UserName::new(&text("username")),
        secret: text("password").into_bytes(),
        peer: IpAddr::from([127, 0, 0, 1]),
    };
    call.management.log_in(credentials, &call.topology).await?;
    Ok(Answer::done())
}

/// Logins that were tried, by protocol.
pub(crate) async fn auth_attempts(call: Call) -> Result<Answer, Failure> {
    check_node(&call)?;
    let totals = call.management.broker.login_attempts.totals().into_iter().map(|totals| {
        json!({
            "protocol": totals.protocol,
            "auth_attempts": totals.succeeded + totals.failed,
            "auth_attempts_succeeded": totals.succeeded,
            "auth_attempts_failed": totals.failed,
        })
    });
    Ok(Answer::json(totals.collect()))
}

fn check_node(call: &Call) -> Result<(), Failure> {
    if call.name(0) == call.management.settings.node_name { Ok(()) } else { Err(Failure::not_found()) }
}

/// Logins that were tried, by where they came from and as whom.
pub(crate) async fn auth_attempts_by_source(call: Call) -> Result<Answer, Failure> {
    check_node(&call)?;
    let attempts = call.management.broker.login_attempts.by_source().into_iter().map(|attempt| {
        json!({
            "remote_address": attempt.source.to_string(),
            "username": attempt.user,
            "protocol": attempt.protocol,
            "auth_attempts": attempt.succeeded + attempt.failed,
            "auth_attempts_succeeded": attempt.succeeded,
            "auth_attempts_failed": attempt.failed,
        })
    });
    Ok(Answer::json(attempts.collect()))
}

pub(crate) async fn forget_auth_attempts(call: Call) -> Result<Answer, Failure> {
    check_node(&call)?;
    call.management.broker.login_attempts.reset();
    Ok(Answer::done())
}

pub(crate) async fn forget_auth_attempts_by_source(call: Call) -> Result<Answer, Failure> {
    forget_auth_attempts(call).await
}

/// One small page: what this is, and where to go on.
pub(crate) async fn root(call: Call) -> Result<Answer, Failure> {
    let settings = &call.management.settings;
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Warren</title></head>\n<body>\n\
         <h1>Warren {version}</h1>\n<p>An AMQP 0-9-1 message broker: node <code>{node}</code>, compatible with RabbitMQ \
         {rabbitmq}.</p>\n<ul>\n<li><a href=\"api/openapi.json\">The API's description</a> (OpenAPI); its addresses are \
         below <code>api/</code></li>\n<li><a href=\"api/overview\">Overview</a>, <a href=\"api/queues\">queues</a>, \
         <a href=\"api/connections\">connections</a> (JSON, with a login)</li>\n<li><a href=\"metrics\">Metrics</a> for \
         Prometheus</li>\n<li><code>warren ctl help</code> and <code>warren top</code> on the command line</li>\n</ul>\n\
         </body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
        node = escape(&settings.node_name),
        rabbitmq = escape(&settings.version),
    );
    Ok(Answer::text("text/html", page))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Where RabbitMQ's page about the API is.
pub(crate) async fn api_page(call: Call) -> Result<Answer, Failure> {
    let rows: String = super::super::routes::ROUTES
        .iter()
        .filter(|route| route.path.starts_with("/api/"))
        .flat_map(|route| route.endpoints.iter().map(move |endpoint| (route, endpoint)))
        .map(|(route, endpoint)| {
            format!(
                "<tr><td>{}</td><td><code>{}</code></td><td>{}</td></tr>\n",
                endpoint.method, route.path, endpoint.summary
            )
        })
        .collect();
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Warren Management HTTP API</title></head>\n\
         <body>\n<h1>Warren Management HTTP API</h1>\n<p>As <a href=\"openapi.json\">OpenAPI</a>; RabbitMQ {}'s API.</p>\n\
         <table>\n{rows}</table>\n</body>\n</html>\n",
        escape(&call.management.settings.version)
    );
    Ok(Answer::text("text/html", page))
}

pub(crate) async fn to_api_page(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::redirect("/api/index.html"))
}

/// The command line tool of RabbitMQ's version 1, as a script of our own.
const RABBITMQADMIN: &str = include_str!("../cli/rabbitmqadmin");

pub(crate) async fn rabbitmqadmin(call: Call) -> Result<Answer, Failure> {
    let version = escape(&call.management.settings.version).replace(['"', '\\'], "");
    Ok(Answer::text("application/octet-stream", RABBITMQADMIN.replace("@VERSION@", &version)))
}

/// Where the tool is, and how it is had.
pub(crate) async fn cli_page(_call: Call) -> Result<Answer, Failure> {
    let page = "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>rabbitmqadmin</title></head>\n<body>\n\
         <h1>rabbitmqadmin</h1>\n<p>A command line for this API, for Python 3: <a href=\"rabbitmqadmin\">download it</a>, make it \
         executable (<code>chmod +x rabbitmqadmin</code>) and see <code>./rabbitmqadmin --help</code>. On the machine of the broker \
         there is <code>warren ctl</code> as well.</p>\n</body>\n</html>\n";
    Ok(Answer::text("text/html", page.to_owned()))
}

/// How browsers are to log in: with a name and a password. There is no user interface that would use tokens.
pub(crate) async fn auth(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(json!({"oauth_enabled": false})))
}

pub(crate) async fn to_root(_call: Call) -> Result<Answer, Failure> {
    Ok(Answer::redirect("/"))
}

pub(crate) async fn openapi(call: Call) -> Result<Answer, Failure> {
    Ok(Answer::json(super::super::openapi::document(&call.management.settings.version)))
}
