//! Keys by name.

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

/// The name of the key that a misspelt one is most similar to; `others` are accepted where it stands, too.
pub fn similar_key(wrong: &str, others: &[&'static str]) -> Option<&'static str> {
    let names = keys().iter().flat_map(Key::names).chain(others.iter().copied());
    let found = loram_core::similar_name(&wrong.to_lowercase().replace('-', "_"), names)?;
    Some(key(found).map_or(found, |k| k.name))
}

/// The key with this name or alias. The error names the nearest one.
pub(super) fn known_key(name: &str, origin: &Origin) -> crate::Result<&'static Key> {
    key(name).ok_or_else(|| {
        let hint = match similar_key(name, &[]) {
            Some(similar) => format!("; did you mean `{similar}`?"),
            None => "; `loram train --help-keys` lists all keys".into(),
        };
        Error::Config(format!("unknown key `{name}` (from {origin}){hint}"))
    })
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
