//! Client mistakes as values: reply code, text, and whether they close the channel or the connection.

use std::fmt::Display;

use super::names::VhostName;

/// AMQP reply codes, with the name that prefixes the reply text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyCode {
    ContentTooLarge,
    ConnectionForced,
    InvalidPath,
    AccessRefused,
    NotFound,
    ResourceLocked,
    PreconditionFailed,
    FrameError,
    SyntaxError,
    CommandInvalid,
    ChannelError,
    UnexpectedFrame,
    ResourceError,
    NotAllowed,
    NotImplemented,
    InternalError,
}

impl ReplyCode {
    #[must_use]
    pub fn code(self) -> u16 {
        self.entry().0
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Whether an exception of this code closes the whole connection.
    #[must_use]
    pub fn is_hard(self) -> bool {
        !matches!(
            self,
            Self::ContentTooLarge
                | Self::AccessRefused
                | Self::NotFound
                | Self::ResourceLocked
                | Self::PreconditionFailed
        )
    }

    fn entry(self) -> (u16, &'static str) {
        match self {
            Self::ContentTooLarge => (311, "CONTENT_TOO_LARGE"),
            Self::ConnectionForced => (320, "CONNECTION_FORCED"),
            Self::InvalidPath => (402, "INVALID_PATH"),
            Self::AccessRefused => (403, "ACCESS_REFUSED"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::ResourceLocked => (405, "RESOURCE_LOCKED"),
            Self::PreconditionFailed => (406, "PRECONDITION_FAILED"),
            Self::FrameError => (501, "FRAME_ERROR"),
            Self::SyntaxError => (502, "SYNTAX_ERROR"),
            Self::CommandInvalid => (503, "COMMAND_INVALID"),
            Self::ChannelError => (504, "CHANNEL_ERROR"),
            Self::UnexpectedFrame => (505, "UNEXPECTED_FRAME"),
            Self::ResourceError => (506, "RESOURCE_ERROR"),
            Self::NotAllowed => (530, "NOT_ALLOWED"),
            Self::NotImplemented => (540, "NOT_IMPLEMENTED"),
            Self::InternalError => (541, "INTERNAL_ERROR"),
        }
    }
}

/// Bytes of a short string.
const REPLY_TEXT_MAX: usize = 255;

/// A refused request. The class and method it answers are filled in by the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} - {text}", code.name())]
pub struct Exception {
    pub code: ReplyCode,
    /// Without the code's name in front.
    pub text: String,
}

impl Exception {
    #[must_use]
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The reply text as it goes over the wire: prefixed, at most 255 bytes, with dots where more would follow.
    #[must_use]
    pub fn reply_text(&self) -> String {
        const DOTS: &str = "...";
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > REPLY_TEXT_MAX {
            let mut length = REPLY_TEXT_MAX - DOTS.len();
            while !text.is_char_boundary(length) {
                length -= 1;
            }
            text.truncate(length);
            text.push_str(DOTS);
        }
        text
    }

    #[must_use]
    pub fn access_refused(text: impl Into<String>) -> Self {
        Self::new(ReplyCode::AccessRefused, text)
    }

    #[must_use]
    pub fn precondition_failed(text: impl Into<String>) -> Self {
        Self::new(ReplyCode::PreconditionFailed, text)
    }

    #[must_use]
    pub fn not_allowed(text: impl Into<String>) -> Self {
        Self::new(ReplyCode::NotAllowed, text)
    }

    #[must_use]
    pub fn no_queue(name: impl Display, vhost: &VhostName) -> Self {
        Self::new(ReplyCode::NotFound, format!("no queue '{name}' in vhost '{vhost}'"))
    }

    #[must_use]
    pub fn no_exchange(name: impl Display, vhost: &VhostName) -> Self {
        Self::new(ReplyCode::NotFound, format!("no exchange '{name}' in vhost '{vhost}'"))
    }

    /// The queue is another connection's, or the exclusive flag differs.
    #[must_use]
    pub fn queue_locked(name: impl Display, vhost: &VhostName) -> Self {
        let text = format!(
            "cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could be originally declared \
             on another connection or the exclusive property value does not match that of the original declaration."
        );
        Self::new(ReplyCode::ResourceLocked, text)
    }

    #[must_use]
    pub fn unknown_delivery_tag(tag: u64) -> Self {
        Self::precondition_failed(format!("unknown delivery tag {tag}"))
    }
}
