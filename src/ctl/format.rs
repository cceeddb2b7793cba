//! How rows are printed: RabbitMQ's formatters. Nothing here knows what the rows are about.

use serde_json::{Map, Value};

use super::erlang;
use crate::printable;

/// `--formatter`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Formatter {
    /// Tab separated, with a header line.
    Table,
    /// One array; every further row begins with a comma.
    Json,
    /// One object on each line.
    JsonStream,
    Csv,
    /// With lines around it, in the line drawing characters of terminals.
    PrettyTable,
    Erlang,
}

impl Formatter {
    pub(crate) const NAMES: [(&'static str, Self); 8] = [
        ("table", Self::Table),
        ("json", Self::Json),
        ("json_stream", Self::JsonStream),
        ("csv", Self::Csv),
        ("pretty_table", Self::PrettyTable),
        ("erlang", Self::Erlang),
        ("string", Self::Table),
        ("compact", Self::Table),
    ];

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, formatter)| *formatter)
    }

    /// Whether programs read it: no other lines may stand around it.
    pub(crate) fn is_for_programs(self) -> bool {
        matches!(self, Self::Json | Self::JsonStream | Self::Csv)
    }
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Value(Value),
    /// A table of AMQP arguments, an object.
    Arguments(Value),
    /// A text where people read, a value where programs do.
    Both(String, Value),
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Value(Value::String(text.into()))
    }

    /// On one line, without control characters.
    fn for_people(&self) -> String {
        let text = match self {
            Self::Value(value) => plain(value),
            Self::Arguments(value) => erlang::term(value),
            Self::Both(text, _) => text.clone(),
        };
        printable::line(&text).into_owned()
    }

    /// A missing value is an empty text, as in RabbitMQ's tools.
    fn for_programs(&self) -> Value {
        match self {
            Self::Value(Value::Null) => Value::String(String::new()),
            Self::Value(value) | Self::Both(_, value) => value.clone(),
            Self::Arguments(value) => erlang::typed(value),
        }
    }
}

impl From<Value> for Cell {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

/// A value in a table: lists in brackets, objects as maps, nothing for null.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name} => {}", plain(value)));
            format!("#{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Rows with named columns.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
    pub(crate) empty: Empty,
}

/// What an empty list looks like: RabbitMQ's tools print some lists row by row, others as a whole.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Empty {
    /// Nothing, and `[` and `]` on lines of their own in JSON.
    #[default]
    Nothing,
    /// An empty line, and `[]` in JSON.
    Line,
}

/// Whether a table has its header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Header {
    Shown,
    Hidden,
}

impl Rows {
    pub(crate) fn new<S: AsRef<str>>(columns: &[S]) -> Self {
        let columns = columns.iter().map(|column| column.as_ref().to_owned()).collect();
        Self { columns, ..Self::default() }
    }

    /// A row that shows fields of an object, by the columns' names.
    pub(crate) fn push_fields(&mut self, object: &Value) {
        let row = self.columns.iter().map(|column| Cell::Value(object[column.as_str()].clone())).collect();
        self.rows.push(row);
    }

    /// The whole output, with its last line end.
    pub(crate) fn format(&self, formatter: Formatter, header: Header) -> String {
        match formatter {
            Formatter::Table => self.table(header),
            Formatter::Json => self.json(),
            Formatter::JsonStream => self.objects().map(|object| format!("{object}\n")).collect(),
            Formatter::Csv => self.csv(header),
            Formatter::PrettyTable => self.pretty_table(),
            Formatter::Erlang => self.erlang(),
        }
    }

    fn table(&self, header: Header) -> String {
        if self.rows.is_empty() {
            return if self.empty == Empty::Line { "\n".to_owned() } else { String::new() };
        }
        let mut text = String::new();
        if header == Header::Shown {
            text.push_str(&self.columns.join("\t"));
            text.push('\n');
        }
        for row in &self.rows {
            text.push_str(&row.iter().map(Cell::for_people).collect::<Vec<_>>().join("\t"));
            text.push('\n');
        }
        text
    }

    fn objects(&self) -> impl Iterator<Item = Value> {
        self.rows.iter().map(|row| {
            let fields = self.columns.iter().cloned().zip(row.iter().map(Cell::for_programs));
            Value::Object(fields.collect::<Map<_, _>>())
        })
    }

    fn json(&self) -> String {
        if self.rows.is_empty() && self.empty == Empty::Line {
            return "[]\n".to_owned();
        }
        let rows: Vec<String> = self.objects().map(|object| object.to_string()).collect();
        let end = if rows.is_empty() { "" } else { "\n" };
        format!("[\n{}{end}]\n", rows.join("\n,"))
    }

    fn csv(&self, header: Header) -> String {
        let line = |cells: Vec<String>| {
            let cells = cells.iter().map(|cell| format!("\"{}\"", cell.replace('"', "\"\"")));
            format!("{}\n", cells.collect::<Vec<_>>().join(","))
        };
        let mut text = String::new();
        if header == Header::Shown && !self.rows.is_empty() {
            text.push_str(&line(self.columns.clone()));
        }
        for row in &self.rows {
            text.push_str(&line(row.iter().map(Cell::for_people).collect()));
        }
        text
    }

    fn pretty_table(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let rows: Vec<Vec<String>> = self.rows.iter().map(|row| row.iter().map(Cell::for_people).collect()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| {
                let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
                cells.chain([self.columns[at].chars().count()]).max().unwrap_or_default()
            })
            .collect();
        let rule = |left: char, between: &str, right: char| {
            let lines: Vec<String> = widths.iter().map(|width| "q".repeat(width + 2)).collect();
            format!("\x1b(0{left}{}{right}\x1b(B\n", lines.join(between))
        };
        let bar = "\x1b(0x\x1b(B";
        let line = |cells: &[String], bold: bool| {
            let cells = cells.iter().zip(&widths).map(|(cell, width)| {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                if bold { format!(" \x1b[1m{cell}\x1b[0m{padding} ") } else { format!(" {cell}{padding} ") }
            });
            format!("{bar}{}{bar}\n", cells.collect::<Vec<_>>().join(bar))
        };
        let mut text = rule('l', "w", 'k') + &line(&self.columns, true);
        for row in &rows {
            text.push_str(&rule('t', "n", 'u'));
            text.push_str(&line(row, false));
        }
        text + &rule('m', "v", 'j')
    }

    fn erlang(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let cells = self.columns.iter().zip(row);
            let cells =
                cells.map(|(column, cell)| format!("{{{column},{}}}", erlang::binary_term(&cell.for_programs())));
            format!("[{}]", cells.collect::<Vec<_>>().join(","))
        });
        format!("[{}]\n", rows.collect::<Vec<_>>().join(",\n "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows() -> Rows {
        let mut rows = Rows::new(&["user", "tags"]);
        rows.rows.push(vec![Cell::text("a"), Cell::Value(json!([]))]);
        rows.rows.push(vec![Cell::text("b \"c\""), Cell::Value(json!(["x", "y"]))]);
        rows
    }

    #[test]
    fn formats() {
        let table = "user\ttags\na\t[]\nb \"c\"\t[x, y]\n";
        assert_eq!(rows().format(Formatter::Table, Header::Shown), table);
        assert_eq!(rows().format(Formatter::Table, Header::Hidden), "a\t[]\nb \"c\"\t[x, y]\n");
        let json = "[\n{\"user\":\"a\",\"tags\":[]}\n,{\"user\":\"b \\\"c\\\"\",\"tags\":[\"x\",\"y\"]}\n]\n";
        assert_eq!(rows().format(Formatter::Json, Header::Shown), json);
        let csv = "\"user\",\"tags\"\n\"a\",\"[]\"\n\"b \"\"c\"\"\",\"[x, y]\"\n";
        assert_eq!(rows().format(Formatter::Csv, Header::Shown), csv);
        let erlang = "[[{user,<<\"a\">>},{tags,[]}],\n [{user,<<\"b \\\"c\\\"\">>},{tags,[<<\"x\">>,<<\"y\">>]}]]\n";
        assert_eq!(rows().format(Formatter::Erlang, Header::Shown), erlang);
    }

    #[test]
    fn what_clients_chose_does_not_reach_the_terminal_raw() {
        let mut rows = Rows::new(&["name"]);
        rows.rows.push(vec![Cell::text("a\x1b[2J\nb\tc\u{9b}")]);
        for formatter in [Formatter::Table, Formatter::Csv, Formatter::PrettyTable] {
            let text = rows.format(formatter, Header::Hidden);
            assert!(text.contains("a\\u001b[2J\\nb\\tc\\u009b"), "{text:?}");
        }
    }

    #[test]
    fn a_pretty_table_has_lines() {
        let mut rows = Rows::new(&["name"]);
        rows.rows.push(vec![Cell::text("long name")]);
        let lines = "\x1b(0lqqqqqqqqqqqk\x1b(B\n\x1b(0x\x1b(B \x1b[1mname\x1b[0m      \x1b(0x\x1b(B\n\x1b(0tqqqqqqqqqqqu\x1b(B\n\
                     \x1b(0x\x1b(B long name \x1b(0x\x1b(B\n\x1b(0mqqqqqqqqqqqj\x1b(B\n";
        assert_eq!(rows.format(Formatter::PrettyTable, Header::Shown), lines);
    }

    #[test]
    fn empty_lists() {
        let mut rows = Rows::new(&["name"]);
        assert_eq!(rows.format(Formatter::Table, Header::Shown), "");
        assert_eq!(rows.format(Formatter::Json, Header::Shown), "[\n]\n");
        rows.empty = Empty::Line;
        assert_eq!(rows.format(Formatter::Table, Header::Shown), "\n");
        assert_eq!(rows.format(Formatter::Json, Header::Shown), "[]\n");
    }
}
