//! The commands of other limiters.

use super::layers::Settings;

/// `[dialects]`: the commands of other limiters that Tollgate answers.
#[derive(Debug, Clone)]
pub struct Dialects {
    /// Whether CL.THROTTLE is Tollgate's own. Else it goes to Redis, for the module that has it there.
    pub cl_throttle: bool,
    /// What the names of throttles' keys in Redis begin with before the key: 0 to 64 bytes.
    pub cl_prefix: String,
}

impl Dialects {
    pub(super) fn read(settings: &mut Settings) -> Self {
        Self {
            cl_throttle: settings.bool("dialects.cl_throttle", true),
            cl_prefix: settings.parsed("dialects.cl_prefix", String::new(), parse_cl_prefix),
        }
    }
}

fn parse_cl_prefix(text: &str) -> Result<String, String> {
    match text.len() {
        0..=64 => Ok(text.to_owned()),
        _ => Err("at most 64 bytes".to_owned()),
    }
}
