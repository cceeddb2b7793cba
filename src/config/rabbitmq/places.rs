//! Where RabbitMQ's files are: in `/etc/rabbitmq`, where its packages and its image have them, or where variables say.

use std::path::{Path, PathBuf};

use super::super::origin::{Origin, Problems};
use super::super::sources::reason;
use super::conf::files_in;
use super::env_file::{self, Variables};

/// Below `SYS_PREFIX`, a variable of RabbitMQ.
const DIRECTORY: &str = "etc/rabbitmq";

/// The files that a broker reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// In their order: of a key in several of them, the last one counts.
    pub(crate) conf: Vec<PathBuf>,
    pub(crate) enabled_plugins: Option<PathBuf>,
    /// Erlang, which is not read.
    pub(crate) advanced: Vec<PathBuf>,
    /// That of variables.
    pub(crate) environment: Option<PathBuf>,
}

fn directory(variables: &Variables) -> PathBuf {
    let prefix = variables.find("SYS_PREFIX").map_or("/", |(_, prefix)| prefix);
    Path::new(prefix).join(DIRECTORY)
}

/// Adds the variables of `rabbitmq-env.conf` in its usual place, or where a variable says; tells which file that is.
pub(crate) fn usual_variables(
    variables: &mut Variables,
    notes: &mut Vec<String>,
    problems: &mut Problems,
) -> Option<PathBuf> {
    let name = "RABBITMQ_CONF_ENV_FILE";
    let file = match variables.find(name) {
        Some((_, path)) => {
            let path = PathBuf::from(path);
            // RabbitMQ starts without it, and images name one that need not be there.
            if !path.is_file() {
                notes.push(format!("{name} has no effect: there is no file {}", path.display()));
            }
            path
        }
        None => directory(variables).join(env_file::NAME),
    };
    if !file.is_file() {
        return None;
    }
    variables.add_file(&file, problems);
    Some(file)
}

/// Whether a path, by its name, is that of a file of RabbitMQ, or of a directory of such files.
pub(crate) fn is_rabbitmq(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("conf" | "config")) || path.ends_with("enabled_plugins") || path.is_dir()
}

impl Files {
    /// The files of these paths, each a file or a directory of `*.conf`.
    pub(crate) fn named(paths: &[PathBuf], problems: &mut Problems) -> Self {
        let mut files = Self::default();
        for path in paths {
            if path.is_dir() {
                files.add_directory(path, problems);
            } else if path.ends_with("enabled_plugins") {
                files.enabled_plugins = Some(path.clone());
            } else if path.extension().is_some_and(|extension| extension == "config") {
                files.advanced.push(path.clone());
            } else {
                files.conf.push(path.clone());
            }
        }
        let is_of_variables = |file: &mut PathBuf| file.ends_with(env_file::NAME);
        files.environment = files.conf.extract_if(.., is_of_variables).last();
        files
    }

    /// The files of RabbitMQ's usual places, or of those that its variables name.
    pub(crate) fn usual(variables: &Variables, problems: &mut Problems) -> Self {
        let given = |name: &str| variables.find(name).map(|(origin, path)| (origin, PathBuf::from(path)));
        let directory = directory(variables);
        let mut files = Self::default();
        match given("RABBITMQ_CONFIG_FILE") {
            // A broker.toml under RabbitMQ's name for it is none of RabbitMQ's files: see `Sources::file`.
            Some((_, path)) if path.extension().is_some_and(|extension| extension == "toml") => {}
            Some((origin, path)) => files.add_main(&path, &origin, problems),
            None => {
                for name in ["rabbitmq.conf", "rabbitmq.config"] {
                    files.add_if_there(&directory.join(name));
                }
            }
        }
        match given("RABBITMQ_CONFIG_FILES") {
            Some((_, path)) if path.is_dir() => files.add_directory(&path, problems),
            Some((origin, path)) => files.add_pattern(&path, &origin, problems),
            None => {
                let directory = directory.join("conf.d");
                if directory.is_dir() {
                    files.add_directory(&directory, problems);
                }
            }
        }
        match given("RABBITMQ_ADVANCED_CONFIG_FILE") {
            Some((_, path)) => {
                files.add_if_there(&path);
                files.add_if_there(&path.with_extension("config"));
            }
            None => files.add_if_there(&directory.join("advanced.config")),
        }
        files.enabled_plugins = match given("RABBITMQ_ENABLED_PLUGINS_FILE") {
            Some((_, path)) => Some(path),
            None => Some(directory.join("enabled_plugins")),
        };
        // RabbitMQ takes one that is not there for an empty one.
        files.enabled_plugins = files.enabled_plugins.filter(|path| path.exists());
        files.advanced.dedup();
        files
    }

    /// All of them, as they are read.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let read = self.environment.iter().chain(&self.conf).chain(&self.enabled_plugins);
        read.chain(&self.advanced).cloned().collect()
    }

    fn add_if_there(&mut self, path: &Path) {
        if path.is_file() {
            let is_erlang = path.extension().is_some_and(|extension| extension == "config");
            if is_erlang { &mut self.advanced } else { &mut self.conf }.push(path.to_owned());
        }
    }

    /// RabbitMQ takes the path with its extension or without.
    fn add_main(&mut self, path: &Path, origin: &Origin, problems: &mut Problems) {
        let with = |extension: &str| PathBuf::from(format!("{}.{extension}", path.display()));
        match [path.to_owned(), with("conf"), with("config")].iter().find(|path| path.is_file()) {
            Some(path) => self.add_if_there(path),
            None => problems.other(origin, format!("cannot read {}: there is no such file", path.display())),
        }
    }

    fn add_directory(&mut self, directory: &Path, problems: &mut Problems) {
        match files_in(directory, |name| name.ends_with(".conf")) {
            Ok(files) => self.conf.extend(files),
            Err(message) => problems.other(&Origin::Default, message),
        }
    }

    /// A path whose name may have a `*`.
    fn add_pattern(&mut self, path: &Path, origin: &Origin, problems: &mut Problems) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some((start, end)) = name.split_once('*') else {
            return self.add_main(path, origin, problems);
        };
        let fits = |name: &str| name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end);
        match files_in(path.parent().unwrap_or_else(|| Path::new(".")), fits) {
            Ok(files) => self.conf.extend(files),
            Err(message) => problems.other(origin, message),
        }
    }
}

/// Refuses a file of Erlang terms, unless it says nothing.
pub(super) fn check_advanced(file: &Path, problems: &mut Problems) {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("cannot read {}: {}", file.display(), reason(&error));
            return problems.other(&Origin::Default, message);
        }
    };
    let mut said = text.lines().enumerate().filter_map(|(index, line)| {
        let code = line.split('%').next().unwrap_or_default();
        let is_empty = code.chars().all(|character| character.is_whitespace() || "[].".contains(character));
        (!is_empty).then_some(index + 1)
    });
    if let Some(line) = said.next() {
        let origin = Origin::File { file: file.to_string_lossy().into(), line };
        let message = "is Erlang, which is not read: write what it says as keys of rabbitmq.conf or of broker.toml, and take the file \
                       away";
        problems.other(&origin, message);
    }
}
