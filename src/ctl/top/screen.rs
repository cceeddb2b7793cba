//! Draws a frame: totals, the table, the keys.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row, Table};

use super::sample::{Connection, Queue, Sample, per_second, size};
use super::view::{Tab, View};

const KEYS: &str = "q quit  Tab queues/connections  s sort  r reverse  / filter  p pause  arrows scroll  ? help";

const HELP: &str = "\
 Tab, 1, 2     queues, connections
 s             sort by the next column
 r             reverse the order
 /             filter by name, vhost, user; Enter takes, Esc clears it
 p, space      pause
 arrows, PgUp, PgDn, Home   scroll
 Enter         look now
 q, Esc        quit

 Order `trouble`: queues that grow come first, then those that need
 longest to drain, then the oldest backlog.";

pub(crate) fn draw(frame: &mut Frame<'_>, view: &mut View, sample: Option<&Sample>, problem: Option<&str>) {
    let rows = [Constraint::Length(2), Constraint::Length(1), Constraint::Min(1), Constraint::Length(1)];
    let [totals, status, table, keys] = Layout::vertical(rows).areas(frame.area());
    if let Some(sample) = sample {
        frame.render_widget(Paragraph::new(totals_lines(sample)), totals);
        match view.tab {
            Tab::Queues => draw_queues(frame, table, view, sample),
            Tab::Connections => draw_connections(frame, table, view, sample),
        }
    }
    frame.render_widget(Paragraph::new(status_line(view, sample, problem)), status);
    if !view.plain {
        frame.render_widget(Paragraph::new(KEYS).style(Style::new().add_modifier(Modifier::DIM)), keys);
    }
    if view.help {
        let area = centered(frame.area(), 74, 13);
        frame.render_widget(Clear, area);
        frame.render_widget(Paragraph::new(HELP).block(Block::bordered().title(" warren top ")), area);
    }
}

fn centered(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}

fn totals_lines(sample: &Sample) -> Vec<Line<'static>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let part = |(name, value): &(&'static str, String)| {
        vec![Span::raw(format!("{name} ")), Span::styled(value.clone(), bold), Span::raw("  ")]
    };
    let (messages, objects) = sample.totals.split_at(sample.totals.len().min(8));
    let mut first = vec![Span::styled(sample.node.clone(), bold), Span::raw("  ")];
    first.extend(objects.iter().flat_map(part));
    if !sample.alarms.is_empty() {
        first.push(Span::styled(format!("ALARM: {}", sample.alarms.join("; ")), Style::new().fg(Color::Red)));
    }
    vec![Line::from(first), Line::from(messages.iter().flat_map(part).collect::<Vec<_>>())]
}

fn status_line(view: &View, sample: Option<&Sample>, problem: Option<&str>) -> Line<'static> {
    if let Some(problem) = problem {
        return Line::styled(problem.to_owned(), Style::new().fg(Color::Red));
    }
    let (title, shown) = match (view.tab, sample) {
        (Tab::Queues, Some(sample)) => ("Queues", view.queues(&sample.queues).len()),
        (Tab::Connections, Some(sample)) => ("Connections", view.connections(&sample.connections).len()),
        (_, None) => ("", 0),
    };
    let mut text = format!("{title}: {shown}, by {}", view.sort().name());
    if view.reversed {
        text.push_str(", reversed");
    }
    if view.typing || !view.filter.is_empty() {
        text.push_str(&format!(", filter: {}{}", view.filter, if view.typing { "_" } else { "" }));
    }
    if view.paused {
        text.push_str(", PAUSED");
    }
    Line::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

fn header(columns: &[&'static str]) -> Row<'static> {
    Row::new(columns.to_vec()).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn draw_queues(frame: &mut Frame<'_>, area: Rect, view: &mut View, sample: &Sample) {
    let queues = view.queues(&sample.queues);
    view.top = view.top.min(queues.len().saturating_sub(1));
    let rows = queues.iter().skip(view.top).take(usize::from(area.height)).map(|queue| queue_row(queue));
    let widths = [
        Constraint::Min(16),
        Constraint::Max(16),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(10),
    ];
    let names = ["NAME", "VHOST", "TYPE", "READY", "UNACKED", "IN/S", "OUT/S", "CONSUMERS", "MEMORY"];
    frame.render_widget(Table::new(rows, widths).header(header(&names)), area);
}

fn queue_row(queue: &Queue) -> Row<'static> {
    let style = if queue.is_growing() {
        Style::new().fg(Color::Yellow)
    } else if queue.ready > 0 && queue.consumers == 0 {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    Row::new(vec![
        queue.name.clone(),
        queue.vhost.clone(),
        queue.kind.clone(),
        queue.ready.to_string(),
        queue.unacknowledged.to_string(),
        per_second(queue.incoming),
        per_second(queue.outgoing),
        queue.consumers.to_string(),
        size(queue.memory as f64),
    ])
    .style(style)
}

fn draw_connections(frame: &mut Frame<'_>, area: Rect, view: &mut View, sample: &Sample) {
    let connections = view.connections(&sample.connections);
    view.top = view.top.min(connections.len().saturating_sub(1));
    let rows =
        connections.iter().skip(view.top).take(usize::from(area.height)).map(|connection| connection_row(connection));
    let widths = [
        Constraint::Min(24),
        Constraint::Max(24),
        Constraint::Max(14),
        Constraint::Max(14),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Length(12),
    ];
    let names = ["NAME", "CLIENT", "USER", "VHOST", "STATE", "PROTOCOL", "CHANNELS", "FROM/S", "TO/S"];
    frame.render_widget(Table::new(rows, widths).header(header(&names)), area);
}

fn connection_row(connection: &Connection) -> Row<'static> {
    let blocked = connection.state != "running";
    Row::new(vec![
        connection.name.clone(),
        connection.client.clone(),
        connection.user.clone(),
        connection.vhost.clone(),
        connection.state.clone(),
        connection.protocol.clone(),
        connection.channels.to_string(),
        size(connection.received),
        size(connection.sent),
    ])
    .style(if blocked { Style::new().fg(Color::Yellow) } else { Style::new() })
}
