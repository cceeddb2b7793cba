//! RabbitMQ's files as a `broker.toml` that means the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::Origins;
use super::super::kind::Secrets;
use super::super::origin::{ConfigError, Origin, Problems};
use super::super::rules;
use super::super::schema::{Config, KEYS};
use super::env_file::Variables;
use super::places::{Files, usual_variables};
use super::{Given, environment_settings};

/// The `broker.toml` for these files, with what has no effect as comments. Without files, those that a broker would read.
///
/// # Errors
/// All that is wrong with them.
pub fn convert(paths: &[PathBuf], environment: &[(String, String)]) -> Result<String, Vec<ConfigError>> {
    let mut problems = Problems::default();
    let (mut variables, mut notes) = (Variables::of(environment), Vec::new());
    let files = if paths.is_empty() {
        let environment = usual_variables(&mut variables, &mut notes, &mut problems);
        Files { environment, ..Files::usual(&variables, &mut problems) }
    } else {
        let files = Files::named(paths, &mut problems);
        files.environment.iter().for_each(|file| variables.add_file(file, &mut problems));
        files
    };
    if files.all().is_empty() {
        problems.other(&Origin::Default, "there is no rabbitmq.conf: name it");
    }
    let mut translation = super::translate(&files, &variables, &mut problems);
    // Those of the environment itself are there afterwards, too.
    let given = Given { reads_usual_files: paths.is_empty(), used: &|name| translation.used.contains(name) };
    let variables = variables.only_of_file();
    translation.settings.extend(environment_settings(&variables, &given, &mut Vec::new(), &mut notes));
    notes.extend(translation.notes);
    let mut config = Config::default();
    let mut origins = Origins::default();
    let mut said: BTreeMap<&str, Origin> = BTreeMap::new();
    for (key, raw) in &translation.settings {
        (key.set)(&mut config, raw, &mut problems);
        origins.set(key.path, raw);
        said.insert(key.path, raw.origin.clone());
    }
    rules::complete(&mut config.clone(), &mut origins, &mut problems);
    if !problems.is_empty() {
        return Err(problems.into_errors());
    }
    let names: Vec<String> = files.all().iter().map(|file| file.display().to_string()).collect();
    let mut text = format!("# What {} says, written by `warren config convert`.\n", names.join(", "));
    for note in &notes {
        text.push_str(&format!("# {}\n", note.replace(['\n', '\r'], " ")));
    }
    let mut section = "";
    for key in KEYS {
        let Some(origin) = said.get(key.path) else { continue };
        if key.section != section {
            section = key.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let value = (key.write)(&config, Secrets::Plain);
        text.push_str(&format!("{} = {value}  # {origin}\n", key.name));
    }
    Ok(text)
}
