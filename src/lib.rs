//! Tollgate: a rate limiter that every Redis client already speaks to.
//!
//! A check travels one straight line: bytes ([`session`], [`resp`]), command ([`command`]), limiter ([`limiter`]),
//! store ([`store`]), verdict ([`limit`]), bytes again.

pub mod auth;
pub mod busy_poll;
pub mod cli;
pub mod client_list;
pub mod clock;
pub mod command;
pub mod config;
pub mod descriptors;
pub mod dial;
pub mod glob;
pub mod info;
pub mod limit;
pub mod limiter;
pub mod log;
pub mod log_limit;
pub mod net;
pub mod resolve;
pub mod resp;
pub mod run_id;
pub mod sched_batch;
pub mod server;
pub mod session;
pub mod shards;
pub mod stats;
pub mod store;
pub mod tls;
pub mod worker;
