//! Export and import of definitions: everything but messages, as RabbitMQ writes it.
//!
//! ```text
//! body or file ── document ──► Plan (checked as a whole) ──► Items, applied one by one ──► Report
//! ```
//!
//! A document that is not valid changes nothing. What another broker could do and this one cannot (plugins' parameters,
//! mirroring, types of queues and exchanges) is left out and told one by one. The report compares the definitions before
//! with those after: it says what happened, not what was meant.

mod document;
mod export;
mod fault;
mod item;
mod plan;
mod report;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::HeaderName;
use serde_json::{Map, Value};

use crate::broker::Topology;
use crate::model::names::VhostName;

use super::Management;
use super::answer::{Answer, Failure};
use super::call::{Call, Query};
use super::identity::Identity;
use super::passwords::PasswordRules;

use item::{Item, Operations, View};
use plan::{Ground, Others, Plan};
use report::Outcome;

pub(super) use export::{export, export_vhost};
pub use report::Report;

/// The sums of an import's report, for those who did not ask for all of it.
const SUMMARY: HeaderName = HeaderName::from_static("x-import-summary");

/// Imports definitions for the broker itself.
///
/// # Errors
/// What is wrong with them, for whoever starts the broker; then nothing is imported.
pub async fn import_text(management: &Arc<Management>, text: &[u8]) -> Result<Report, String> {
    let call = Call {
        management: Arc::clone(management),
        identity: Identity::LocalAdministrator,
        peer: None,
        names: Vec::new(),
        query: Query::default(),
        headers: axum::http::HeaderMap::new(),
        body: axum::body::Bytes::new(),
        topology: management.broker.topology(),
    };
    let plan =
        Plan::make(&Ground::of(&call), &document::parse(text)?, None).map_err(|failure| failure.explanation())?;
    Ok(carry_out(management, plan).await)
}

/// Looks at definitions before there is a broker to import them: vhosts and users that they speak of, and do not make, may be
/// there.
///
/// # Errors
/// What is wrong with them, whatever the broker has.
pub fn check_text(text: &[u8], passwords: &PasswordRules, default_queue_type: &'static str) -> Result<(), String> {
    let topology = Topology::default();
    let ground = Ground { topology: &topology, passwords, default_queue_type, others: Others::Assumed };
    let plan = Plan::make(&ground, &document::parse(text)?, None);
    plan.map(drop).map_err(|failure| failure.explanation())
}

pub(super) async fn import(call: Call) -> Result<Answer, Failure> {
    let document = document::of_call(&call)?;
    finish(&call, &document, None).await
}

pub(super) async fn import_vhost(call: Call) -> Result<Answer, Failure> {
    let name = call.vhost_name(0);
    if call.topology.vhost(&name).is_none() {
        return Err(Failure::missing("vhost_not_found"));
    }
    let document = document::of_call(&call)?;
    finish(&call, &document, Some(name)).await
}

/// 204 with the sums in a header, as RabbitMQ's clients expect it, or 200 with the report for those who ask for it.
async fn finish(call: &Call, document: &Map<String, Value>, vhost: Option<VhostName>) -> Result<Answer, Failure> {
    // RabbitMQ's clients get RabbitMQ's answer.
    let is_told = call.query.is_true("dry_run") || call.query.is_true("report");
    let plan = Plan::make(&Ground::of(call), document, vhost.as_ref());
    let plan = plan.map_err(|failure| if is_told { failure.telling() } else { failure })?;
    if call.query.is_true("dry_run") {
        return Ok(Answer::json(foretell(&call.management, plan).document()));
    }
    let report = carry_out(&call.management, plan).await;
    report.log(call.identity.acting_user().as_str());
    let answer = if call.query.is_true("report") { Answer::json(report.document()) } else { Answer::done() };
    Ok(answer.header(SUMMARY, &report.summary()))
}

/// Says what an import would do, as far as that can be told without doing it.
fn foretell(management: &Management, plan: Plan) -> Report {
    let now = View::of(management, &plan.vhosts_of_bindings());
    let outcomes = plan.items.iter().map(|item| expected(item, &now)).collect();
    told(plan, outcomes, Report::new(true))
}

/// Applies everything, in RabbitMQ's order. What exists is kept as it is, as far as it is topology.
async fn carry_out(management: &Management, plan: Plan) -> Report {
    let vhosts: BTreeSet<VhostName> = plan.vhosts_of_bindings();
    let before = View::of(management, &vhosts);
    let mut operations = Operations::default();
    let mut refusals = Vec::with_capacity(plan.items.len());
    for item in &plan.items {
        refusals.push(item.apply(management, &before, &mut operations).await.err());
    }
    management.broker.settled().await;
    let after = View::of(management, &vhosts);
    let outcomes =
        plan.items.iter().zip(refusals).map(|(item, refusal)| happened(item, &before, &after, refusal)).collect();
    told(plan, outcomes, Report::new(false))
}

fn told(plan: Plan, outcomes: Vec<Outcome>, mut report: Report) -> Report {
    for (item, outcome) in plan.items.iter().zip(outcomes) {
        report.add(item.kind(), item.name(), outcome);
    }
    for (kind, name, outcome) in plan.settled {
        report.add(kind, name, outcome);
    }
    for (kind, remark) in plan.parts {
        report.add_part(kind, remark);
    }
    report
}

/// What would become of a definition.
fn expected(item: &Item, now: &View) -> Outcome {
    match (item.current(now), item.wanted(now)) {
        (None, Some(_)) => Outcome::Made,
        (current, wanted) if current == wanted => Outcome::Unchanged,
        (Some(current), Some(wanted)) if item.is_kept() => Outcome::Skipped(kept(&current, &wanted)),
        _ => Outcome::Changed,
    }
}

/// What has become of a definition; `refusal` is why the broker did not do what it was asked.
fn happened(item: &Item, before: &View, after: &View, refusal: Option<String>) -> Outcome {
    let (old, new, wanted) = (item.current(before), item.current(after), item.wanted(after));
    match (old, new, wanted) {
        (None, Some(new), Some(wanted)) if new == wanted => Outcome::Made,
        (old, new, wanted) if new == wanted && old == new => Outcome::Unchanged,
        (_, new, wanted) if new == wanted => Outcome::Changed,
        (_, Some(new), Some(wanted)) if item.is_kept() && refusal.is_none() => Outcome::Skipped(kept(&new, &wanted)),
        _ => Outcome::Skipped(refusal.map_or_else(
            || "somebody else has changed it meanwhile".to_owned(),
            |refusal| refusal.replace('\n', " ").trim().to_owned(),
        )),
    }
}

/// Why an exchange or a queue is not as the document has it.
fn kept(current: &Value, wanted: &Value) -> String {
    let mut differences = Vec::new();
    differ("", current, wanted, &mut differences);
    format!("it is there already and stays as it is: {}", differences.join(", "))
}

fn differ(path: &str, current: &Value, wanted: &Value, differences: &mut Vec<String>) {
    let (Value::Object(ours), Value::Object(theirs)) = (current, wanted) else {
        if current != wanted {
            differences.push(format!("{path} is {}, in the file {}", shown(current), shown(wanted)));
        }
        return;
    };
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
        differ(&path, &value(ours), &value(theirs), differences);
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "not set".to_owned() } else { value.to_string() }
}
