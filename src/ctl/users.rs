//! Users: their passwords and tags.

use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::call::Call;
use super::client::path;
use super::error::{CtlError, code};
use super::format::{Cell, Rows};
use super::verb::{Done, Group, Verb};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Users,
        "add_user",
        "<username> [<password>] [--pre-hashed-password]",
        "Creates a user, who has no permissions yet. Without a password it is read from standard input",
        add_user,
    ),
    Verb::new(
        Group::Users,
        "authenticate_user",
        "<username> [<password>]",
        "Tries a name and a password; the exit code is 65 if they do not fit",
        authenticate_user,
    ),
    Verb::new(Group::Users, "change_password", "<username> [<password>]", "Sets a new password", change_password),
    Verb::new(
        Group::Users,
        "clear_password",
        "<username>",
        "Takes the password away: the user cannot log in with one any more",
        clear_password,
    ),
    Verb::new(Group::Users, "delete_user", "<username>", "Removes a user", delete_user),
    Verb::new(Group::Users, "hash_password", "[<password>]", "Prints the salted hash of a password", hash_password),
    Verb::new(
        Group::Users,
        "list_users",
        "[--no-table-headers] [--timeout <timeout>]",
        "Lists users and their tags",
        list_users,
    )
    .of(super::verb::BOTH),
    Verb::new(Group::Users, "set_user_tags", "<username> [<tag> ...]", "Replaces a user's tags", set_user_tags),
];

fn user_path(user: &str) -> String {
    path(&["users", user])
}

fn add_user(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    let hashed = call.arguments.has("pre-hashed-password");
    if hashed && !is_hash(call.argument(1)) {
        return Err(CtlError::BadArgument("Could not Base64 decode provided password hash value".to_owned()));
    }
    call.banner(&format!("Adding user \"{user}\" ..."));
    let secret = call.secret(1, "Password: ")?;
    if call.client.find(&user_path(user))?.is_some() {
        return Err(CtlError::failed(code::SOFTWARE, format!("User \"{user}\" already exists")));
    }
    let key = if hashed { "password_hash" } else { "password" };
    call.client.put(&user_path(user), &json!({key: secret, "tags": ""}))?.success()?;
    call.banner(
        "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help set_permissions' to \
         learn more.",
    );
    Ok(())
}

/// Whether it is the Base64 of a salt and a hash.
fn is_hash(text: &str) -> bool {
    base64::engine::general_purpose::STANDARD.decode(text).is_ok_and(|bytes| bytes.len() > 4)
}

fn authenticate_user(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Authenticating user \"{user}\" ..."));
    let password = call.secret(1, "Password: ")?;
    let reply = call.client.post("/api/warren/authenticate", &json!({"username": user, "password": password}))?;
    let accepted = match reply.status {
        // Not Warren: log in as that user. Wrong credentials and too few rights are told apart by the text.
        404 | 405 => {
            let reply = call.client.with_user(user, &password)?.request(&hyper::Method::GET, "/api/whoami", None)?;
            reply.is_success() || (reply.status == 401 && reply.json()["error"] == "not_authorised")
        }
        401 => false,
        _ => reply.success().is_ok(),
    };
    if !accepted {
        let text = format!("Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials");
        return Err(CtlError::failed(code::DATA, text));
    }
    call.line("Success");
    Ok(())
}

fn change_password(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Changing password for user \"{user}\" ..."));
    let password = call.secret(1, "Password: ")?;
    let existing = existing(call, user)?;
    let body = json!({"password": password, "tags": existing["tags"]});
    call.client.put(&user_path(user), &body)?.success()?;
    Ok(())
}

fn clear_password(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Clearing password for user \"{user}\" ..."));
    let missing = || CtlError::failed(code::UNAVAILABLE, format!("{{:no_such_user, \"{user}\"}}"));
    let existing = call.client.find(&user_path(user))?.ok_or_else(missing)?;
    call.client.put(&user_path(user), &json!({"password_hash": "", "tags": existing["tags"]}))?.success()?;
    Ok(())
}

/// The user, with all the API says.
fn existing(call: &Call<'_>, user: &str) -> Result<Value, CtlError> {
    call.client.find(&user_path(user))?.ok_or_else(|| CtlError::no_user(user))
}

fn delete_user(call: &Call<'_>) -> Done {
    let user = call.argument(0);
    call.banner(&format!("Deleting user \"{user}\" ..."));
    let reply = call.client.delete(&user_path(user))?;
    // A user who is not there is deleted.
    if reply.status == 404 { Ok(()) } else { reply.success().map(drop) }
}

fn hash_password(call: &Call<'_>) -> Done {
    match call.arguments.positional.first() {
        Some(password) => call.banner(&format!("Will hash password {password}")),
        None => call.banner("Will hash provided password"),
    }
    let password = call.secret(0, "Password: ")?;
    let mut salt = [0; 4];
    getrandom::fill(&mut salt)
        .map_err(|error| CtlError::failed(code::SOFTWARE, format!("no random numbers: {error}")))?;
    call.line(&hash(salt, &password));
    Ok(())
}

/// RabbitMQ's salted SHA-256, as its definitions hold it.
fn hash(salt: [u8; 4], password: &str) -> String {
    let digest = Sha256::new().chain_update(salt).chain_update(password.as_bytes()).finalize();
    base64::engine::general_purpose::STANDARD.encode([&salt[..], &digest[..]].concat())
}

fn list_users(call: &Call<'_>) -> Done {
    call.banner("Listing users ...");
    let users = call.client.get("/api/users?columns=name,tags")?;
    let mut rows = Rows::new(&["user", "tags"]);
    for user in users.as_array().into_iter().flatten() {
        rows.rows.push(vec![Cell::Value(user["name"].clone()), Cell::Value(user["tags"].clone())]);
    }
    call.rows(&rows)
}

fn set_user_tags(call: &Call<'_>) -> Done {
    let (user, tags) = (call.argument(0), call.rest(1));
    // As `a,b` too.
    let tags: Vec<&str> = tags.iter().flat_map(|tag| tag.split(',')).filter(|tag| !tag.is_empty()).collect();
    call.banner(&format!("Setting tags for user \"{user}\" to [{}] ...", tags.join(", ")));
    let existing = existing(call, user)?;
    let mut body = json!({"password_hash": existing["password_hash"], "tags": tags.join(",")});
    if !existing["hashing_algorithm"].is_null() {
        body["hashing_algorithm"] = existing["hashing_algorithm"].clone();
    }
    call.client.put(&user_path(user), &body)?.success()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_salt_and_sha256() {
        let expected = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        assert_eq!(hash([0x90, 0x8d, 0xc6, 0x0a], "test12"), expected);
        assert!(is_hash(expected) && !is_hash("garbage") && !is_hash(""));
    }
}
