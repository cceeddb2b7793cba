//! The command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::broker::definitions;
use crate::config::{self, Config, ConfigError, Flag, Loaded, Sources, key_help};
use crate::ctl::{self, Own, Surroundings, Tool};
use crate::disk::Disk;
use crate::log::{self, Severity, Storage, Verified};
use crate::perf;

/// The exit code for a command line or a configuration that cannot be used (EX_USAGE).
pub const USAGE: u8 = 64;

const MORE: &str = "\
Configuration: a flag goes before the environment, the environment before the file, the file before
the default. The file is the one that --config or WARREN_CONFIG names, a broker.toml or a rabbitmq.conf.
Without one, they are RabbitMQ's in /etc/rabbitmq (rabbitmq.conf, conf.d/*.conf, enabled_plugins) and
/etc/warren/broker.toml, which goes before them, as far as they are there.
Every key has an environment variable: amqp.heartbeat is WARREN_AMQP__HEARTBEAT.
`warren config default` prints a file with every key, documented.

Output: when the broker accepts connections it prints one line to standard output, which begins with
`ready` and names its listeners: `ready amqp=127.0.0.1:5672`. The log goes to standard error.

`warren ctl` administers a running broker: `warren ctl status`, `warren ctl list_queues`; `warren ctl help`
lists its commands. Called rabbitmqctl, rabbitmq-diagnostics, rabbitmq-queues, rabbitmq-plugins,
rabbitmq-streams or rabbitmq-upgrade (by a link), the program is that tool; called rabbitmq-server, it serves.

SIGTERM and SIGINT stop the broker. Exit codes: 0 stopped as asked, 64 the command line or the
configuration cannot be used, 1 any other failure.";

/// An AMQP 0-9-1 message broker that works with every RabbitMQ client.
///
/// Without a command it serves: `warren --amqp-port 0` is `warren serve --amqp-port 0`.
#[derive(Debug, Parser)]
#[command(name = "warren", version, args_conflicts_with_subcommands = true, after_help = MORE)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Settings,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker (also what happens without a command).
    #[command(after_help = MORE)]
    Serve(Settings),
    /// Check, show or document the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Administer a running broker: every command of rabbitmqctl and its kin. `warren ctl help` lists them.
    #[command(disable_help_flag = true)]
    Ctl(Words),
    /// Show queues and connections live, those in trouble first.
    #[command(disable_help_flag = true)]
    Top(Words),
    /// Export, import or compare users, vhosts, queues, policies and so on.
    Definitions(Definitions),
    /// Print a completion script: `warren completions bash > /etc/bash_completion.d/warren`.
    Completions {
        shell: Shell,
        /// The program to complete: warren, or one of RabbitMQ's tools that is a link to it.
        #[arg(long = "for", value_name = "PROGRAM", default_value = "warren")]
        program: String,
    },
    Perf(Box<perf::Options>),
    /// Look at a data directory that no broker uses at the moment. Nothing in it is changed.
    #[command(subcommand)]
    Log(LogCommand),
}

/// Words that the commands of `ctl` read themselves.
#[derive(Args, Debug)]
pub struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    words: Vec<String>,
}

/// `warren definitions`: options may stand before the command as well as behind it.
#[derive(Args, Debug)]
pub struct Definitions {
    /// The broker of that data directory, through its socket.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The broker's management API: http[s]://user:password@host:15672, or unix:PATH (also WARREN_URI).
    #[arg(long)]
    uri: Option<String>,
    /// The node: rabbit@host means http://host:15672.
    #[arg(short, long)]
    node: Option<String>,
    /// The virtual host, for one alone.
    #[arg(short = 'p', long)]
    vhost: Option<String>,
    /// Seconds; 0 for no limit.
    #[arg(short, long, value_name = "N")]
    timeout: Option<String>,
    /// The output for programs.
    #[arg(long)]
    json: bool,
    /// No informational messages.
    #[arg(short, long)]
    quiet: bool,
    /// Any TLS certificate will do.
    #[arg(long)]
    insecure: bool,
    #[command(subcommand)]
    command: DefinitionsCommand,
}

impl Definitions {
    /// The options before the command, as they would stand behind it.
    fn options(&self) -> Vec<String> {
        let taken = [
            ("--data-dir", &self.data_dir),
            ("--uri", &self.uri),
            ("--node", &self.node),
            ("--vhost", &self.vhost),
            ("--timeout", &self.timeout),
        ];
        let taken = taken.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value.clone()?]));
        let given = [("--json", self.json), ("--quiet", self.quiet), ("--insecure", self.insecure)];
        let given = given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name.to_owned());
        taken.flatten().chain(given).collect()
    }
}

#[derive(Debug, Subcommand)]
pub enum DefinitionsCommand {
    /// Write the running broker's definitions to a file, or to standard output.
    #[command(disable_help_flag = true)]
    Export(Words),
    /// Read definitions from a file or standard input; says what was made, changed, unchanged and skipped.
    #[command(disable_help_flag = true)]
    Import(Words),
    /// Compare a file with the running broker; exit with 0 if they are equal, else with 1.
    #[command(disable_help_flag = true)]
    Diff(Words),
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Read everything and check every checksum; exit with 0 if all is well, with 1 if something is
    /// damaged: what and where is printed.
    Verify(DataDirectory),
    /// Print one line for each record of the segments and the write-ahead log.
    Dump(DataDirectory),
}

#[derive(Args, Debug)]
pub struct DataDirectory {
    /// The data directory.
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data_dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print every mistake in a configuration, with file and line; exit with 0 if there is none,
    /// else with 64.
    ///
    /// The files it names are looked into: certificates and their keys, authorities, keys of tokens, definitions.
    /// The environment counts as it does for `serve`.
    Check {
        /// A broker.toml, or files of RabbitMQ (a rabbitmq.conf, a directory of *.conf, an enabled_plugins), and behind
        /// them a broker.toml [default: all that `serve` would read].
        files: Vec<PathBuf>,
    },
    /// Print the effective values and where each came from: default, file:line, environment
    /// variable or flag. Passwords are masked. Takes the flags of `serve`.
    Show(Settings),
    /// Print the broker.toml that means the same as RabbitMQ's files; what has no effect is a comment in it.
    ///
    /// `$(NAME)` in them is replaced by the variable of that name, as it is when they are read.
    Convert {
        /// A rabbitmq.conf, a directory of *.conf, an enabled_plugins; of several, the last one counts [default: those that
        /// `serve` would read].
        files: Vec<PathBuf>,
    },
    /// Print a broker.toml with every key, its documentation and its default, commented out.
    Default,
    /// Print the same as a page of Markdown.
    Reference,
}

/// The flags that set configuration values.
#[derive(Args, Clone, Debug, Default)]
pub struct Settings {
    /// The configuration file, a broker.toml or a rabbitmq.conf by its name, or a directory of *.conf [default:
    /// the one WARREN_CONFIG names, else those in /etc/rabbitmq and /etc/warren/broker.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, value_name = "DIR", help = key_help("node.data_dir"))]
    data_dir: Option<String>,
    #[arg(long, value_name = "ADDR", help = key_help("amqp.bind"))]
    bind: Option<String>,
    #[arg(long, value_name = "N", allow_negative_numbers = true, help = key_help("amqp.port"))]
    amqp_port: Option<String>,
    #[arg(long, value_name = "N", allow_negative_numbers = true, help = key_help("amqp.tls_port"))]
    amqps_port: Option<String>,
    #[arg(long, value_name = "N", allow_negative_numbers = true, help = key_help("management.port"))]
    management_port: Option<String>,
    #[arg(long, value_name = "N", allow_negative_numbers = true, help = key_help("prometheus.port"))]
    prometheus_port: Option<String>,
    #[arg(long, value_name = "text|json", help = key_help("log.format"))]
    log_format: Option<String>,
    /// Any key: `--set amqp.heartbeat=30s`. May be given more than once; goes before other flags.
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = parse_set)]
    set: Vec<(String, String)>,
}

fn parse_set(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_owned(), value.to_owned())),
        None => Err("expected section.key=value, such as amqp.heartbeat=30s".to_owned()),
    }
}

impl CommandLine {
    /// The command, which is `serve` if none was given.
    #[must_use]
    pub fn command(self) -> Command {
        self.command.unwrap_or(Command::Serve(self.serve))
    }
}

impl Settings {
    /// Reads the configuration these flags ask for.
    ///
    /// # Errors
    /// See [`Config::load`].
    pub fn load(self, environment: Vec<(String, String)>) -> Result<Loaded, Vec<ConfigError>> {
        let flags = self.flags();
        Config::load(&Sources { file: self.config, environment, flags, ..Sources::default() })
    }

    fn flags(&self) -> Vec<Flag> {
        let own = [
            ("--data-dir", "node.data_dir", &self.data_dir),
            ("--bind", "amqp.bind", &self.bind),
            ("--amqp-port", "amqp.port", &self.amqp_port),
            ("--amqps-port", "amqp.tls_port", &self.amqps_port),
            ("--management-port", "management.port", &self.management_port),
            ("--prometheus-port", "prometheus.port", &self.prometheus_port),
            ("--log-format", "log.format", &self.log_format),
        ];
        let own = own.into_iter().filter_map(|(flag, key, value)| {
            let (flag, key) = (flag.to_owned(), key.to_owned());
            value.clone().map(|value| Flag { flag, key, value })
        });
        let set = self.set.iter().map(|(key, value)| {
            let (key, value) = (key.clone(), value.clone());
            Flag { flag: format!("--set {key}"), key, value }
        });
        own.chain(set).collect()
    }
}

/// Prints errors to standard error, one on each line; the exit code is [`USAGE`].
#[must_use]
pub fn refuse(errors: &[ConfigError]) -> ExitCode {
    for error in errors {
        eprintln!("{error}");
    }
    ExitCode::from(USAGE)
}

/// What is wrong with all that a configuration names outside itself.
pub type Look = fn(&Loaded) -> Vec<ConfigError>;

/// Runs `warren config ...`.
#[must_use]
pub fn run_config(command: ConfigCommand, environment: Vec<(String, String)>, look: Look) -> ExitCode {
    match command {
        ConfigCommand::Check { files } => check(files, environment, look),
        ConfigCommand::Show(settings) => match settings.load(environment) {
            Ok(loaded) => print(&config::show(&loaded)),
            Err(errors) => refuse(&errors),
        },
        ConfigCommand::Convert { files } => match config::convert(&files, &environment) {
            Ok(text) => print(&text),
            Err(errors) => refuse(&errors),
        },
        ConfigCommand::Default => print(&config::default_file()),
        ConfigCommand::Reference => print(&config::reference()),
    }
}

fn check(files: Vec<PathBuf>, environment: Vec<(String, String)>, look: Look) -> ExitCode {
    let mut files = files.into_iter();
    let sources = Sources { file: files.next(), further_files: files.collect(), environment, flags: Vec::new() };
    let checked = Config::load(&sources).and_then(|loaded| match look(&loaded) {
        errors if errors.is_empty() => Ok(loaded),
        errors => Err(errors),
    });
    match checked {
        Ok(loaded) => {
            for note in loaded.taken_over {
                eprintln!("note: {note}");
            }
            for warning in loaded.warnings {
                eprintln!("warning: {warning}");
            }
            let files: Vec<String> = loaded.files.iter().map(|file| file.display().to_string()).collect();
            let name = if files.is_empty() { "defaults".to_owned() } else { files.join(", ") };
            print(&format!("{name}: ok\n"))
        }
        Err(errors) => refuse(&errors),
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no failure.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Runs `warren log ...`.
#[must_use]
pub fn run_log(command: &LogCommand) -> ExitCode {
    let (LogCommand::Verify(DataDirectory { data_dir }) | LogCommand::Dump(DataDirectory { data_dir })) = command;
    match look(command, data_dir) {
        Ok(code) => code,
        Err(text) => {
            eprintln!("error: {}: {text}", data_dir.display());
            ExitCode::FAILURE
        }
    }
}

fn look(command: &LogCommand, data_dir: &Path) -> Result<ExitCode, String> {
    if !data_dir.is_dir() {
        return Err("there is no such directory".to_owned());
    }
    let disk: Arc<dyn Storage> = Arc::new(Disk::open(data_dir).map_err(|error| error.to_string())?);
    let looked = match command {
        LogCommand::Verify(_) => log::verify(&disk),
        LogCommand::Dump(_) => log::dump(&disk, &mut |line| _ = print(&format!("{line}\n"))),
    };
    let verified = looked.map_err(|error| error.to_string())?;
    let mut healthy = verified.is_healthy();
    for report in &verified.reports {
        let word = if report.severity == Severity::Loss { "damage" } else { "note" };
        eprintln!("{word}: {}", report.text);
    }
    for (path, problem) in definitions::verify(&*disk).map_err(|error| error.to_string())? {
        healthy = false;
        eprintln!("damage: {path}: {problem}");
    }
    if matches!(command, LogCommand::Verify(_)) {
        let Verified { segments, segment_entries, wal_records, .. } = verified;
        print(&format!(
            "{}: {segments} segments with {segment_entries} entries, {wal_records} records in the write-ahead log: {}\n",
            data_dir.display(),
            if healthy { "ok" } else { "damaged" }
        ));
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs `warren perf ...`.
#[must_use]
pub fn run_perf(options: &perf::Options) -> ExitCode {
    if let Err(text) = options.check() {
        eprintln!("error: {text}");
        return ExitCode::from(USAGE);
    }
    perf::run(options)
}

/// Runs `warren ctl ...`.
#[must_use]
pub fn run_ctl(words: &Words, environment: Vec<(String, String)>) -> ExitCode {
    ctl::run(Tool::Warren, &words.words, &surroundings(environment))
}

/// Runs the program under the name of one of RabbitMQ's tools.
#[must_use]
pub fn run_tool(tool: Tool, words: &[String], environment: Vec<(String, String)>) -> ExitCode {
    ctl::run(tool, words, &surroundings(environment))
}

/// Runs `warren top`.
#[must_use]
pub fn run_top(words: &Words, environment: Vec<(String, String)>) -> ExitCode {
    ctl::run_own(Own::Top, &words.words, &surroundings(environment))
}

/// Runs `warren definitions ...`.
#[must_use]
pub fn run_definitions(definitions: &Definitions, environment: Vec<(String, String)>) -> ExitCode {
    let (own, words) = match &definitions.command {
        DefinitionsCommand::Export(words) => (Own::Export, words),
        DefinitionsCommand::Import(words) => (Own::Import, words),
        DefinitionsCommand::Diff(words) => (Own::Diff, words),
    };
    let words: Vec<String> = definitions.options().into_iter().chain(words.words.iter().cloned()).collect();
    ctl::run_own(own, &words, &surroundings(environment))
}

/// What a client of a broker on this machine starts from: the data directory that `serve` would use here. A configuration
/// that cannot be read, perhaps for want of permission, is no reason not to ask a broker that was named otherwise.
fn surroundings(environment: Vec<(String, String)>) -> Surroundings {
    let sources = Sources { environment: environment.clone(), ..Sources::default() };
    let data_dir =
        Config::load(&sources).map_or_else(|_| PathBuf::from("./data"), |loaded| loaded.config.node.data_dir);
    Surroundings { environment, data_dir }
}

/// Prints a completion script.
#[must_use]
pub fn run_completions(shell: Shell, program: &str) -> ExitCode {
    let mut command = match Tool::from_program(program) {
        Some(tool) => {
            let command = clap::Command::new(tool.name()).disable_help_subcommand(true);
            command.subcommands(ctl::verb_commands(tool))
        }
        None => <CommandLine as CommandFactory>::command().mut_subcommand("ctl", |_| {
            let about = "Administer a running broker";
            let ctl = clap::Command::new("ctl").about(about).disable_help_subcommand(true);
            ctl.subcommands(ctl::verb_commands(Tool::Warren))
        }),
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    print(&String::from_utf8_lossy(&script))
}
