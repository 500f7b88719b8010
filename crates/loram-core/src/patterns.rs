//! `rank_pattern` and `alpha_pattern`: ranks and alphas that differ from the common ones, read and written as PEFT does
//! (`peft/utils/other.py`, `get_pattern_key`).

use crate::config::LoraConfig;
use crate::{Error, Result};
use fancy_regex::Regex;
use std::collections::BTreeMap;

/// The patterns of a configuration, compiled.
pub(crate) struct Patterns<'a> {
    config: &'a LoraConfig,
    ranks: Vec<(Regex, usize)>,
    alphas: Vec<(Regex, f64)>,
}

impl<'a> Patterns<'a> {
    /// Compiles the patterns. Errors: a key that is not a regular expression.
    pub fn new(config: &'a LoraConfig) -> Result<Patterns<'a>> {
        let ranks = compile_all("rank_pattern", &config.rank_pattern)?;
        Ok(Patterns { config, ranks, alphas: compile_all("alpha_pattern", &config.alpha_pattern)? })
    }

    /// The rank and `lora_alpha` of a layer.
    pub fn of(&self, path: &str) -> Result<(usize, f64)> {
        let r = find(&self.ranks, path)?.unwrap_or(self.config.r);
        Ok((r, find(&self.alphas, path)?.unwrap_or(self.config.lora_alpha)))
    }
}

fn compile_all<T: Copy>(key: &str, map: &BTreeMap<String, T>) -> Result<Vec<(Regex, T)>> {
    // groups as PEFT has them, so that a back reference in the pattern means the same group
    map.iter().map(|(p, v)| Ok((compile(key, p, &format!(r"^(.*\.)?({p})$"))?, *v))).collect()
}

fn find<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Result<Option<T>> {
    for (re, value) in patterns {
        if is_match(re, path)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

/// Compiles a regular expression of the key `key`; `written` is what the user gave.
pub(crate) fn compile(key: &str, written: &str, pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|e| {
        // positions are those of what was written, not of what stands around it
        let own = Regex::new(written).err().unwrap_or(e);
        Error::setting(key, format!("`{written}` is not a regular expression: {own}"))
    })
}

/// Returns whether a path matches. An error when that takes too long.
pub(crate) fn is_match(re: &Regex, path: &str) -> Result<bool> {
    re.is_match(path).map_err(|e| Error::setting("target_modules", format!("matching `{path}`: {e}")))
}

impl LoraConfig {
    /// Rewrites `rank_pattern` for these layers (module path, rank): every layer whose rank is not `r` is named by its
    /// full path, as PEFT does.
    pub fn set_ranks<'a>(&mut self, ranks: impl IntoIterator<Item = (&'a str, usize)>) {
        self.rank_pattern = others(ranks, self.r);
    }

    /// Rewrites `alpha_pattern` for these layers (module path, `lora_alpha`), as [`LoraConfig::set_ranks`] does.
    pub fn set_alphas<'a>(&mut self, alphas: impl IntoIterator<Item = (&'a str, f64)>) {
        self.alpha_pattern = others(alphas, self.lora_alpha);
    }
}

fn others<'a, T: PartialEq>(layers: impl IntoIterator<Item = (&'a str, T)>, common: T) -> BTreeMap<String, T> {
    layers.into_iter().filter(|(_, own)| *own != common).map(|(path, own)| (path.to_string(), own)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let layers = [("model.layers.0.q", 4, 8.0), ("model.layers.1.q", 6, 8.0), ("model.layers.11.q", 4, 3.0)];
        let mut config = LoraConfig { r: 4, lora_alpha: 8.0, ..LoraConfig::default() };
        // an older pattern must not win over the new one
        config.alpha_pattern.insert("a|.*q".into(), 5.0);
        config.set_ranks(layers.map(|l| (l.0, l.1)));
        config.set_alphas(layers.map(|l| (l.0, l.2)));
        assert_eq!((config.rank_pattern.len(), config.alpha_pattern.len()), (1, 1));
        let patterns = Patterns::new(&config).unwrap();
        for (path, r, alpha) in layers {
            assert_eq!(patterns.of(path).unwrap(), (r, alpha), "{path}");
        }
    }
}
