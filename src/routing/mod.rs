//! Which queues receive a message. Pure: a table and a message in, targets out.
