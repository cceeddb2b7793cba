//! The vhosts and users of the configuration, which a new data directory begins with.

use std::collections::BTreeMap;

use crate::broker::{Broker, DefinitionError, PasswordHash, Permission, User};
use crate::config::Config;
use crate::log::CommitError;
use crate::model::names::{UserName, VhostName};
use crate::model::vhost::VhostMetadata;

use super::ServerError;

pub(super) fn define(broker: &Broker, config: &Config) -> Result<(), ServerError> {
    for vhost in config.first_vhosts() {
        let description = if vhost == "/" { "Default virtual host" } else { "" };
        let metadata = VhostMetadata { description: description.to_owned(), ..VhostMetadata::default() };
        broker.add_vhost(&VhostName::new(&vhost), metadata);
    }
    for configured in config.first_users() {
        let name = UserName::new(&configured.name);
        // Vhosts may have given some to a user of this name.
        let given = broker.own_user(&name);
        let mut permissions = given.map_or_else(BTreeMap::new, |user| user.permissions.clone());
        for permission in &configured.permissions {
            let vhost = VhostName::new(&permission.vhost);
            let parsed = Permission::parse(&permission.configure, &permission.write, &permission.read)
                .map_err(|error| DefinitionError::Pattern { user: name.clone(), vhost: vhost.clone(), error })?;
            permissions.insert(vhost, parsed);
        }
        let password = configured.password.as_ref().map_or("", |password| password.expose());
        let mut salt = [0; 4];
        getrandom::fill(&mut salt).map_err(ServerError::Random)?;
        broker.add_user(User {
            loopback_only: config.defaults.loopback_only.contains(&configured.name),
            permissions,
            ..User::new(name, PasswordHash::new(salt, password.as_bytes()), configured.tags.clone())
        })?;
    }
    // They are all there, or none: a start that was interrupted here begins anew.
    match broker.store_definitions() {
        // The log has them as well, once it is written.
        Err(CommitError::NoSpace { path, error }) => {
            tracing::warn!(path, %error, "the first definitions wait for space on the disk");
            Ok(())
        }
        stored => Ok(stored.map_err(DefinitionError::Store)?),
    }
}
