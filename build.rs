//! Tells the program which commit it is built from: what TOLLGATE_COMMIT says, as packages set it, or else git, for release
//! builds. A development build asks for nothing, or each commit would have it built anew.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=TOLLGATE_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if std::env::var_os("TOLLGATE_COMMIT").is_none() && is_release {
        // Of this repository, and not of one that this stands in as a vendored copy.
        let top = git(&["rev-parse", "--show-toplevel"]);
        if top.is_some_and(|top| Path::new(&top) == Path::new(env!("CARGO_MANIFEST_DIR"))) {
            if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|log| Path::new(log).exists()) {
                println!("cargo:rerun-if-changed={log}");
            }
            if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
                println!("cargo:rustc-env=TOLLGATE_COMMIT={commit}");
            }
        }
    }
}

/// What git says, where there is one and it knows.
fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
