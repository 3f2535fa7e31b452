//! A script and what it is run with.

use crate::resp::reply;
use bytes::{BufMut, BytesMut};
use ring::digest;
use std::fmt::Write;

/// A script and the hash that Redis knows it by.
#[derive(Debug)]
pub struct Script {
    /// Its text.
    pub source: String,
    sha: String,
}

impl Script {
    /// A script of several files.
    pub fn new(parts: &[&str]) -> Self {
        let source = parts.concat();
        // Redis's choice of hash; nothing here relies on its strength.
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes());
        let sha = hash.as_ref().iter().fold(String::new(), |mut sha, byte| {
            let _ = write!(sha, "{byte:02x}");
            sha
        });
        Self { source, sha }
    }
}

/// One run of a script: its keys and arguments, ready to be sent.
#[derive(Debug)]
pub struct Run<'a> {
    script: &'a Script,
    words: usize,
    encoded: BytesMut,
}

impl<'a> Run<'a> {
    /// A run with so many keys, which are to be the first words added. `names` is how many words are about as long as a
    /// key, which these are too.
    pub fn new(script: &'a Script, keys: usize, names: usize) -> Self {
        let mut run = Self { script, words: 0, encoded: BytesMut::with_capacity(64 * (names + 1)) };
        run.number(keys as u64);
        run
    }

    /// Adds a key or argument.
    pub fn word(&mut self, word: &[u8]) {
        reply::bulk(&mut self.encoded, word);
        self.words += 1;
    }

    /// Adds a number, in decimal.
    pub fn number(&mut self, number: u64) {
        self.word(number.to_string().as_bytes());
    }

    /// Writes the request. Redis answers NOSCRIPT if it has forgotten the script, unless that is sent along.
    pub fn write(&self, out: &mut BytesMut, with_source: bool) {
        let (command, script) = match with_source {
            true => (&b"EVAL"[..], &self.script.source),
            false => (&b"EVALSHA"[..], &self.script.sha),
        };
        reply::array(out, 2 + self.words);
        reply::bulk(out, command);
        reply::bulk(out, script.as_bytes());
        out.put_slice(&self.encoded);
    }
}
