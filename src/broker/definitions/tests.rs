//! Definitions there and back.
