//! Whether the node serves clients: its AMQP sockets are open, or closed for a while. A socket that is not to accept
//! connections is not there, so that whoever tries to connect is refused at once.

use std::time::Duration;

use tokio::sync::watch;

use crate::management::ServiceState;

/// How long it may take until all sockets are closed, or open again.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub(super) struct Sockets {
    state: watch::Sender<ServiceState>,
    /// AMQP sockets that are open, and how many there are when all of them are.
    sockets: watch::Sender<(usize, usize)>,
}

impl Default for Sockets {
    fn default() -> Self {
        Self { state: watch::Sender::new(ServiceState::default()), sockets: watch::Sender::new((0, 0)) }
    }
}

impl Sockets {
    pub(super) fn state(&self) -> ServiceState {
        *self.state.borrow()
    }

    /// Whether every socket is open.
    pub(super) fn is_open(&self) -> bool {
        let (open, all) = *self.sockets.borrow();
        open == all
    }

    /// For a listener: to be told when it has to close or open.
    pub(super) fn follow(&self) -> watch::Receiver<ServiceState> {
        self.state.subscribe()
    }

    /// A listener has its first socket.
    pub(super) fn add_socket(&self) {
        self.sockets.send_modify(|(open, all)| (*open, *all) = (*open + 1, *all + 1));
    }

    pub(super) fn socket_closed(&self) {
        self.sockets.send_modify(|(open, _)| {
            assert!(*open > 0, "a socket was closed that was not open");
            *open -= 1;
        });
    }

    pub(super) fn socket_opened(&self) {
        self.sockets.send_modify(|(open, all)| {
            assert!(*open < *all, "a socket was opened that nobody has");
            *open += 1;
        });
    }

    /// Changes the state and waits until the sockets are as it says.
    ///
    /// # Errors
    /// They are not after ten seconds: another program may have taken a port meanwhile.
    pub(super) async fn set(&self, state: ServiceState) -> Result<(), String> {
        self.state.send_replace(state);
        let mut sockets = self.sockets.subscribe();
        let reached = sockets.wait_for(|(open, all)| *open == if state.is_closed() { 0 } else { *all });
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(_) => Ok(()),
            Err(_) if state.is_closed() => Err("a listener does not close its socket".to_owned()),
            Err(_) => {
                Err("a listener cannot open its socket again; it goes on trying, and the log says why".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_waits_for_the_sockets() {
        let listening = Sockets::default();
        listening.add_socket();
        assert!(listening.is_open() && listening.set(ServiceState::default()).await.is_ok());
        let suspended = ServiceState { suspended: true, ..ServiceState::default() };
        let mut following = listening.follow();
        let listener = async {
            assert!(following.wait_for(|state| state.is_closed()).await.is_ok());
            listening.socket_closed();
        };
        let (set, ()) = tokio::join!(listening.set(suspended), listener);
        assert!(set.is_ok() && !listening.is_open() && listening.state() == suspended);
    }
}
