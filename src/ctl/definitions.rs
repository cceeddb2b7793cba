//! Definitions: written to a file or standard output as they come, read from a file or standard input.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use bytes::Bytes;
use hyper::Method;
use serde_json::Value;

use super::call::Call;
use super::client::path;
use super::diff::{self, Difference};
use super::error::{CtlError, code};
use super::node::not_rabbitmq;
use super::verb::{Done, Group, Verb};

const IMPORT_USAGE: &str = "[<file|->] [--format <json>] [--dry-run] [--strict] [--verbose] [--skip-if-unchanged] \
                            [--vhost <vhost>] [--timeout <timeout>]";

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
        IMPORT_USAGE,
        "Reads definitions from a file, or from standard input, and says what was made, changed, unchanged, and skipped with \
         the reason; --dry-run changes nothing, --strict fails with 65 if anything was skipped, wholly or in part, --verbose names what was made",
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
    IMPORT_USAGE,
    "Reads definitions from a file, or from standard input, and says what was made, changed, unchanged, and skipped with the \
     reason; --dry-run changes nothing, --strict fails with 65 if anything was skipped, --verbose names what was made",
    import_own,
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
        Some(name) if Path::new(name).is_dir() => {
            return Err(CtlError::BadArgument(format!(
                "{name} is a directory: name its files one by one, in the order of their names, as definitions.load reads them"
            )));
        }
        Some(name) => (name, Box::new(File::open(name).map_err(|cause| CtlError::file(name, cause))?)),
    };
    let size = input.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|cause| CtlError::file(name, cause))?;
    if size as u64 > LARGEST_FILE {
        return Err(CtlError::BadArgument(format!("{name} is larger than {LARGEST_FILE} bytes")));
    }
    // Some editors begin a text with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
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
    load_and_send(call)
}

fn import_own(call: &Call<'_>) -> Done {
    check_format(call)?;
    load_and_send(call)
}

fn load_and_send(call: &Call<'_>) -> Done {
    let (text, definitions) = load(call.arguments.positional.first().map(String::as_str))?;
    if call.arguments.has("skip-if-unchanged") && changes(call, &definitions)?.is_empty() {
        call.banner("The definitions are unchanged: nothing was imported");
        return Ok(());
    }
    send(call, text)
}

/// Sends definitions and tells what has become of them, or with `--dry-run` what would.
fn send(call: &Call<'_>, text: String) -> Done {
    let dry_run = call.arguments.has("dry-run");
    if dry_run {
        // Another broker would import them.
        let reply = call.client.request(&Method::GET, "/api/warren/ping", None)?;
        not_rabbitmq(call, reply.status)?;
        reply.success()?;
    }
    let asked = if dry_run { "dry_run=true" } else { "report=true" };
    let address = format!("{}?{asked}", api_path(call));
    let reply = call.client.send(&Method::POST, &address, Some(Bytes::from(text)), &[])?;
    if let (false, Some(explanation)) = (reply.is_success(), reply.json()["explanation"].as_str()) {
        return Err(CtlError::Refused { status: reply.status, reason: explanation.to_owned() });
    }
    let report = reply.success().map_err(|error| missing_vhost(call, error))?.json();
    if !report["kinds"].is_object() {
        call.banner("Successfully started definition import. This process is asynchronous and can take some time.\n");
        return not_strict(call);
    }
    call.document(&report, || report_text(&report, call.arguments.has("verbose")))?;
    match missing(&report).filter(|_| call.arguments.has("strict")) {
        Some(text) => Err(CtlError::plain(code::DATA, text)),
        None => Ok(()),
    }
}

/// What `--strict` has against a report.
fn missing(report: &Value) -> Option<String> {
    let count = |list: &str| {
        let kinds = report["kinds"].as_object().into_iter().flatten();
        kinds.filter_map(|(_, kind)| kind[list].as_array()).map(Vec::len).sum::<usize>()
    };
    let (skipped, partly) = (count("skipped"), count("partly"));
    let rest = if report["dry_run"] == true { "nothing was imported (dry run)" } else { "the rest has been imported" };
    (skipped + partly > 0).then(|| format!("--strict: {skipped} skipped, {partly} partly taken; {rest}"))
}

/// A broker that does not report cannot be taken at its word.
fn not_strict(call: &Call<'_>) -> Done {
    if call.arguments.has("strict") {
        let text = "the broker does not say what it imported: --strict is for Warren";
        return Err(CtlError::failed(code::UNAVAILABLE, text));
    }
    Ok(())
}

/// A line for each kind, and one for each definition that was skipped, wholly or in part.
fn report_text(report: &Value, verbose: bool) -> String {
    let mut text = String::new();
    if report["dry_run"] == true {
        text.push_str("Dry run, nothing is changed. An import would come to this:\n");
    }
    for (name, kind) in report["kinds"].as_object().into_iter().flatten() {
        let list = |key: &str| kind[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let (made, changed, skipped) = (list("made"), list("changed"), list("skipped"));
        text.push_str(&format!(
            "{}: {} made, {} changed, {} unchanged, {} skipped\n",
            name.replace('_', " "),
            made.len(),
            changed.len(),
            kind["unchanged"],
            skipped.len()
        ));
        if verbose {
            for (word, names) in [("made", made), ("changed", changed)] {
                names
                    .iter()
                    .for_each(|name| text.push_str(&format!("  {word} {}\n", name.as_str().unwrap_or_default())));
            }
        }
        for (word, remarks) in [("skipped", skipped), ("not needed", list("needless")), ("partly", list("partly"))] {
            for remark in remarks {
                let field = |key: &str| remark[key].as_str().unwrap_or_default();
                text.push_str(&format!("  {word} {}: {}\n", field("name"), field("reason")));
            }
        }
    }
    if text.is_empty() { "nothing to import\n".to_owned() } else { text }
}

/// What the import will create or change.
fn changes(call: &Call<'_>, definitions: &Value) -> Result<Vec<Difference>, CtlError> {
    let running = call.client.get(&api_path(call)).map_err(|error| missing_vhost(call, error))?;
    let mut changes = diff::compare(&running, definitions, call.arguments.option("vhost"), &diff::Own::ask(call));
    changes.retain(|change| change.mark != diff::Mark::Removed);
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strict_says_what_is_missing() {
        let needless =
            json!({"kinds": {"global_parameters": {"skipped": [], "needless": [{"name": "i"}], "partly": []}}});
        assert_eq!(missing(&needless), None);
        let mut report = json!({"kinds": {"queues": {"skipped": [{}], "partly": []}, "policies": {"partly": [{}]}}});
        let text = "--strict: 1 skipped, 1 partly taken; the rest has been imported";
        assert_eq!(missing(&report).as_deref(), Some(text));
        report["dry_run"] = true.into();
        assert!(missing(&report).is_some_and(|text| text.ends_with("nothing was imported (dry run)")));
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = std::env::temp_dir().display().to_string();
        assert!(read(Some(&folder)).is_err_and(|error| error.to_string().contains("name its files one by one")));
    }

    #[test]
    fn a_report_is_lines() {
        let report = json!({"dry_run": false, "skipped": 1, "kinds": {
            "topic_permissions": {"made": [], "changed": [], "unchanged": 2, "skipped": [], "partly": []},
            "queues": {"made": ["queue 'a'"], "changed": [], "unchanged": 0,
                       "skipped": [{"name": "queue 'b'", "reason": "why"}], "partly": []},
            "policies": {"made": [], "changed": ["policy 'p'"], "unchanged": 0, "skipped": [],
                         "partly": [{"name": "policy 'p'", "reason": "without 'k'"}]},
        }});
        let expected = "topic permissions: 0 made, 0 changed, 2 unchanged, 0 skipped\n\
                        queues: 1 made, 0 changed, 0 unchanged, 1 skipped\n  skipped queue 'b': why\n\
                        policies: 0 made, 1 changed, 0 unchanged, 0 skipped\n  partly policy 'p': without 'k'\n";
        assert_eq!(report_text(&report, false), expected);
        let text = report_text(&report, true);
        assert!(text.contains("  made queue 'a'\n") && text.contains("  changed policy 'p'\n"));
        assert_eq!(report_text(&json!({"kinds": {}}), false), "nothing to import\n");
    }
}
