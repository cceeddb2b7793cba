//! `[[users]]`: the users to be made on the first start, with their permissions.

use super::kind::{Expression, Kind, List, OptionalFile, Password, Secrets, Text};
use super::nearest::nearest;
use super::origin::Problems;
use super::raw::{Raw, RawEntry};
use super::types::{Permission, User};

/// One user.
pub(crate) struct UserTable;

/// One entry of a user's `permissions`.
struct PermissionTable;

const USER_KEYS: [&str; 5] = ["name", "password", "password_file", "tags", "permissions"];
const PERMISSION_KEYS: [&str; 4] = ["vhost", "configure", "write", "read"];
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
        match (&password, &password_file) {
            (Some(_), Some(_)) => {
                let message = "has both password and password_file; keep one of them";
                problems.value(&raw.origin, key, message);
            }
            (None, None) => {
                problems.value(&raw.origin, key, "password or password_file is missing");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        let tags = tags?.unwrap_or_default();
        if tags.len() > MOST_TAGS {
            let message = format!("has {} tags, the maximum is {MOST_TAGS}", tags.len());
            problems.value(&raw.origin, key, message);
        }
        let permissions = permissions?.unwrap_or_default();
        Some(User { name: name?, password, password_file, tags, permissions })
    }

    fn write(&self, user: &User, secrets: Secrets) -> String {
        let mut fields = vec![format!("name = {}", Text::NAME.write(&user.name, secrets))];
        if user.password_file.is_some() {
            let file = OptionalFile.write(&user.password_file, secrets);
            fields.push(format!("password_file = {file}"));
        } else if let Some(password) = &user.password {
            fields.push(format!("password = {}", Password.write(password, secrets)));
        }
        fields.push(format!("tags = {}", TAGS.write(&user.tags, secrets)));
        fields.push(format!("permissions = {}", PERMISSIONS.write(&user.permissions, secrets)));
        format!("{{ {} }}", fields.join(", "))
    }

    fn expects(&self) -> String {
        format!("a table with {}", USER_KEYS.join(", "))
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
