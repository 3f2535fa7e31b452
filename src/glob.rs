//! Redis's patterns, as CONFIG GET and COMMAND LIST take them: `*`, `?`, `[a-c]`, `[^a-c]`, and `\` before a sign that
//! is meant as it stands. In any case, and, like Redis's, forgiving: a class that is not closed ends with the pattern.

/// A pattern that is longer matches nothing: no name here is that long, and whoever sends it wants the time that it
/// takes.
pub const MAX_PATTERN_BYTES: usize = 64;

/// Whether `text` is as `pattern` says.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if pattern.len() > MAX_PATTERN_BYTES {
        return false;
    }
    let (mut pattern, mut text) = (pattern, text);
    // What follows the last star, and where it was last tried. Stars before that one need not be tried again: what
    // they could take more of, it can. So the time is at most the product of the lengths.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            retry = Some((rest, text));
            continue;
        }
        let Some((letter, behind)) = text.split_first() else { return pattern.is_empty() };
        match step(pattern, *letter) {
            Some(rest) => (pattern, text) = (rest, behind),
            None => match &mut retry {
                Some((after_star, from)) => {
                    *from = from.get(1..).unwrap_or_default();
                    (pattern, text) = (*after_star, *from);
                }
                None => return false,
            },
        }
    }
}

/// The pattern behind its first sign, if `letter` is as that sign says.
fn step(pattern: &[u8], letter: u8) -> Option<&[u8]> {
    let (matched, rest) = match pattern {
        [] => return None,
        [b'?', rest @ ..] => (true, rest),
        [b'[', b'^', class @ ..] => {
            let (within, rest) = is_in_class(class, letter);
            (!within, rest)
        }
        [b'[', class @ ..] => is_in_class(class, letter),
        [b'\\', escaped, rest @ ..] => (escaped.eq_ignore_ascii_case(&letter), rest),
        [plain, rest @ ..] => (plain.eq_ignore_ascii_case(&letter), rest),
    };
    matched.then_some(rest)
}

/// Whether a class holds the letter, and what follows the class.
fn is_in_class(mut class: &[u8], letter: u8) -> (bool, &[u8]) {
    let letter = letter.to_ascii_lowercase();
    let mut found = false;
    loop {
        let (from, to);
        (from, to, class) = match class {
            [] => return (found, class),
            [b']', rest @ ..] => return (found, rest),
            [b'\\', escaped, rest @ ..] => (*escaped, *escaped, rest),
            [from, b'-', to, rest @ ..] => (*from, *to, rest),
            [plain, rest @ ..] => (*plain, *plain, rest),
        };
        let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        found |= (from.min(to)..=from.max(to)).contains(&letter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_those_of_redis() {
        for (pattern, text, matched) in [
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("*", "", true),
            ("*", "anything", true),
            ("**", "a", true),
            ("max*", "maxmemory", true),
            ("MAX*Y", "maxmemory", true),
            ("*memory", "maxmemory", true),
            ("*memory", "maxmemory-policy", false),
            ("*m*m*", "maxmemory", true),
            ("*m*m*m*m", "maxmemory", false),
            ("*xmem*", "maxmemory", true),
            ("a*b*c", "a-b-b-c", true),
            ("?", "", false),
            ("?ax?emory", "maxmemory", true),
            ("[a-m]axmemory", "maxmemory", true),
            ("[m-a]axmemory", "maxmemory", true),
            ("[xyM]axmemory", "maxmemory", true),
            ("[^m]axmemory", "maxmemory", false),
            ("[^a-l]axmemory", "maxmemory", true),
            ("[m", "m", true),
            ("[m", "x", false),
            ("a[]b", "ab", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("\\", "\\", true),
            ("a\\", "a\\", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), matched, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_made_to_take_long_does_not() {
        let text = [b'a'; 10_000];
        assert!(!matches(&b"*a".repeat(31), &[&text[..], b"b"].concat()));
        assert!(!matches(&[b'*'; MAX_PATTERN_BYTES + 1], b"a"));
    }
}
