//! Taking the node out of service and back: listeners, maintenance, the broker as an application.

use std::sync::Arc;

use crate::model::ids::Timestamp;

use super::super::answer::{Answer, Failure};
use super::super::call::Call;
use super::super::node::ServiceState;

/// How long closed connections have to be gone, and how often that is looked at, in milliseconds.
const GONE_WITHIN_MS: u64 = 5_000;
const LOOK_MS: u64 = 20;
/// RabbitMQ's texts.
const MAINTENANCE: &str = "Node was put into maintenance mode";
const SHUTDOWN: &str = "broker forced connection closure with reason 'shutdown'";

async fn set(call: &Call, change: impl FnOnce(&mut ServiceState)) -> Result<Answer, Failure> {
    let mut state = call.management.node.service();
    change(&mut state);
    call.management.node.set_service(state).await.map_err(Failure::unavailable)?;
    Ok(Answer::done())
}

/// Closes all connections and waits until they are gone, for a while.
async fn close_connections(call: &Call, text: &str) {
    call.management.broker.close_connections(text, |_, _| true);
    let Timestamp(began) = call.management.node.now();
    while !call.management.broker.registry.is_empty() {
        if call.management.node.now().0.saturating_sub(began) > GONE_WITHIN_MS {
            return;
        }
        call.management.node.pause(LOOK_MS).await;
    }
}

pub(crate) async fn suspend_listeners(call: Call) -> Result<Answer, Failure> {
    set(&call, |state| state.suspended = true).await
}

pub(crate) async fn resume_listeners(call: Call) -> Result<Answer, Failure> {
    set(&call, |state| (state.suspended, state.drained) = (false, false)).await
}

/// Maintenance: nobody can connect, and whoever is connected has to go elsewhere.
pub(crate) async fn drain(call: Call) -> Result<Answer, Failure> {
    let answer = set(&call, |state| state.drained = true).await?;
    close_connections(&call, MAINTENANCE).await;
    Ok(answer)
}

pub(crate) async fn revive(call: Call) -> Result<Answer, Failure> {
    resume_listeners(call).await
}

/// The process goes on, and this API with it, but serves nobody.
pub(crate) async fn stop_app(call: Call) -> Result<Answer, Failure> {
    let answer = set(&call, |state| state.stopped = true).await?;
    close_connections(&call, SHUTDOWN).await;
    Ok(answer)
}

pub(crate) async fn start_app(call: Call) -> Result<Answer, Failure> {
    set(&call, |state| *state = ServiceState::default()).await
}

/// Removes vhosts with all that is in them, users and parameters, and begins as a new broker does. `force`: even while it runs.
pub(crate) async fn reset(call: Call) -> Result<Answer, Failure> {
    if !call.management.node.service().stopped && !call.query.is_true("force") {
        return Err(Failure::precondition_failed("the broker runs: stop it with stop_app first"));
    }
    call.management.broker.remove_definitions();
    call.management.history.clear();
    call.management.node.begin_anew(Arc::clone(&call.management)).await.map_err(Failure::unavailable)?;
    call.management.broker.settled().await;
    tracing::warn!("the broker was reset: it has what a new one has");
    Ok(Answer::done())
}
