//! Help: the list of verbs, and one verb in full.

use std::fmt::Write;

use super::call::Call;
use super::client::print;
use super::error::{CtlError, code};
use super::verb::{ALL_TOOLS, Done, Group, Tool, Verb, all, find, nearest};

pub(crate) const VERBS: &[Verb] = &[
    Verb::new(Group::Help, "help", "[<command>]", "Shows how a command is used", help).of(ALL_TOOLS),
    Verb::new(Group::Help, "version", "", "Prints the version of this tool", version).of(ALL_TOOLS),
    Verb::new(Group::Help, "autocomplete", "[<prefix>]", "Lists the commands that begin so", autocomplete)
        .of(ALL_TOOLS),
];

const GENERAL: &str = "\
General options

 --uri <uri>           the broker's management API: http[s]://user:password@host:15672, or unix:PATH (also WARREN_URI)
 --data-dir <dir>      the broker of that data directory, through its socket DIR/warren.sock
 -n, --node <node>     rabbit@host means http://host:15672; a node of this machine is its socket
 -p, --vhost <vhost>   the virtual host, for commands that are about one [default: /]
 -t, --timeout <n>     seconds; 0 for no limit [default: 60]
 -q, --quiet           no informational messages
 -s, --silent          no informational messages and no table headers
     --formatter <f>   table, pretty_table, json, json_stream, csv, erlang
     --json            --formatter json
     --insecure        any TLS certificate will do; WARREN_CA_FILE names further authorities

Without --uri, --data-dir, a remote --node and WARREN_URI, the broker is the one of the data directory that `warren serve`
would use here, else /var/lib/warren. Who may open its socket is an administrator: no password is asked for.
";

const EXAMPLES: &str = "\
Examples

 {tool} status
 {tool} add_user alice < password.txt
 {tool} set_permissions -p orders alice '^orders\\.' '^orders\\.' '.*'
 {tool} list_queues -p orders name messages consumers --formatter json
 {tool} export_definitions - > definitions.json
 {tool} --uri https://alice:secret@broker.example:15671 list_connections user peer_host state
";

const EXIT_CODES: &str = "\
Exit codes: 0 done, 64 the command line cannot be used, 65 what was given is wrong or refused, 67 no such user, 69 the broker
cannot be reached or a check failed, 70 it exists already or something broke, 75 no answer in time.
";

/// The list of verbs.
pub(crate) fn overview(tool: Tool) -> String {
    let name = tool.name();
    let mut text =
        format!("\nUsage\n\n{name} [--uri <uri>] [--timeout <timeout>] [--quiet] <command> [<command options>]\n\n");
    text.push_str("Available commands:\n");
    let width = all().filter(|verb| verb.is_of(tool)).map(|verb| verb.name.len()).max().unwrap_or_default();
    for group in Group::ALL {
        let verbs: Vec<&Verb> = all().filter(|verb| verb.group == group && verb.is_of(tool)).collect();
        if verbs.is_empty() {
            continue;
        }
        let _ = write!(text, "\n{}:\n\n", group.heading());
        for verb in verbs {
            let about = verb.about.split(". Columns:").next().unwrap_or(verb.about);
            let _ = writeln!(text, "   {:width$}  {about}", verb.name);
        }
    }
    let _ = write!(text, "\n{GENERAL}\n{}\n{EXIT_CODES}\n", EXAMPLES.replace("{tool}", name));
    let _ = writeln!(text, "Use '{name} help <command>' to learn more about a specific command");
    text
}

/// One verb.
pub(crate) fn verb(tool: Tool, verb: &Verb) -> String {
    let mut text = format!("\nUsage\n\n{}\n\n{}.\n", verb.usage_line(tool), verb.about);
    if !verb.aliases.is_empty() {
        let _ = writeln!(text, "\nAlso: {}", verb.aliases.join(", "));
    }
    let _ = write!(text, "\n{GENERAL}");
    text
}

/// What is said of a verb that does not exist.
pub(crate) fn unknown(tool: Tool, name: &str) -> CtlError {
    // One of another of RabbitMQ's tools.
    if let Some(other) = find(Tool::Warren, name).and_then(|verb| verb.tools.first()) {
        let text =
            format!("\nCommand '{name}' not found. \nIt is a command of {}, and of `warren ctl`\n\n", other.name());
        return CtlError::plain(code::USAGE, text);
    }
    let text = match nearest(tool, name) {
        Some(meant) => format!("\nCommand '{name}' not found. \nDid you mean '{meant}'? \n\n"),
        None => format!("\nCommand '{name}' not found. \nUse '{} help' for the list of commands\n\n", tool.name()),
    };
    CtlError::plain(code::USAGE, text)
}

fn help(call: &Call<'_>) -> Done {
    let Some(name) = call.arguments.positional.first() else {
        print(&overview(call.tool));
        return Ok(());
    };
    let found = find(call.tool, name).ok_or_else(|| unknown(call.tool, name))?;
    print(&verb(call.tool, found));
    Ok(())
}

fn version(call: &Call<'_>) -> Done {
    call.line(env!("CARGO_PKG_VERSION"));
    Ok(())
}

fn autocomplete(call: &Call<'_>) -> Done {
    let prefix = call.argument(0);
    let mut names: Vec<&str> = all().filter(|verb| verb.is_of(call.tool)).map(|verb| verb.name).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort_unstable();
    for name in names {
        call.line(name);
    }
    Ok(())
}
