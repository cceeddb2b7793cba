//! The broker as a Rust application sees it through lapin.

mod confirms;
mod connections;
mod consumers;
mod dead_letters;
mod differences;
mod errors;
mod exchange_types;
mod limits;
mod messages;
mod queues;
mod restarts;
mod routing;
mod rpc;
mod transactions;
mod work_queues;
