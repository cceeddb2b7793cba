//! The table of verbs: what a row says, how a verb's usage line becomes the shape of its arguments, and how a verb is found.

use super::call::Call;
use super::error::CtlError;
use super::{
    connections, definitions, health, help, limits, lists, node, parameters, permissions, plugins, policies, queues,
    quorum, refused, settings, status, streams, upgrade, users, vhosts,
};

/// Which program was called. It decides which verbs there are and what the program is called in help.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tool {
    /// `warren ctl`: the verbs of all the others.
    Warren,
    Rabbitmqctl,
    Diagnostics,
    Queues,
    Plugins,
    Streams,
    Upgrade,
}

impl Tool {
    /// The tool that a program name (argv\[0\], with or without its folder) stands for.
    #[must_use]
    pub fn from_program(program: &str) -> Option<Self> {
        let name = program.rsplit('/').next().unwrap_or(program);
        ALL_TOOLS.iter().copied().find(|tool| tool.name() == name)
    }

    /// As it is typed.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Warren => "warren ctl",
            Self::Rabbitmqctl => "rabbitmqctl",
            Self::Diagnostics => "rabbitmq-diagnostics",
            Self::Queues => "rabbitmq-queues",
            Self::Plugins => "rabbitmq-plugins",
            Self::Streams => "rabbitmq-streams",
            Self::Upgrade => "rabbitmq-upgrade",
        }
    }
}

/// The heading of help that a verb stands under, in the order of help.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Group {
    Help,
    Nodes,
    Cluster,
    Users,
    AccessControl,
    Monitoring,
    HealthChecks,
    Parameters,
    Policies,
    VirtualHosts,
    Queues,
    QuorumQueues,
    Streams,
    Upgrade,
    Operations,
    FeatureFlags,
    Settings,
    Definitions,
    Plugins,
    NotHere,
}

impl Group {
    pub(crate) const ALL: [Self; 20] = [
        Self::Help,
        Self::Nodes,
        Self::Cluster,
        Self::Users,
        Self::AccessControl,
        Self::Monitoring,
        Self::HealthChecks,
        Self::Parameters,
        Self::Policies,
        Self::VirtualHosts,
        Self::Queues,
        Self::QuorumQueues,
        Self::Streams,
        Self::Upgrade,
        Self::Operations,
        Self::FeatureFlags,
        Self::Settings,
        Self::Definitions,
        Self::Plugins,
        Self::NotHere,
    ];

    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Help => "Help",
            Self::Nodes => "Nodes",
            Self::Cluster => "Cluster",
            Self::Users => "Users",
            Self::AccessControl => "Access Control",
            Self::Monitoring => "Monitoring and observability",
            Self::HealthChecks => "Health checks",
            Self::Parameters => "Parameters",
            Self::Policies => "Policies",
            Self::VirtualHosts => "Virtual hosts",
            Self::Queues => "Queues",
            Self::QuorumQueues => "Quorum queues",
            Self::Streams => "Streams",
            Self::Upgrade => "Maintenance and upgrades",
            Self::Operations => "Operations",
            Self::FeatureFlags => "Feature flags",
            Self::Settings => "Configuration and Environment",
            Self::Definitions => "Definitions",
            Self::Plugins => "Plugins",
            Self::NotHere => "Accepted and refused with a reason (Erlang, clusters, RabbitMQ's own files)",
        }
    }
}

/// What a verb ends with.
pub(crate) type Done = Result<(), CtlError>;

/// One row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Verb {
    pub(crate) group: Group,
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
    /// Which programs have it, besides `warren ctl`, which has all.
    pub(crate) tools: &'static [Tool],
    /// What follows the name: `[--vhost <vhost>] <user> [<column> ...]`. The arguments are parsed by it.
    pub(crate) usage: &'static str,
    pub(crate) about: &'static str,
    pub(crate) run: fn(&Call<'_>) -> Done,
}

pub(crate) const DIAGNOSTICS: &[Tool] = &[Tool::Diagnostics];
pub(crate) const BOTH: &[Tool] = &[Tool::Rabbitmqctl, Tool::Diagnostics];
pub(crate) const QUEUES: &[Tool] = &[Tool::Queues];
pub(crate) const PLUGINS: &[Tool] = &[Tool::Plugins];
pub(crate) const ALL_TOOLS: &[Tool] =
    &[Tool::Rabbitmqctl, Tool::Diagnostics, Tool::Queues, Tool::Plugins, Tool::Streams, Tool::Upgrade];

impl Verb {
    /// A verb of `rabbitmqctl`.
    pub(crate) const fn new(
        group: Group,
        name: &'static str,
        usage: &'static str,
        about: &'static str,
        run: fn(&Call<'_>) -> Done,
    ) -> Self {
        Self { group, name, aliases: &[], tools: &[Tool::Rabbitmqctl], usage, about, run }
    }

    /// The same verb, of other programs.
    pub(crate) const fn of(self, tools: &'static [Tool]) -> Self {
        Self { tools, ..self }
    }

    pub(crate) const fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    pub(crate) fn is_of(&self, tool: Tool) -> bool {
        tool == Tool::Warren || self.tools.contains(&tool)
    }

    /// The full usage line.
    pub(crate) fn usage_line(&self, tool: Tool) -> String {
        let general = match tool {
            Tool::Warren => "[--uri <uri>] [--quiet]",
            Tool::Rabbitmqctl | Tool::Diagnostics | Tool::Queues | Tool::Plugins | Tool::Streams | Tool::Upgrade => {
                "[--node <node>] [--longnames] [--quiet]"
            }
        };
        // `warren top` and `warren definitions` have their whole names.
        let name = match self.name.strip_prefix("warren ") {
            Some(_) => self.name.to_owned(),
            None => format!("{} {general} {}", tool.name(), self.name),
        };
        format!("{name} {}", self.usage).trim_end().to_owned()
    }

    pub(crate) fn shape(&self) -> Shape {
        Shape::of(self.usage)
    }
}

/// Every verb of every tool.
pub(crate) fn all() -> impl Iterator<Item = &'static Verb> {
    const TABLES: &[&[Verb]] = &[
        help::VERBS,
        node::VERBS,
        status::VERBS,
        users::VERBS,
        permissions::VERBS,
        limits::VERBS,
        lists::VERBS,
        connections::VERBS,
        health::VERBS,
        parameters::VERBS,
        policies::VERBS,
        vhosts::VERBS,
        queues::VERBS,
        quorum::VERBS,
        streams::VERBS,
        upgrade::VERBS,
        settings::VERBS,
        definitions::VERBS,
        plugins::VERBS,
        refused::VERBS,
    ];
    TABLES.iter().flat_map(|table| table.iter())
}

/// The verb of that name or alias.
pub(crate) fn find(tool: Tool, name: &str) -> Option<&'static Verb> {
    all().find(|verb| verb.is_of(tool) && (verb.name == name || verb.aliases.contains(&name)))
}

/// The verb that was meant by `name`, if one is like it at all: by its beginning, by a typing mistake or two, or by its words
/// in whatever order, some of them cut short.
pub(crate) fn nearest(tool: Tool, name: &str) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let of_tool = || all().filter(|verb| verb.is_of(tool));
    let names = || of_tool().flat_map(|verb| [verb.name].into_iter().chain(verb.aliases.iter().copied()));
    let shortest = |names: &mut dyn Iterator<Item = &'static str>| names.min_by_key(|verb| (verb.len(), *verb));
    if let Some(longer) = shortest(&mut names().filter(|verb| name.len() > 2 && verb.starts_with(&name))) {
        return Some(longer);
    }
    let (distance, nearest) = names().map(|verb| (distance(&name, verb), verb)).min()?;
    if distance <= (name.chars().count() / 3).clamp(1, 4) {
        return Some(nearest);
    }
    let words: Vec<&str> = name.split('_').filter(|word| !word.is_empty()).collect();
    let is_in = |verb: &&str, word: &&str| word.len() > 2 && verb.split('_').any(|own| own.starts_with(*word));
    let has_all = |verb: &&str| !words.is_empty() && words.iter().all(|word| is_in(verb, word));
    shortest(&mut names().filter(has_all))
}

/// The Levenshtein distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, character) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, candidate) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *candidate);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// What a verb's usage line allows.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Shape {
    pub(crate) least: usize,
    /// None: any number.
    pub(crate) most: Option<usize>,
    /// The options, without dashes, and what their value is called, for those that take one.
    pub(crate) options: Vec<(&'static str, Option<&'static str>)>,
}

impl Shape {
    /// Reads `[--vhost <vhost>] [--if-empty] <name> [<column> ...]`.
    fn of(usage: &'static str) -> Self {
        let mut words = usage.split_whitespace().peekable();
        let (mut depth, mut many) = (0_usize, false);
        let mut shape = Self::default();
        let mut most = 0;
        while let Some(word) = words.next() {
            let bare = word.trim_start_matches('[');
            depth += word.len() - bare.len();
            let word = bare.trim_end_matches(']');
            let mut closing = bare.len() - word.len();
            match (word, word.strip_prefix("--")) {
                ("...", _) => many = true,
                ("|" | "", _) => {}
                (_, Some(name)) => {
                    let value = words.next_if(|next| closing == 0 && next.starts_with('<'));
                    let bare = value.map(|value| value.trim_end_matches(']'));
                    closing += value.map_or(0, str::len) - bare.map_or(0, str::len);
                    shape.options.push((name, bare.map(|value| value.trim_matches(['<', '>']))));
                }
                (_, None) => {
                    most += 1;
                    shape.least += usize::from(depth == 0);
                }
            }
            depth = depth.saturating_sub(closing);
        }
        shape.most = (!many).then_some(most);
        shape
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usage_line_is_a_shape() {
        let shape = Shape::of("[--vhost <vhost>] [--if-empty] <name> [<column> ...]");
        let options = vec![("vhost", Some("vhost")), ("if-empty", None)];
        assert_eq!(shape, Shape { least: 1, most: None, options });
        assert_eq!(Shape::of("<a> <b> [<c>]"), Shape { least: 2, most: Some(3), options: Vec::new() });
    }

    #[test]
    fn names_are_unique_in_each_tool() {
        for tool in ALL_TOOLS.iter().copied().chain([Tool::Warren]) {
            let mut names: Vec<_> = all()
                .filter(|verb| verb.is_of(tool))
                .flat_map(|verb| [verb.name].into_iter().chain(verb.aliases.iter().copied()))
                .collect();
            names.sort_unstable();
            let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
            assert!(twice.is_empty(), "{} has twice: {twice:?}", tool.name());
        }
    }

    #[test]
    fn a_typing_mistake_finds_the_verb() {
        for (typed, meant) in [
            ("list_quueues", "list_queues"),
            ("ad_user", "add_user"),
            ("cluster-status", "cluster_status"),
            ("List_Queues", "list_queues"),
            ("list_perm", "list_permissions"),
            ("user_add", "add_user"),
            ("stauts", "status"),
            ("queues_list", "list_queues"),
            ("set_perm", "set_permissions"),
        ] {
            assert_eq!(nearest(Tool::Rabbitmqctl, typed), Some(meant));
        }
        for typed in ["xyzzy_frobnicate", "x", "", "_"] {
            assert_eq!(nearest(Tool::Rabbitmqctl, typed), None, "{typed}");
        }
    }
}
