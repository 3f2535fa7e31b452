//! Which Redis is asked about which key: one and the same for all, or, of a cluster, the node that serves the key's
//! slot.
//!
//! What nodes and sentinels say of this is asked seldom, apart from the checks, and is read by the `redis-protocol`
//! crate; [`reply`] bounds what it is given.

pub mod redirect;
pub mod reply;
pub mod sentinel;
pub mod slot;
pub mod slots;
