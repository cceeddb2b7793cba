//! The verbs as clap's commands, for completion scripts alone: the arguments themselves are parsed by `arguments.rs`.

use clap::{Arg, ArgAction, Command};

use super::arguments::general_options;
use super::verb::{Tool, Verb, all};

/// A command for each verb of a tool.
pub fn verb_commands(tool: Tool) -> impl Iterator<Item = Command> {
    all().filter(move |verb| verb.is_of(tool)).map(command)
}

fn command(verb: &Verb) -> Command {
    let shape = verb.shape();
    let own = shape.options.iter().map(|(name, value)| (*name, value.is_some()));
    let general =
        general_options().filter(|(name, _)| shape.options.iter().all(|(own, _)| own != name) && *name != "help");
    let options = own.chain(general).map(|(name, takes)| {
        let action = if takes { ArgAction::Append } else { ArgAction::SetTrue };
        Arg::new(name).long(name).action(action)
    });
    let about = verb.about.split(". ").next().unwrap_or(verb.about);
    let words = Arg::new("words").num_args(0..);
    Command::new(verb.name).about(about).args(options).arg(words)
}
