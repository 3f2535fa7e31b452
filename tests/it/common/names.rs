//! Names that one Tollgate alone sees.

use super::tell_ignored;
use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use tempfile::TempDir;

/// Files of a test's own in the place of /etc/hosts and of what says where DNS is, for the programs that
/// [`Names::seen_by`] starts. It knows no name at first.
pub struct Names {
    folder: TempDir,
    /// Takes what DNS is asked, and never answers.
    _silence: Option<UdpSocket>,
}

impl Names {
    /// Where DNS answers at once that there is nobody.
    ///
    /// `None` where a process may not have files of its own; then it is told that the test is ignored.
    pub fn new() -> Option<Self> {
        Self::with_dns_at(any_loopback_address(), None)
    }

    /// Where DNS never answers, so that whoever looks for a name that is not there waits for as long as its patience
    /// lasts: ten seconds.
    ///
    /// `None` where that cannot be had; then it is told that the test is ignored.
    pub fn silent() -> Option<Self> {
        let addr = any_loopback_address();
        let silence =
            UdpSocket::bind((addr, 53)).inspect_err(|error| tell_ignored(&format!("port 53: {error}"))).ok()?;
        Self::with_dns_at(addr, Some(silence))
    }

    fn with_dns_at(addr: IpAddr, silence: Option<UdpSocket>) -> Option<Self> {
        let names = Self { folder: tempfile::tempdir().unwrap(), _silence: silence };
        names.write("hosts", "");
        names.write("resolv.conf", &format!("nameserver {addr}\n"));
        names.write("nsswitch.conf", "hosts: files dns\n");
        match names.seen_by(&Command::new("true")).output() {
            Ok(output) if output.status.success() => return Some(names),
            Ok(output) => tell_ignored(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => tell_ignored(&format!("unshare: {error}")),
        }
        None
    }

    /// From now on the name, and no other, leads there.
    pub fn point(&self, name: &str, to: IpAddr) {
        self.point_to_all(name, &[to]);
    }

    /// The same of a name with several addresses. Of two that both lead to this machine, the system puts 127.0.0.1 first
    /// and leaves the others in their order.
    pub fn point_to_all(&self, name: &str, to: &[IpAddr]) {
        self.write("hosts", &to.iter().map(|to| format!("{to} {name}\n")).collect::<String>());
    }

    /// From now on no name leads anywhere.
    pub fn forget(&self) {
        self.write("hosts", "");
    }

    /// The same command, among these names. The process that it becomes is the one that was started.
    pub fn seen_by(&self, command: &Command) -> Command {
        const SCRIPT: &str = "for file in hosts resolv.conf nsswitch.conf; do \
            mount --bind \"$0/$file\" /etc/$file || exit; done; exec \"$@\"";
        let mut outer = Command::new("unshare");
        // As root of a namespace of its own one may mount there, whoever one is outside of it.
        outer.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT]).arg(self.folder.path());
        outer.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }
}

/// One where nobody listens, so that tests do not meet.
fn any_loopback_address() -> IpAddr {
    let random = RandomState::new().hash_one("").to_be_bytes();
    IpAddr::from([127, random[0], random[1], random[2].clamp(2, 254)])
}
