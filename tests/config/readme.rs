//! README's table of settings, held against the settings that there are.

use super::load;
use std::collections::BTreeMap;

/// The table: for each key what stands under "environment" and under "default", which is the default of a row's first key;
/// others are not set.
fn table() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let readme = include_str!("../../README.md");
    let (_, rows) = readme.split_once("| key | environment | default | meaning |\n|---|---|---|---|\n").unwrap();
    let mut table = BTreeMap::new();
    for row in rows.lines().map_while(|line| line.strip_prefix("| ")) {
        let [keys, variables, default] = row.splitn(4, " | ").take(3).collect::<Vec<_>>().try_into().unwrap();
        for (key, default) in in_code(keys).zip([default].into_iter().chain(std::iter::repeat("not set"))) {
            assert_eq!(table.insert(key, (variables, default)), None, "{key} has two rows");
        }
    }
    table
}

fn in_code(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn readme_tells_of_every_key_its_variable_and_its_default() {
    let mut table = table();
    // It has no variable, and is in no report as long as there are no users.
    assert_eq!(table.remove("auth.users"), Some(("file only", "not set")));
    let report = load(None, &[], &[]).unwrap().report;
    let mut section = "";
    for line in report.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let (name, value) = line.trim_start_matches("# ").split_once(" =").unwrap();
        let key = format!("{section}.{name}");
        let (variables, default) = table.remove(key.as_str()).unwrap_or_else(|| panic!("README has no row for {key}"));
        let variable = format!("TOLLGATE_{}", key.replace('.', "__").to_uppercase());
        let is_it = |word: &str| word.strip_prefix("...").map_or(word == variable, |end| variable.ends_with(end));
        assert!(in_code(variables).any(is_it), "{key} has in README: {variables}");
        let value = value.split(" #").next().unwrap().trim().trim_matches('"');
        let in_force = if value.is_empty() { "not set".to_owned() } else { format!("`{value}`") };
        assert_eq!(default, in_force, "{key}");
    }
    assert!(table.is_empty(), "README has rows for what there is not: {table:#?}");
}
