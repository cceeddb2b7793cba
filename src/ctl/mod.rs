//! `warren ctl`, `warren top` and `warren definitions`, which also answer to the names of RabbitMQ's tools: a client of the
//! management API, over the broker's Unix socket or over HTTP. It knows the API, not the broker's insides.
//!
//! ```text
//! run ── arguments ──► verb (the table) ──► its function ──► client ──► management API
//!                                              └──► format ──► standard output
//! ```
//!
//! A verb is a row in a table (`verb.rs`) and a function in the file of its noun. A function prints its banner, asks the API and
//! prints rows; what fails is a [`error::CtlError`], which only this file prints and turns into an exit code.

#![allow(clippy::disallowed_methods, reason = "a program of its own: it reads a clock and runs its connection's task")]

mod arguments;
mod call;
mod client;
mod completions;
mod connections;
mod definitions;
mod diff;
mod erlang;
mod error;
mod format;
mod health;
mod help;
mod limits;
mod lists;
mod node;
mod parameters;
mod permissions;
mod plugins;
mod policies;
mod prompt;
mod queues;
mod quorum;
mod refused;
mod report;
mod settings;
mod status;
mod streams;
mod target;
mod top;
mod unverified;
mod upgrade;
mod users;
mod verb;
mod vhosts;

use std::process::ExitCode;

use crate::printable;
use arguments::Arguments;
use call::Call;
use client::print;
use error::{CtlError, code};
use verb::{Group, Shape, Verb};

pub use completions::verb_commands;
pub use target::Surroundings;
pub use verb::Tool;

/// Runs one verb: `words` are the command line behind the program's name, or behind `warren ctl`.
#[must_use]
pub fn run(tool: Tool, words: &[String], surroundings: &Surroundings) -> ExitCode {
    let Some(at) = Arguments::verb(words) else { return without_verb(tool, words) };
    let Some(verb) = verb::find(tool, &words[at]) else {
        eprint!("{}", help::unknown(tool, &words[at]));
        return ExitCode::from(code::USAGE);
    };
    run_verb(tool, verb, words, at, surroundings)
}

/// `warren definitions export|import|diff` and `warren top`: verbs outside of the table.
#[must_use]
pub fn run_own(own: Own, words: &[String], surroundings: &Surroundings) -> ExitCode {
    let verb = match own {
        Own::Top => &top::VERB,
        Own::Export => &definitions::EXPORT,
        Own::Import => &definitions::IMPORT,
        Own::Diff => &diff::VERB,
    };
    run_verb(Tool::Warren, verb, words, usize::MAX, surroundings)
}

/// Commands of the `warren` program that speak to a broker and are no verbs of `warren ctl`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Own {
    Top,
    Export,
    Import,
    Diff,
}

fn without_verb(tool: Tool, words: &[String]) -> ExitCode {
    let asked = words.iter().any(|word| ["--help", "-h", "-?"].contains(&word.as_str()));
    if words.iter().any(|word| word == "--version") {
        print(&format!("{}\n", env!("CARGO_PKG_VERSION")));
        return ExitCode::SUCCESS;
    }
    if asked {
        print(&help::overview(tool));
        return ExitCode::SUCCESS;
    }
    eprint!("{}", help::overview(tool));
    ExitCode::from(code::USAGE)
}

fn run_verb(tool: Tool, verb: &'static Verb, words: &[String], at: usize, surroundings: &Surroundings) -> ExitCode {
    let shape = verb.shape();
    if verb.group != Group::Help && words.iter().any(|word| word == "--help" || word == "-?") {
        print(&help::verb(tool, verb));
        return ExitCode::SUCCESS;
    }
    match attempt(tool, verb, &shape, words, at, surroundings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(tool, verb, words, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn attempt(
    tool: Tool,
    verb: &'static Verb,
    shape: &Shape,
    words: &[String],
    at: usize,
    surroundings: &Surroundings,
) -> Result<(), CtlError> {
    let arguments = Arguments::parse(words, Some(at), shape)?;
    arguments.count(shape)?;
    let call = Call::new(tool, verb, &arguments, surroundings)?;
    (verb.run)(&call)?;
    call.end();
    Ok(())
}

/// Prints an error; one about the command line comes with the usage.
fn tell(tool: Tool, verb: &Verb, words: &[String], error: &CtlError) {
    match error {
        CtlError::Silent { .. } => {}
        CtlError::Usage(_) | CtlError::BadArgument(_) => {
            eprintln!("Error (argument validation): {}", printable::lines(&error.to_string()));
            eprintln!("Arguments given:\n\t{}\n", words.join(" "));
            eprintln!("Usage\n\n{}", verb.usage_line(tool));
        }
        error => eprintln!("{}", printable::lines(&error.to_string())),
    }
}
