//! What a client has said of itself.

use super::expect::Credentials;
use crate::resp::reply::Protocol;

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
    /// The database it selected, if it did.
    pub database: Option<u32>,
}

impl Client {
    /// A client that has said nothing yet.
    pub fn new(id: u64, peer: String) -> Self {
        Self {
            id,
            peer,
            protocol: Protocol::default(),
            name: vec![],
            lib_name: vec![],
            lib_ver: vec![],
            auth: None,
            database: None,
        }
    }

    /// What RESET does.
    pub fn reset(&mut self) {
        self.protocol = Protocol::default();
        self.name.clear();
        self.auth = None;
        self.database = None;
    }
}
