//! The log: RabbitMQ has a level and a form for each output, here is one of each for all.

use std::path::Path;

use super::super::super::machine::host_name;
use super::super::super::origin::Origin;
use super::super::super::raw::{Raw, RawEntry, RawValue};
use super::super::Translator;
use super::super::conf::Line;
use super::super::value::level;

/// Where RabbitMQ's packages and image put the log.
const USUAL_DIRECTORY: &str = "/var/log/rabbitmq";
/// Categories, and the modules whose lines are about them.
const CATEGORIES: [(&str, &[&str]); 3] = [
    ("connection", &["server::connection", "server::opening"]),
    ("channel", &["protocol::amqp091::connection"]),
    ("user", &["broker::session::login", "broker::session::waiting"]),
];
/// From the least to the most that is logged.
const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];

pub(super) fn translate(translator: &mut Translator<'_>, _main: &Origin) {
    let has_file = file(translator);
    let has_console = console(translator, has_file);
    outputs_level(translator, has_console, has_file);
    formatter(translator, has_console, has_file);
    categories(translator);
    if let Some(line) = translator.conf.get("log.file.rotation.count")
        && let Some(text) = translator.text(line)
    {
        match text.parse::<u32>() {
            Ok(0) => {
                translator.remark(line, "one older file is kept");
                translator.set("log.rotation_count", line.origin.clone(), RawValue::Integer(1));
            }
            Ok(count) => translator.set("log.rotation_count", line.origin.clone(), RawValue::Integer(count.into())),
            Err(_) => translator.unreadable(line, "expected a whole number"),
        }
    }
}

/// The file of the log; whether there is one.
fn file(translator: &mut Translator<'_>) -> bool {
    let conf = translator.conf;
    let (directory, name) = (conf.get("log.dir"), conf.get("log.file"));
    let Some(first) = name.or(directory) else { return false };
    if name.is_some_and(|line| line.value == "false") {
        translator.set("log.file", first.origin.clone(), RawValue::Text(String::new()));
        return false;
    }
    let name = name.map(|line| translator.text(line));
    let directory = directory.map(|line| translator.text(line));
    let (name, directory) = match (name, directory) {
        (Some(None), _) | (_, Some(None)) => return false,
        (name, directory) => (name.flatten(), directory.flatten()),
    };
    let base = translator.environment.iter().find(|(name, text)| name == "RABBITMQ_LOG_BASE" && !text.is_empty());
    let usual = base.map_or(USUAL_DIRECTORY, |(_, directory)| directory.as_str());
    let name = name.unwrap_or_else(|| format!("rabbit@{}.log", host_name()));
    // A name that begins with / stays what it is.
    let path = Path::new(directory.as_deref().unwrap_or(usual)).join(name);
    translator.set("log.file", first.origin.clone(), RawValue::Text(path.to_string_lossy().into_owned()));
    true
}

/// Whether the log goes to standard error. It must go somewhere.
fn console(translator: &mut Translator<'_>, has_file: bool) -> bool {
    let Some(line) = translator.conf.get("log.console") else { return true };
    match translator.boolean("log.console") {
        Some(false) if !has_file => {
            translator.no_effect(line, "the log has to go somewhere, and log.file names no file");
            true
        }
        Some(is_on) => {
            translator.set("log.console", line.origin.clone(), RawValue::Boolean(is_on));
            is_on
        }
        None => true,
    }
}

fn read_level<'a>(translator: &mut Translator<'a>, key: &str) -> Option<(&'a Line, &'static str)> {
    let line = translator.conf.get(key)?;
    let text = translator.text(line)?;
    // RabbitMQ also takes comparisons, which older versions had.
    match level(text.trim_start_matches(['=', '<', '!', '>'])) {
        Ok((level, remark)) => {
            if let Some(remark) = remark {
                translator.remark(line, remark);
            }
            Some((line, level))
        }
        Err(expected) => {
            translator.unreadable(line, &expected);
            None
        }
    }
}

/// The level of all outputs: the one that logs the most, but no more than the categories let through.
fn outputs_level(translator: &mut Translator<'_>, has_console: bool, has_file: bool) {
    let place = |level: &str| LEVELS.iter().position(|other| *other == level).unwrap_or_default();
    let console = read_level(translator, "log.console.level").filter(|_| has_console);
    let file = read_level(translator, "log.file.level").filter(|_| has_file);
    let default = read_level(translator, "log.default.level");
    let most = match (console, file) {
        (Some(console), Some(file)) if console.1 != file.1 => {
            let most = if place(console.1) > place(file.1) { console } else { file };
            translator.remark(
                most.0,
                &format!("{} is the level of standard error and of the file: there is one for both", most.1),
            );
            Some(most)
        }
        (console, file) => console.or(file),
    };
    let level = match (most, default) {
        (Some(most), Some(default)) => Some(if place(default.1) < place(most.1) { default } else { most }),
        (most, default) => most.or(default),
    };
    if let Some((line, level)) = level {
        translator.set("log.level", line.origin.clone(), RawValue::Text(level.to_owned()));
    }
}

fn formatter(translator: &mut Translator<'_>, has_console: bool, has_file: bool) {
    let conf = translator.conf;
    let console = conf.get("log.console.formatter").filter(|_| has_console);
    let file = conf.get("log.file.formatter").filter(|_| has_file);
    if let (Some(console), Some(file)) = (console, file)
        && console.value != file.value
    {
        translator.remark(file, "the form of standard error's lines counts: there is one for both");
    }
    let Some(line) = console.or(file) else { return };
    let name = match line.value.as_str() {
        "plaintext" => "text",
        "json" => "json",
        _ => return translator.unreadable(line, "expected plaintext or json"),
    };
    translator.set("log.format", line.origin.clone(), RawValue::Text(name.to_owned()));
}

/// `log.connection.level` and its like.
fn categories(translator: &mut Translator<'_>) {
    let mut levels = Vec::new();
    for category in translator.conf.names_under("log") {
        if ["console", "file", "default", "exchange", "syslog", "journald"].contains(&category.as_str()) {
            continue;
        }
        let Some((line, level)) = read_level(translator, &format!("log.{category}.level")) else { continue };
        let Some((_, modules)) = CATEGORIES.iter().find(|(name, _)| *name == category) else {
            translator
                .no_effect(line, "lines about that have no level of their own: log.levels has one for each module");
            continue;
        };
        levels.extend(modules.iter().map(|module| RawEntry {
            name: (*module).to_owned(),
            origin: line.origin.clone(),
            value: Raw { origin: line.origin.clone(), value: RawValue::Text(level.to_owned()) },
        }));
    }
    if let Some(origin) = levels.first().map(|entry| entry.origin.clone()) {
        translator.set("log.levels", origin, RawValue::Table(levels));
    }
}
