//! The nouns: plain data that every other module speaks of. Depends on nothing in the crate.

pub mod consumer;
pub mod durations;
pub mod entity;
pub mod exception;
pub mod expression;
pub mod hash;
pub mod ids;
pub mod message;
pub mod names;
pub mod narrow;
pub mod plugin;
pub mod policy;
pub mod random;
pub mod request;
pub mod statistics;
pub mod table;
pub mod tls;
pub mod vhost;
