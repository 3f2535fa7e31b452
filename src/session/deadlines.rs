//! Ends a session whose client is silent, or does not log in, for too long.

use crate::config::Server;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

/// One client's deadlines. A timer only where one is asked for: ten thousand idle clients would have ten thousand.
#[derive(Debug)]
pub struct Deadlines {
    idle: Option<Idle>,
    login_timeout: Option<Duration>,
    login: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Idle {
    timeout: Duration,
    alarm: Pin<Box<Sleep>>,
    /// Something was read since the alarm was last set.
    is_stale: bool,
}

impl Deadlines {
    /// Those of a client that comes now.
    pub fn new(config: &Server) -> Self {
        let idle = |timeout| Idle { timeout, alarm: Box::pin(sleep(timeout)), is_stale: false };
        Self { idle: config.idle_timeout.map(idle), login_timeout: config.login_timeout, login: None }
    }

    /// Something was read.
    pub fn on_read(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.is_stale = true;
        }
    }

    /// Ready when one has passed. Silence means that nobody is there only if `silence_counts`: a client may also wait, or
    /// listen.
    pub fn poll(&mut self, cx: &mut Context<'_>, has_logged_in: bool, silence_counts: bool) -> Poll<io::Result<()>> {
        if has_logged_in {
            self.login = None;
        } else if let Some(timeout) = self.login_timeout {
            let login = self.login.get_or_insert_with(|| Box::pin(sleep(timeout)));
            if login.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not log in")));
            }
        }
        let Some(idle) = &mut self.idle else { return Poll::Pending };
        if std::mem::take(&mut idle.is_stale) || !silence_counts {
            idle.alarm.as_mut().reset(Instant::now() + idle.timeout);
        }
        ready!(idle.alarm.as_mut().poll(cx));
        Poll::Ready(Ok(()))
    }
}
