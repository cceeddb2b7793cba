//! The bytes of a change: a version, a kind, and fields, each with its tag and length. All numbers are little-endian.
//!
//! ```text
//! 0 version u8   1
//! 1 kind    u8
//! 2 fields       tag u16, length u32, value, over and over
//! ```
//!
//! Fields with unknown tags are skipped, so that later versions can add some; a field that has its default value is left
//! out. A version or kind that is not known is an error: skipping a change would change the meaning of those after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::entity::{Binding, Destination, Exchange, ExchangeKind, QueueType};
use crate::model::ids::QueueId;
use crate::model::names::{ExchangeName, QueueName, RoutingKey, UserName, VhostName};
use crate::model::narrow::narrow;
use crate::model::table::{FieldTable, TableError};
use crate::model::vhost::{Protection, VhostMetadata};

use super::super::arguments::alternate_exchange;
use super::super::auth::{PasswordHash, PatternError, Permission, TopicPermission, User, UserLimits};
use super::{Change, QueueDefinition};

/// The version of changes this code writes, and the newest it reads.
const VERSION: u8 = 1;

/// Why bytes are no change.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("the definition is cut off")]
    Truncated,
    #[error("the definition has format version {0}, and this broker knows versions up to {VERSION}")]
    Version(u8),
    #[error("the definition is of kind {0}, which this broker does not know")]
    Kind(u8),
    #[error("the definition lacks its {0}")]
    Missing(&'static str),
    #[error("the definition's {0} has an impossible length")]
    Length(&'static str),
    #[error("the definition's {0} is not UTF-8")]
    NotText(&'static str),
    #[error("the definition's arguments: {0}")]
    Arguments(#[from] TableError),
    #[error("the parameter's value is not JSON")]
    Json,
    #[error("this broker does not know queues of type '{0}'")]
    QueueType(String),
    #[error("the argument alternate-exchange is no long string")]
    Alternate,
    #[error("this broker does not know exchanges of type '{0}'")]
    ExchangeKind(String),
    #[error("this broker does not know password hashes of kind {0}")]
    PasswordHash(u8),
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// A field: its tag, and its name in errors. A tag means the same in every kind of change.
struct Field(u16, &'static str);

const VHOST: Field = Field(1, "vhost");
const NAME: Field = Field(2, "name");
const QUEUE_ID: Field = Field(3, "queue id");
const EXCHANGE_KIND: Field = Field(4, "exchange type");
const AUTO_DELETE: Field = Field(5, "auto-delete flag");
const INTERNAL: Field = Field(6, "internal flag");
const ARGUMENTS: Field = Field(7, "arguments");
const SOURCE: Field = Field(8, "source");
const TO_QUEUE: Field = Field(9, "destination queue");
const TO_EXCHANGE: Field = Field(10, "destination");
const KEY: Field = Field(11, "routing key");
const PASSWORD: Field = Field(12, "password hash");
const USER_TAG: Field = Field(13, "user tag");
const LOOPBACK_ONLY: Field = Field(14, "loopback flag");
/// Fields in a field: vhost and patterns.
const PERMISSION: Field = Field(15, "permission");
const CONFIGURE: Field = Field(16, "configure pattern");
const WRITE: Field = Field(17, "write pattern");
const READ: Field = Field(18, "read pattern");
const DESCRIPTION: Field = Field(19, "description");
const VHOST_TAG: Field = Field(20, "vhost tag");
const QUEUE_TYPE: Field = Field(21, "default queue type");
const PROTECTED: Field = Field(22, "protection flag");
const COMPONENT: Field = Field(23, "component");
/// JSON.
const VALUE: Field = Field(24, "value");
/// Fields in a field: vhost, source and patterns.
const TOPIC_PERMISSION: Field = Field(25, "topic permission");
const CONNECTIONS_MAX: Field = Field(26, "limit of connections");
const CHANNELS_MAX: Field = Field(27, "limit of channels");

const SET_VHOST: u8 = 1;
const SET_USER: u8 = 2;
const ADD_EXCHANGE: u8 = 3;
const REMOVE_EXCHANGE: u8 = 4;
const ADD_QUEUE: u8 = 5;
const REMOVE_QUEUE: u8 = 6;
const BIND: u8 = 7;
const UNBIND: u8 = 8;
const RESERVE_QUEUE_IDS: u8 = 9;
const REMOVE_VHOST: u8 = 10;
const REMOVE_USER: u8 = 11;
const SET_PARAMETER: u8 = 12;
const REMOVE_PARAMETER: u8 = 13;

impl Change {
    /// Appends the change. Its end is not marked: whoever keeps it keeps its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[VERSION, self.kind()]);
        match self {
            Self::SetVhost { vhost, metadata } => put_vhost(out, vhost, metadata),
            Self::RemoveVhost { vhost } => put(out, &VHOST, vhost.as_str().as_bytes()),
            Self::SetUser { user } => put_user(out, user),
            Self::RemoveUser { user } => put(out, &NAME, user.as_str().as_bytes()),
            Self::SetParameter { vhost, component, name, value } => {
                put_parameter(out, vhost.as_ref(), component, name);
                put(out, &VALUE, value.to_string().as_bytes());
            }
            Self::RemoveParameter { vhost, component, name } => put_parameter(out, vhost.as_ref(), component, name),
            Self::AddExchange { vhost, exchange } => {
                put(out, &VHOST, vhost.as_str().as_bytes());
                put(out, &NAME, exchange.name.as_str().as_bytes());
                put(out, &EXCHANGE_KIND, exchange.kind.name().as_bytes());
                put_flag(out, &AUTO_DELETE, exchange.auto_delete);
                put_flag(out, &INTERNAL, exchange.internal);
                put_arguments(out, &exchange.arguments);
            }
            Self::RemoveExchange { vhost, exchange } => {
                put(out, &VHOST, vhost.as_str().as_bytes());
                put(out, &NAME, exchange.as_str().as_bytes());
            }
            Self::AddQueue { vhost, queue } => {
                put(out, &VHOST, vhost.as_str().as_bytes());
                put(out, &NAME, queue.name.as_str().as_bytes());
                put(out, &QUEUE_ID, &queue.id.0.to_le_bytes());
                put_flag(out, &AUTO_DELETE, queue.auto_delete);
                put_arguments(out, &queue.arguments);
            }
            Self::RemoveQueue { vhost, queue, id } => {
                put(out, &VHOST, vhost.as_str().as_bytes());
                put(out, &NAME, queue.as_str().as_bytes());
                put(out, &QUEUE_ID, &id.0.to_le_bytes());
            }
            Self::Bind { vhost, binding } | Self::Unbind { vhost, binding } => {
                put(out, &VHOST, vhost.as_str().as_bytes());
                put_binding(out, binding);
            }
            Self::ReserveQueueIds { below } => put(out, &QUEUE_ID, &below.to_le_bytes()),
        }
    }

    /// Reads a change from all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let [version, kind, fields @ ..] = bytes else { return Err(DecodeError::Truncated) };
        if *version != VERSION {
            return Err(DecodeError::Version(*version));
        }
        if !(SET_VHOST..=REMOVE_PARAMETER).contains(kind) {
            return Err(DecodeError::Kind(*kind));
        }
        let fields = Fields::check(fields)?;
        let vhost = || fields.text(&VHOST).map(VhostName::new);
        Ok(match *kind {
            SET_VHOST => Self::SetVhost { vhost: vhost()?, metadata: Arc::new(fields.vhost_metadata()?) },
            REMOVE_VHOST => Self::RemoveVhost { vhost: vhost()? },
            SET_USER => Self::SetUser { user: Arc::new(fields.user()?) },
            REMOVE_USER => Self::RemoveUser { user: fields.text(&NAME)?.into() },
            SET_PARAMETER => {
                let (vhost, component, name) = fields.parameter()?;
                let value = serde_json::from_slice(fields.bytes(&VALUE)?).map_err(|_| DecodeError::Json)?;
                Self::SetParameter { vhost, component, name, value: Arc::new(value) }
            }
            REMOVE_PARAMETER => {
                let (vhost, component, name) = fields.parameter()?;
                Self::RemoveParameter { vhost, component, name }
            }
            ADD_EXCHANGE => Self::AddExchange { vhost: vhost()?, exchange: Arc::new(fields.exchange()?) },
            REMOVE_EXCHANGE => Self::RemoveExchange { vhost: vhost()?, exchange: fields.text(&NAME)?.into() },
            ADD_QUEUE => Self::AddQueue { vhost: vhost()?, queue: fields.queue()? },
            REMOVE_QUEUE => Self::RemoveQueue {
                vhost: vhost()?,
                queue: fields.text(&NAME)?.into(),
                id: QueueId(fields.number(&QUEUE_ID)?),
            },
            BIND => Self::Bind { vhost: vhost()?, binding: Arc::new(fields.binding()?) },
            UNBIND => Self::Unbind { vhost: vhost()?, binding: Arc::new(fields.binding()?) },
            RESERVE_QUEUE_IDS => Self::ReserveQueueIds { below: fields.number(&QUEUE_ID)? },
            unknown => return Err(DecodeError::Kind(unknown)),
        })
    }

    fn kind(&self) -> u8 {
        match self {
            Self::SetVhost { .. } => SET_VHOST,
            Self::RemoveVhost { .. } => REMOVE_VHOST,
            Self::SetUser { .. } => SET_USER,
            Self::RemoveUser { .. } => REMOVE_USER,
            Self::SetParameter { .. } => SET_PARAMETER,
            Self::RemoveParameter { .. } => REMOVE_PARAMETER,
            Self::AddExchange { .. } => ADD_EXCHANGE,
            Self::RemoveExchange { .. } => REMOVE_EXCHANGE,
            Self::AddQueue { .. } => ADD_QUEUE,
            Self::RemoveQueue { .. } => REMOVE_QUEUE,
            Self::Bind { .. } => BIND,
            Self::Unbind { .. } => UNBIND,
            Self::ReserveQueueIds { .. } => RESERVE_QUEUE_IDS,
        }
    }
}

fn put_user(out: &mut Vec<u8>, user: &User) {
    put(out, &NAME, user.name.as_str().as_bytes());
    put_nested(out, &PASSWORD, |out| user.password.encode(out));
    for tag in &user.tags {
        put(out, &USER_TAG, tag.as_bytes());
    }
    put_flag(out, &LOOPBACK_ONLY, user.loopback_only);
    for (vhost, permission) in &user.permissions {
        put_nested(out, &PERMISSION, |out| {
            let [configure, write, read] = permission.patterns();
            put(out, &VHOST, vhost.as_str().as_bytes());
            put(out, &CONFIGURE, configure.as_bytes());
            put(out, &WRITE, write.as_bytes());
            put(out, &READ, read.as_bytes());
        });
    }
    for ((vhost, exchange), permission) in &user.topic_permissions {
        put_nested(out, &TOPIC_PERMISSION, |out| {
            let [write, read] = permission.patterns();
            put(out, &VHOST, vhost.as_str().as_bytes());
            put(out, &SOURCE, exchange.as_str().as_bytes());
            put(out, &WRITE, write.as_bytes());
            put(out, &READ, read.as_bytes());
        });
    }
    for (field, limit) in [(&CONNECTIONS_MAX, user.limits.max_connections), (&CHANNELS_MAX, user.limits.max_channels)] {
        if let Some(limit) = limit {
            put(out, field, &limit.to_le_bytes());
        }
    }
}

fn put_vhost(out: &mut Vec<u8>, vhost: &VhostName, metadata: &VhostMetadata) {
    put(out, &VHOST, vhost.as_str().as_bytes());
    if !metadata.description.is_empty() {
        put(out, &DESCRIPTION, metadata.description.as_bytes());
    }
    for tag in &metadata.tags {
        put(out, &VHOST_TAG, tag.as_bytes());
    }
    if let Some(queue_type) = metadata.default_queue_type {
        put(out, &QUEUE_TYPE, queue_type.name().as_bytes());
    }
    put_flag(out, &PROTECTED, metadata.protection == Protection::FromDeletion);
}

fn put_parameter(out: &mut Vec<u8>, vhost: Option<&VhostName>, component: &str, name: &str) {
    if let Some(vhost) = vhost {
        put(out, &VHOST, vhost.as_str().as_bytes());
    }
    put(out, &COMPONENT, component.as_bytes());
    put(out, &NAME, name.as_bytes());
}

fn put_binding(out: &mut Vec<u8>, binding: &Binding) {
    put(out, &SOURCE, binding.source.as_str().as_bytes());
    match &binding.destination {
        Destination::Queue(queue) => put(out, &TO_QUEUE, queue.as_str().as_bytes()),
        Destination::Exchange(exchange) => put(out, &TO_EXCHANGE, exchange.as_str().as_bytes()),
    }
    put(out, &KEY, binding.key.as_bytes());
    put_arguments(out, &binding.arguments);
}

fn put(out: &mut Vec<u8>, field: &Field, value: &[u8]) {
    put_nested(out, field, |out| out.extend_from_slice(value));
}

fn put_flag(out: &mut Vec<u8>, field: &Field, value: bool) {
    if value {
        put(out, field, &[1]);
    }
}

fn put_arguments(out: &mut Vec<u8>, arguments: &FieldTable) {
    if !arguments.is_empty() {
        put_nested(out, &ARGUMENTS, |out| arguments.encode(out));
    }
}

fn put_nested(out: &mut Vec<u8>, field: &Field, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(&field.0.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let start = out.len();
    value(out);
    let length: u32 = narrow(out.len() - start, "a definition comes in a frame or a body below 4 GiB");
    out[start - 4..start].copy_from_slice(&length.to_le_bytes());
}

/// Vhost, component and name of a runtime parameter.
type ParameterKey = (Option<VhostName>, Arc<str>, Arc<str>);

/// Fields whose lengths are known to be right.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn check(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            (_, _, rest) = split_field(rest).ok_or(DecodeError::Truncated)?;
        }
        Ok(Self(bytes))
    }

    /// The values of all fields of this tag.
    fn all(self, field: &Field) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.0;
        let tag = field.0;
        std::iter::from_fn(move || {
            let (found, value, behind) = split_field(rest)?;
            rest = behind;
            Some((found, value))
        })
        .filter_map(move |(found, value)| (found == tag).then_some(value))
    }

    fn find(self, field: &Field) -> Option<&'a [u8]> {
        self.all(field).next()
    }

    fn bytes(self, field: &Field) -> Result<&'a [u8], DecodeError> {
        self.find(field).ok_or(DecodeError::Missing(field.1))
    }

    fn text(self, field: &Field) -> Result<&'a str, DecodeError> {
        text(self.bytes(field)?, field)
    }

    fn number(self, field: &Field) -> Result<u64, DecodeError> {
        let bytes = self.bytes(field)?.try_into().map_err(|_| DecodeError::Length(field.1))?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn flag(self, field: &Field) -> Result<bool, DecodeError> {
        match self.find(field) {
            None => Ok(false),
            Some([value]) => Ok(*value != 0),
            Some(_) => Err(DecodeError::Length(field.1)),
        }
    }

    fn arguments(self) -> Result<FieldTable, DecodeError> {
        let Some(table) = self.find(&ARGUMENTS) else { return Ok(FieldTable::default()) };
        let (length, content) = table.split_first_chunk::<4>().ok_or(DecodeError::Length(ARGUMENTS.1))?;
        if u32::from_be_bytes(*length) as usize != content.len() {
            return Err(DecodeError::Length(ARGUMENTS.1));
        }
        Ok(FieldTable::decode(content)?)
    }

    fn exchange(self) -> Result<Exchange, DecodeError> {
        let kind = self.text(&EXCHANGE_KIND)?;
        let arguments = self.arguments()?;
        Ok(Exchange {
            name: ExchangeName::new(self.text(&NAME)?),
            kind: ExchangeKind::from_name(kind).ok_or_else(|| DecodeError::ExchangeKind(kind.to_owned()))?,
            durable: true,
            auto_delete: self.flag(&AUTO_DELETE)?,
            internal: self.flag(&INTERNAL)?,
            alternate: alternate_exchange(&arguments).map_err(|_| DecodeError::Alternate)?,
            arguments,
        })
    }

    fn queue(self) -> Result<QueueDefinition, DecodeError> {
        Ok(QueueDefinition {
            id: QueueId(self.number(&QUEUE_ID)?),
            name: QueueName::new(self.text(&NAME)?),
            auto_delete: self.flag(&AUTO_DELETE)?,
            arguments: self.arguments()?,
        })
    }

    fn binding(self) -> Result<Binding, DecodeError> {
        let destination = match self.find(&TO_QUEUE) {
            Some(queue) => Destination::Queue(text(queue, &TO_QUEUE)?.into()),
            None => Destination::Exchange(self.text(&TO_EXCHANGE)?.into()),
        };
        Ok(Binding {
            source: ExchangeName::new(self.text(&SOURCE)?),
            destination,
            key: RoutingKey::new(self.bytes(&KEY)?),
            arguments: self.arguments()?,
        })
    }

    fn user(self) -> Result<User, DecodeError> {
        let password = PasswordHash::decode(self.bytes(&PASSWORD)?).map_err(|unknown| match unknown {
            Some(kind) => DecodeError::PasswordHash(kind),
            None => DecodeError::Length(PASSWORD.1),
        })?;
        let tags = self.all(&USER_TAG).map(|tag| text(tag, &USER_TAG).map(str::to_owned));
        let mut permissions = BTreeMap::new();
        for permission in self.all(&PERMISSION) {
            let fields = Fields::check(permission)?;
            let patterns = Permission::parse(fields.text(&CONFIGURE)?, fields.text(&WRITE)?, fields.text(&READ)?)?;
            permissions.insert(VhostName::new(fields.text(&VHOST)?), patterns);
        }
        Ok(User {
            name: UserName::new(self.text(&NAME)?),
            password,
            tags: tags.collect::<Result<_, _>>()?,
            loopback_only: self.flag(&LOOPBACK_ONLY)?,
            permissions,
            topic_permissions: self.topic_permissions()?,
            limits: UserLimits {
                max_connections: self.limit(&CONNECTIONS_MAX)?,
                max_channels: self.limit(&CHANNELS_MAX)?,
            },
        })
    }

    fn topic_permissions(self) -> Result<BTreeMap<(VhostName, ExchangeName), TopicPermission>, DecodeError> {
        let permission = |bytes| {
            let fields = Fields::check(bytes)?;
            let key = (VhostName::new(fields.text(&VHOST)?), ExchangeName::new(fields.text(&SOURCE)?));
            Ok((key, TopicPermission::parse(fields.text(&WRITE)?, fields.text(&READ)?)?))
        };
        self.all(&TOPIC_PERMISSION).map(permission).collect()
    }

    fn limit(self, field: &Field) -> Result<Option<i64>, DecodeError> {
        let Some(bytes) = self.find(field) else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| DecodeError::Length(field.1))?;
        Ok(Some(i64::from_le_bytes(bytes)))
    }

    fn vhost_metadata(self) -> Result<VhostMetadata, DecodeError> {
        let optional = |field| self.find(field).map(|bytes| text(bytes, field)).transpose();
        let tags = self.all(&VHOST_TAG).map(|tag| text(tag, &VHOST_TAG).map(str::to_owned));
        let default_queue_type = optional(&QUEUE_TYPE)?
            .map(|name| QueueType::from_name(name).ok_or_else(|| DecodeError::QueueType(name.to_owned())));
        Ok(VhostMetadata {
            description: optional(&DESCRIPTION)?.unwrap_or_default().to_owned(),
            tags: tags.collect::<Result<_, _>>()?,
            default_queue_type: default_queue_type.transpose()?,
            protection: if self.flag(&PROTECTED)? { Protection::FromDeletion } else { Protection::None },
        })
    }

    fn parameter(self) -> Result<ParameterKey, DecodeError> {
        let vhost = self.find(&VHOST).map(|name| text(name, &VHOST).map(VhostName::new)).transpose()?;
        Ok((vhost, self.text(&COMPONENT)?.into(), self.text(&NAME)?.into()))
    }
}

fn text<'a>(bytes: &'a [u8], field: &Field) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotText(field.1))
}

/// The first field's tag and value, and what is behind it; none when it is cut off.
fn split_field(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    Some((u16::from_le_bytes(*tag), value, rest))
}
