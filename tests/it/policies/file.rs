//! `[policies]` of the file, changed while Tollgate runs.

use super::{Reply, Tollgate, brief, error, field, info, order, wait_until};
use crate::common::{PATIENCE, RawClient};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// A change of the file is seen within so long.
const SEEN: Duration = Duration::from_secs(2);

struct Fixture {
    tollgate: Tollgate,
    file: PathBuf,
    _folder: TempDir,
}

/// An embedded Tollgate with this file, whose log may tell of files that were refused.
fn with_file(text: &str) -> Fixture {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("tollgate.toml");
    fs::write(&file, text).unwrap();
    let builder = Tollgate::builder().arg("--embedded").arg("--config").arg(file.to_str().unwrap());
    let tollgate = builder.expect_log("policies cannot be read").start();
    Fixture { tollgate, file, _folder: folder }
}

fn limits(client: &mut RawClient) -> String {
    match client.line("RL.POLICY GET login") {
        Reply::Error(text) => text,
        got => got.field("limits").text(),
    }
}

#[test]
fn a_change_of_the_file_is_seen_by_itself() {
    let Fixture { tollgate, file, _folder } = with_file("[policies]\nlogin = \"5 1m\"\n");
    let mut client = tollgate.client();
    assert_eq!(limits(&mut client), "5 1m");
    assert_eq!(field(&mut client, "login", "source"), "file");
    fs::write(&file, "[policies]\nlogin = \"6 1m\"\napi = \"1 1s\"\n").unwrap();
    wait_until(SEEN, || limits(&mut client) == "6 1m");
    let says = "the file's policies have changed";
    wait_until(PATIENCE, || tollgate.log().iter().any(|line| line.contains(says)));
    let told = tollgate.log().into_iter().find(|line| line.contains(says)).unwrap();
    assert!(told.contains("login: '6 1m' (was '5 1m')") && told.contains("api: '1 1s' (new)"), "{told}");
    fs::write(&file, "").unwrap();
    wait_until(SEEN, || client.line("RL.POLICY LIST") == Reply::Array(vec![]));
}

#[test]
fn a_link_that_is_swapped_is_seen_as_a_kubelet_swaps_it() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    for (version, limit) in [("v1", 5), ("v2", 6)] {
        fs::create_dir(path(version)).unwrap();
        fs::write(path(version).join("tollgate.toml"), format!("[policies]\nlogin = \"{limit} 1m\"\n")).unwrap();
    }
    symlink("v1", path("..data")).unwrap();
    symlink("..data/tollgate.toml", path("tollgate.toml")).unwrap();
    let tollgate =
        Tollgate::builder().arg("--embedded").arg("--config").arg(path("tollgate.toml").to_str().unwrap()).start();
    let mut client = tollgate.client();
    assert_eq!(limits(&mut client), "5 1m");
    symlink("v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    wait_until(SEEN, || limits(&mut client) == "6 1m");
}

#[test]
fn sighup_and_load_read_it_at_once() {
    let Fixture { tollgate, file, _folder } = with_file("[policies]\nlogin = \"5 1m\"\n");
    let mut client = tollgate.client();
    fs::write(&file, "[policies]\nlogin = \"6 1m\"\n").unwrap();
    order(&mut client, "RL.POLICY LOAD");
    assert_eq!(limits(&mut client), "6 1m");
    fs::write(&file, "[policies]\nlogin = \"7 1m\"\n").unwrap();
    tollgate.signal("-HUP");
    wait_until(Duration::from_millis(400), || limits(&mut client) == "7 1m");
}

#[test]
fn a_bad_file_is_refused_whole_told_once_and_counted() {
    let Fixture { tollgate, file, _folder } = with_file("[policies]\nlogin = \"5 1m\"\n");
    let mut client = tollgate.client();
    fs::write(&file, "[policies]\nlogin = \"6 1m\"\napi = \"0 1m\"\n").unwrap();
    let Reply::Error(text) = client.line("RL.POLICY LOAD") else { panic!("it was taken") };
    assert!(text.contains("policies.api = '0 1m': limit must be an integer between 1 and"), "{text}");
    assert_eq!(limits(&mut client), "5 1m");
    client.line("RL.POLICY LOAD");
    // TOML that is none has a line.
    fs::write(&file, "[policies]\nlogin = \"6 1m\"\napi = \n").unwrap();
    wait_until(SEEN, || info(&tollgate, "config_reload_failures") == "3");
    assert_eq!(limits(&mut client), "5 1m");
    let told = || {
        let log = tollgate.log().into_iter();
        log.filter(|line| line.contains("policies cannot be read")).collect::<Vec<_>>()
    };
    // Once for each that was refused, in their order.
    wait_until(PATIENCE, || told().len() == 2);
    let told = told();
    assert!(told[1].contains("line 3"), "{told:?}");
    fs::remove_file(&file).unwrap();
    wait_until(SEEN, || info(&tollgate, "config_reload_failures") == "4");
    assert_eq!(limits(&mut client), "5 1m");
    fs::write(&file, "[policies]\nlogin = \"7 1m\"\n").unwrap();
    wait_until(SEEN, || limits(&mut client) == "7 1m");
}

/// What stood there was complete TOML after each of its lines, and each was in force for a moment.
#[test]
fn a_file_that_is_still_being_written_is_not_taken() {
    let Fixture { tollgate, file, _folder } = with_file("[policies]\nlogin = \"5 1m\"\n");
    let mut client = tollgate.client();
    let text: String = std::iter::once("[policies]\n".to_owned())
        .chain((0..15).map(|number| format!("p{number} = \"5 1m\"\n")))
        .collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = String::new();
            for line in text.lines() {
                writeln!(written, "{line}").unwrap();
                fs::write(&file, &written).unwrap();
                thread::sleep(Duration::from_millis(200));
            }
        });
        let mut count = client.line("RL.POLICY LIST").items().len();
        assert_eq!(count, 1);
        while count != 15 {
            count = client.line("RL.POLICY LIST").items().len();
            assert!(count == 1 || count == 15, "{count}");
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_file_of_a_megabyte_is_read_beside_checks() {
    let Fixture { tollgate, file, _folder } = with_file("[policies]\nlogin = \"5 1m\"\n");
    let mut text = "[policies.login]\nlimits = \"5 1m\"\n[policies.login.overrides]\n".to_owned();
    for number in 0..33_000 {
        writeln!(text, "\"user:{number:012}\" = \"1000 1s\"").unwrap();
    }
    assert!(text.len() > 1_000_000);
    fs::write(&file, &text).unwrap();
    let mut client = tollgate.client();
    wait_until(PATIENCE, || info(&tollgate, "policy_overrides") == "33000");
    assert_eq!(brief(&mut client, "RL.CHECK user:000000029999 login").1, 1000);
}

#[test]
fn what_the_file_says_is_overlaid_and_cannot_be_taken_back() {
    let Fixture { tollgate, file, _folder } =
        with_file("[policies.login]\nlimits = \"5 1m\"\n[policies.login.overrides]\nvip = \"off\"\n");
    let mut client = tollgate.client();
    let Reply::Error(text) = client.line("RL.POLICY DEL login") else { panic!("it was") };
    assert!(text.contains("configuration file") && text.contains("RL.POLICY MODE login off"), "{text}");
    let Reply::Error(text) = client.line("RL.OVERRIDE DEL login vip") else { panic!("it was") };
    assert!(text.contains("configuration file"), "{text}");
    order(&mut client, "RL.POLICY SET login 6 1m");
    order(&mut client, "RL.OVERRIDE SET login vip 9 1m");
    assert_eq!((limits(&mut client), field(&mut client, "login", "source")), ("6 1m".to_owned(), "memory".to_owned()));
    assert_eq!(brief(&mut client, "RL.CHECK vip login").1, 9);
    // A change of the file below does not show through.
    fs::write(&file, "[policies]\nlogin = \"7 1m\"\n").unwrap();
    order(&mut client, "RL.POLICY LOAD");
    assert_eq!(limits(&mut client), "6 1m");
    assert_eq!(client.line("RL.POLICY DEL login"), Reply::Integer(1));
    assert_eq!(limits(&mut client), "7 1m");
    assert_eq!(brief(&mut client, "RL.CHECK vip login").1, 7);
}

#[test]
fn without_a_file_there_is_none_to_load() {
    let tollgate = Tollgate::embedded();
    let mut client = tollgate.client();
    assert_eq!(client.line("RL.POLICY LOAD"), error("ERR there is no configuration file (--config)"));
}
