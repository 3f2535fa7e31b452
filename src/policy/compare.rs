//! What a file says otherwise than the one before.

use super::{Layer, Overrides, Policies};
use crate::limit::PolicyName;
use std::collections::BTreeSet;

impl Policies {
    /// How a file differs from what the last one said: a text for each policy of which anything does.
    pub fn changes_of_file(&self, file: &[(PolicyName, Layer)]) -> Vec<String> {
        let nothing = Layer::default();
        let old = |name: PolicyName| self.by_name.get(name.as_str()).map_or(&nothing, |policy| &policy.file);
        let new = |name: PolicyName| file.iter().find(|(other, _)| *other == name).map_or(&nothing, |(_, layer)| layer);
        let names: BTreeSet<_> =
            self.by_name.values().map(|policy| policy.name).chain(file.iter().map(|(name, _)| *name)).collect();
        names.into_iter().filter_map(|name| change(name, old(name), new(name))).collect()
    }
}

fn change(name: PolicyName, old: &Layer, new: &Layer) -> Option<String> {
    let text = |layer: &Layer| layer.definition.as_ref().map(ToString::to_string);
    let definition = match (text(old), text(new)) {
        (Some(old), Some(new)) if old != new => Some(format!("'{new}' (was '{old}')")),
        (None, Some(new)) => Some(format!("'{new}' (new)")),
        (Some(old), None) => Some(format!("gone (was '{old}')")),
        _ => None,
    };
    let count = overrides_changed(&old.overrides, &new.overrides);
    let overrides = (count > 0).then(|| format!("{count} overrides changed"));
    let parts: Vec<_> = definition.into_iter().chain(overrides).collect();
    (!parts.is_empty()).then(|| format!("{}: {}", name.as_str(), parts.join(", ")))
}

fn overrides_changed(old: &Overrides, new: &Overrides) -> usize {
    let differs = new.iter().filter(|(pattern, found)| old.get(pattern) != Some(found)).count();
    differs + old.iter().filter(|(pattern, _)| new.get(pattern).is_none()).count()
}
