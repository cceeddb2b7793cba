//! Definitions: written to a file or standard output as they come, read from a file or standard input.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

use super::call::Call;
use super::client::path;
use super::diff::{self, Change};
use super::error::{CtlError, code};
use super::verb::{Done, Group, Verb};

/// The largest file of definitions that is read.
const LARGEST_FILE: u64 = 256 * 1024 * 1024;

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(
        Group::Definitions,
        "export_definitions",
        "<file|-> [--format <json>] [--vhost <vhost>] [--timeout <timeout>]",
        "Writes users, virtual hosts, queues, policies and so on as JSON to a file, or with - to standard output",
        export,
    ),
    Verb::new(
        Group::Definitions,
        "import_definitions",
        "[<file|->] [--format <json>] [--skip-if-unchanged] [--vhost <vhost>] [--timeout <timeout>]",
        "Reads definitions from a file, or from standard input, and creates what is not there yet",
        import,
    ),
];

/// `warren definitions export`.
pub(crate) const EXPORT: Verb = Verb::new(
    Group::Definitions,
    "warren definitions export",
    "[<file|->] [--format <json>] [--vhost <vhost>] [--timeout <timeout>]",
    "Writes the definitions to a file, or to standard output",
    export,
);

/// `warren definitions import`.
pub(crate) const IMPORT: Verb = Verb::new(
    Group::Definitions,
    "warren definitions import",
    "[<file|->] [--format <json>] [--skip-if-unchanged] [--vhost <vhost>] [--timeout <timeout>]",
    "Reads definitions, creates what is not there yet and says how much that was",
    import_with_summary,
);

/// The API's path: all, or those of the vhost that was named.
pub(crate) fn api_path(call: &Call<'_>) -> String {
    match call.arguments.option("vhost") {
        Some(vhost) => path(&["definitions", vhost]),
        None => path(&["definitions"]),
    }
}

fn check_format(call: &Call<'_>) -> Done {
    match call.arguments.option("format").map(str::to_lowercase).as_deref() {
        None | Some("json") => Ok(()),
        Some("erlang") => Err(CtlError::BadArgument("Erlang's term format is not supported: use json".to_owned())),
        Some(_) => Err(CtlError::BadArgument("Format should be either json or erlang".to_owned())),
    }
}

fn export(call: &Call<'_>) -> Done {
    check_format(call)?;
    match call.arguments.positional.first().map(String::as_str) {
        None | Some("-") => {
            let mut pieces = super::client::Pieces::default();
            match call.client.stream(&api_path(call), None, &mut |bytes| pieces.print(bytes)) {
                Err(CtlError::File { cause, .. }) if cause.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
                Err(error) => Err(missing_vhost(call, error)),
                Ok(_) => Ok(()),
            }
        }
        Some(file) => export_to(call, file),
    }
}

fn missing_vhost(call: &Call<'_>, error: CtlError) -> CtlError {
    match (&error, call.arguments.option("vhost")) {
        (CtlError::Refused { status, reason }, Some(vhost)) if *status == 404 || reason == "vhost_not_found" => {
            CtlError::no_vhost(vhost)
        }
        _ => error,
    }
}

/// The file appears under its name only when it is whole.
fn export_to(call: &Call<'_>, file: &str) -> Done {
    let folder =
        Path::new(file).parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if !folder.is_dir() {
        return Err(CtlError::BadArgument(format!("Directory {} does not exist", folder.display())));
    }
    call.banner(&format!("Exporting definitions in JSON to a file at \"{file}\" ..."));
    let part = format!("{file}.part");
    let written = write_part(call, &part, file);
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn write_part(call: &Call<'_>, part: &str, file: &str) -> Done {
    let fail = |cause| CtlError::file(file, cause);
    let mut output = private(part).map_err(fail)?;
    let streamed = call.client.stream(&api_path(call), None, &mut |bytes| output.write_all(bytes));
    streamed.map_err(|error| missing_vhost(call, error))?;
    output.sync_all().map_err(fail)?;
    std::fs::rename(part, file).map_err(fail)
}

/// A file only its owner may read: it will hold password hashes.
fn private(file: &str) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // One that was left behind, or put there by somebody else.
    let _ = std::fs::remove_file(file);
    File::options().write(true).create_new(true).mode(0o600).open(file)
}

/// The text of a file, or of standard input for `-` and for none.
///
/// # Errors
/// It does not exist, cannot be read, or is too large.
pub(crate) fn read(name: Option<&str>) -> Result<String, CtlError> {
    let mut text = String::new();
    let (name, input): (&str, Box<dyn Read>) = match name {
        None | Some("-") => ("standard input", Box::new(std::io::stdin())),
        Some(name) if !Path::new(name).exists() => {
            return Err(CtlError::BadArgument(format!("File {name} does not exist")));
        }
        Some(name) => (name, Box::new(File::open(name).map_err(|cause| CtlError::file(name, cause))?)),
    };
    let size = input.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|cause| CtlError::file(name, cause))?;
    if size as u64 > LARGEST_FILE {
        return Err(CtlError::BadArgument(format!("{name} is larger than {LARGEST_FILE} bytes")));
    }
    Ok(text)
}

/// The definitions of a file or of standard input, checked to be a JSON object.
///
/// # Errors
/// As [`read`], or no JSON object.
pub(crate) fn load(name: Option<&str>) -> Result<(String, Value), CtlError> {
    let text = read(name)?;
    let bad = |cause: String| {
        CtlError::failed(code::DATA, format!("Failed to deserialise input (format: JSON) (error: {cause})"))
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    if !value.is_object() {
        return Err(bad("it is no object".to_owned()));
    }
    Ok((text, value))
}

fn import(call: &Call<'_>) -> Done {
    check_format(call)?;
    let file = call.arguments.positional.first().map(String::as_str);
    let exists = file.is_none_or(|file| file == "-" || Path::new(file).exists());
    if exists {
        match file {
            None | Some("-") => call.banner("Importing definitions in JSON from standard input ..."),
            Some(file) => call.banner(&format!("Importing definitions in JSON from a file at \"{file}\" ...")),
        }
    }
    let (text, definitions) = load(file)?;
    if call.arguments.has("skip-if-unchanged") && changes(call, &definitions)?.is_empty() {
        call.banner("The definitions are unchanged: nothing was imported");
        return Ok(());
    }
    send(call, text)?;
    call.banner("Successfully started definition import. This process is asynchronous and can take some time.\n");
    Ok(())
}

fn send(call: &Call<'_>, text: String) -> Done {
    let reply = call.client.send(&Method::POST, &api_path(call), Some(Bytes::from(text)), &[])?;
    reply.success().map(drop).map_err(|error| missing_vhost(call, error))
}

/// What the import will create or change.
fn changes(call: &Call<'_>, definitions: &Value) -> Result<Vec<Change>, CtlError> {
    let running = call.client.get(&api_path(call)).map_err(|error| missing_vhost(call, error))?;
    let mut changes = diff::compare(&running, definitions, call.arguments.option("vhost"));
    changes.retain(|change| change.mark != diff::Mark::Removed);
    Ok(changes)
}

fn import_with_summary(call: &Call<'_>) -> Done {
    check_format(call)?;
    let (text, definitions) = load(call.arguments.positional.first().map(String::as_str))?;
    let changes = changes(call, &definitions)?;
    if changes.is_empty() && call.arguments.has("skip-if-unchanged") {
        return summary(call, &definitions, &changes);
    }
    send(call, text)?;
    summary(call, &definitions, &changes)
}

/// How many of each kind were new, changed, or there already.
fn summary(call: &Call<'_>, definitions: &Value, changes: &[Change]) -> Done {
    let mut lines = Vec::new();
    let mut document = json!({});
    for (kind, field) in diff::KINDS.iter().map(|kind| (kind.name, kind.field)) {
        let total = definitions[field].as_array().map_or(0, Vec::len);
        if total == 0 {
            continue;
        }
        let count = |mark| changes.iter().filter(|change| change.kind == kind && change.mark == mark).count();
        let (new, changed) = (count(diff::Mark::Added), count(diff::Mark::Changed));
        let unchanged = total.saturating_sub(new + changed);
        document[field] = json!({"new": new, "changed": changed, "unchanged": unchanged});
        lines.push(format!("{}: {new} new, {changed} changed, {unchanged} unchanged\n", field.replace('_', " ")));
    }
    call.document(&document, || if lines.is_empty() { "nothing to import\n".to_owned() } else { lines.concat() })
}
