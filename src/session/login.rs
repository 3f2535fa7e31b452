//! Lets a client in whom Redis is not asked about: users of the configuration, and logins that Redis knew when it was
//! last there. Has those wait who cannot be let in.

use super::client::Client;
use super::hello::Login;
use crate::auth::{Auth, WRONG_PASSWORD, pause_after};
use crate::worker::Worker;
use std::pin::Pin;
use std::task::Context;
use tokio::time::{Sleep, sleep};

const UNKNOWN_LOGIN: &str = "UNAVAILABLE Redis cannot be reached, and it has not let this login in before";
const NO_PASSWORD: &str = "ERR AUTH <password> called without any password configured for the default user. \
                           Are you sure your configuration is correct?";

/// Has a client wait whose logins fail.
#[derive(Debug, Default)]
pub struct Pause {
    until: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    /// Begins one, after so many logins that failed, if it is to be.
    pub fn begin(&mut self, failed_logins: u32) {
        self.until = pause_after(failed_logins).map(|pause| Box::pin(sleep(pause)));
    }

    /// Whether the client waits.
    pub fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Ends it when it is time.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        if self.until.as_mut().is_some_and(|until| until.as_mut().poll(cx).is_ready()) {
            self.until = None;
        }
    }
}

/// Lets a client in that Redis is not asked about.
///
/// # Errors
/// It may not come in; the text is the reply.
pub fn log_in(worker: &Worker, client: &mut Client, login: Login) -> Result<(), &'static str> {
    let shared = &worker.shared;
    let check = |down_since| shared.auth.check(login.user(), login.password(), down_since);
    match (&shared.auth, shared.backend.upstream()) {
        (Auth::None(_), None) if login.is_password_alone() => return Err(NO_PASSWORD),
        // It is Redis's business, and Redis is away: there it is said again once there is a connection.
        (Auth::None(_), Some(_)) => client.login = Some(login),
        (Auth::Redis(_), Some(node)) => {
            client.permissions = Some(check(node.health.known().down_since).ok_or(UNKNOWN_LOGIN)?);
            client.login = Some(login);
        }
        _ => match check(None) {
            Some(permissions) => client.permissions = Some(permissions),
            None => {
                client.fail_login();
                return Err(WRONG_PASSWORD);
            }
        },
    }
    Ok(())
}
