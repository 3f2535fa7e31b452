//! Passwords, and the files that they come in.

use super::{file, file_mistake, from_environment, load};
use tollgate::config::{Auth, PasswordHash};

/// A file with this in it, and its name, which lives as long as the directory.
fn secret(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

const MODE: (&str, &str) = ("TOLLGATE_AUTH__MODE", "password");

fn hash_in_force(environment: &[(&str, &str)]) -> Vec<PasswordHash> {
    let Auth::Password(users) = from_environment(environment).unwrap().auth else { panic!("no users") };
    users.into_iter().flat_map(|user| user.passwords).collect()
}

#[test]
fn a_password_may_stand_in_a_file_of_its_own() {
    for text in ["hunter2", "hunter2\n", "hunter2\r\n"] {
        let (_dir, path) = secret(text);
        let hash = hash_in_force(&[MODE, ("TOLLGATE_AUTH__PASSWORD_FILE", &path)]);
        assert_eq!(hash, [PasswordHash::of(b"hunter2")], "{text:?}");
        let (_dir, settings) = file(&format!("[auth]\nmode = 'password'\npassword_file = '{path}'"));
        let loaded = load(Some(&settings), &[], &[]).unwrap();
        assert!(matches!(loaded.config.auth, Auth::Password(users) if users[0].passwords == hash));
        for line in
            [format!("# password = \"***\" # {} ({path})", settings.display()), format!("password_file = \"{path}\"")]
        {
            let has_it = |shown: &str| shown.split_whitespace().collect::<Vec<_>>().join(" ").starts_with(&line);
            assert!(loaded.report.lines().any(has_it), "{line} is not in\n{}", loaded.report);
        }
        assert!(!loaded.report.contains("hunter2"));
    }
}

#[test]
fn the_address_and_the_password_of_redis_may_stand_in_files() {
    let (_dir, url) = secret("redis://u:hunter2@h:1/2\n");
    for name in ["REDIS_ADDR_FILE", "REDIS_URL_FILE", "TOLLGATE_REDIS__ADDR_FILE"] {
        let loaded = load(None, &[(name, &url)], &[]).unwrap();
        assert_eq!(loaded.config.redis.addr.to_string(), "redis://u:***@h:1/2");
        assert_eq!(loaded.config.redis.addr.password.as_deref(), Some("hunter2"));
    }
    // A report is a file that sets the same, unless what is masked is needed for it.
    let (_dir, plain) = secret("h:1\n");
    let report = load(None, &[("REDIS_ADDR_FILE", &plain)], &[]).unwrap().report;
    let (_dir, path) = file(&report);
    assert_eq!(load(Some(&path), &[], &[]).unwrap().config.redis.addr.to_string(), "h:1");

    let (_dir, password) = secret("hunter2\n");
    for name in ["REDIS_PASSWORD_FILE", "TOLLGATE_REDIS__PASSWORD_FILE"] {
        let environment = [("REDIS_ADDR", "rediss://h/3"), (name, &password), ("TOLLGATE_REDIS__USER", "u")];
        let loaded = load(None, &environment, &[]).unwrap();
        let addr = &loaded.config.redis.addr;
        assert_eq!(addr.to_string(), "rediss://u:***@h:6379/3");
        assert_eq!(addr.password.as_deref(), Some("hunter2"));
        assert!(!format!("{loaded:?}").contains("hunter2"));
    }
    let (_dir, path) = file(&format!("redis = {{ addr = 'h:1', password_file = '{password}' }}"));
    assert_eq!(load(Some(&path), &[], &[]).unwrap().config.redis.addr.to_string(), "redis://:***@h:1/0");
}

#[test]
fn a_higher_layer_may_say_it_the_other_way() {
    let (_dir, password) = secret("from a file");
    let (_settings_dir, by_file) = file(&format!("[auth]\nmode = 'password'\npassword_file = '{password}'"));
    let direct = ("TOLLGATE_AUTH__PASSWORD", "direct");
    let hash = |loaded: Auth| match loaded {
        Auth::Password(users) => users[0].passwords[0].clone(),
        _ => panic!("no users"),
    };
    assert_eq!(hash(load(Some(&by_file), &[direct], &[]).unwrap().config.auth), PasswordHash::of(b"direct"));
    let (_settings_dir, by_text) = file("[auth]\nmode = 'password'\npassword = 'direct'");
    let in_file = [("TOLLGATE_AUTH__PASSWORD_FILE", &*password)];
    assert_eq!(hash(load(Some(&by_text), &in_file, &[]).unwrap().config.auth), PasswordHash::of(b"from a file"));
}

#[test]
fn a_secret_that_is_given_twice_is_a_mistake() {
    let (_dir, password) = secret("hunter2");
    let (_dir, url) = secret("redis://h");
    let (_dir, with_login) = secret("redis://:hunter2@h");
    for (environment, expected) in [
        (
            &[MODE, ("TOLLGATE_AUTH__PASSWORD", "hunter2"), ("TOLLGATE_AUTH__PASSWORD_FILE", &*password)][..],
            "TOLLGATE_AUTH__PASSWORD_FILE: auth.password_file: auth.password is set too, by TOLLGATE_AUTH__PASSWORD: ",
        ),
        (
            &[("REDIS_ADDR", "a:1"), ("REDIS_ADDR_FILE", &url)],
            "REDIS_ADDR_FILE: redis.addr_file: redis.addr is set too, by REDIS_ADDR: ",
        ),
        (
            &[("REDIS_ADDR_FILE", &url), ("TOLLGATE_REDIS__ADDR_FILE", &url)],
            "TOLLGATE_REDIS__ADDR_FILE: redis.addr_file: redis.addr is set too, by REDIS_ADDR_FILE",
        ),
        (
            &[("REDIS_URL", "a:1"), ("REDIS_URL_FILE", &url)],
            "REDIS_URL_FILE: redis.addr_file: redis.addr is set too, by REDIS_URL: ",
        ),
        (&[("REDIS_ADDR", "redis://:hunter2@h"), ("REDIS_PASSWORD_FILE", &password)], "REDIS_PASSWORD_FILE ("),
        (&[("REDIS_ADDR_FILE", &with_login), ("TOLLGATE_REDIS__PASSWORD", "hunter2")], "TOLLGATE_REDIS__PASSWORD: "),
        (&[("REDIS_ADDR", "redis://u:hunter2@h"), ("TOLLGATE_REDIS__USER", "u")], "TOLLGATE_REDIS__USER: redis.user"),
        (&[("TOLLGATE_REDIS__USER", "u")], "TOLLGATE_REDIS__USER: redis.user = 'u': needs redis.password"),
    ] {
        let mistake = from_environment(environment).unwrap_err();
        assert!(mistake.starts_with(expected) && !mistake.contains("hunter2"), "{environment:?} gave {mistake}");
    }
}

#[test]
fn a_file_of_a_secret_that_cannot_be_used_says_why() {
    let (_dir, huge) = secret(&"x".repeat(70_000));
    let (_dir, empty) = secret("\n");
    let (_dir, two_lines) = secret("hunter2\n\n");
    let mistake = |path: &str| from_environment(&[MODE, ("TOLLGATE_AUTH__PASSWORD_FILE", path)]).unwrap_err();
    let missing = mistake("/no/such/file");
    let expected = "TOLLGATE_AUTH__PASSWORD_FILE: auth.password_file = '/no/such/file': No such file";
    assert!(missing.starts_with(expected), "{missing}");
    assert!(mistake(&huge).contains("more than 65536 bytes"));
    for path in [&empty, &two_lines] {
        let mistake = mistake(path);
        let expected = format!("TOLLGATE_AUTH__PASSWORD_FILE ({path}): auth.password = '");
        assert!(mistake.starts_with(&expected) && !mistake.contains("hunter2"), "{mistake}");
    }
    // The secret itself, where its file's name should be.
    assert!(!mistake("hunter2").contains("hunter2"));
    let url = from_environment(&[("REDIS_ADDR_FILE", "redis://u:hunter2@h")]).unwrap_err();
    assert!(url.starts_with("REDIS_ADDR_FILE: redis.addr_file = 'redis://***': No such file"), "{url}");
}

/// Kept, they let nobody in who types the password, and nobody sees why.
#[test]
fn what_was_copied_along_with_a_password_is_a_mistake() {
    for password in
        ["hunter2\n", "hunter2\r\n", "\nhunter2", "hun\nter2", "hun\rter2", " hunter2", "hunter2 ", "hunter2\t"]
    {
        for name in ["TOLLGATE_AUTH__PASSWORD", "TOLLGATE_REDIS__PASSWORD"] {
            let mistake = from_environment(&[MODE, (name, password)]).unwrap_err();
            assert!(mistake.contains("without line breaks and without blanks at its ends"), "{mistake}");
            assert!(!mistake.contains("hunter2"));
        }
        let url = format!("redis://:{password}@h");
        let mistake = from_environment(&[("REDIS_ADDR", &url)]);
        assert_eq!(mistake.is_err(), password.contains(char::is_control), "{url:?}");
    }
    for url in
        ["redis://:hunter2@h\n", " redis://:hunter2@h", "redis://:hunter2@h ", "h:1\n", "unix:///r?pass=hunter2\n"]
    {
        let mistake = from_environment(&[("REDIS_ADDR", url)]).unwrap_err();
        assert!(mistake.contains("without line breaks") && !mistake.contains("hunter2"), "{mistake}");
    }
    // Blanks within are as good as any, and what is encoded is meant.
    assert_eq!(hash_in_force(&[MODE, ("TOLLGATE_AUTH__PASSWORD", "a b")]), [PasswordHash::of(b"a b")]);
    let addr = from_environment(&[("REDIS_ADDR", "redis://:%20a%0A@h")]).unwrap().redis.addr;
    assert_eq!(addr.password.as_deref(), Some(" a\n"));
}

/// A report of settings that is used as a file.
#[test]
fn a_mask_is_no_password() {
    for text in ["redis.addr = 'redis://u:***@h:1/2'", "redis.addr = 'unix:///r?pass=***'", "redis.password = '***'"] {
        assert!(file_mistake(text).contains("must be "), "{text}");
    }
}
