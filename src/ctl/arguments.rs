//! The command line of one call: options may stand anywhere, before and after the verb, as RabbitMQ's tools allow.

use super::error::CtlError;
use super::verb::Shape;

/// Options of every verb, and whether they take a value.
const GENERAL: [(&str, Value); 16] = [
    ("node", Value::Taken),
    ("vhost", Value::Taken),
    ("timeout", Value::Taken),
    ("formatter", Value::Taken),
    ("printer", Value::Taken),
    ("uri", Value::Taken),
    ("data-dir", Value::Taken),
    ("quiet", Value::None),
    ("silent", Value::None),
    ("longnames", Value::None),
    ("dry-run", Value::None),
    ("table-headers", Value::None),
    ("no-table-headers", Value::None),
    ("help", Value::None),
    ("json", Value::None),
    ("insecure", Value::None),
];

/// One letter each.
const SHORT: [(char, &str); 15] = [
    ('p', "vhost"),
    ('n', "node"),
    ('t', "timeout"),
    ('q', "quiet"),
    ('s', "silent"),
    ('l', "longnames"),
    ('h', "help"),
    ('E', "enabled"),
    ('e', "implicitly-enabled"),
    ('m', "minimal"),
    ('N', "number"),
    ('v', "verbose"),
    ('N', "number"),
    ('d', "duration"),
    ('f', "formatter"),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Value {
    Taken,
    None,
}

/// What was typed, taken apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arguments {
    pub(crate) positional: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

impl Arguments {
    /// Finds the verb: the first word that is neither an option nor the value of a general one.
    pub(crate) fn verb(raw: &[String]) -> Option<usize> {
        let mut at = 0;
        while let Some(word) = raw.get(at) {
            match option(word) {
                None => return Some(at),
                Some((name, None)) if general(&name) == Some(Value::Taken) => at += 2,
                Some(_) => at += 1,
            }
        }
        None
    }

    /// Takes the words apart by the verb's shape; `verb` is the place of the verb itself.
    ///
    /// # Errors
    /// An option that the verb does not have, or one without its value.
    pub(crate) fn parse(raw: &[String], verb: Option<usize>, shape: &Shape) -> Result<Self, CtlError> {
        let mut arguments = Self::default();
        let words = raw.iter().enumerate().filter(|(at, _)| Some(*at) != verb).map(|(_, word)| word);
        let mut words = words.peekable();
        let mut only_positional = false;
        while let Some(word) = words.next() {
            if word == "--" && !only_positional {
                only_positional = true;
                continue;
            }
            let Some((name, value)) = option(word).filter(|_| !only_positional) else {
                arguments.positional.push(word.clone());
                continue;
            };
            let takes = takes(&name, shape).ok_or_else(|| invalid(word, value.as_deref().unwrap_or_default()))?;
            let value = match (takes, value) {
                (Value::Taken, Some(value)) => Some(value),
                (Value::Taken, None) => Some(words.next().ok_or_else(|| invalid(word, ""))?.clone()),
                // `--online=true` is `--online`; `--online=false` is none.
                (Value::None, Some(value)) if value == "false" => continue,
                (Value::None, _) => None,
            };
            arguments.options.push((name, value));
        }
        Ok(arguments)
    }

    /// Checks the number of words against the verb's shape.
    ///
    /// # Errors
    /// Too few or too many.
    pub(crate) fn count(&self, shape: &Shape) -> Result<(), CtlError> {
        if self.positional.len() < shape.least {
            return Err(CtlError::Usage("not enough arguments.".to_owned()));
        }
        if shape.most.is_some_and(|most| self.positional.len() > most) {
            return Err(CtlError::Usage("too many arguments.".to_owned()));
        }
        Ok(())
    }

    /// The value of an option; the last one counts.
    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(option, _)| option == name)?;
        found.1.as_deref()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| option == name)
    }

    /// A number of an option.
    ///
    /// # Errors
    /// Not a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, CtlError> {
        let Some(text) = self.option(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| invalid(&format!("--{name}"), text))
    }
}

/// The long names of the general options, with and without a value, for completions.
pub(crate) fn general_options() -> impl Iterator<Item = (&'static str, bool)> {
    GENERAL.iter().map(|(name, value)| (*name, *value == Value::Taken))
}

fn invalid(word: &str, value: &str) -> CtlError {
    CtlError::Usage(format!("Invalid options for this command:\n{word} : {value}"))
}

fn general(name: &str) -> Option<Value> {
    GENERAL.iter().find(|(option, _)| *option == name).map(|(_, value)| *value)
}

fn takes(name: &str, shape: &Shape) -> Option<Value> {
    let own = shape.options.iter().find(|(option, _)| *option == name);
    let own = own.map(|(_, value)| if value.is_some() { Value::Taken } else { Value::None });
    own.or_else(|| general(name))
}

/// `--name`, `--name=value`, `-p`, `-p=value` as name and value; None for other words, among them `-` and negative numbers.
fn option(word: &str) -> Option<(String, Option<String>)> {
    let body = word.strip_prefix('-')?;
    if body.is_empty() || body.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let (long, body) = match body.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, body),
    };
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    let name = name.replace('_', "-");
    let mut letters = name.chars();
    let short = match (letters.next(), letters.next()) {
        (Some(letter), None) if !long => SHORT.iter().find(|(short, _)| *short == letter).map(|(_, name)| *name),
        _ => None,
    };
    Some((short.map_or(name, str::to_owned), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options_stand_anywhere() {
        let raw = words("-q -p orders list_queues name --formatter=json --if-empty messages");
        let verb = Arguments::verb(&raw);
        assert_eq!(verb, Some(3));
        let shape = Shape { least: 0, most: None, options: vec![("if-empty", None)] };
        let arguments = Arguments::parse(&raw, verb, &shape).expect("valid");
        assert_eq!(arguments.positional, ["name", "messages"]);
        assert_eq!(arguments.option("vhost"), Some("orders"));
        assert_eq!(arguments.option("formatter"), Some("json"));
        assert!(arguments.has("quiet") && arguments.has("if-empty") && !arguments.has("silent"));
    }

    #[test]
    fn mistakes_are_named() {
        let shape = Shape { least: 1, most: Some(1), options: vec![("priority", Some("n"))] };
        let error = Arguments::parse(&words("a --bogus"), None, &shape).expect_err("unknown option");
        assert_eq!(error.to_string(), "Invalid options for this command:\n--bogus : ");
        let arguments = Arguments::parse(&words("--priority x"), None, &shape).expect("valid so far");
        assert!(arguments.number::<i64>("priority").is_err());
        assert_eq!(arguments.count(&shape).expect_err("none").to_string(), "not enough arguments.");
        let arguments = Arguments::parse(&words("a b"), None, &shape).expect("valid so far");
        assert_eq!(arguments.count(&shape).expect_err("two").to_string(), "too many arguments.");
    }

    #[test]
    fn a_dash_and_a_negative_number_are_words() {
        let shape = Shape { least: 0, most: None, options: Vec::new() };
        let arguments = Arguments::parse(&words("- -5 -- --quiet"), None, &shape).expect("valid");
        assert_eq!(arguments.positional, ["-", "-5", "--quiet"]);
    }
}
