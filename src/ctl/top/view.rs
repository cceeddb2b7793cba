//! What is shown and in which order; what a key does. Knows neither the terminal nor the broker.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::sample::{Connection, Queue};

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Tab {
    #[default]
    Queues,
    Connections,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Sort {
    /// Growing queues first, then those that need longest to drain, the oldest backlog before a younger one.
    Trouble,
    Name,
    Vhost,
    Ready,
    Unacknowledged,
    Incoming,
    Outgoing,
    Consumers,
    Memory,
    User,
    State,
    Channels,
    /// Bytes received and sent.
    Traffic,
}

impl Sort {
    pub(crate) fn of(tab: Tab) -> &'static [Self] {
        match tab {
            Tab::Queues => &[
                Self::Trouble,
                Self::Name,
                Self::Vhost,
                Self::Ready,
                Self::Unacknowledged,
                Self::Incoming,
                Self::Outgoing,
                Self::Consumers,
                Self::Memory,
            ],
            Tab::Connections => &[Self::Traffic, Self::Name, Self::User, Self::Vhost, Self::State, Self::Channels],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Trouble => "trouble",
            Self::Name => "name",
            Self::Vhost => "vhost",
            Self::Ready => "ready",
            Self::Unacknowledged => "unacked",
            Self::Incoming => "in/s",
            Self::Outgoing => "out/s",
            Self::Consumers => "consumers",
            Self::Memory => "memory",
            Self::User => "user",
            Self::State => "state",
            Self::Channels => "channels",
            Self::Traffic => "traffic",
        }
    }
}

/// What is to be done after a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    Draw,
    /// Ask the broker again.
    Look,
    Quit,
}

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) tab: Tab,
    queue_sort: Sort,
    connection_sort: Sort,
    pub(crate) reversed: bool,
    pub(crate) filter: String,
    /// Keys go to the filter.
    pub(crate) typing: bool,
    pub(crate) paused: bool,
    pub(crate) help: bool,
    /// Nobody presses keys: they are not named.
    pub(crate) plain: bool,
    /// The first row that is shown.
    pub(crate) top: usize,
}

impl Default for View {
    fn default() -> Self {
        Self {
            tab: Tab::Queues,
            queue_sort: Sort::Trouble,
            connection_sort: Sort::Traffic,
            reversed: false,
            filter: String::new(),
            typing: false,
            paused: false,
            help: false,
            plain: false,
            top: 0,
        }
    }
}

impl View {
    pub(crate) fn sort(&self) -> Sort {
        match self.tab {
            Tab::Queues => self.queue_sort,
            Tab::Connections => self.connection_sort,
        }
    }

    pub(crate) fn set_sort(&mut self, sort: Sort) {
        match self.tab {
            Tab::Queues => self.queue_sort = sort,
            Tab::Connections => self.connection_sort = sort,
        }
    }

    /// Takes a key; `rows` is how many rows there are.
    pub(crate) fn key(&mut self, key: KeyEvent, rows: usize) -> After {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return After::Quit;
        }
        if self.typing {
            return self.type_filter(key.code);
        }
        self.help = key.code == KeyCode::Char('?') && !self.help;
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return After::Quit,
            KeyCode::Tab => return self.show(if self.tab == Tab::Queues { Tab::Connections } else { Tab::Queues }),
            KeyCode::Char('1') => return self.show(Tab::Queues),
            KeyCode::Char('2') => return self.show(Tab::Connections),
            KeyCode::Char('s') => self.next_sort(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => self.top = (self.top + 1).min(rows.saturating_sub(1)),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = (self.top + 20).min(rows.saturating_sub(1)),
            KeyCode::PageUp => self.top = self.top.saturating_sub(20),
            KeyCode::Home => self.top = 0,
            KeyCode::Enter => return After::Look,
            _ => {}
        }
        After::Draw
    }

    fn type_filter(&mut self, code: KeyCode) -> After {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(character) => self.filter.push(character),
            _ => return After::Draw,
        }
        self.top = 0;
        if self.typing { After::Draw } else { After::Look }
    }

    fn show(&mut self, tab: Tab) -> After {
        self.tab = tab;
        self.top = 0;
        After::Look
    }

    fn next_sort(&mut self) {
        let all = Sort::of(self.tab);
        let at = all.iter().position(|sort| *sort == self.sort()).unwrap_or_default();
        self.set_sort(all[(at + 1) % all.len()]);
    }

    /// The queues in their order, without those that the filter hides.
    pub(crate) fn queues<'a>(&self, queues: &'a [Queue]) -> Vec<&'a Queue> {
        let mut chosen: Vec<&Queue> = queues.iter().filter(|queue| self.shows(&[&queue.name, &queue.vhost])).collect();
        chosen.sort_by(|one, other| {
            compare_queues(self.queue_sort, one, other)
                .then_with(|| (&one.vhost, &one.name).cmp(&(&other.vhost, &other.name)))
        });
        if self.reversed {
            chosen.reverse();
        }
        chosen
    }

    /// The connections in their order, without those that the filter hides.
    pub(crate) fn connections<'a>(&self, connections: &'a [Connection]) -> Vec<&'a Connection> {
        let visible = |connection: &&Connection| self.shows(&[&connection.name, &connection.user, &connection.client]);
        let mut chosen: Vec<&Connection> = connections.iter().filter(visible).collect();
        chosen.sort_by(|one, other| {
            compare_connections(self.connection_sort, one, other).then_with(|| one.name.cmp(&other.name))
        });
        if self.reversed {
            chosen.reverse();
        }
        chosen
    }

    fn shows(&self, texts: &[&str]) -> bool {
        let filter = self.filter.to_lowercase();
        texts.iter().any(|text| text.to_lowercase().contains(&filter))
    }
}

/// Numbers fall, names rise.
fn compare_queues(sort: Sort, one: &Queue, other: &Queue) -> Ordering {
    match sort {
        Sort::Vhost => one.vhost.cmp(&other.vhost),
        Sort::Ready => other.ready.cmp(&one.ready),
        Sort::Unacknowledged => other.unacknowledged.cmp(&one.unacknowledged),
        Sort::Incoming => other.incoming.total_cmp(&one.incoming),
        Sort::Outgoing => other.outgoing.total_cmp(&one.outgoing),
        Sort::Consumers => other.consumers.cmp(&one.consumers),
        Sort::Memory => other.memory.cmp(&one.memory),
        Sort::Trouble => trouble(one, other),
        Sort::Name | Sort::User | Sort::State | Sort::Channels | Sort::Traffic => one.name.cmp(&other.name),
    }
}

fn trouble(one: &Queue, other: &Queue) -> Ordering {
    let growing = other.is_growing().cmp(&one.is_growing());
    // The older head comes first; one whose age is not known comes last.
    let head = |queue: &Queue| queue.head.unwrap_or(u64::MAX);
    growing
        .then_with(|| other.drain().total_cmp(&one.drain()))
        .then_with(|| head(one).cmp(&head(other)))
        .then_with(|| other.ready.cmp(&one.ready))
        .then_with(|| other.unacknowledged.cmp(&one.unacknowledged))
}

fn compare_connections(sort: Sort, one: &Connection, other: &Connection) -> Ordering {
    match sort {
        Sort::User => one.user.cmp(&other.user),
        Sort::Vhost => one.vhost.cmp(&other.vhost),
        Sort::State => one.state.cmp(&other.state),
        Sort::Channels => other.channels.cmp(&one.channels),
        Sort::Traffic => (other.received + other.sent).total_cmp(&(one.received + one.sent)),
        Sort::Name
        | Sort::Trouble
        | Sort::Ready
        | Sort::Unacknowledged
        | Sort::Incoming
        | Sort::Outgoing
        | Sort::Consumers
        | Sort::Memory => one.name.cmp(&other.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> After {
        view.key(KeyEvent::new(code, KeyModifiers::NONE), 3)
    }

    #[test]
    fn keys() {
        let mut view = View::default();
        assert_eq!(press(&mut view, KeyCode::Tab), After::Look);
        assert_eq!(view.tab, Tab::Connections);
        press(&mut view, KeyCode::Char('s'));
        assert_eq!(view.sort(), Sort::Name);
        press(&mut view, KeyCode::Char('/'));
        press(&mut view, KeyCode::Char('q'));
        assert_eq!((view.filter.as_str(), view.typing), ("q", true));
        assert_eq!(press(&mut view, KeyCode::Enter), After::Look);
        for _ in 0..5 {
            press(&mut view, KeyCode::Down);
        }
        assert_eq!(view.top, 2);
        press(&mut view, KeyCode::Char('p'));
        assert!(view.paused);
        assert_eq!(press(&mut view, KeyCode::Char('q')), After::Quit);
    }

    #[test]
    fn trouble_comes_first() {
        let queue =
            |name: &str, ready, growth, head| Queue { name: name.to_owned(), ready, growth, head, ..Queue::default() };
        let queues = [
            queue("empty", 0, 0.0, None),
            queue("draining", 100, -10.0, None),
            queue("stuck", 100, 0.0, None),
            queue("young", 5, 1.0, Some(2000)),
            queue("old", 5, 1.0, Some(1000)),
        ];
        let names = |view: &View| view.queues(&queues).iter().map(|queue| queue.name.clone()).collect::<Vec<_>>();
        let mut view = View::default();
        assert_eq!(names(&view), ["old", "young", "stuck", "draining", "empty"]);
        view.set_sort(Sort::Name);
        view.reversed = true;
        assert_eq!(names(&view), ["young", "stuck", "old", "empty", "draining"]);
        "ST".clone_into(&mut view.filter);
        assert_eq!(names(&view), ["stuck"]);
    }
}
