//! A question on the terminal whose answer is not shown.

use std::io::Write;

use ratatui::crossterm::event::{Event, KeyCode, KeyModifiers, read};
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode};

/// Asks on standard error and reads until Enter. Control-C is an error of kind `Interrupted`.
///
/// # Errors
/// The terminal cannot be read.
pub(crate) fn hidden(prompt: &str) -> std::io::Result<String> {
    let mut output = std::io::stderr();
    write!(output, "{prompt}")?;
    output.flush()?;
    enable_raw_mode()?;
    let answer = keys();
    let restored = disable_raw_mode();
    writeln!(output)?;
    let answer = answer?;
    restored?;
    Ok(answer)
}

fn keys() -> std::io::Result<String> {
    let mut answer = String::new();
    loop {
        let Event::Key(key) = read()? else { continue };
        match key.code {
            KeyCode::Enter => return Ok(answer),
            KeyCode::Char('c' | 'd') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            KeyCode::Char(character) => answer.push(character),
            KeyCode::Backspace => _ = answer.pop(),
            _ => {}
        }
    }
}
