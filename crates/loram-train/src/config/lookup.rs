//! Keys by name.

use super::foreign;
use super::key::{Key, Mark};
use super::layer::Origin;
use super::scheme_keys::scheme_keys;
use super::table::rows;
use crate::Error;
use std::sync::LazyLock;

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = rows();
    let scheme = keys.iter().position(|k| k.name == "init_lora_weights").map_or(keys.len(), |i| i + 1);
    keys.splice(scheme..scheme, scheme_keys());
    keys
});

/// All keys, in the order of the documentation: the rows of the table, and the options of schemes after the key of the
/// scheme's name.
pub fn keys() -> &'static [Key] {
    &KEYS
}

/// The key with this name or alias.
pub fn key(name: &str) -> Option<&'static Key> {
    keys().iter().find(|k| k.names().any(|n| n == name))
}

/// The keys with this mark, in the order of the documentation.
pub fn marked(mark: Mark) -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(move |k| k.is(mark))
}

/// Returns advice on an unknown key: the name that another trainer's key has here, or the most similar key; `others` are
/// accepted where it stands, too.
pub fn key_hint(wrong: &str, others: &[&'static str]) -> Option<String> {
    let name = wrong.to_lowercase().replace('-', "_");
    if let Some(advice) = foreign::advice(&name) {
        return Some(advice);
    }
    let names = keys().iter().flat_map(Key::names).chain(others.iter().copied());
    let found = loram_core::similar_name(&name, names)?;
    Some(format!("did you mean `{}`?", key(found).map_or(found, |k| k.name)))
}

/// The key with this name or alias. The error has a hint.
pub(super) fn known_key(name: &str, origin: &Origin) -> crate::Result<&'static Key> {
    key(name).ok_or_else(|| unknown(&[(name, origin.to_string())]))
}

/// The error for keys that there are not, each with its place.
pub(super) fn unknown(names: &[(&str, String)]) -> Error {
    const LIST: &str = "`loram train --help-keys` lists all keys";
    if let [(name, place)] = names {
        let hint = key_hint(name, &[]).unwrap_or_else(|| LIST.into());
        return Error::Config(format!("unknown key `{name}` (from {place}); {hint}"));
    }
    let one = |(name, place): &(&str, String)| match key_hint(name, &[]) {
        Some(hint) => format!("`{name}` (from {place}; {hint})"),
        None => format!("`{name}` (from {place})"),
    };
    let list: Vec<String> = names.iter().map(one).collect();
    Error::Config(format!("unknown keys: {}; {LIST}", list.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_name_belongs_to_one_key() {
        let mut seen = BTreeSet::new();
        for name in keys().iter().flat_map(Key::names) {
            assert!(seen.insert(name), "`{name}` names two keys");
        }
        assert!(marked(Mark::AliasFlag).all(|k| !k.aliases.is_empty()));
    }

    #[test]
    fn marks_do_not_contradict_each_other() {
        for k in keys() {
            let any = |marks: &[Mark]| marks.iter().any(|m| k.is(*m));
            if any(&[Mark::Folder, Mark::Cosmetic]) {
                assert!(k.is(Mark::Resumable), "{}: no result depends on it, yet a resumed run must keep it", k.name);
            }
            if any(&[Mark::Axis, Mark::Factor, Mark::Peft, Mark::Rewritable]) {
                assert!(!k.is(Mark::Resumable), "{}: it decides the result, yet a resumed run may change it", k.name);
            }
            if k.is(Mark::MinusOne) {
                assert!(k.expected.contains("or null"), "{}: it has no null that −1 could mean", k.name);
            }
            assert!(!(k.is(Mark::Folder) && any(&[Mark::Axis, Mark::Input])), "{}: set and varied", k.name);
        }
    }
}
