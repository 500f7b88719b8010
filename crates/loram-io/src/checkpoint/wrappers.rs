//! Names of tensors without what wrappers of a module leave in them: `torch.compile` writes `_orig_mod.`, data-parallel
//! training `module.`, PEFT `base_model.model.`.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// Parts that wrappers put anywhere into a name.
const INSIDE: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Prefixes of all names of a wrapped model.
const IN_FRONT: [&str; 2] = ["module.", "base_model.model."];

/// Names of tensors without wrappers.
pub(crate) struct Unwrapped<'a> {
    /// In the order of the names that were given.
    pub names: Vec<Cow<'a, str>>,
    /// The prefixes that were removed.
    pub removed: BTreeSet<&'static str>,
}

/// Takes parts of wrappers out of names, and prefixes off that all of them have, as often as they come.
pub(crate) fn unwrap_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Unwrapped<'a> {
    let mut removed = BTreeSet::new();
    let mut names: Vec<Cow<'a, str>> = names.into_iter().map(|name| without_parts(name, &mut removed)).collect();
    while let Some(prefix) = IN_FRONT.iter().find(|p| !names.is_empty() && names.iter().all(|n| n.starts_with(**p))) {
        removed.insert(*prefix);
        for name in &mut names {
            *name = match name {
                Cow::Borrowed(name) => Cow::Borrowed(&name[prefix.len()..]),
                Cow::Owned(name) => Cow::Owned(name[prefix.len()..].to_string()),
            };
        }
    }
    Unwrapped { names, removed }
}

fn without_parts<'a>(name: &'a str, removed: &mut BTreeSet<&'static str>) -> Cow<'a, str> {
    let wrapper = |part: &str| INSIDE.iter().find(|w| **w == part).copied();
    let found: Vec<&'static str> = name.split('.').filter_map(wrapper).collect();
    if found.is_empty() {
        return Cow::Borrowed(name);
    }
    removed.extend(found);
    Cow::Owned(name.split('.').filter(|part| wrapper(part).is_none()).collect::<Vec<_>>().join("."))
}

/// The prefixes that were removed, for a message.
pub(crate) fn list(removed: &BTreeSet<&'static str>) -> String {
    removed.iter().map(|r| format!("`{}`", r.trim_end_matches('.'))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_go_and_names_stay() {
        let plain = |names: &[&'static str]| {
            let Unwrapped { names, removed } = unwrap_names(names.iter().copied());
            (names.into_iter().map(Cow::into_owned).collect::<Vec<_>>(), list(&removed))
        };
        let q = "model.layers.0.q_proj.weight".to_string();
        assert_eq!(plain(&["_orig_mod.model.layers.0.q_proj.weight"]), (vec![q.clone()], "`_orig_mod`".into()));
        let (names, removed) = plain(&[
            "module._orig_mod.model.layers.0._checkpoint_wrapped_module.q_proj.weight",
            "module.lm_head.weight",
        ]);
        assert_eq!(names, [q.as_str(), "lm_head.weight"]);
        assert_eq!(removed, "`_checkpoint_wrapped_module`, `_orig_mod`, `module`");
        assert_eq!(
            plain(&["base_model.model.base_model.model.a.b"]),
            (vec!["a.b".into()], "`base_model.model`".into())
        );
        // a prefix that only some names have belongs to the model
        let mixed = plain(&["module.a", "b"]);
        assert_eq!(mixed, (vec!["module.a".into(), "b".into()], String::new()));
        assert!(plain(&[]).0.is_empty());
    }
}
