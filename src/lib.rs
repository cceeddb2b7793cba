//! Warren, an AMQP 0-9-1 message broker.
//!
//! ```text
//!   socket ──bytes──► protocol ──requests──► broker::Session ──envelopes──► shard ──commands──► queue
//!          ◄─bytes──           ◄──events───      outbox      ◄───events────       ◄──effects──
//! ```
//!
//! What decides is synchronous and free of IO; what waits is in `server`. A module imports only modules of a lower rank:
//!
//! | Rank | Module | |
//! | --- | --- | --- |
//! | 0 | [`model`] | the nouns: names, messages, tables, definitions, requests and events |
//! | 0 | [`printable`] | text that others chose, made safe for lines of the log and terminals |
//! | 1 | [`routing`] | which queues receive a message |
//! | 1 | [`queue`] | what a queue does |
//! | 1 | [`oauth2`] | what a JSON web token lets its bearer do |
//! | 1 | [`log`] | durable bytes: WAL, segments, recovery; knows nothing of messages |
//! | 2 | [`disk`] | the real data directory behind the log's disk seam |
//! | 3 | [`broker`] | sessions, shards, definitions: owns all state |
//! | 3 | [`protocol`] | AMQP 0-9-1 as a state machine; sees `model` alone |
//! | 3 | [`config`] | `broker.toml`, environment and flags |
//! | 3 | `perf` | the load generator: a client like any other, which uses nothing of the broker |
//! | 3 | `ctl` | the administrator's client: `warren ctl`, `top`, `definitions`; knows the management API alone |
//! | 4 | [`management`] | operating the broker over HTTP |
//! | 4 | [`logging`] | where the broker's log goes |
//! | 4 | [`cli`] | the command line |
//! | 5 | [`server`] | sockets, timers, signals, tasks |
//!
//! ARCHITECTURE.md beside `Cargo.toml` has the whole map, who owns what, and the life of a message by function names.

pub mod broker;
pub mod cli;
pub mod config;
pub mod ctl;
pub mod disk;
pub mod log;
pub mod logging;
pub mod management;
pub mod model;
pub mod oauth2;
pub mod perf;
pub mod printable;
pub mod protocol;
pub mod queue;
pub mod routing;
pub mod server;
