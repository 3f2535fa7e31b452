//! The configuration's environment, one `NAME=value` a line: whatever they say, it is taken or refused in
//! words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use tollgate::config;

fuzz_target!(|text: &str| {
    // Those that name files would have it read any file of this machine.
    let names_file = |name: &str| name == "TOLLGATE_CONFIG" || name.to_ascii_lowercase().ends_with("_file");
    let variables = text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| !names_file(name));
    let environment = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match config::load(None, environment, &[]) {
        Ok(loaded) => assert!(loaded.report.ends_with('\n')),
        Err(mistakes) => assert!(!mistakes.trim().is_empty()),
    }
});
