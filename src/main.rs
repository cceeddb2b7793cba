//! The `warren` program: arguments, configuration, log, exit code.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use warren::cli::{self, Command, CommandLine, Settings};
use warren::config::{Log, LogFormat, LogLevel};
use warren::ctl::Tool;
use warren::server::LogLevels;

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
        Command::Config(command) => cli::run_config(command, environment.collect()),
        Command::Ctl(words) => cli::run_ctl(&words, environment.collect()),
        Command::Top(words) => cli::run_top(&words, environment.collect()),
        Command::Definitions(command) => cli::run_definitions(&command, environment.collect()),
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
    let log_levels = start_log(&loaded.config.log);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    match warren::server::run(&loaded, log_levels) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Sends the log to standard error, in the format and with the levels of the configuration.
fn start_log(log: &Log) -> LogLevels {
    let mut levels = Targets::new().with_default(filter(log.level));
    for (module, level) in &log.levels {
        // A module of the broker, or of a library by its full name.
        levels = levels.with_target(module, filter(*level));
        levels = levels.with_target(format!("warren::{module}"), filter(*level));
    }
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let layer = match log.format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    let (levels, handle) = reload::Layer::new(levels);
    tracing_subscriber::registry().with(layer.with_filter(levels)).init();
    Box::new(move |level| {
        let level = match level {
            "error" | "critical" => LogLevel::Error,
            "warn" | "warning" => LogLevel::Warn,
            "info" => LogLevel::Info,
            "debug" => LogLevel::Debug,
            _ => return Err("a level is error, warn, info or debug".to_owned()),
        };
        handle.modify(|levels| *levels = Targets::new().with_default(filter(level))).map_err(|error| error.to_string())
    })
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    }
}
