//! The configuration's environment, one `NAME=value` a line: whatever they say, it is taken or refused in
//! words.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use tollgate::config;

fuzz_target!(|text: &str| {
    let variables = text.lines().filter_map(|line| line.split_once('='));
    let environment = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    match config::load(None, environment, &[]) {
        Ok(loaded) => assert!(loaded.report.ends_with('\n')),
        Err(mistakes) => assert!(!mistakes.trim().is_empty()),
    }
});
