//! One task a shard: runs turns that nobody else runs, and those that time asks for.

use std::sync::Arc;

use super::Shared;

pub(super) fn start(shared: &Arc<Shared>) {
    for shard in 0..shared.broker.shard_count() {
        tokio::spawn(run(Arc::clone(shared), shard));
    }
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
