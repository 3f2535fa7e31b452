//! A panic in a task of its own left a worker that served its clients by halves.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::env;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use tollgate::{config, log};

const IS_CHILD: &str = "TOLLGATE_TEST_PANICS";

#[test]
fn a_panic_on_any_thread_ends_the_process() {
    if env::var_os(IS_CHILD).is_some() {
        let level = tracing_subscriber::filter::Targets::new();
        let config = config::Log { level, format: config::LogFormat::Text, denials_per_s: 0 };
        let _log = log::start(&config).unwrap();
        // What the runtime would otherwise keep to itself.
        let _ = std::thread::spawn(|| panic!("of a task")).join();
        std::process::exit(0);
    }
    let this = Command::new(env::current_exe().unwrap()).env(IS_CHILD, "1").output().unwrap();
    assert_eq!(this.status.signal(), Some(6), "SIGABRT: {:?}", this.status);
    let text = String::from_utf8_lossy(&this.stderr);
    assert!(text.contains("panicked at") && text.contains("of a task"), "{text}");
}
