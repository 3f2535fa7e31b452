//! A client as those see it who answer its requests: who it is, and where its replies go.

use super::client::Client;
use super::replies::Replies;
use super::unread::{self, Unread};
use crate::limiter::mailbox::Mailbox;
use crate::limiter::node::Node;
use crate::resp::request::Limits;
use crate::worker::Worker;
use std::rc::Rc;
use std::sync::Arc;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It was answered, or will be.
    Done,
    /// It waits for an earlier one, and all behind it wait too.
    Hold,
    /// It was answered, or will not be, and the connection closes: nothing behind it is carried out.
    Close,
}

/// What came of polling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// Nothing; something will wake the task.
    Idle,
    /// Something moved.
    Progress,
    /// The client's connection is to be closed, once its replies are written.
    Close,
}

/// One client.
pub struct Caller {
    /// The worker that serves it.
    pub worker: Rc<Worker>,
    /// Who it is.
    pub client: Client,
    /// What it is to read.
    pub replies: Replies,
    /// Where the limiter's answers come.
    pub mailbox: Rc<Mailbox>,
    unread: Unread,
}

impl Caller {
    /// A client that has asked nothing yet.
    pub fn new(worker: Rc<Worker>, client: Client) -> Self {
        Self { worker, client, replies: Replies::default(), mailbox: Rc::default(), unread: Unread::default() }
    }

    /// The node of Redis that its own connection leads to, if there is one.
    pub fn upstream(&self) -> Option<Arc<Node>> {
        self.worker.limiter.upstream()
    }

    /// Whether its commands other than Tollgate's own go to Redis. Where they do not, and there is a Redis, that is asked
    /// about its logins alone.
    pub fn forwards(&self) -> bool {
        self.worker.shared.backend.forwards()
    }

    /// How long its requests may be.
    pub fn limits(&self) -> Limits {
        match self.client.permissions {
            Some(_) => Limits::of_bulk(self.worker.shared.config.server.max_bulk_bytes),
            None => Limits::BEFORE_LOGIN,
        }
    }

    /// What it has said of itself is shown here, now that no connection shows it at Redis.
    pub fn note_said(&self) {
        self.worker.shared.client_list.note(self.client.id, self.client.said());
    }

    /// Most bytes of replies that it may leave unread now.
    pub fn max_unread_bytes(&self) -> usize {
        unread::max_bytes(&self.worker.shared, self.client.permissions.is_some())
    }

    /// Whether nothing more is to be carried out until it has read, or the limiter has answered.
    pub fn is_full(&self) -> bool {
        let bytes = self.replies.unread_bytes();
        // Most clients read in time, and need not look at what threads share.
        (bytes > unread::LOW_BYTES && bytes > self.max_unread_bytes())
            || self.replies.slots.undecided() >= unread::MAX_UNDECIDED
    }

    /// Counts what it leaves unread among what all clients do.
    pub fn count_unread(&mut self) {
        self.unread.set(self.replies.unread_bytes(), &self.worker.shared);
    }

    /// It is gone: what still comes for it is dropped, and it leaves nothing unread.
    pub fn leave(&mut self) {
        self.mailbox.close();
        self.unread.set(0, &self.worker.shared);
    }
}
