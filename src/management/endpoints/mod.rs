//! What can be asked for, by subject.

pub(crate) mod bindings;
pub(crate) mod channels;
pub(crate) mod connections;
pub(crate) mod events;
pub(crate) mod exchanges;
pub(crate) mod health;
pub(crate) mod limits;
pub(crate) mod nodes;
pub(crate) mod overview;
pub(crate) mod parameters;
pub(crate) mod permissions;
pub(crate) mod policies;
pub(crate) mod queues;
pub(crate) mod service;
pub(crate) mod users;
pub(crate) mod vhosts;
pub(crate) mod warren;
