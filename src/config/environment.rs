//! Which variables of the environment are meant for Tollgate, and which only look as if.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// What the name of each setting begins with, and of much else: Kubernetes makes `TOLLGATE_PORT` and more for each pod
/// beside a service of that name.
const PREFIX: &str = "TOLLGATE_";
/// The variable that stands for `--config`.
pub(super) const CONFIG: &str = "TOLLGATE_CONFIG";
/// Names that many programs take, and the keys that they set here.
const SHARED: [(&str, &str); 5] = [
    ("REDIS_ADDR", "redis.addr"),
    ("REDIS_ADDR_FILE", "redis.addr_file"),
    ("REDIS_URL", "redis.addr"),
    ("REDIS_URL_FILE", "redis.addr_file"),
    ("REDIS_PASSWORD_FILE", "redis.password_file"),
];
/// What people write for a variable that has another name, in small letters without underscores and the prefix.
const ALSO_KNOWN_AS: [(&str, &str); 3] =
    [("configfile", CONFIG), ("redisurl", "REDIS_URL"), ("redisurlfile", "REDIS_URL_FILE")];

/// The environment, sorted.
#[derive(Default)]
pub(super) struct Variables {
    /// The file to read settings from.
    pub config: Option<OsString>,
    /// Those that set a key, known or not: by name, with key and value.
    pub settings: BTreeMap<String, (String, OsString)>,
    /// Names with Tollgate's prefix that set nothing.
    pub strangers: Vec<String>,
}

impl Variables {
    pub(super) fn of(environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut variables = Self::default();
        for (name, value) in environment {
            let Ok(name) = name.into_string() else { continue };
            if name == CONFIG {
                variables.config = Some(value);
            } else if is_service_link(&name, &value.to_string_lossy()) {
                // Nobody wrote it.
            } else if let Some(key) = key_of(&name) {
                variables.settings.insert(name, (key, value));
            } else if name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX)) {
                variables.strangers.push(name);
            }
        }
        variables.drop_redis_url();
        variables
    }

    /// `REDIS_URL` is what platforms give to every program, so it says where Redis is unless another variable does.
    fn drop_redis_url(&mut self) {
        let is_general = |name: &String| name.starts_with("REDIS_URL");
        let mut addresses = self.settings.iter().filter(|(_, (key, _))| key.starts_with("redis.addr"));
        if addresses.any(|(name, _)| !is_general(name)) {
            self.settings.retain(|name, _| !is_general(name));
        }
    }

    /// A warning for each of the strangers that looks like a setting. `keys` are those that there are.
    pub(super) fn near_misses(&self, keys: &[&str]) -> Vec<String> {
        let warning = |name: &String| {
            let meant = meant_by(name, keys).join(" or ");
            (!meant.is_empty()).then(|| format!("{name} is not read: did you mean {meant}?"))
        };
        self.strangers.iter().filter_map(warning).collect()
    }
}

/// The key that a variable sets, known or not; `None` if it sets none.
fn key_of(name: &str) -> Option<String> {
    if let Some((_, key)) = SHARED.iter().find(|(shared, _)| *shared == name) {
        return Some((*key).to_owned());
    }
    let (section, key) = name.strip_prefix(PREFIX)?.split_once("__")?;
    Some(format!("{section}.{key}").to_ascii_lowercase())
}

/// The variables that whoever set `name` may have meant: it spells a key with its section, a key alone, or a section
/// alone, and differs from a setting in its underscores or in capitals.
fn meant_by(name: &str, keys: &[&str]) -> Vec<String> {
    let squeeze = |text: &str| text.replace('_', "").to_ascii_lowercase();
    let said = name.get(PREFIX.len()..).map(squeeze).unwrap_or_default();
    let variable = |section: &str, key: &str| format!("{PREFIX}{section}__{key}").to_ascii_uppercase();
    let keys = || keys.iter().filter_map(|key| key.split_once('.'));
    let also = ALSO_KNOWN_AS.iter().filter(|(other, _)| *other == said).map(|(_, name)| (*name).to_owned());
    let keys_said = keys().filter(|(section, key)| [squeeze(key), squeeze(section) + &squeeze(key)].contains(&said));
    let meant: Vec<String> = also.chain(keys_said.map(|(section, key)| variable(section, key))).collect();
    let section_said = keys().find(|(section, _)| squeeze(section) == said);
    match section_said {
        Some((section, _)) if meant.is_empty() => vec![variable(section, "<NAME>")],
        _ => meant,
    }
}

/// Whether Kubernetes makes this variable, in each pod beside a service of such a name, which may well hold `--`:
/// `<SERVICE>_SERVICE_HOST`, `_SERVICE_PORT[_<NAME>]`, `_PORT`, `_PORT_<n>_<PROTOCOL>[_PROTO|_PORT|_ADDR]`.
fn is_service_link(name: &str, value: &str) -> bool {
    // The name of a service does not end in a dash.
    let is_service = |name: &str| name.starts_with(PREFIX) && !name.ends_with('_');
    let port = name.split_once("_SERVICE_PORT").filter(|(_, port)| port.is_empty() || port.starts_with('_'));
    if let Some(service) = name.strip_suffix("_SERVICE_HOST").or(port.map(|(service, _)| service)) {
        return is_service(service);
    }
    let suffixes = ["_PROTO", "_PORT", "_ADDR"];
    let numbered = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    if let Some((rest, "TCP" | "UDP" | "SCTP")) = numbered.rsplit_once('_')
        && let Some((rest, port)) = rest.rsplit_once('_')
        && let Some(service) = rest.strip_suffix("_PORT")
    {
        return is_service(service) && port.parse::<u16>().is_ok();
    }
    // The bare form is told by its value: somebody may well have written TOLLGATE_SERVER__LISTEN_PORT=6380.
    let is_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.strip_suffix("_PORT").is_some_and(is_service) && is_link
}
