use super::*;
use crate::limit::Limit;
use proptest::prelude::*;

const NOW_US: u64 = 1_000_000;

fn name(text: &str) -> PolicyName {
    PolicyName::new(text).unwrap()
}

fn at(unix_ms: u64) -> Until {
    Until { unix_ms, us: unix_ms * 1000 }
}

fn change(field: &str, value: &str) -> Change {
    Change::of(field.as_bytes(), Some(value.as_bytes()), at).unwrap_or_else(|| panic!("{field} = {value}"))
}

fn policies(said: &[(&str, &str)]) -> Policies {
    let mut policies = Policies::default();
    said.iter().for_each(|(field, value)| policies.apply(change(field, value)));
    policies
}

/// What is done about a key: the limits that are asked, how, or the answer.
fn ruling(policies: &Policies, policy: &str, key: &str) -> String {
    let Ruling { quotas, answer } = policies.rule(policy.as_bytes(), key.as_bytes(), NOW_US).unwrap();
    let terms = quotas.as_slice()[0].terms;
    assert_eq!(terms.policy, Some(name(policy)));
    match answer {
        None => format!("{quotas}{}", if terms.is_shadow { " shadow" } else { "" }),
        Some(Verdict { allowed: true, limit, remaining, .. }) => format!("off {limit} {remaining}"),
        Some(verdict) => format!("block {} {:?}", verdict.limit, verdict.retry_after),
    }
}

const FREE: &str = "off 1000000000 1000000000";

#[test]
fn what_is_done_about_a_key_is_looked_up_in_order() {
    let said = [
        ("api", "100 1s 5000 1h"),
        ("override:api:user:42", "1000 1s"),
        ("override:api:user:*", "50 1m"),
        ("override:api:*", "7 1m"),
        ("override:api:partner:*", "off"),
        ("override:api:10.6.6.6", "block"),
    ];
    let table = [
        // (more that is said, user:42, user:1, other, partner:1, 10.6.6.6)
        (&[][..], ["1000 1s", "50 1m", "7 1m", FREE, "block 100 Never"]),
        (&[("mode:api", "shadow")], ["1000 1s shadow", "50 1m shadow", "7 1m shadow", FREE, "block 100 Never"]),
        (&[("mode:api", "off")], [FREE, FREE, FREE, FREE, "block 100 Never"]),
        (&[("mode:api", "block UNTIL 1500")], ["block 100 Ms(500)"; 5]),
        (&[("mode:api", "block UNTIL 999")], ["1000 1s", "50 1m", "7 1m", FREE, "block 100 Never"]),
        (&[("mode:api", "block"), ("mode:*", "off")], [FREE; 5]),
        (&[("mode:*", "block")], ["block 100 Never"; 5]),
        (&[("mode:api", "block"), ("mode:*", "enforce")], ["1000 1s", "50 1m", "7 1m", FREE, "block 100 Never"]),
        (
            &[("override:api:user:42", "block UNTIL 3000 REASON asked UNTIL he calls"), ("override:api:user:", "5 5s")],
            ["block 100 Ms(2000)", "50 1m", "7 1m", FREE, "block 100 Never"],
        ),
    ];
    for (more, expected) in table {
        let policies = policies(&[&said[..], more].concat());
        let got = ["user:42", "user:1", "other", "partner:1", "10.6.6.6"].map(|key| ruling(&policies, "api", key));
        assert_eq!(got, expected, "{more:?}");
    }
}

#[test]
fn limits_without_a_policy_are_under_the_mode_of_all_only() {
    let quotas = Quotas::parse("5 1m").unwrap();
    let rule = |said: &[(&str, &str)]| {
        let plain = || Ruling { quotas, answer: None };
        let Ruling { quotas, answer } = policies(said).rule_plain(&quotas, NOW_US).unwrap_or_else(plain);
        let answer = answer.map(|verdict| (verdict.allowed, verdict.limit, verdict.retry_after));
        (quotas.as_slice()[0].terms.is_shadow, answer)
    };
    assert_eq!(rule(&[("api", "1 1s MODE off")]), (false, None));
    assert_eq!(rule(&[("mode:*", "shadow")]), (true, None));
    assert_eq!(rule(&[("mode:*", "enforce")]), (false, None));
    assert_eq!(rule(&[("mode:*", "off")]), (false, Some((true, MAX_LIMIT, RetryAfter::Now))));
    assert_eq!(rule(&[("mode:*", "block")]), (false, Some((false, 5, RetryAfter::Never))));
    assert_eq!(rule(&[("mode:*", "block UNTIL 1000")]), (false, None), "it is over");
}

/// Whoever gives one customer another limit does not mean another kind of limit.
#[test]
fn an_override_is_counted_as_its_policy_is_unless_it_says_how() {
    let said = [
        ("api", "100 1s BY gcra BURST 50"),
        ("override:api:a", "7 1m 5 month"),
        ("override:api:b", "7 1m BY log"),
        ("override:api:c", "1 1h"),
    ];
    let policies = policies(&said);
    let counted = |key: &str| {
        let quotas = policies.rule(b"api", key.as_bytes(), NOW_US).unwrap().quotas;
        quotas.as_slice().iter().map(|limit| (limit.counter().rule.algorithm(), limit.capacity())).collect::<Vec<_>>()
    };
    assert_eq!(counted("x"), [("gcra", 50)]);
    assert_eq!(counted("a"), [("gcra", 50), ("fixed", 5)]);
    assert_eq!(counted("b"), [("log", 7)]);
    assert_eq!(counted("c"), [("gcra", 50)], "which takes no longer than a burst may");
}

#[test]
fn what_is_said_wins_over_the_file_and_the_file_comes_back() {
    let mut policies = Policies::default();
    let definition = |text: &str| Definition::parse(text.split(' ').map(str::as_bytes)).unwrap();
    let mut overrides = Overrides::default();
    let found = |text: &str| Override {
        rule: Rule::parse(text.split(' ').map(str::as_bytes)).unwrap(),
        until: None,
        reason: "".into(),
    };
    overrides.set(b"a*", Some(found("1 1s")));
    overrides.set(b"abc*", Some(found("2 2s")));
    overrides.set(b"abd", Some(found("3 3s")));
    let file = || vec![(name("api"), Layer { definition: Some(definition("9 9s")), overrides: overrides.clone() })];
    policies.set_file(file());
    let rulings = |policies: &Policies| ["x", "ax", "abcx", "abd"].map(|key| ruling(policies, "api", key));
    assert_eq!(rulings(&policies), ["9 9s", "1 1s", "2 2s", "3 3s"]);
    policies.set_live([change("api", "8 8s"), change("override:api:ab*", "4 4s"), change("override:api:abd", "5 5s")]);
    assert_eq!(rulings(&policies), ["8 8s", "1 1s", "2 2s", "5 5s"]);
    policies.apply(change("override:api:abc*", "6 6s"));
    assert_eq!(rulings(&policies), ["8 8s", "1 1s", "6 6s", "5 5s"]);
    policies.set_live([]);
    assert_eq!(rulings(&policies), ["9 9s", "1 1s", "2 2s", "3 3s"]);
    policies.set_live([change("override:other:x", "off")]);
    assert!(policies.get(b"other").is_none(), "an override makes no policy");
    policies.set_file(vec![]);
    policies.set_live([]);
    assert!(policies.is_empty() && policies.by_name.is_empty());
}

#[test]
fn a_change_of_one_leaves_those_who_ask_with_what_they_began_with() {
    let mut later = policies(&[("api", "1 1s"), ("override:api:k", "2 2s")]);
    let before = later.clone();
    later.apply(change("override:api:k", "off"));
    later.apply(change("api", "3 3s"));
    assert_eq!((ruling(&before, "api", "k"), ruling(&later, "api", "k")), ("2 2s".to_owned(), FREE.to_owned()));
    assert_eq!((ruling(&before, "api", "x"), ruling(&later, "api", "x")), ("1 1s".to_owned(), "3 3s".to_owned()));
}

#[test]
fn what_is_said_is_read_again_and_what_cannot_be_read_is_nothing() {
    for (field, value) in [
        ("api", "10 1m 100 1h MODE shadow FALLBACK closed"),
        ("api", "10 1m 5 month BY fixed MODE off"),
        ("override:api:k", "9 1m BY gcra BURST 20 UNTIL 7"),
        ("mode:*", "off UNTIL 1795782202121"),
        ("mode:api.v2", "enforce"),
        ("override:api:user:4:2", "1000 1s UNTIL 5 REASON a launch, UNTIL later REASON"),
        ("override:api:*", "block"),
    ] {
        let read = change(field, value);
        assert_eq!((read.field(), read.value().unwrap()), (field.as_bytes().to_vec(), value.to_owned()));
        let gone = Change::of(field.as_bytes(), None, at).unwrap();
        assert_eq!((gone.field(), gone.value()), (field.as_bytes().to_vec(), None));
    }
    for (field, value) in [
        ("api", "10"),
        ("api", ""),
        ("api", "MODE off"),
        ("api", "10 1m mode what"),
        ("api", "10 1m BY magic"),
        ("9", "10 1m"),
        ("mode:9", "off"),
        ("mode:api", "what"),
        ("mode:api", "off UNTIL x"),
        ("override:api:", "off"),
        ("override:api", "off"),
        ("override:api:k", "10 1m 5"),
        ("override:api:k", "off now"),
        ("override:api:k", "off UNTIL -1"),
        ("what:api:k", "off"),
    ] {
        assert!(Change::of(field.as_bytes(), Some(value.as_bytes()), at).is_none(), "{field} = {value}");
    }
    assert!(Change::of(b"override:api:k", Some(b"off REASON \xff"), at).is_none());
}

proptest! {
    /// Against a list that is searched from end to end.
    #[test]
    fn the_override_of_a_key_is_the_exact_one_or_that_of_the_longest_prefix(
        said in proptest::collection::vec(("[ab]{0,4}", any::<bool>(), proptest::option::of(1..9u32), 0..4u64), 0..40),
        keys in proptest::collection::vec("[ab]{1,5}", 1..20),
    ) {
        let mut overrides = Overrides::default();
        let mut model: Vec<(String, bool, u32, u64)> = Vec::new();
        for (text, is_prefix, limit, until_s) in said {
            let pattern = if is_prefix { format!("{text}*") } else { text.clone() };
            let rule = |max| Rule::Limits([(Limit::log(max, crate::limit::Window::MIN), None)].into());
            // Of the times some are past, some to come, and some never.
            let until = (until_s > 0).then(|| at(until_s * 500));
            overrides.set(pattern.as_bytes(), limit.map(|max| Override { rule: rule(max), until, reason: "".into() }));
            model.retain(|(other, other_is_prefix, ..)| (other, other_is_prefix) != (&text, &is_prefix));
            model.extend(limit.map(|max| (text, is_prefix, max, until_s)));
        }
        prop_assert_eq!(overrides.len(), model.len());
        prop_assert_eq!(overrides.iter().count(), model.len());
        let max_of = |found: &Override| match &found.rule { Rule::Limits(limits) => limits[0].0.max, _ => 0 };
        for key in keys {
            let counts = |until_s: &u64| *until_s == 0 || until_s * 500_000 > NOW_US;
            let alive = || model.iter().filter(|(.., until_s)| counts(until_s));
            let exact = alive().find(|(text, is_prefix, ..)| !is_prefix && *text == key).map(|found| found.2);
            let prefix = alive().filter(|(text, is_prefix, ..)| *is_prefix && key.starts_with(text));
            let longest = prefix.max_by_key(|(text, ..)| text.len()).map(|found| found.2);
            prop_assert_eq!(overrides.exact(key.as_bytes(), NOW_US).map(max_of), exact);
            prop_assert_eq!(overrides.longest_prefix(key.as_bytes(), NOW_US).map(|(_, found)| max_of(found)), longest);
        }
    }
}
