//! Operating the broker over HTTP.

pub mod history;
