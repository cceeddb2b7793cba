//! `warren top`: queues and connections, live. `sample.rs` asks the API, `view.rs` decides what is shown in which order,
//! `screen.rs` draws it; this file waits for keys and for the next look.

mod sample;
mod screen;
mod view;

use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::{CrosstermBackend, TestBackend};
use ratatui::crossterm::event::{Event, KeyEventKind, poll, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::call::Call;
use super::error::CtlError;
use super::verb::{Done, Group, Verb};
use sample::Sample;
use view::{After, Sort, Tab, View};

pub(crate) const VERB: Verb = Verb::new(
    Group::Monitoring,
    "warren top",
    "[--interval <seconds>] [--filter <text>] [--sort <column>] [--reverse] [--connections] [--once] [--no-tty] [--width <columns>] \
     [--height <lines>]",
    "Shows queues and connections live, those in trouble first. Keys: Tab the other view, s sort, r reverse, / filter, p pause, \
     arrows scroll, ? help, q quit. With --once --no-tty it prints one frame as text",
    run,
);

/// Between two looks at the broker.
const INTERVAL: Duration = Duration::from_secs(2);
/// What a frame of `--no-tty` measures.
const FRAME: (u16, u16) = (120, 40);

fn run(call: &Call<'_>) -> Done {
    let mut view = View::default();
    if call.arguments.has("connections") {
        view.tab = Tab::Connections;
    }
    if let Some(name) = call.arguments.option("sort") {
        let known = Sort::of(view.tab).iter().map(|sort| sort.name()).collect::<Vec<_>>().join(", ");
        let found = Sort::of(view.tab).iter().find(|sort| sort.name() == name);
        let sort = found.ok_or_else(|| CtlError::BadArgument(format!("sort must be one of: {known}")))?;
        view.set_sort(*sort);
    }
    view.reversed = call.arguments.has("reverse");
    call.arguments.option("filter").unwrap_or_default().clone_into(&mut view.filter);
    let interval = call.arguments.number::<f64>("interval")?;
    let interval =
        interval.map_or(INTERVAL, |seconds| Duration::try_from_secs_f64(seconds.max(0.2)).unwrap_or(INTERVAL));
    if call.arguments.has("no-tty") || call.arguments.has("once") {
        return frames(call, &mut view, interval);
    }
    let mut terminal = open().map_err(terminal_error)?;
    let result = watch(call, &mut view, interval, &mut terminal);
    let closed = close();
    result?;
    closed.map_err(terminal_error)
}

fn terminal_error(cause: std::io::Error) -> CtlError {
    CtlError::file("terminal (`warren top --once --no-tty` needs none)", cause)
}

type Screen = Terminal<CrosstermBackend<std::io::Stdout>>;

fn open() -> std::io::Result<Screen> {
    enable_raw_mode()?;
    execute!(std::io::stdout(), EnterAlternateScreen)?;
    Terminal::new(CrosstermBackend::new(std::io::stdout()))
}

fn close() -> std::io::Result<()> {
    execute!(std::io::stdout(), LeaveAlternateScreen)?;
    disable_raw_mode()
}

/// Frames as text: one, or one after the other.
fn frames(call: &Call<'_>, view: &mut View, interval: Duration) -> Done {
    view.plain = true;
    let width = call.arguments.number("width")?.unwrap_or(FRAME.0).clamp(40, 500);
    let height = call.arguments.number("height")?.unwrap_or(FRAME.1).clamp(6, 1000);
    loop {
        let sample = Sample::take(call, view.tab, &view.filter)?;
        call.print(&text_frame(view, &sample, width, height)?);
        if call.arguments.has("once") {
            return Ok(());
        }
        call.client.pause(interval);
    }
}

/// A frame without colours, without blanks at line ends and without empty lines at its end.
fn text_frame(view: &mut View, sample: &Sample, width: u16, height: u16) -> Result<String, CtlError> {
    let mut terminal = match Terminal::new(TestBackend::new(width, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    match terminal.draw(|frame| screen::draw(frame, view, Some(sample), None)) {
        Ok(_) => {}
        Err(never) => match never {},
    }
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(usize::from(width.max(1)));
    let lines: Vec<String> =
        lines.map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect();
    let last = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |at| at + 1);
    Ok(lines[..last].join("\n") + "\n")
}

/// Looks, draws and takes keys until it is enough. A look that fails is shown, and tried again.
fn watch(call: &Call<'_>, view: &mut View, interval: Duration, terminal: &mut Screen) -> Done {
    // That there is a broker at all is said before the screen is taken.
    let mut sample = Sample::take(call, view.tab, &view.filter)?;
    let mut problem: Option<String> = None;
    let mut next = Instant::now() + interval;
    loop {
        terminal.draw(|frame| screen::draw(frame, view, Some(&sample), problem.as_deref())).map_err(terminal_error)?;
        let wait = next.saturating_duration_since(Instant::now());
        let mut look_now = wait.is_zero() && !view.paused;
        if poll(if view.paused { interval } else { wait }).map_err(terminal_error)?
            && let Event::Key(key) = read().map_err(terminal_error)?
            && key.kind != KeyEventKind::Release
        {
            match view.key(key, sample.rows(view.tab)) {
                After::Quit => return Ok(()),
                After::Look => look_now = true,
                After::Draw => {}
            }
        }
        if look_now {
            match Sample::take(call, view.tab, &view.filter) {
                Ok(taken) => (sample, problem) = (taken, None),
                Err(error) => problem = Some(error.to_string().lines().next().unwrap_or_default().to_owned()),
            }
            next = Instant::now() + interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_frame_is_text() {
        let queues = json!([
            {"name": "calm", "vhost": "/", "messages_ready": 0, "messages_unacknowledged": 1, "consumers": 1, "memory": 1000},
            {"name": "growing", "vhost": "orders", "messages_ready": 50, "messages_unacknowledged": 0, "consumers": 0,
             "messages_details": {"rate": 5.0}, "message_stats": {"publish_details": {"rate": 5.0}}},
        ]);
        let overview = json!({"node": "warren@here", "object_totals": {"queues": 2, "connections": 1}});
        let sample = Sample::read(&overview, &json!({}), &queues, &json!([]));
        let mut view = View::default();
        let text = text_frame(&mut view, &sample, 120, 20).expect("drawn");
        let line = |name: &str| text.lines().position(|line| line.contains(name)).expect("shown");
        assert!(line("growing") < line("calm"), "what grows comes first:\n{text}");
        assert!(text.contains("warren@here") && text.contains("orders"), "{text}");
        "cal".clone_into(&mut view.filter);
        let text = text_frame(&mut view, &sample, 120, 20).expect("drawn");
        assert!(!text.contains("growing"), "filtered:\n{text}");
    }
}
