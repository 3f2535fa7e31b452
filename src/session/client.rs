//! What a client has said of itself.

use super::login::Credentials;
use crate::auth::Permissions;
use crate::resp::reply::Protocol;
use std::sync::Arc;

/// A client's side of its connection, as its handshake left it.
#[derive(Debug)]
pub struct Client {
    /// Its number, from 1, never given twice.
    pub id: u64,
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
    /// What it last authenticated with.
    pub auth: Option<Credentials>,
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
            peer,
            protocol: Protocol::default(),
            name: vec![],
            lib_name: vec![],
            lib_ver: vec![],
            auth: None,
            permissions: before_login.clone(),
            before_login,
            database: None,
        }
    }

    /// What RESET does.
    pub fn reset(&mut self) {
        self.protocol = Protocol::default();
        self.name.clear();
        self.auth = None;
        self.permissions = self.before_login.clone();
        self.database = None;
    }
}
