//! Which Redis is asked about which key: one and the same for all, or, of a cluster, the node that serves the key's
//! slot. And where those are, as long as they stay there.
//!
//! What nodes and sentinels say of this is asked seldom and apart from the checks, and is read by the `redis-protocol`
//! crate.

pub mod conversation;
pub mod gather;
pub mod redirect;
pub mod reply;
pub mod sentinel;
pub mod slot;
pub mod slots;
pub mod source;
