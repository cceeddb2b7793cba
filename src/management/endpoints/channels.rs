//! Channels and consumers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::broker::Registered;
use crate::model::consumer::ConsumerView;
use crate::model::entity::Queue;
use crate::model::ids::{ConnectionId, QueueId};
use crate::model::names::{QueueName, UserName, VhostName};
use crate::model::statistics::{ChannelNumber, ChannelRecord, ConnectionFacts};

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::fields::table_to_json;
use super::super::history::Subject;
use super::super::identity::check_owner;
use super::super::listing::{self, Listing};
use super::super::rates::{CHANNEL, Rates, channel_row};

/// A channel with what its connection is.
struct Open {
    facts: Arc<ConnectionFacts>,
    record: Arc<ChannelRecord>,
    name: String,
}

fn open_channels(call: &Call, chosen: impl Fn(&ConnectionFacts) -> bool) -> Vec<Open> {
    let mut found = Vec::new();
    for connection in call.management.broker.registry.all() {
        let facts = connection.record.facts.lock().clone();
        if !call.identity.may_see(facts.user.as_ref()) || !chosen(&facts) {
            continue;
        }
        let facts = Arc::new(facts);
        found.extend(connection.record.channels().into_iter().map(|record| Open {
            name: format!("{} ({})", facts.name, record.number),
            facts: Arc::clone(&facts),
            record,
        }));
    }
    found
}

pub(crate) async fn list(call: Call) -> Result<Answer, Failure> {
    let open = open_channels(&call, |_| true);
    answer(&call, open)
}

pub(crate) async fn of_vhost(call: Call) -> Result<Answer, Failure> {
    let (name, _) = call.vhost(0)?;
    let open = open_channels(&call, |facts| facts.vhost.as_ref() == Some(&name));
    answer(&call, open)
}

pub(crate) async fn of_connection(call: Call) -> Result<Answer, Failure> {
    let connection = super::connections::find(&call, call.name(0))?;
    check_owner(&call.identity, connection.record.facts.lock().user.as_ref())?;
    let open = open_channels(&call, |facts| &*facts.name == call.name(0));
    answer(&call, open)
}

fn answer(call: &Call, items: Vec<Open>) -> Result<Answer, Failure> {
    let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
    let listing = Listing { items, name: |open| open.name.as_str() };
    listing.answer(&call.query, |open| Value::Object(render(call, &rates, open)))
}

fn render(call: &Call, rates: &Rates<'_>, open: &Open) -> Map<String, Value> {
    use ChannelNumber as Number;
    let statistics = &open.record.statistics;
    let get = |number| statistics.get(number);
    let facts = &open.facts;
    let text = |name: &Option<VhostName>| name.as_ref().map_or("", VhostName::as_str).to_owned();
    let user = facts.user.as_ref().map_or("", UserName::as_str);
    let mode = get(Number::Mode);
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| _ = map.insert(key.to_owned(), value);
    put("acks_uncommitted", get(Number::AcksUncommitted).into());
    put("cached_segments", 0.into());
    put("confirm", (mode == 1).into());
    put(
        "connection_details",
        json!({"name": &*facts.name, "peer_host": facts.peer_host, "peer_port": facts.peer_port}),
    );
    put("consumer_count", get(Number::Consumers).into());
    put("garbage_collection", super::nodes::garbage_collection());
    put("messages_unacknowledged", get(Number::Unacked).into());
    put("messages_uncommitted", get(Number::Uncommitted).into());
    put("messages_unconfirmed", get(Number::Unconfirmed).into());
    put("name", open.name.as_str().into());
    put("node", call.management.settings.node_name.as_str().into());
    put("number", open.record.number.into());
    put("pending_raft_commands", 0.into());
    put("prefetch_count", get(Number::Prefetch).into());
    put("global_prefetch_count", get(Number::GlobalPrefetch).into());
    put("reductions", 0.into());
    put("reductions_details", json!({"rate": 0.0}));
    put("state", "running".into());
    put("transactional", (mode == 2).into());
    put("user", user.into());
    put("user_who_performed_action", user.into());
    put("vhost", text(&facts.vhost).into());
    let row = channel_row(&statistics.snapshot());
    if !call.query.is_true("disable_stats") {
        let stats = rates.message_stats(Subject::Channel(&open.name), CHANNEL, &row);
        if !stats.is_empty() {
            map.insert("message_stats".into(), Value::Object(stats));
        }
    }
    map
}

pub(crate) async fn get(call: Call) -> Result<Answer, Failure> {
    let name = call.name(0).to_owned();
    let all: Vec<Registered> = call.management.broker.registry.all();
    let (connection, record) = all
        .into_iter()
        .find_map(|connection| {
            let prefix = Arc::clone(&connection.record.facts.lock().name);
            let number = name.strip_prefix(&*prefix)?.strip_prefix(" (")?.strip_suffix(')')?.parse().ok()?;
            let record = connection.record.channel(number)?;
            Some((connection, record))
        })
        .ok_or_else(Failure::not_found)?;
    let facts = Arc::new(connection.record.facts.lock().clone());
    check_owner(&call.identity, facts.user.as_ref())?;
    let mut map = {
        let rates = Rates::new(&call.management.history, &call.query, call.management.now())?;
        render(&call, &rates, &Open { facts, record: Arc::clone(&record), name })
    };
    let consumers = consumers_where(&call, |view| {
        view.consumer.connection == connection.id && view.consumer.channel == record.number
    });
    map.insert("consumer_details".into(), consumers.await.into());
    // What went to which exchange, and came from which queue, is not counted.
    map.insert("deliveries".into(), json!([]));
    map.insert("publishes".into(), json!([]));
    Ok(listing::one(Value::Object(map), &call.query))
}

pub(crate) async fn consumers(call: Call) -> Result<Answer, Failure> {
    let found = consumers_where(&call, |_| true).await;
    listing::answer(found, &call.query)
}

pub(crate) async fn consumers_of_vhost(call: Call) -> Result<Answer, Failure> {
    call.vhost(0)?;
    let found = consumers_where(&call, |_| true).await;
    let name = call.name(0);
    listing::answer(found.into_iter().filter(|consumer| consumer["queue"]["vhost"] == name).collect(), &call.query)
}

/// The consumers that the caller may see and `chosen` picks.
async fn consumers_where(call: &Call, chosen: impl Fn(&ConsumerView) -> bool) -> Vec<Value> {
    let mut queues = BTreeMap::new();
    for (name, vhost) in call.topology.vhosts() {
        let consumed = vhost
            .queues
            .values()
            .filter(|queue| queue.statistics.numbers.get(crate::model::statistics::QueueNumber::Consumers) > 0);
        queues.extend(consumed.map(|queue| (queue.id, Served::of(name, queue))));
    }
    let ids: Vec<QueueId> = queues.keys().copied().collect();
    let views = call.management.broker.consumers_of(&ids).await;
    let owners = owners(call);
    let visible = |view: &ConsumerView| {
        let owner = owners.get(&view.consumer.connection);
        owner.is_some_and(|facts| call.identity.may_see(facts.user.as_ref()))
    };
    let views = views.into_iter().filter(|(_, view)| chosen(view) && visible(view));
    views.filter_map(|found| consumer(call, &owners, &queues, &found)).collect()
}

/// The facts of connections, for what lists many of their things.
pub(crate) type Owners = BTreeMap<ConnectionId, ConnectionFacts>;

/// All connections that there are.
pub(crate) fn owners(call: &Call) -> Owners {
    let all = call.management.broker.registry.all();
    all.into_iter().map(|connection| (connection.id, connection.record.facts.lock().clone())).collect()
}

/// What listings of consumers show of their queues.
pub(crate) struct Served {
    vhost: VhostName,
    queue: QueueName,
    /// It has a single active consumer.
    one_at_a_time: bool,
}

/// By queue.
pub(crate) type Consumed = BTreeMap<QueueId, Served>;

impl Served {
    pub(crate) fn of(vhost: &VhostName, queue: &Queue) -> Self {
        let one_at_a_time = queue.options.single_active_consumer;
        Self { vhost: vhost.clone(), queue: queue.name.clone(), one_at_a_time }
    }
}

/// A consumer as listings show it; none when its connection or its queue is gone.
pub(crate) fn consumer(
    call: &Call,
    owners: &Owners,
    queues: &Consumed,
    (queue, view): &(QueueId, ConsumerView),
) -> Option<Value> {
    let facts = owners.get(&view.consumer.connection)?;
    let Served { vhost, queue, one_at_a_time } = queues.get(queue)?;
    let status = match (view.active, view.has_room) {
        (false, _) => "waiting",
        (true, _) if *one_at_a_time => "single_active",
        (true, false) => "blocked",
        (true, true) => "up",
    };
    let number = view.consumer.channel;
    let mut shown = json!({
        "arguments": table_to_json(&view.arguments),
        "ack_required": !view.no_ack,
        "active": view.active,
        "activity_status": status,
        "channel_details": {
            "connection_name": &*facts.name,
            "name": format!("{} ({number})", facts.name),
            "node": call.management.settings.node_name,
            "number": number,
            "peer_host": facts.peer_host,
            "peer_port": facts.peer_port,
            "user": facts.user.as_ref().map_or("", UserName::as_str),
        },
        "consumer_tag": view.tag.as_str(),
        "exclusive": view.exclusive,
        "prefetch_count": view.prefetch,
        "queue": {"name": queue.as_str(), "vhost": vhost.as_str()},
    });
    if let Value::Object(map) = &mut shown {
        let timeout = call.management.settings.consumer_timeout_ms;
        map.insert("consumer_timeout".into(), timeout.map_or_else(|| 0.into(), Value::from));
    }
    Some(shown)
}
