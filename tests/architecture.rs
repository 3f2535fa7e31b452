//! ARCHITECTURE.md says which module may import which. What is written there and what the code does are held together,
//! edge by edge, and no circle is let in.
//!
//! The rows of its table are the modules that this knows: a file belongs to the longest of them that its path begins
//! with. Code that only tests see may import what it likes.

// Clippy's settings allow these in test functions; the helpers beside them are as much of a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Between a module and what it may import.
const ARROW: &str = "─►";

/// A module, from the crate's root, as `store::redis`.
type Module = String;
type Edges = BTreeMap<Module, BTreeSet<Module>>;

/// The tables of the page: that of all modules, and those of what stands within one.
const TABLES: [&str; 3] = ["", "limiter", "session"];

#[test]
fn the_tables_of_imports_are_what_the_code_does() {
    let mut wrong = String::new();
    for within in TABLES {
        let table = table(within);
        let code = edges_of_code(&table, within);
        for (from, to) in &code {
            for to in to.difference(table.get(from).unwrap_or(&BTreeSet::new())) {
                writeln!(wrong, "{from} imports {to}, which its table does not let it").unwrap();
            }
        }
        for (from, to) in &table {
            for to in to.difference(code.get(from).unwrap_or(&BTreeSet::new())) {
                writeln!(wrong, "{from} may import {to}, but does not: take it out of its table").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "ARCHITECTURE.md, What may import what:\n{wrong}");
}

#[test]
fn no_module_imports_itself_by_way_of_others() {
    for within in TABLES {
        let edges = edges_of_code(&table(within), within);
        for edges in [by_top(&edges), edges] {
            let circles: Vec<_> = edges.keys().filter_map(|module| circle(&edges, module)).collect();
            assert!(circles.is_empty(), "{circles:#?}");
        }
    }
}

/// The block of code under the heading that has the modules within this one; within none, the crate's. `a, b ─► c, d (why)`
/// is four edges; `nothing here` is none. A name without a row, `store`, stands for all rows below it, `store::redis` and
/// the others.
fn table(within: &str) -> Edges {
    let page = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).unwrap();
    let (_, section) = page.split_once("## What may import what").expect("the heading");
    // The heading is followed by the crate's table, each of the others by a line that names its module.
    let begin = if within.is_empty() { String::new() } else { format!("Within `{within}`") };
    let (_, section) = section.split_once(&begin).unwrap_or_else(|| panic!("no line '{begin}'"));
    let block = section.split("```").nth(1).expect("a block of code");
    let mut edges = Edges::new();
    for line in block.lines().filter(|line| !line.trim().is_empty()) {
        let (from, to) = line.split_once(ARROW).unwrap_or_else(|| panic!("no arrow in '{line}'"));
        let to = to.split(" (").next().unwrap().trim();
        let to: BTreeSet<Module> = names(within, to).filter(|_| to != "nothing here").collect();
        for from in names(within, from) {
            assert!(edges.insert(from, to.clone()).is_none(), "a second row in '{line}'");
        }
    }
    let rows: Vec<Module> = edges.keys().cloned().chain((!within.is_empty()).then(|| within.to_owned())).collect();
    for to in edges.values_mut() {
        let names = std::mem::take(to);
        to.extend(names.iter().flat_map(|name| rows_of(&rows, name)));
    }
    edges
}

/// The row of this name, or else those below it.
fn rows_of(rows: &[Module], name: &str) -> Vec<Module> {
    let is_below = |row: &&Module| row.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"));
    let found: Vec<Module> = match rows.iter().find(|row| *row == name) {
        Some(row) => vec![row.clone()],
        None => rows.iter().filter(is_below).cloned().collect(),
    };
    assert!(!found.is_empty(), "{name} has no row");
    found
}

fn names(within: &str, list: &str) -> impl Iterator<Item = Module> {
    list.split(',').map(str::trim).map(move |name| if name == within { name.to_owned() } else { join(within, name) })
}

/// What the files within a module import of each other, as edges between the rows of its table; within none, those of
/// src. The module itself stands above its rows: one that imports it closes a circle, to which its row must own up.
fn edges_of_code(table: &Edges, within: &str) -> Edges {
    let is_within = |path: &str| within.is_empty() || path == within || path.starts_with(&format!("{within}::"));
    let mut edges = Edges::new();
    for (file, text) in files(&Path::new(ROOT).join("src"), "") {
        if !is_within(&file) || file == within {
            continue;
        }
        for path in paths(&file, &code_of(&text)).into_iter().filter(|path| is_within(path)) {
            let from = row_of(table, &file).unwrap_or_else(|| panic!("{file} has no row in its table"));
            let to = match row_of(table, &path) {
                None if !within.is_empty() => within.to_owned(),
                to => to.unwrap_or_else(|| panic!("{file} imports {path}, which has no row in its table")),
            };
            if to != from {
                edges.entry(from.clone()).or_default().insert(to);
            }
        }
    }
    edges
}

/// Each file as a module, with its text. Tests in files of their own are left out, and so is the crate's root.
fn files(folder: &Path, module: &str) -> Vec<(Module, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = join(module, path.file_stem().unwrap().to_str().unwrap());
        if path.is_dir() {
            found.extend(files(&path, &name));
        } else if path.file_stem().unwrap() != "tests" && name != "lib" {
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

fn join(module: &str, name: &str) -> Module {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// The text without comments and without tests, which stand last in a file.
fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

/// The longest row that the path is, or begins with.
fn row_of(table: &Edges, path: &str) -> Option<Module> {
    let is_in =
        |row: &&Module| path == *row || path.strip_prefix(row.as_str()).is_some_and(|rest| rest.starts_with("::"));
    table.keys().filter(is_in).max_by_key(|row| row.len()).cloned()
}

/// What of this crate a file's code names, from the crate's root: in `use`, and on the way.
fn paths(file: &str, code: &str) -> BTreeSet<String> {
    let children: Vec<&str> = code.lines().filter_map(child_of).collect();
    let mut paths = BTreeSet::new();
    let mut rest = code;
    while let Some(at) = rest.find(|letter: char| letter.is_ascii_alphabetic() || letter == '_') {
        let (_, tail) = rest.split_at(at);
        let end = end_of_path(tail);
        let (path, behind) = tail.split_at(end);
        // An empty path is a word that begins with a digit, as `0u8` has one behind it.
        rest = if end == 0 { &tail[1..] } else { behind };
        let list = if behind.starts_with('{') && path.ends_with("::") { group(behind) } else { "" };
        for ending in leaves(list) {
            paths.extend(resolve(file, &children, &format!("{path}{ending}")));
        }
        rest = rest.get(list.len()..).unwrap_or_default();
    }
    paths
}

/// The module that a line declares as one in a file of its own.
fn child_of(line: &str) -> Option<&str> {
    let (_, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    (!name.contains(' ')).then_some(name)
}

fn end_of_path(text: &str) -> usize {
    let is_in_path = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    text.find(|letter| !is_in_path(letter)).unwrap_or(text.len())
}

/// What stands in the braces that the text begins with, with them.
fn group(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        depth == 0
    });
    &text[..end.map_or(text.len(), |end| end + 1)]
}

/// The paths of a group such as `{a, b::{c, d}}`: `a`, `b::c`, `b::d`. Of no group the one that is empty.
fn leaves(group: &str) -> Vec<String> {
    let Some(list) = group.strip_prefix('{').and_then(|list| list.strip_suffix('}')) else {
        return vec![String::new()];
    };
    let (mut depth, mut start, mut items) = (0, 0, Vec::new());
    for (at, letter) in list.char_indices() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ',' && depth == 0 {
            items.push(&list[start..at]);
            start = at + 1;
        }
    }
    items.push(&list[start..]);
    let items = items.into_iter().map(str::trim).filter(|item| !item.is_empty());
    items
        .flat_map(|item| match item.split_once('{') {
            Some((path, _)) => leaves(&item[path.len()..]).into_iter().map(|leaf| format!("{path}{leaf}")).collect(),
            None => vec![item.to_owned()],
        })
        .collect()
}

/// A path from the crate's root, if it is one of this crate and says more than where it begins.
fn resolve(file: &str, children: &[&str], path: &str) -> Option<String> {
    let (first, mut rest) = path.split_once("::")?;
    let mut at = match first {
        "crate" | "tollgate" => String::new(),
        "self" => file.to_owned(),
        "super" => parent(file),
        child if children.contains(&child) => join(file, child),
        _ => return None,
    };
    while let Some(further) = rest.strip_prefix("super::") {
        (at, rest) = (parent(&at), further);
    }
    let rest = rest.split("::").filter(|name| !name.is_empty() && *name != "self");
    Some(rest.fold(at, |at, name| join(&at, name))).filter(|path| !path.is_empty())
}

fn parent(module: &str) -> Module {
    module.rsplit_once("::").map_or_else(String::new, |(parent, _)| parent.to_owned())
}

/// The same edges between the modules of the crate's root, so that no folder imports another that imports it.
fn by_top(edges: &Edges) -> Edges {
    let top = |module: &Module| module.split("::").next().unwrap().to_owned();
    let mut tops = Edges::new();
    for (from, to) in edges {
        let others = to.iter().map(top).filter(|to| *to != top(from));
        tops.entry(top(from)).or_default().extend(others);
    }
    tops
}

/// A way from the module to itself.
fn circle(edges: &Edges, start: &Module) -> Option<Vec<Module>> {
    let (mut ways, mut seen) = (vec![vec![start.clone()]], BTreeSet::new());
    while let Some(way) = ways.pop() {
        for to in edges.get(way.last().unwrap()).into_iter().flatten() {
            let further = [way.clone(), vec![to.clone()]].concat();
            if to == start {
                return Some(further);
            }
            if seen.insert(to.clone()) {
                ways.push(further);
            }
        }
    }
    None
}

#[test]
fn paths_are_read_as_the_compiler_reads_them() {
    let code = "mod child;\nuse super::{Flow, other::{self, Deep}};\nuse crate::net;\nuse std::fmt;\nchild::run(crate::quota::X);";
    let paths = paths("a::b", code);
    let expected = ["a::Flow", "a::b::child::run", "a::other", "a::other::Deep", "net", "quota::X"];
    assert_eq!(paths, expected.into_iter().map(str::to_owned).collect());
}
