//! One call of a verb: its arguments, the broker it is about, and where its output goes.

use std::cell::{Cell, OnceCell};
use std::io::{BufRead, IsTerminal, Read};
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::Arguments;
use super::client::{Client, path, print, print_drawing};
use super::error::{CtlError, code};
use super::format::{Formatter, Header, Rows};
use super::target::{Surroundings, Target};
use super::verb::{Done, Group, Tool, Verb};

/// Without `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The same, of an import of many definitions.
const DEFINITIONS_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest text that is read from standard input for an argument.
const LONGEST_INPUT: u64 = 64 * 1024 * 1024;

pub(crate) struct Call<'a> {
    pub(crate) tool: Tool,
    pub(crate) verb: &'static Verb,
    pub(crate) arguments: &'a Arguments,
    pub(crate) client: Client,
    formatter: Option<Formatter>,
    node: OnceCell<String>,
    has_printed: Cell<bool>,
}

impl<'a> Call<'a> {
    /// # Errors
    /// Options whose values cannot be used.
    pub(crate) fn new(
        tool: Tool,
        verb: &'static Verb,
        arguments: &'a Arguments,
        surroundings: &'a Surroundings,
    ) -> Result<Self, CtlError> {
        let formatter = match arguments.option("formatter") {
            None if arguments.has("json") => Some(Formatter::Json),
            None => None,
            Some(name) => Some(Formatter::parse(name).ok_or_else(|| {
                let known: Vec<_> = Formatter::NAMES.iter().map(|(name, _)| *name).collect();
                CtlError::Usage(format!("formatter '{name}' is not supported; one of: {}", known.join(", ")))
            })?),
        };
        let timeout = arguments.number::<f64>("timeout")?;
        let timeout = match timeout {
            None if verb.group == Group::Definitions => DEFINITIONS_TIMEOUT,
            None => TIMEOUT,
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or_default(),
        };
        let target = match Target::choose(arguments, surroundings) {
            // Help needs no broker.
            Err(_) if verb.group == Group::Help => Target::choose(&Arguments::default(), &Surroundings::default())?,
            target => target?,
        };
        let client = Client::new(target, timeout, verb.name, surroundings.variable("WARREN_CA_FILE"))?;
        Ok(Self { tool, verb, arguments, client, formatter, node: OnceCell::new(), has_printed: Cell::new(false) })
    }

    /// The argument at that place; empty if there is none, which a verb's usage rules out for the ones it needs.
    pub(crate) fn argument(&self, at: usize) -> &str {
        self.arguments.positional.get(at).map_or("", String::as_str)
    }

    /// The arguments from that place on.
    pub(crate) fn rest(&self, from: usize) -> &[String] {
        self.arguments.positional.get(from..).unwrap_or_default()
    }

    /// `--vhost`, else `/`.
    pub(crate) fn vhost(&self) -> &str {
        self.arguments.option("vhost").unwrap_or("/")
    }

    pub(crate) fn formatter(&self) -> Formatter {
        self.formatter.unwrap_or(Formatter::Table)
    }

    /// The formatter, for verbs whose default is not a plain table.
    pub(crate) fn formatter_or(&self, default: Formatter) -> Formatter {
        self.formatter.unwrap_or(default)
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.arguments.has("quiet") || self.arguments.has("silent") || self.formatter().is_for_programs()
    }

    /// The line that says what happens now.
    pub(crate) fn banner(&self, text: &str) {
        if !self.is_quiet() {
            print(&format!("{text}\n"));
        }
    }

    /// The same, with the node's name in it.
    pub(crate) fn node_banner(&self, text: impl FnOnce(&str) -> String) {
        if !self.is_quiet() {
            self.banner(&text(self.node()));
        }
    }

    /// The name of the broker's node; asked for once.
    pub(crate) fn node(&self) -> &str {
        self.node.get_or_init(|| {
            let overview = self.client.get("/api/overview?columns=node");
            let name = overview.ok().and_then(|overview| overview["node"].as_str().map(str::to_owned));
            name.or_else(|| self.arguments.option("node").map(str::to_owned))
                .unwrap_or_else(|| self.client.target.name())
        })
    }

    /// A line of the result, which programs get as a message.
    pub(crate) fn line(&self, text: &str) {
        match self.formatter() {
            Formatter::Json | Formatter::JsonStream => self.raw_line(&json!({"message": text}).to_string()),
            Formatter::Table | Formatter::Csv | Formatter::PrettyTable | Formatter::Erlang => self.raw_line(text),
        }
    }

    /// A line of the result, as it is.
    pub(crate) fn raw_line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// Writes to standard output.
    pub(crate) fn print(&self, text: &str) {
        self.has_printed.set(true);
        print(text);
    }

    /// What programs get from a verb that had nothing to print.
    pub(crate) fn end(&self) {
        let for_programs = matches!(self.formatter, Some(Formatter::Json | Formatter::JsonStream));
        if for_programs && !self.has_printed.get() {
            print(&format!("{}\n", json!({"node": self.node(), "result": "ok"})));
        }
    }

    /// Whether tables have headers.
    pub(crate) fn header(&self) -> Header {
        let hidden = self.arguments.has("silent") || self.arguments.has("no-table-headers");
        if hidden { Header::Hidden } else { Header::Shown }
    }

    /// The rows of the result.
    pub(crate) fn rows(&self, rows: &Rows) -> Done {
        self.rows_as(rows, Formatter::Table)
    }

    /// The rows of the result, for verbs whose default is not a plain table.
    pub(crate) fn rows_as(&self, rows: &Rows, default: Formatter) -> Done {
        let formatter = self.formatter_or(default);
        let text = rows.format(formatter, self.header());
        if formatter == Formatter::PrettyTable {
            self.has_printed.set(true);
            print_drawing(&text);
        } else {
            self.print(&text);
        }
        Ok(())
    }

    /// One object for programs, a text for people.
    pub(crate) fn document(&self, value: &Value, text: impl FnOnce() -> String) -> Done {
        match self.formatter() {
            Formatter::Json | Formatter::JsonStream => self.print(&format!("{value}\n")),
            Formatter::Erlang => self.print(&format!("{}\n", super::erlang::binary_term(value))),
            Formatter::Table | Formatter::Csv | Formatter::PrettyTable => self.print(&text()),
        }
        Ok(())
    }

    /// The columns that were asked for, each one of `known`; `default` if none was.
    ///
    /// # Errors
    /// A column that is not known.
    pub(crate) fn columns(&self, known: &[&str], default: &[&str]) -> Result<Vec<String>, CtlError> {
        let asked = self.arguments.positional.iter().flat_map(|word| word.split(',')).map(str::trim);
        let asked: Vec<String> = asked.filter(|word| !word.is_empty()).map(str::to_owned).collect();
        if asked.is_empty() {
            return Ok(default.iter().map(|&column| column.to_owned()).collect());
        }
        let unknown: Vec<&str> = asked.iter().map(String::as_str).filter(|column| !known.contains(column)).collect();
        if unknown.is_empty() {
            return Ok(asked);
        }
        Err(CtlError::Usage(format!("Info key(s) {} are not supported", unknown.join(","))))
    }

    /// # Errors
    /// The vhost does not exist.
    pub(crate) fn need_vhost(&self, vhost: &str) -> Done {
        match self.client.find(&path(&["vhosts", vhost]))? {
            Some(_) => Ok(()),
            None => Err(CtlError::no_vhost(vhost)),
        }
    }

    /// A secret: the argument at that place, else a line of standard input, for which a terminal is asked without echo.
    ///
    /// # Errors
    /// Standard input ends or cannot be read.
    pub(crate) fn secret(&self, at: usize, prompt: &str) -> Result<String, CtlError> {
        if let Some(given) = self.arguments.positional.get(at) {
            return Ok(given.clone());
        }
        let read = if std::io::stdin().is_terminal() { super::prompt::hidden(prompt) } else { line_of_input() };
        let text = read.map_err(|cause| CtlError::file("standard input", cause))?;
        if text.is_empty() {
            return Err(CtlError::failed(code::SOFTWARE, "no password: give it as an argument or on standard input"));
        }
        Ok(text)
    }
}

fn line_of_input() -> std::io::Result<String> {
    let mut line = String::new();
    std::io::stdin().lock().take(LONGEST_INPUT).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
