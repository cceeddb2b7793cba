//! What every example needs: a connection and the command line.

use std::{env, error::Error};

use lapin::{Connection, ConnectionProperties};

/// How the examples end: with any error they meet.
pub type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Connects to the broker that `AMQP_URL` names, by default one on this machine.
///
/// # Errors
/// When the broker cannot be reached or refuses the login.
pub async fn connect() -> lapin::Result<Connection> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".into());
    Connection::connect(&url, ConnectionProperties::default()).await
}

/// The command line of an example: words, and `--count N` for programs that otherwise run until they are stopped.
pub struct CommandLine {
    /// The arguments other than `--count`.
    pub words: Vec<String>,
    /// Messages to receive before the program ends.
    pub count: usize,
}

impl CommandLine {
    /// Reads the arguments of this program.
    ///
    /// # Errors
    /// When `--count` is not followed by a number.
    pub fn read() -> Result<Self, Box<dyn Error + Send + Sync>> {
        Self::parse(env::args().skip(1))
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let mut line = Self { words: Vec::new(), count: usize::MAX };
        while let Some(argument) = arguments.next() {
            if argument == "--count" {
                line.count = arguments.next().ok_or("--count needs a number")?.parse()?;
            } else {
                line.words.push(argument);
            }
        }
        Ok(line)
    }

    /// The words from number `first` on as one text, or `default` when there are none.
    #[must_use]
    pub fn text(&self, first: usize, default: &str) -> String {
        match self.words.get(first..) {
            Some(words) if !words.is_empty() => words.join(" "),
            _ => default.into(),
        }
    }
}
