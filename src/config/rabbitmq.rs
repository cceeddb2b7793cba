//! RabbitMQ's own files and variables: `rabbitmq.conf`, `conf.d/*.conf`, `enabled_plugins`, `rabbitmq-env.conf`, `RABBITMQ_*`.
//!
//! They become settings of the keys here, with the place of each line, and go before `broker.toml` in precedence. Nothing is
//! passed over in silence: a key is applied, or named as without effect, or refused with what to write instead.
//!
//! ```text
//! env_file.rs (variables) -> places.rs (which files) -> conf.rs (lines) -> keys.rs (what each key comes to) -> value.rs, groups/ -> settings, notes
//! ```

mod conf;
mod convert;
mod env_file;
mod groups;
mod keys;
mod places;
mod plugins;
mod value;
mod variables;

use std::collections::{BTreeMap, BTreeSet};

use super::nearest::nearest;
use super::origin::{Origin, Problems};
use super::raw::{Raw, RawValue};
use super::schema::Key;
use super::sources::Setting;

use conf::{Conf, Line, escaped};
use keys::Meaning;
use value::Unit;

pub use convert::convert;
pub(crate) use env_file::Variables;
pub(crate) use keys::{names_of, own_of, rows};
pub(crate) use places::{Files, is_rabbitmq, usual_variables};
pub(crate) use variables::{Given, environment_settings};

/// What RabbitMQ's files come to.
#[derive(Default)]
pub(crate) struct Translation {
    pub(crate) settings: Vec<Setting>,
    /// What is worth a line in the log, each once.
    pub(crate) notes: Vec<String>,
    /// The variables that the files refer to.
    pub(crate) used: BTreeSet<String>,
}

/// Reads the files.
pub(crate) fn translate(files: &Files, variables: &Variables, problems: &mut Problems) -> Translation {
    let conf = Conf::read(&files.conf, problems);
    let mut translator = Translator {
        conf: &conf,
        environment: variables.all(),
        problems,
        settings: Vec::new(),
        without_effect: BTreeMap::new(),
        notes: Vec::new(),
        used: BTreeSet::new(),
    };
    if let Some(main) = files.conf.first() {
        for line in conf.lines() {
            translator.line(line);
        }
        groups::translate(&mut translator, &Origin::File { file: main.to_string_lossy().into(), line: 0 });
    }
    match (variables.find("RABBITMQ_ENABLED_PLUGINS"), &files.enabled_plugins) {
        (Some((origin, text)), _) => plugins::read_variable(&origin, text, &mut translator),
        (None, Some(file)) => plugins::read_file(file, &mut translator),
        (None, None) => {}
    }
    for file in &files.advanced {
        places::check_advanced(file, translator.problems);
    }
    translator.finish()
}

/// Collects what the lines come to.
struct Translator<'a> {
    conf: &'a Conf,
    environment: &'a [(String, String)],
    problems: &'a mut Problems,
    settings: Vec<Setting>,
    /// By the reason: the keys, and the place of the first.
    without_effect: BTreeMap<&'static str, (Origin, Vec<String>)>,
    notes: Vec<String>,
    used: BTreeSet<String>,
}

impl<'a> Translator<'a> {
    /// One line by itself.
    fn line(&mut self, line: &Line) {
        if line.value.starts_with("encrypted:") {
            let instead = "encrypted values are not read: write it in plain in a file that only the broker's user may read, or \
                           name a variable, $(NAME)";
            return self.refuse(line, instead);
        }
        let Some(meaning) = keys::meaning(&line.parts) else {
            return self.problems.other(&line.origin, unknown(line));
        };
        match meaning {
            Meaning::Key(path, unit) => self.apply(line, path, unit),
            Meaning::Together(_) => {}
            Meaning::Is(values, _) if values.contains(&line.value.as_str()) => {}
            Meaning::Is(_, reason) | Meaning::Nothing(reason) => self.no_effect(line, reason),
            Meaning::Must(values, _) if values.contains(&line.value.as_str()) => {}
            Meaning::Must(_, instead) | Meaning::Refused(instead) => self.refuse(line, instead),
        }
    }

    /// The line's value, for the key here.
    fn apply(&mut self, line: &Line, path: &'static str, unit: Unit) {
        let Some(text) = self.text(line) else { return };
        match unit.translate(&text) {
            Ok(translated) => {
                if let Some(remark) = translated.remark {
                    self.remark(line, &remark);
                }
                self.set(path, line.origin.clone(), translated.value);
            }
            Err(expected) => self.unreadable(line, &expected),
        }
    }

    /// The line's value, with the variables in it replaced. None after telling that there is no such variable.
    fn text(&mut self, line: &Line) -> Option<String> {
        self.used.extend(conf::names_in(&line.value).map(str::to_owned));
        match conf::interpolated(line, self.conf, self.environment) {
            Ok(text) => Some(text),
            Err(name) => {
                let message = format!("$({name}): there is no variable {name} in the environment, and no such key");
                self.refuse(line, &message);
                None
            }
        }
    }

    /// A boolean by its key; None if it is not there, or unreadable.
    fn boolean(&mut self, key: &str) -> Option<bool> {
        let line = self.conf.get(key)?;
        let text = self.text(line)?;
        match value::boolean(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.unreadable(line, &expected);
                None
            }
        }
    }

    /// The settings below a key that hold a list, in its order: `auth_mechanisms.1`.
    fn list(&mut self, key: &str) -> Vec<(&'a Line, String)> {
        let conf = self.conf;
        conf.under(key).into_iter().filter_map(|line| Some((line, self.text(line)?))).collect()
    }

    fn set(&mut self, path: &'static str, origin: Origin, value: RawValue) {
        let key = Key::find(path).expect("what RabbitMQ's keys come to is in the schema");
        self.settings.push((key, Raw { origin, value }));
    }

    /// A list of texts; its place is that of the first.
    fn set_list(&mut self, path: &'static str, origin: Origin, texts: Vec<(Origin, String)>) {
        let element = |(origin, text)| Raw { origin, value: RawValue::Text(text) };
        self.set(path, origin, RawValue::List(texts.into_iter().map(element).collect()));
    }

    fn no_effect(&mut self, line: &Line, reason: &'static str) {
        self.without_effect(&line.origin, &line.name(), reason);
    }

    /// A key, or a plugin, that has no effect.
    fn without_effect(&mut self, origin: &Origin, name: &str, reason: &'static str) {
        let (first, names) = self.without_effect.entry(reason).or_insert_with(|| (origin.clone(), Vec::new()));
        if origin < first {
            *first = origin.clone();
        }
        names.push(name.to_owned());
    }

    /// What is not quite as the line has it. Values are not repeated: they may be secrets.
    fn remark(&mut self, line: &Line, remark: &str) {
        self.notes.push(format!("{}: {}: {remark}", line.origin, line.name()));
    }

    fn refuse(&mut self, line: &Line, instead: &str) {
        self.problems.value(&line.origin, &line.name(), instead);
    }

    fn unreadable(&mut self, line: &Line, expected: &str) {
        self.refuse(line, &format!("{expected}, got {:?}", line.value));
    }

    fn finish(self) -> Translation {
        let mut notes = self.notes;
        let mut without_effect: Vec<_> = self.without_effect.into_iter().collect();
        without_effect.sort_by(|(_, one), (_, other)| one.0.cmp(&other.0));
        notes.extend(without_effect.into_iter().map(|(reason, (origin, keys))| {
            let verb = if keys.len() == 1 { "has" } else { "have" };
            format!("{origin}: {} {verb} no effect: {reason}", keys.join(", "))
        }));
        Translation { settings: self.settings, notes, used: self.used }
    }
}

/// What is said of a key that does not exist: among its siblings there are few, so these go before likenesses elsewhere.
fn unknown(line: &Line) -> String {
    let name = line.name();
    let siblings = keys::siblings(&line.parts);
    let last = escaped(line.last());
    match (nearest(&last, siblings.iter().copied()), name.strip_suffix(&last)) {
        (Some(near), Some(beginning)) => format!("unknown key {name}; did you mean {beginning}{near}?"),
        _ if !siblings.is_empty() => format!("unknown key {name}; there are {}", siblings.join(", ")),
        _ => match nearest(&name, keys::names()) {
            Some(near) => format!("unknown key {name}; did you mean {near}?"),
            None => format!("unknown key {name}: RabbitMQ 4.3 has no such key either"),
        },
    }
}
