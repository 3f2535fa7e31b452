//! The commands that Tollgate needs, each in a form that changes nothing, and what it means when Redis refuses one.

use super::diagnosis::{self, About, Kind, Problem};
use crate::store::connection::Error;

/// A command that Tollgate needs.
struct Need {
    /// What gives it to a user, in ACL SETUSER.
    right: &'static str,
    /// The command in a form that changes nothing. [`KEY`] and [`CHANNEL`] stand for names.
    words: &'static [&'static str],
    /// What is lost without it, if checks can do without.
    loss: Option<&'static str>,
}

/// A key that is never written.
const KEY: &str = "{key}";
/// The channel that resets are told on, where a message of no key means nothing.
const CHANNEL: &str = "{channel}";
/// A script that Redis does not know.
const NO_SCRIPT: &str = "0000000000000000000000000000000000000000";
/// What is lost when resets on other Tollgates are not heard of.
pub const DEAFNESS: &str = "denials are not cached";
const RESETS: Option<&str> = Some("RL.RESET fails");

const POLICIES: Option<&str> = Some("policies cannot be changed while it runs");

const NEEDS: [Need; 24] = [
    // With a key, as there are services that run no script without.
    Need { right: "+evalsha", words: &["EVALSHA", NO_SCRIPT, "1", KEY], loss: None },
    Need { right: "+eval", words: &["EVAL", "return 1", "1", KEY], loss: None },
    Need { right: "+time", words: &["TIME"], loss: None },
    // The first of those that write: its error tells what keeps all of them from it.
    Need { right: "+zadd", words: &["ZADD", KEY, "XX", "GT", "0", "t"], loss: None },
    Need { right: "+zcard", words: &["ZCARD", KEY], loss: None },
    Need { right: "+zcount", words: &["ZCOUNT", KEY, "0", "0"], loss: None },
    Need { right: "+zrange", words: &["ZRANGE", KEY, "0", "0", "REV"], loss: None },
    Need { right: "+zscore", words: &["ZSCORE", KEY, "t"], loss: None },
    Need { right: "+zmscore", words: &["ZMSCORE", KEY, "t"], loss: None },
    Need { right: "+zrem", words: &["ZREM", KEY, "t"], loss: None },
    Need { right: "+zremrangebyrank", words: &["ZREMRANGEBYRANK", KEY, "0", "0"], loss: None },
    Need { right: "+pexpire", words: &["PEXPIRE", KEY, "1000"], loss: None },
    Need { right: "+pexpireat", words: &["PEXPIREAT", KEY, "99999999999999"], loss: None },
    Need { right: "+get", words: &["GET", KEY], loss: None },
    // Changes nothing: there is no such key.
    Need { right: "+set", words: &["SET", KEY, "", "XX", "EXAT", "99999999999"], loss: None },
    Need { right: "+setrange", words: &["SETRANGE", KEY, "0", ""], loss: None },
    Need { right: "+pttl", words: &["PTTL", KEY], loss: None },
    Need { right: "+unlink", words: &["UNLINK", KEY], loss: None },
    Need { right: "+publish", words: &["PUBLISH", CHANNEL, ""], loss: RESETS },
    Need { right: "+hget", words: &["HGET", KEY, "f"], loss: POLICIES },
    // A value is missing, which is seen after the rights.
    Need { right: "+hset", words: &["HSET", KEY, "f", "v", "f"], loss: POLICIES },
    Need { right: "+hdel", words: &["HDEL", KEY, "f"], loss: POLICIES },
    Need { right: "+hlen", words: &["HLEN", KEY], loss: POLICIES },
    Need { right: "+hscan", words: &["HSCAN", KEY, "0"], loss: POLICIES },
];

/// What a node of a cluster is asked besides.
const CLUSTER_NEEDS: [Need; 1] =
    [Need { right: "+asking", words: &["ASKING"], loss: Some("checks of slots on their way are degraded") }];

fn needs(is_cluster: bool) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().chain(CLUSTER_NEEDS.iter().filter(move |_| is_cluster))
}

/// The commands, for Redis to be asked to run them all.
pub fn commands(key: &[u8], channel: &[u8], is_cluster: bool) -> impl Iterator<Item = Vec<Vec<u8>>> {
    needs(is_cluster).map(move |need| {
        let word = |word: &&str| match *word {
            KEY => key.to_vec(),
            CHANNEL => channel.to_vec(),
            word => word.as_bytes().to_vec(),
        };
        need.words.iter().map(word).collect()
    })
}

/// What the answers to [`commands`] show, if checks can be made all the same.
///
/// # Errors
/// What keeps them from it.
pub fn judge<T>(outcomes: &[Result<T, Error>], about: About<'_>) -> Result<Vec<Problem>, Problem> {
    let (mut missing, mut without) = (Missing::default(), Missing::default());
    for (need, outcome) in needs(true).zip(outcomes) {
        let Err(error) = outcome else { continue };
        match (error, need.loss) {
            (Error::Refused(text), loss) if error.has_code("NOPERM") => {
                let missing = if loss.is_none() { &mut missing } else { &mut without };
                missing.add(right_missed(need.right, text, about), text);
                missing.losses.extend(loss.filter(|loss| !missing.losses.contains(loss)));
            }
            // That there is no such script was known, and a key of the name that is something else is not ours.
            _ if error.has_code("NOSCRIPT") || error.has_code("WRONGTYPE") || error.is_about_arguments() => {}
            (_, None) => return Err(refused(need, error, about)),
            (_, Some(loss)) => {
                without.error.get_or_insert(error.to_string());
                without.losses.push(loss);
            }
        }
    }
    if !missing.rights.is_empty() {
        return Err(missing.problem(Kind::Setup, about));
    }
    Ok(if without.error.is_some() { vec![without.problem(Kind::Warning, about)] } else { vec![] })
}

/// A right that the user `about` has not, for which something is lost.
pub fn lacks(right: &str, text: &str, loss: &'static str, about: About<'_>) -> Problem {
    let mut missing = Missing { losses: vec![loss], ..Missing::default() };
    missing.add(right_missed(right, text, about), text);
    missing.problem(Kind::Warning, about)
}

/// What gives a user all rights that the hash of policies and its channel take.
pub fn policy_rights(About { user, prefix, .. }: About<'_>) -> String {
    format!(
        "ACL SETUSER {user} ~{prefix}* &{prefix}policies +eval +evalsha +time +hget +hset +hdel +hlen +hscan +publish \
         +subscribe"
    )
}

#[derive(Default)]
struct Missing {
    rights: Vec<String>,
    losses: Vec<&'static str>,
    error: Option<String>,
}

impl Missing {
    fn add(&mut self, right: String, text: &str) {
        self.error.get_or_insert_with(|| text.to_owned());
        if !self.rights.contains(&right) {
            self.rights.push(right);
        }
    }

    fn problem(self, kind: Kind, About { user, .. }: About<'_>) -> Problem {
        let rights = self.rights.join(" ");
        let losses = if self.losses.is_empty() { "checks fail".to_owned() } else { self.losses.join(", ") };
        let (what, advice) = match rights.is_empty() {
            true => (losses, String::new()),
            false => (format!("the user '{user}' lacks rights: {losses}"), format!("ACL SETUSER {user} {rights}")),
        };
        Problem::new(kind, what, advice).said(self.error.unwrap_or_default())
    }
}

/// The right that a refusal is about: to the command, or to the names that it is about.
fn right_missed(right: &str, text: &str, About { prefix, .. }: About<'_>) -> String {
    if text.contains("access") && text.contains("channel") {
        format!("&{prefix}reset")
    } else if text.contains("access") && text.contains("key") {
        format!("~{prefix}*")
    } else {
        right.to_owned()
    }
}

fn refused(need: &Need, error: &Error, about: About<'_>) -> Problem {
    let problem = diagnosis::of(error, about);
    match need.words.first() {
        Some(command) if error.is_unknown_command() => {
            Problem { what: format!("Redis does not know the command {command}"), ..problem }
        }
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ABOUT: About<'_> = About { user: "app", host: "h", prefix: "rl:" };

    /// The outcomes when Redis answers so to the commands of these names, and well to the others.
    fn outcomes(refused: &[(&str, &str)]) -> Vec<Result<(), Error>> {
        let outcome = |need: &Need| match refused.iter().find(|(name, _)| *name == "*" || need.words[0] == *name) {
            Some((_, text)) => Err(Error::Refused((*text).to_owned())),
            None => Ok(()),
        };
        NEEDS.iter().map(outcome).collect()
    }

    #[test]
    fn a_right_that_is_missing_is_told_with_the_line_that_gives_it() {
        let refused = "NOPERM this user has no permissions to run the 'x' command";
        let keys = "NOPERM this user has no permissions to access one of the keys used as arguments";
        let channel = "NOPERM No permissions to access a channel";
        let table: [(&[(&str, &str)], _); 9] = [
            (&[], Ok(None)),
            (&[("ZADD", refused)], Err("ACL SETUSER app +zadd")),
            (&[("ZADD", refused), ("PTTL", refused), ("PUBLISH", refused)], Err("ACL SETUSER app +zadd +pttl")),
            (&[("ZADD", keys), ("ZCARD", keys), ("TIME", refused)], Err("ACL SETUSER app +time ~rl:*")),
            (&[("PUBLISH", channel)], Ok(Some("ACL SETUSER app &rl:reset"))),
            (&[("EVALSHA", "NOSCRIPT No matching script."), ("ZADD", "WRONGTYPE x")], Ok(None)),
            (&[("*", "LOADING Redis is loading")], Err("")),
            (&[("ZADD", "READONLY You can't write")], Err("have redis.addr lead to the primary")),
            (&[("PUBLISH", "ERR unknown command 'PUBLISH'")], Ok(Some(""))),
        ];
        for (refused, expected) in table {
            let outcome = judge(&outcomes(refused), ABOUT);
            let advice = outcome.map(|warnings| warnings.first().map(|warning| warning.advice.clone()));
            let expected = expected.map(|advice| advice.map(str::to_owned)).map_err(str::to_owned);
            assert_eq!(advice.map_err(|problem| problem.advice), expected, "{refused:?}");
        }
        let unknown = judge(&outcomes(&[("ZMSCORE", "ERR unknown command 'ZMSCORE'")]), ABOUT).unwrap_err();
        assert_eq!(unknown.what, "Redis does not know the command ZMSCORE");
    }

    /// A command that a script calls and that is not tried here would be missed only by the first check that needs it.
    #[test]
    fn every_command_of_the_scripts_is_among_them() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("lua");
        let scripts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        let known: BTreeSet<String> = NEEDS.iter().map(|need| need.words[0].to_owned()).collect();
        let mut called = BTreeSet::new();
        for script in scripts {
            let text = std::fs::read_to_string(script).unwrap();
            let calls = text.split("call('").skip(1).filter_map(|rest| rest.split('\'').next());
            called.extend(calls.map(str::to_owned));
        }
        assert!(called.len() > 10, "{called:?}");
        assert!(called.is_subset(&known), "{:?}", called.difference(&known));
    }
}
