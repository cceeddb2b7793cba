//! What the checked arguments of queues and exchanges mean, beside those that the model knows.

use crate::model::entity::QueueOptions;
use crate::model::names::ExchangeName;
use crate::model::table::{FieldTable, FieldValue};

use super::BrokerSettings;

/// What a queue with these checked arguments does.
pub(super) fn queue_options(arguments: &FieldTable, auto_delete: bool, settings: &BrokerSettings) -> QueueOptions {
    QueueOptions {
        auto_delete,
        consumer_timeout_ms: settings.consumer_timeout_ms,
        expire_at_head_only: settings.expire_at_head_only,
        ..QueueOptions::from_arguments(arguments)
    }
}

/// The argument that names an exchange's alternate exchange.
pub(super) const ALTERNATE: &str = "alternate-exchange";

/// The alternate exchange of an exchange with these arguments; the error is a value that is no long string.
pub(super) fn alternate_exchange(arguments: &FieldTable) -> Result<Option<ExchangeName>, &FieldValue> {
    match arguments.find(ALTERNATE) {
        None => Ok(None),
        Some(value @ FieldValue::LongString(_)) => Ok(value.as_str().map(ExchangeName::new)),
        Some(other) => Err(other),
    }
}
