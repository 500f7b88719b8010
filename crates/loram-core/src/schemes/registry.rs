//! All schemes by name: those of [`built_in`](super::built_in), and those that a program adds.

use super::built_in::BUILT_IN;
use super::info::{SchemeInfo, Tracked};
use super::option::{OptionInfo, SchemeOptions};
use super::spec::SchemeSpec;
use crate::similar::similar_name;
use crate::{Error, Result};
use std::sync::OnceLock;

static ALL: OnceLock<Vec<&'static SchemeInfo>> = OnceLock::new();

/// All schemes, the default first.
pub fn registry() -> &'static [&'static SchemeInfo] {
    ALL.get_or_init(|| BUILT_IN.to_vec())
}

/// Adds schemes of another crate, once, before the registry is first used: it never changes while a program works with it.
/// Errors: a registry in use, a name or an option's key that is taken.
pub fn register(schemes: &[&'static SchemeInfo]) -> Result<()> {
    let mut all = BUILT_IN.to_vec();
    for new in schemes {
        let names = |s: &SchemeInfo| [&[s.name], s.aliases].concat();
        let taken = names(new).into_iter().find(|name| all.iter().any(|s| names(s).contains(name)));
        if let Some(name) = taken {
            return Err(Error::setting("register", format!("there is a scheme `{name}` already")));
        }
        for option in new.options {
            if let Some(owner) = all.iter().find(|s| s.option(option.key).is_some()) {
                let what = format!("`{}` of `{}` is an option of `{}` already", option.key, new.name, owner.name);
                return Err(Error::setting("register", what));
            }
            option.parse(&option.default.into())?;
        }
        all.push(new);
    }
    ALL.set(all).map_err(|_| Error::setting("register", "the registry is in use: register schemes once, at start-up"))
}

/// The options of all schemes, in the order of the registry.
pub fn scheme_options() -> impl Iterator<Item = &'static OptionInfo> {
    registry().iter().flat_map(|s| s.options)
}

/// The option of a key, whatever scheme has it.
pub fn scheme_option(key: &str) -> Option<&'static OptionInfo> {
    scheme_options().find(|o| o.key == key)
}

impl SchemeSpec {
    /// Finds a scheme by its name; `_` is `-`, and PEFT's `true` is `lora`. Errors: an unknown name (all are listed, with
    /// the nearest), an unknown option, one that the scheme does not take at another value than its default, a value that
    /// an option does not take.
    pub fn parse(name: &str, options: &SchemeOptions) -> Result<SchemeSpec> {
        let (info, number) = find(name)?;
        let mut options = options.clone();
        for (key, value) in std::mem::take(&mut options.values) {
            let option = scheme_option(&key).ok_or_else(|| unknown_option(&key))?;
            let value = option.parse(&value)?;
            if info.option(&key).is_none() && value != option.default_value() {
                let owners = registry().iter().filter(|s| s.option(&key).is_some());
                let owners: Vec<&str> = owners.map(|s| s.name).collect();
                let what = format!("is not an option of `{name}`, only of `{}`", owners.join("`, `"));
                return Err(Error::setting(&key, what));
            }
            if info.option(&key).is_some() {
                options.values.insert(key, value);
            }
        }
        let tracked = info.tracks.and_then(|tracks| tracks(&options));
        let tracked = tracked.map(|tracked| tracked_spec(info, &tracked)).transpose()?;
        SchemeSpec::build(info, number, options, tracked)
    }
}

/// The scheme of a name, and the number in it.
fn find(name: &str) -> Result<(&'static SchemeInfo, Option<usize>)> {
    let plain = name.to_ascii_lowercase().replace('_', "-");
    for info in registry() {
        match info.family().map(|family| plain.strip_prefix(family)) {
            None if info.name == plain || info.aliases.contains(&plain.as_str()) => return Ok((info, None)),
            Some(Some(number)) => return Ok((info, Some(number.parse().map_err(|_| unknown(name))?))),
            _ => {}
        }
    }
    Err(unknown(name))
}

/// The scheme whose magnitude is to be followed.
fn tracked_spec(own: &SchemeInfo, tracked: &Tracked) -> Result<SchemeSpec> {
    let Tracked { option, scheme: name } = tracked;
    let spec = SchemeSpec::parse(name, &SchemeOptions::default())?;
    if spec.info().changes_base && spec.info().name != own.name {
        return Ok(spec);
    }
    let what = format!("`{name}` has no magnitude to follow: its B₀A₀ is 0, or it is `{}` itself", own.name);
    Err(Error::setting(option, what))
}

fn hint(name: &str, all: &[&str]) -> String {
    similar_name(name, all.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"))
}

fn unknown(name: &str) -> Error {
    let all: Vec<&str> = registry().iter().map(|s| s.name).collect();
    let what = format!("unknown scheme `{name}`; there are {}{}", all.join(", "), hint(name, &all));
    Error::setting("init_lora_weights", what)
}

fn unknown_option(key: &str) -> Error {
    let all: Vec<&str> = scheme_options().map(|o| o.key).collect();
    Error::setting(key, format!("is not an option of any scheme; there are {}{}", all.join(", "), hint(key, &all)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_says_what_it_is_and_its_defaults_are_values() {
        for (i, scheme) in registry().iter().enumerate() {
            assert!(!scheme.summary.is_empty() && !scheme.source.is_empty(), "{scheme:?}");
            assert!(registry()[..i].iter().all(|s| s.name != scheme.name), "{scheme:?}");
            for option in scheme.options {
                assert!(!option.help.is_empty() && !option.expected.is_empty(), "{option:?}");
                let default = option.parse(&option.default.into()).unwrap();
                assert_eq!((option.read)(&default), Some(default), "{option:?}: the canonical form is read as it is");
            }
        }
    }
}
