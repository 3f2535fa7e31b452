//! Where requests are counted: in the Redis behind ([`redis`], asked in [`batch`]es) or in this process
//! ([`embedded`]). Stores count and report; what an answer means to a client is the limiter's business.

pub mod batch;
pub mod embedded;
pub mod redis;
