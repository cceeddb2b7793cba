//! The places values come from: a file, the environment, flags. Each gives values to keys, lowest
//! precedence first; names that are no key are told here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::nearest::nearest;
use super::origin::{Origin, Problems};
use super::rabbitmq::{self, Variables};
use super::raw::{Raw, RawEntry, RawValue, parse_file};
use super::schema::{KEYS, Key, SECTIONS};

/// What a broker is started with.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file given with `--config`, a `broker.toml` or a `rabbitmq.conf` by its name, or a directory of `*.conf`. Without
    /// it, `WARREN_CONFIG` names the file; without that they are those of RabbitMQ in `/etc/rabbitmq`, or where its
    /// variables say, and [`DEFAULT_FILE`], each if it is there.
    pub file: Option<PathBuf>,
    /// Further files of RabbitMQ, read together with that one: of a key in several, the last one counts.
    pub further_files: Vec<PathBuf>,
    /// Environment variables; those that do not concern the broker are passed over.
    pub environment: Vec<(String, String)>,
    /// Values from the command line, in its order.
    pub flags: Vec<Flag>,
}

/// A value from the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it was written, for messages: `--amqp-port`.
    pub flag: String,
    /// The key it sets: `amqp.port`.
    pub key: String,
    pub value: String,
}

/// The file that is read when no other one is named.
pub const DEFAULT_FILE: &str = "/etc/warren/broker.toml";

/// A key with a value for it.
pub(crate) type Setting = (&'static Key, Raw);

impl Sources {
    /// The file that the command line or a variable names, and the variable if one does.
    fn named(&self, variables: &Variables) -> Option<(PathBuf, Origin)> {
        if let Some(file) = &self.file {
            return Some((file.clone(), Origin::Default));
        }
        let toml = variables.find("RABBITMQ_CONFIG_FILE").filter(|(_, file)| file.ends_with(".toml"));
        let (origin, file) = variables.find("WARREN_CONFIG").or(toml)?;
        Some((PathBuf::from(file), origin))
    }

    /// All that files say, lowest precedence first: those of RabbitMQ, then the broker's own. A file that is named is the
    /// only one.
    pub(crate) fn files(&self, problems: &mut Problems) -> Read {
        let mut variables = Variables::of(&self.environment);
        let mut read = Read::default();
        let mut of_variables = None;
        // RabbitMQ's variables say what is read, also where one of them names a broker.toml.
        if self.file.is_none() && variables.find("WARREN_CONFIG").is_none() {
            of_variables = rabbitmq::usual_variables(&mut variables, &mut read.notes, problems);
            read.used.extend(["RABBITMQ_CONF_ENV_FILE", "RABBITMQ_CONFIG_FILE"].map(str::to_owned));
        }
        let named = self.named(&variables);
        let (rabbitmq, own) = match named {
            Some((file, named)) if rabbitmq::is_rabbitmq(&file) => {
                let mut files = vec![file];
                files.extend(self.further_files.iter().cloned());
                for file in files.iter().filter(|file| !file.exists()) {
                    problems.other(&named, format!("cannot read {}: there is no such file", file.display()));
                }
                if !files.iter().all(|file| file.exists()) {
                    return read;
                }
                let own = files.pop_if(|file| !rabbitmq::is_rabbitmq(file)).map(|file| (file, named));
                let rabbitmq = rabbitmq::Files::named(&files, problems);
                rabbitmq.environment.iter().for_each(|file| variables.add_file(file, problems));
                (rabbitmq, own)
            }
            Some(own) => (rabbitmq::Files { environment: of_variables, ..rabbitmq::Files::default() }, Some(own)),
            None => {
                read.is_usual = true;
                let own = Path::new(DEFAULT_FILE);
                let own = own.exists().then(|| (own.to_owned(), Origin::Default));
                let usual = rabbitmq::Files::usual(&variables, problems);
                (rabbitmq::Files { environment: of_variables, ..usual }, own)
            }
        };
        let translation = rabbitmq::translate(&rabbitmq, &variables, problems);
        read.files = rabbitmq.all();
        read.settings = translation.settings;
        read.notes.extend(translation.notes);
        read.used.extend(translation.used);
        read.variables = variables;
        if let Some((file, named)) = own {
            read.settings.extend(file_settings(&file, &named, problems));
            read.files.push(file);
        }
        read
    }
}

/// What files say.
#[derive(Default)]
pub(crate) struct Read {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) settings: Vec<Setting>,
    /// What is worth a line in the log.
    pub(crate) notes: Vec<String>,
    /// The environment, with what they add to it.
    pub(crate) variables: Variables,
    /// Variables that they refer to.
    pub(crate) used: BTreeSet<String>,
    /// No file was named.
    pub(crate) is_usual: bool,
}

/// Values from a file.
pub(crate) fn file_settings(file: &Path, named: &Origin, problems: &mut Problems) -> Vec<Setting> {
    match std::fs::read_to_string(file) {
        Ok(text) => text_settings(&file.to_string_lossy(), &text, problems),
        Err(error) => {
            let message = format!("cannot read {}: {}", file.display(), reason(&error));
            problems.other(named, message);
            Vec::new()
        }
    }
}

/// Why a file could not be read, without the number of the system error.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        kind => kind.to_string(),
    }
}

/// Values from the text of a file.
pub(crate) fn text_settings(file: &str, text: &str, problems: &mut Problems) -> Vec<Setting> {
    let mut settings = Vec::new();
    for entry in parse_file(file, text, problems) {
        if let Some(key) = Key::find(&entry.name) {
            settings.push((key, entry.value));
        } else if SECTIONS.iter().any(|section| section.name == entry.name) {
            section_settings(entry, &mut settings, problems);
        } else {
            unknown_entry(&entry, problems);
        }
    }
    settings
}

fn section_settings(section: RawEntry, settings: &mut Vec<Setting>, problems: &mut Problems) {
    let RawValue::Table(entries) = section.value.value else {
        let name = section.name;
        let message = format!("expected a section ([{name}]), got {}", section.value.quoted());
        return problems.value(&section.origin, &name, message);
    };
    for entry in entries {
        let path = format!("{}.{}", section.name, entry.name);
        // RabbitMQ has keys below some that are keys here: log.file is one, log.file.level another.
        match Key::find(&path) {
            Some(key) => match leaf_below(&path, &entry) {
                Some(message) => problems.other(&entry.origin, message),
                None => settings.push((key, entry.value)),
            },
            None => {
                let message = leaf_of_rabbitmq(&path, &entry).unwrap_or_else(|| unknown_key(&path));
                problems.other(&entry.origin, message);
            }
        }
    }
}

/// Something at the top of the file that is neither a section nor a key.
fn unknown_entry(entry: &RawEntry, problems: &mut Problems) {
    let name = &entry.name;
    let message = match (&entry.value.value, leaf_of_rabbitmq(name, entry)) {
        (_, Some(message)) => message,
        (RawValue::Table(_), None) => {
            let sections = SECTIONS.iter().map(|section| section.name);
            match nearest(name, sections.clone()) {
                Some(near) => format!("unknown section [{name}]; did you mean [{near}]?"),
                None => {
                    let sections: Vec<_> = sections.collect();
                    format!("unknown section [{name}]; the sections are {}", sections.join(", "))
                }
            }
        }
        (_, None) => unknown_key(name),
    };
    problems.other(&entry.origin, message);
}

/// The message for a key of rabbitmq.conf, which may lie in a table made by its dots.
fn leaf_of_rabbitmq(path: &str, entry: &RawEntry) -> Option<String> {
    let own = || rabbitmq::own_of(path).map(|own| format!("{path} is {own} here"));
    leaf_below(path, entry).or_else(own)
}

/// The same of what is below it.
fn leaf_below(path: &str, entry: &RawEntry) -> Option<String> {
    let RawValue::Table(entries) = &entry.value.value else {
        return None;
    };
    entries.iter().find_map(|inner| leaf_of_rabbitmq(&format!("{path}.{}", inner.name), inner))
}

/// What to tell of a key that does not exist.
fn unknown_key(path: &str) -> String {
    if let Some(own) = rabbitmq::own_of(path) {
        return format!("{path} is {own} here");
    }
    let (section, name) = path.split_once('.').unwrap_or(("", path));
    let siblings = || KEYS.iter().filter(|key| key.section == section);
    let near = nearest(name, siblings().map(|key| key.name));
    let near = near.and_then(|near| siblings().find(|key| key.name == near));
    // The right name in the wrong section, then slips in both.
    let elsewhere = || KEYS.iter().find(|key| key.name == name).map(|key| key.path);
    let anywhere = || {
        let missing = siblings().next().is_none();
        missing.then(|| nearest(path, KEYS.iter().map(|key| key.path))).flatten()
    };
    match near.map(|key| key.path).or_else(elsewhere).or_else(anywhere) {
        Some(near) => format!("unknown key {path}; did you mean {near}?"),
        None if section.is_empty() || siblings().next().is_none() => {
            let sections: Vec<_> = SECTIONS.iter().map(|section| section.name).collect();
            format!("unknown key {path}; the sections are {}", sections.join(", "))
        }
        None => {
            let names: Vec<_> = siblings().map(|key| key.name).collect();
            format!("unknown key {path}; [{section}] has {}", names.join(", "))
        }
    }
}

/// Values from the broker's own environment variables.
pub(crate) fn environment_settings(environment: &[(String, String)], problems: &mut Problems) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, text) in environment {
        let Some(rest) = name.strip_prefix("WARREN_") else {
            continue;
        };
        if let Some(key) = KEYS.iter().find(|key| key.environment() == *name) {
            settings.push((key, Raw::plain(Origin::Environment(name.clone()), text)));
        } else if rest.contains("__") {
            // Without two underscores it may be anything: an orchestrator gives each service
            // called warren WARREN_PORT, WARREN_SERVICE_HOST and more.
            unknown_variable(name, rest, problems);
        }
    }
    settings
}

fn unknown_variable(name: &str, rest: &str, problems: &mut Problems) {
    let path = rest.replacen("__", ".", 1).to_ascii_lowercase();
    problems.other(&Origin::Environment(name.to_owned()), unknown_key(&path));
}

/// Values from the command line.
pub(crate) fn flag_settings(flags: &[Flag], problems: &mut Problems) -> Vec<Setting> {
    let mut settings = Vec::new();
    for Flag { flag, key, value } in flags {
        let origin = Origin::Flag(flag.clone());
        match Key::find(key) {
            Some(key) => settings.push((key, Raw::plain(origin, value))),
            None => problems.other(&origin, unknown_key(key)),
        }
    }
    settings
}
