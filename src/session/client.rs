//! What a client has said of itself.

use super::hello::{Hello, Login};
use crate::auth::Permissions;
use crate::client_list::{Said, kept};
use crate::config::Commands;
use crate::resp::reply::Protocol;
use std::borrow::Cow;
use std::sync::Arc;

/// What becomes of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It goes on.
    Stay,
    /// It closes once its replies are written.
    Close,
}

/// A client's side of its connection, as its handshake left it.
#[derive(Debug)]
pub struct Client {
    /// Its number, never given twice.
    pub id: u64,
    /// It was told its number, which is its id from then on, whatever Redis calls its connection.
    pub was_told_id: bool,
    /// Its address, for CLIENT INFO and the log.
    pub peer: String,
    /// What HELLO chose.
    pub protocol: Protocol,
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_ver: Vec<u8>,
    /// Who it last said it is.
    pub login: Option<Login>,
    /// How often it has failed to log in.
    pub failed_logins: u32,
    /// It has, and nobody has taken notice yet.
    pub has_failed_login: bool,
    /// What it may do. Nothing, as long as it has not said who it is and must.
    pub permissions: Option<Arc<Permissions>>,
    before_login: Option<Arc<Permissions>>,
    /// The database it selected, if it did.
    pub database: Option<u32>,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(id: u64, peer: String, before_login: Option<Arc<Permissions>>) -> Self {
        Self {
            id,
            was_told_id: false,
            peer,
            protocol: Protocol::default(),
            name: vec![],
            lib_name: vec![],
            lib_ver: vec![],
            login: None,
            failed_logins: 0,
            has_failed_login: false,
            permissions: before_login.clone(),
            before_login,
            database: None,
        }
    }

    /// Whether it may run more than Tollgate's own commands.
    pub fn may_run_all(&self) -> bool {
        self.permissions.as_ref().is_some_and(|may| may.commands != Commands::RlOnly)
    }

    /// Whether it may run nothing else, now that it has said who it is.
    pub fn is_confined(&self) -> bool {
        self.permissions.as_ref().is_some_and(|may| may.commands == Commands::RlOnly)
    }

    /// A login of its has failed.
    pub fn fail_login(&mut self) {
        self.failed_logins = self.failed_logins.saturating_add(1);
        self.has_failed_login = true;
    }

    /// Who it is. Empty as long as it has yet to say so.
    pub fn user(&self) -> Cow<'_, str> {
        match (&self.login, &self.permissions) {
            (Some(login), _) => String::from_utf8_lossy(login.user()),
            (None, Some(permissions)) => permissions.user.as_str().into(),
            (None, None) => "".into(),
        }
    }

    /// What it has said of itself, for CLIENT LIST.
    pub fn said(&self) -> Said {
        Said {
            name: kept(&self.name),
            lib_name: kept(&self.lib_name),
            lib_ver: kept(&self.lib_ver),
            user: String::from_utf8_lossy(&kept(self.user().as_bytes())).into_owned(),
            database: self.database.unwrap_or(0),
            is_resp3: self.protocol == Protocol::Resp3,
        }
    }

    /// Its number, for a reply.
    pub fn tell_id(&mut self) -> i64 {
        self.was_told_id = true;
        i64::try_from(self.id).unwrap_or(i64::MAX)
    }

    /// Notes what a HELLO says of it, once that was answered well.
    pub fn said_hello(&mut self, hello: Hello) {
        self.protocol = hello.protocol.unwrap_or(self.protocol);
        self.login = hello.login.or(self.login.take());
        self.name = hello.name.unwrap_or_else(|| std::mem::take(&mut self.name));
    }

    /// What RESET does.
    pub fn reset(&mut self) {
        self.protocol = Protocol::default();
        self.name.clear();
        self.login = None;
        self.permissions = self.before_login.clone();
        self.database = None;
    }
}
