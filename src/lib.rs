//! Tollgate: a rate limiter that every Redis client already speaks to.
//!
//! A check travels one straight line: bytes (`session`, [`resp`]), command ([`command`]), limiter ([`limiter`]),
//! store ([`store`]), verdict ([`limit`]), bytes again.
//!
//! This is no library for others: what is public is what the program, the tests, the benchmarks and the fuzz targets
//! use. All else is private, so that the compiler tells what nobody uses any more.

pub mod cli;
pub mod command;
pub mod config;
pub mod dial;
pub mod healthcheck;
pub mod limit;
pub mod limiter;
pub mod listen;
pub mod log;
pub mod net;
pub mod policy;
pub mod quotas;
pub mod resp;
pub mod server;
pub mod store;
pub mod throttle;
pub mod topology;

mod auth;
mod busy_poll;
mod client_list;
mod clock;
mod descriptors;
mod glob;
mod http;
mod info;
mod log_limit;
mod phase;
mod policy_file;
mod resolve;
mod run_id;
mod sched_batch;
mod session;
mod shards;
mod shown;
mod stats;
mod tls;
mod top;
mod worker;
