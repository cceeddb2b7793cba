//! The `warren` program: arguments, configuration, log, exit code.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use warren::cli::{self, Command, CommandLine, Settings};
use warren::ctl::Tool;
use warren::logging::Logging;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A variable or an argument that is not UTF-8 is none of ours.
    let variables = std::env::vars_os();
    let environment = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let program = arguments.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    if let Some(tool) = Tool::from_program(&program) {
        let words: Vec<String> = arguments.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        return cli::run_tool(tool, &words, environment.collect());
    }
    if program.rsplit('/').next() == Some("rabbitmq-server") {
        arguments.insert(1, "serve".into());
    }
    let command_line = match CommandLine::try_parse_from(arguments) {
        Ok(command_line) => command_line,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { cli::USAGE } else { 0 });
        }
    };
    match command_line.command() {
        Command::Serve(settings) => start(settings, environment.collect()),
        Command::Config(command) => cli::run_config(command, environment.collect(), warren::server::check),
        Command::Ctl(words) => cli::run_ctl(&words, environment.collect()),
        Command::Top(words) => cli::run_top(&words, environment.collect()),
        Command::Definitions(definitions) => cli::run_definitions(&definitions, environment.collect()),
        Command::Completions { shell, program } => cli::run_completions(shell, &program),
        Command::Perf(options) => cli::run_perf(&options),
        Command::Log(command) => cli::run_log(&command),
    }
}

/// Reads the configuration, starts the log, serves.
fn start(settings: Settings, environment: Vec<(String, String)>) -> ExitCode {
    let loaded = match settings.load(environment) {
        Ok(loaded) => loaded,
        Err(errors) => return cli::refuse(&errors),
    };
    let errors = warren::server::check(&loaded);
    if !errors.is_empty() {
        return cli::refuse(&errors);
    }
    let logging = match Logging::start(&loaded.config.log) {
        Ok(logging) => Arc::new(logging),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    for note in &loaded.taken_over {
        tracing::info!("{note}");
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let outcome = warren::server::run(&loaded, &logging);
    if let Err(error) = &outcome {
        tracing::error!("{error}");
    }
    logging.finish();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
