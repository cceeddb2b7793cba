//! One task a shard: runs turns that nobody else runs, and those that time asks for.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Shared;

/// Starts them; a turn is never cut short when one is aborted.
pub(super) fn start(shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    (0..shared.broker.shard_count()).map(|shard| tokio::spawn(run(Arc::clone(shared), shard))).collect()
}

async fn run(shared: Arc<Shared>, shard: u16) {
    loop {
        match shared.broker.shard_alarm(shard) {
            None => shared.broker.shard_needed(shard).await,
            Some(alarm) => {
                tokio::select! {
                    () = shared.broker.shard_needed(shard) => {}
                    () = tokio::time::sleep_until(shared.clock.instant(alarm)) => {}
                }
            }
        }
        shared.broker.drive(shard, shared.clock.now());
        tokio::task::yield_now().await;
    }
}
