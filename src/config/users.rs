//! `[[users]]`: the users to be made on the first start, with their permissions; `defaults.users`: those that virtual hosts get.

use std::path::PathBuf;

use super::kind::{Expression, Kind, List, OptionalFile, Password, Secrets, Text};
use super::nearest::nearest;
use super::origin::Problems;
use super::raw::{Raw, RawEntry};
use super::types::{DefaultUser, Permission, Secret, User};

/// One user.
pub(crate) struct UserTable;

/// One user of new virtual hosts; the name is the key of the table it stands in.
pub(crate) struct DefaultUserTable;

/// One entry of a user's `permissions`.
struct PermissionTable;

const USER_KEYS: [&str; 5] = ["name", "password", "password_file", "tags", "permissions"];
const PERMISSION_KEYS: [&str; 4] = ["vhost", "configure", "write", "read"];
const DEFAULT_USER_KEYS: [&str; 7] =
    ["vhost_pattern", "password", "password_file", "tags", "configure", "write", "read"];
const TAGS: List<Text> = List::of(Text::NAME);
const PERMISSIONS: List<PermissionTable> = List::of(PermissionTable);

/// RabbitMQ takes no more tags for one user.
const MOST_TAGS: usize = 32;

/// The entries of one table of the file: each is taken out by its name, the rest is unknown.
pub(super) struct Fields<'a> {
    key: &'a str,
    raw: &'a Raw,
    entries: Vec<RawEntry>,
}

impl<'a> Fields<'a> {
    /// The entries of `raw`, after telling which of them are none of `names`.
    pub(super) fn of(key: &'a str, raw: &'a Raw, names: &[&'static str], problems: &mut Problems) -> Option<Self> {
        let entries = raw.table()?;
        for entry in entries.iter().filter(|entry| !names.contains(&entry.name.as_str())) {
            let hint = match nearest(&entry.name, names.iter().copied()) {
                Some(name) => format!("did you mean {key}.{name}?"),
                None => format!("{key} has {}", names.join(", ")),
            };
            problems.other(&entry.origin, format!("unknown key {key}.{}; {hint}", entry.name));
        }
        Some(Self { key, raw, entries })
    }

    /// The value of `name`, if it is there. The outer None is a value that cannot be used.
    pub(super) fn optional<K: Kind>(&self, name: &str, kind: &K, problems: &mut Problems) -> Option<Option<K::Value>> {
        match self.entries.iter().find(|entry| entry.name == name) {
            Some(entry) => {
                let key = format!("{}.{name}", self.key);
                kind.read(&key, &entry.value, problems).map(Some)
            }
            None => Some(None),
        }
    }

    /// The value of `name`, which has to be there.
    pub(super) fn required<K: Kind>(&self, name: &str, kind: &K, problems: &mut Problems) -> Option<K::Value> {
        let value = self.optional(name, kind, problems)?;
        if value.is_none() {
            problems.value(&self.raw.origin, self.key, format!("{name} is missing"));
        }
        value
    }
}

impl Kind for UserTable {
    type Value = User;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<User> {
        let Some(fields) = Fields::of(key, raw, &USER_KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        let name = fields.required("name", &Text::NAME, problems);
        let password = fields.optional("password", &Password, problems);
        let password_file = fields.optional("password_file", &OptionalFile, problems);
        let tags = fields.optional("tags", &TAGS, problems);
        let permissions = fields.optional("permissions", &PERMISSIONS, problems);
        let (password, password_file) = (password?, password_file?.flatten());
        check_secrets(key, raw, [password.is_some(), password_file.is_some()], problems);
        if password.is_none() && password_file.is_none() {
            problems.value(&raw.origin, key, "password or password_file is missing");
        }
        let tags = tags?.unwrap_or_default();
        check_tags(key, raw, &tags, problems);
        let permissions = permissions?.unwrap_or_default();
        Some(User { name: name?, password, password_file, tags, permissions })
    }

    fn write(&self, user: &User, secrets: Secrets) -> String {
        let mut fields = vec![format!("name = {}", Text::NAME.write(&user.name, secrets))];
        fields.extend(write_secret(user.password.as_ref(), user.password_file.as_ref(), secrets));
        fields.push(format!("tags = {}", TAGS.write(&user.tags, secrets)));
        fields.push(format!("permissions = {}", PERMISSIONS.write(&user.permissions, secrets)));
        format!("{{ {} }}", fields.join(", "))
    }

    fn expects(&self) -> String {
        format!("a table with {}", USER_KEYS.join(", "))
    }
}

impl Kind for DefaultUserTable {
    type Value = DefaultUser;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<DefaultUser> {
        let Some(fields) = Fields::of(key, raw, &DEFAULT_USER_KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        // Each is read, for the mistakes in all of them, before one that failed spoils the whole.
        let password = fields.optional("password", &Password, problems);
        let password_file = fields.optional("password_file", &OptionalFile, problems);
        let tags = fields.optional("tags", &TAGS, problems);
        let [vhost_pattern, configure, write, read] = ["vhost_pattern", "configure", "write", "read"].map(|name| {
            let pattern = fields.optional(name, &Expression, problems)?;
            Some(pattern.unwrap_or_else(|| ".*".to_owned()))
        });
        let (password, password_file) = (password?, password_file?.flatten());
        check_secrets(key, raw, [password.is_some(), password_file.is_some()], problems);
        let tags = tags?.unwrap_or_default();
        check_tags(key, raw, &tags, problems);
        Some(DefaultUser {
            vhost_pattern: vhost_pattern?,
            password,
            password_file,
            tags,
            configure: configure?,
            write: write?,
            read: read?,
        })
    }

    fn write(&self, user: &DefaultUser, secrets: Secrets) -> String {
        let mut fields = vec![format!("vhost_pattern = {}", Expression.write(&user.vhost_pattern, secrets))];
        fields.extend(write_secret(user.password.as_ref(), user.password_file.as_ref(), secrets));
        fields.push(format!("tags = {}", TAGS.write(&user.tags, secrets)));
        for (name, pattern) in [("configure", &user.configure), ("write", &user.write), ("read", &user.read)] {
            fields.push(format!("{name} = {}", Expression.write(pattern, secrets)));
        }
        format!("{{ {} }}", fields.join(", "))
    }

    fn expects(&self) -> String {
        format!("a table with any of {}", DEFAULT_USER_KEYS.join(", "))
    }
}

/// Tells of two secrets where there may be one. Which of them are there: password, password_file.
fn check_secrets(key: &str, raw: &Raw, is_there: [bool; 2], problems: &mut Problems) {
    if is_there == [true, true] {
        problems.value(&raw.origin, key, "has both password and password_file; keep one of them");
    }
}

fn check_tags(key: &str, raw: &Raw, tags: &[String], problems: &mut Problems) {
    if tags.len() > MOST_TAGS {
        problems.value(&raw.origin, key, format!("has {} tags, the maximum is {MOST_TAGS}", tags.len()));
    }
}

/// The one of the two that the file says.
fn write_secret(password: Option<&Secret>, file: Option<&PathBuf>, secrets: Secrets) -> Option<String> {
    match (password, file) {
        (_, Some(_)) => Some(format!("password_file = {}", OptionalFile.write(&file.cloned(), secrets))),
        (Some(password), None) => Some(format!("password = {}", Password.write(password, secrets))),
        (None, None) => None,
    }
}

impl Kind for PermissionTable {
    type Value = Permission;

    fn read(&self, key: &str, raw: &Raw, problems: &mut Problems) -> Option<Permission> {
        let Some(fields) = Fields::of(key, raw, &PERMISSION_KEYS, problems) else {
            self.refuse(key, raw, problems);
            return None;
        };
        let vhost = fields.required("vhost", &Text::NAME, problems);
        let [configure, write, read] = ["configure", "write", "read"].map(|name| {
            // The pattern is matched against all of a name or a part of it, as it is written.
            fields.required(name, &Expression, problems)
        });
        Some(Permission { vhost: vhost?, configure: configure?, write: write?, read: read? })
    }

    fn write(&self, permission: &Permission, secrets: Secrets) -> String {
        let Permission { vhost, configure, write, read } = permission;
        let text = |value: &String| Expression.write(value, secrets);
        format!(
            "{{ vhost = {}, configure = {}, write = {}, read = {} }}",
            text(vhost),
            text(configure),
            text(write),
            text(read),
        )
    }

    fn expects(&self) -> String {
        format!("a table with {}", PERMISSION_KEYS.join(", "))
    }
}
