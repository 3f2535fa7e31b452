//! How far the server is on its way from start to end, for whoever asks whether it takes clients.

use std::fmt;
use tokio::sync::watch;

/// A stretch of the server's life. Each follows the one before, and none comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Its addresses are taken, and nobody is served yet: who connects waits.
    Starting,
    /// It takes clients and serves them.
    Serving,
    /// It was told to stop. Load balancers should send it no more clients.
    Draining,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        })
    }
}

/// The phase that the server is in. One thread moves it on; any may look.
#[derive(Debug)]
pub struct PhaseCell(watch::Sender<Phase>);

impl Default for PhaseCell {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Starting))
    }
}

impl PhaseCell {
    /// The phase now.
    pub fn now(&self) -> Phase {
        *self.0.borrow()
    }

    /// The server is in this phase from now on.
    pub fn begin(&self, phase: Phase) {
        self.0.send_replace(phase);
    }
}
