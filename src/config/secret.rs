//! Secrets: how they are read from files of their own, and what they may look like.

use std::fs::File;
use std::io::Read;

/// What stands for a secret where settings are shown.
pub(super) const MASK: &str = "***";
/// Most bytes of a file that holds a secret.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The text of a file that holds one secret. Whoever wrote the file may have ended its line.
///
/// # Errors
/// Why there is none.
pub(super) fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("more than {MAX_FILE_BYTES} bytes"));
    }
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.unwrap_or(&text).to_owned())
}

/// A password in plain text, of at most `max_bytes`. A line break, or a blank at an end, was copied along with it: it
/// is neither kept, which would let nobody in, nor taken off, which would be a guess.
pub(super) fn parse_password(text: &str, max_bytes: usize) -> Result<String, String> {
    let is_clean = text.trim() == text && !text.contains(['\r', '\n']);
    // A report of settings that is used as a file would set the mask as the password.
    if (1..=max_bytes).contains(&text.len()) && is_clean && text != MASK {
        return Ok(text.to_owned());
    }
    Err(format!(
        "1 to {max_bytes} bytes without line breaks and without blanks at its ends, and not the {MASK} that stands for \
         a password where settings are shown"
    ))
}
