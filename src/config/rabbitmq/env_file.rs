//! `rabbitmq-env.conf`, which a shell runs for RabbitMQ, and the environment as it is with it. Nothing is run here: what is
//! no plain `NAME=value` is refused, with what to write instead.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::super::origin::{Origin, Problems};
use super::super::sources::reason;

/// What every variable of RabbitMQ begins with; its file leaves it out.
const PREFIX: &str = "RABBITMQ_";

/// The name of the file, wherever it is.
pub(super) const NAME: &str = "rabbitmq-env.conf";

/// The environment, and behind it the variables of `rabbitmq-env.conf`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    all: Vec<(String, String)>,
    /// Those of the file: where each stands, and its name there.
    of_file: BTreeMap<String, (Origin, String)>,
}

impl Variables {
    pub(crate) fn of(environment: &[(String, String)]) -> Self {
        Self { all: environment.to_vec(), of_file: BTreeMap::new() }
    }

    /// Reads the file. What the environment has, be it empty, stays; of a name that stands there twice the last counts.
    pub(crate) fn add_file(&mut self, file: &Path, problems: &mut Problems) {
        for assignment in read(file, problems) {
            let Assignment { written, value, origin } = assignment;
            let name = if written.starts_with(PREFIX) { written.clone() } else { format!("{PREFIX}{written}") };
            match self.of_file.get(&name) {
                None if self.all.iter().any(|(known, _)| *known == name) => continue,
                // A full name goes before a short one.
                Some((_, earlier)) if earlier.starts_with(PREFIX) && !written.starts_with(PREFIX) => continue,
                Some(_) | None => {}
            }
            self.all.retain(|(known, _)| *known != name);
            self.all.push((name.clone(), value));
            self.of_file.insert(name, (origin, written));
        }
    }

    pub(crate) fn all(&self) -> &[(String, String)] {
        &self.all
    }

    /// Those of the file alone.
    pub(super) fn only_of_file(&self) -> Self {
        let all = self.all.iter().filter(|(name, _)| self.of_file.contains_key(name)).cloned().collect();
        Self { all, of_file: self.of_file.clone() }
    }

    /// A variable that is there and not empty, and its place.
    pub(crate) fn find(&self, name: &str) -> Option<(Origin, &str)> {
        let (_, text) = self.all.iter().find(|(variable, text)| variable == name && !text.is_empty())?;
        Some((self.origin(name), text))
    }

    fn origin(&self, name: &str) -> Origin {
        let of_file = self.of_file.get(name).map(|(origin, _)| origin.clone());
        of_file.unwrap_or_else(|| Origin::Environment(name.to_owned()))
    }

    /// Whether it is one of the file's.
    pub(super) fn is_of_file(&self, name: &str) -> bool {
        self.of_file.contains_key(name)
    }

    /// What a variable is called where it stands, for messages.
    pub(super) fn shown(&self, name: &str) -> String {
        match self.of_file.get(name) {
            Some((origin, written)) => format!("{origin}: {written}"),
            None => name.to_owned(),
        }
    }
}

/// One line of the file.
struct Assignment {
    /// The name as it stands there.
    written: String,
    value: String,
    origin: Origin,
}

fn read(file: &Path, problems: &mut Problems) -> Vec<Assignment> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text.replace("\r\n", "\n"),
        Err(error) => {
            let message = format!("cannot read {}: {}", file.display(), reason(&error));
            problems.other(&Origin::Default, message);
            return Vec::new();
        }
    };
    let name: Arc<str> = file.to_string_lossy().into();
    let mut reader = Reader { rest: text.trim_start_matches('\u{feff}'), line: 1 };
    let mut assignments = Vec::new();
    while !reader.rest.is_empty() {
        let origin = Origin::EnvironmentFile { file: Arc::clone(&name), line: reader.line };
        match reader.statement() {
            Ok(None) => {}
            Ok(Some((written, value))) => assignments.push(Assignment { written, value, origin }),
            Err(message) => problems.other(&origin, message),
        }
        reader.skip_line();
    }
    assignments
}

/// Reads the words of a shell, as far as they are plain.
struct Reader<'a> {
    rest: &'a str,
    /// Counted from 1.
    line: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.rest = &self.rest[next.len_utf8()..];
        self.line += usize::from(next == '\n');
        Some(next)
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Past the end of the line.
    fn skip_line(&mut self) {
        while !matches!(self.next(), None | Some('\n')) {}
    }

    /// What stands before a blank, a `=` or the end of the line.
    fn word(&mut self) -> &'a str {
        let end = self.rest.find([' ', '\t', '\n', '=']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// An assignment; None for an empty line, or a comment. The end of the line is left.
    fn statement(&mut self) -> Result<Option<(String, String)>, String> {
        self.skip_blanks();
        if matches!(self.peek(), None | Some('\n' | '#')) {
            return Ok(None);
        }
        let mut word = self.word();
        if word == "export" && self.rest.starts_with([' ', '\t']) {
            self.skip_blanks();
            word = self.word();
        }
        if !is_name(word) || !self.rest.starts_with('=') {
            return Err(no_assignment(word, self.rest));
        }
        self.next();
        let value = self.value(word)?;
        let is_apart = self.rest.starts_with([' ', '\t']);
        self.skip_blanks();
        match self.peek() {
            None | Some('\n') => Ok(Some((word.to_owned(), value))),
            Some('#') if is_apart => Ok(Some((word.to_owned(), value))),
            Some(_) => Err(format!(
                "{word}: there is something behind the value: write one assignment a line, and a value with blanks in quotes, \
                 {word}=\"a b\""
            )),
        }
    }

    fn value(&mut self, name: &str) -> Result<String, String> {
        let mut value = String::new();
        let mut is_first = true;
        loop {
            match self.peek() {
                None | Some(' ' | '\t' | '\n') => return Ok(value),
                Some('\'') => {
                    self.next();
                    let Some((inner, _)) = self.rest.split_once('\'') else {
                        self.rest = "";
                        return Err(not_closed(name, '\''));
                    };
                    value.push_str(inner);
                    // With the quote that closes it.
                    for _ in 0..=inner.chars().count() {
                        self.next();
                    }
                }
                Some('"') => {
                    self.next();
                    self.quoted(name, &mut value)?;
                }
                Some('\\') => {
                    self.next();
                    value.extend(self.next().filter(|next| *next != '\n'));
                }
                Some('$' | '`') => return Err(not_replaced(name, self.rest)),
                Some('~') if is_first => {
                    return Err(format!("{name}: a ~ is not replaced: write the directory itself, {name}=/home/..."));
                }
                Some(sign @ (';' | '&' | '|' | '<' | '>' | '(' | ')')) => {
                    return Err(format!(
                        "{name}: {sign} is a sign of the shell, and nothing is run here: write one assignment a line, and the \
                         value in single quotes if it belongs to it"
                    ));
                }
                Some(other) => {
                    self.next();
                    value.push(other);
                }
            }
            is_first = false;
        }
    }

    /// What stands in double quotes, behind the first of them.
    fn quoted(&mut self, name: &str, value: &mut String) -> Result<(), String> {
        loop {
            match self.peek() {
                None => return Err(not_closed(name, '"')),
                Some('$' | '`') => return Err(not_replaced(name, self.rest)),
                Some('"') => {
                    self.next();
                    return Ok(());
                }
                Some('\\') => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(own @ ('$' | '`' | '"' | '\\')) => value.push(own),
                        Some(other) => value.extend(['\\', other]),
                    }
                }
                Some(other) => {
                    self.next();
                    value.push(other);
                }
            }
        }
    }
}

fn is_name(word: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    word.chars().all(is_part) && word.chars().next().is_some_and(|first| !first.is_ascii_digit())
}

fn not_closed(name: &str, quote: char) -> String {
    format!("{name}: the quote ({quote}) is not closed")
}

/// What to write for a `$` or a backtick. Values are not repeated: they may be secrets.
fn not_replaced(name: &str, rest: &str) -> String {
    let what = if rest.starts_with('`') || rest.starts_with("$(") {
        "a command is not run: write what it prints"
    } else {
        "variables are not replaced: write the value itself"
    };
    format!("{name}: {what}, {name}=value; a $ or a ` that belongs to the value has single quotes around it")
}

/// What to write for a line that assigns nothing.
fn no_assignment(word: &str, rest: &str) -> String {
    let gap = rest.trim_start_matches([' ', '\t']);
    match word {
        "if" | "then" | "else" | "elif" | "fi" | "case" | "esac" | "for" | "while" | "until" | "do" | "done" | "[" | "[["
        | "{" | "}" | "function" => {
            "conditions, loops and functions are not run: write the assignments that they come to here, such as NODE_PORT=5672"
                .to_owned()
        }
        "." | "source" => "other files are not run: write their assignments here, such as NODE_PORT=5672".to_owned(),
        "ulimit" => "limits are set where the broker is started: write LimitNOFILE=... in its unit of systemd, or call ulimit \
                     before it, and take the line away"
            .to_owned(),
        name if is_name(name) && gap.starts_with('=') => format!("write {name}=value, without blanks around the ="),
        key if gap.starts_with('=') && key.contains('.') => {
            format!("{key} is no name of a variable: a key of rabbitmq.conf is written there")
        }
        _ => "commands are not run: write assignments alone, such as NODE_PORT=5672".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(text: &str) -> Result<Option<(String, String)>, String> {
        Reader { rest: text, line: 1 }.statement()
    }

    #[test]
    fn assignments_as_a_shell_reads_them() {
        for (text, name, value) in [
            ("NODE_PORT=5673", "NODE_PORT", "5673"),
            ("  export NODENAME=rabbit@one # this one", "NODENAME", "rabbit@one"),
            ("A='a $b `c` \\ \"d\"'", "A", "a $b `c` \\ \"d\""),
            ("A=\"a 'b' \\$c \\\\ \\d\"", "A", "a 'b' $c \\ \\d"),
            ("A=a\\ b'c'\"d\"#e", "A", "a bcd#e"),
            ("A=\"a \\\n b\"\n", "A", "a  b"),
            ("A='a\nb'\n", "A", "a\nb"),
            ("A=a\\\nb\n", "A", "ab"),
            ("A=x=y", "A", "x=y"),
            ("A=a~b", "A", "a~b"),
            ("A=", "A", ""),
        ] {
            assert_eq!(statement(text), Ok(Some((name.to_owned(), value.to_owned()))), "{text}");
        }
        for text in ["", "  # A=1", "\t\nA=1"] {
            assert_eq!(statement(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_a_shell_would_run_is_refused() {
        for (text, told) in [
            ("A=$(hostname)", "A: a command is not run: write what it prints, A=value"),
            ("A=\"x `hostname`\"", "A: a command is not run"),
            ("A=\"$HOME/x\"", "A: variables are not replaced: write the value itself, A=value"),
            ("A=${B:-c}", "A: variables are not replaced"),
            ("A=~/log", "A: a ~ is not replaced"),
            ("A=1; B=2", "A: ; is a sign of the shell"),
            ("A=1 B=2", "A: there is something behind the value"),
            ("A=1 command", "A: there is something behind the value"),
            ("A='1", "A: the quote (') is not closed"),
            ("A=\"1", "A: the quote (\") is not closed"),
            ("A = 1", "write A=value, without blanks around the ="),
            ("export A", "commands are not run"),
            ("if [ -f /x ]; then", "conditions, loops and functions are not run"),
            ("  fi", "conditions, loops and functions are not run"),
            (". /etc/default/rabbitmq", "other files are not run: write their assignments here"),
            ("ulimit -n 65536", "limits are set where the broker is started"),
            ("listeners.tcp.1 = 5672", "listeners.tcp.1 is no name of a variable"),
            ("1A=2", "commands are not run"),
        ] {
            let refused = statement(text).expect_err(text);
            assert!(refused.starts_with(told), "{text}: {refused}");
        }
    }
}
