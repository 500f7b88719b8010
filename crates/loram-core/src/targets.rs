//! From a configuration to the layers that get an adapter, by PEFT's rules (`peft/tuners/tuners_utils.py`,
//! `check_target_module_exists`).

use crate::config::{LoraConfig, OneOrMany, TargetModules, module_ends_with};
use crate::patterns::{Patterns, compile, is_match};
use crate::similar::similar_name;
use crate::{Error, Result};
use fancy_regex::Regex;
use std::collections::BTreeSet;

/// A linear layer of a model, with weight (n, m).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearInfo {
    /// Module path, e.g. `model.layers.0.self_attn.q_proj`.
    pub path: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub m: usize,
    /// `lm_head`, `score`, `classifier`: not part of `all-linear`.
    pub output_layer: bool,
}

/// The adapter of one layer, before it is initialised.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlan {
    /// Module path.
    pub path: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub m: usize,
    /// Rank, after `rank_pattern`.
    pub r: usize,
    /// After `alpha_pattern`.
    pub lora_alpha: f64,
    /// Factor on B·A.
    pub scaling: f64,
}

impl LayerPlan {
    /// An error unless the rank is from 1 to min(n, m).
    pub(crate) fn check_rank(&self) -> Result<()> {
        let LayerPlan { n, m, r, .. } = *self;
        if r == 0 {
            return Err(Error::layer(&self.path, "expected a rank r of at least 1, found 0"));
        }
        if r > n.min(m) {
            let what = format!("r = {r} is larger than the smaller side of its weight ({n}, {m})");
            return Err(Error::layer(&self.path, what));
        }
        Ok(())
    }
}

/// The layers that get an adapter, in the order of `linears`. Errors: a bad regular expression, nothing that matches
/// (with the names there are), a rank of 0, or one larger than a layer.
pub fn plan_layers(cfg: &LoraConfig, linears: &[LinearInfo]) -> Result<Vec<LayerPlan>> {
    check_layers(cfg)?;
    let rules = Rules::new(cfg)?;
    let patterns = Patterns::new(cfg)?;
    let mut plans = Vec::new();
    for l in linears {
        if !rules.target(l)? {
            continue;
        }
        let (r, lora_alpha) = patterns.of(&l.path)?;
        let scaling = cfg.scaling(lora_alpha, r);
        let plan = LayerPlan { path: l.path.clone(), n: l.n, m: l.m, r, lora_alpha, scaling };
        plan.check_rank()?;
        plans.push(plan);
    }
    if plans.is_empty() {
        return Err(no_target(cfg, linears));
    }
    Ok(plans)
}

/// An error if one of the names in `target_modules` matches no layer. [`plan_layers`] then adapts what the others match, as PEFT
/// does; for what a user writes that is most likely a slip.
pub fn check_targets(cfg: &LoraConfig, linears: &[LinearInfo]) -> Result<()> {
    let TargetModules::Names(asked) = &cfg.target_modules else { return Ok(()) };
    let is_there = |name: &String| linears.iter().any(|l| named(std::slice::from_ref(name), &l.path));
    let lost: Vec<String> = asked.iter().filter(|name| !is_there(name)).cloned().collect();
    match lost.is_empty() {
        true => Ok(()),
        false => Err(no_target(&LoraConfig { target_modules: TargetModules::Names(lost), ..cfg.clone() }, linears)),
    }
}

/// Refuses what PEFT refuses: with one string for `target_modules` it does not look at layers. `all-linear` may have
/// `layers_to_transform` here.
fn check_layers(cfg: &LoraConfig) -> Result<()> {
    let regex = matches!(cfg.target_modules, TargetModules::Regex(_));
    for (key, set) in [
        ("layers_to_transform", cfg.layers_to_transform.is_some()),
        ("layers_pattern", cfg.layers_pattern.as_ref().is_some_and(|p| !p.as_slice().is_empty())),
    ] {
        if set && regex {
            let what = "goes with a list of names; where target_modules is a regular expression, name the layers in it";
            return Err(Error::setting(key, what));
        }
        if set && key == "layers_pattern" && cfg.layers_to_transform.is_none() {
            return Err(Error::setting(key, "has no effect without layers_to_transform"));
        }
    }
    Ok(())
}

fn no_target(cfg: &LoraConfig, linears: &[LinearInfo]) -> Error {
    let last = |p: &str| p.rsplit('.').next().unwrap_or(p).to_string();
    let names: BTreeSet<String> = linears.iter().map(|l| last(&l.path)).collect();
    let mut available = names.iter().cloned().collect::<Vec<_>>().join(", ");
    if let TargetModules::Names(asked) = &cfg.target_modules {
        let every = |a: &String| ["all", "all_linear", "linear", "*"].contains(&a.to_lowercase().as_str());
        if asked.iter().any(every) {
            available.push_str(" (did you mean `all-linear`?)");
        }
        let similar =
            asked.iter().filter(|a| !every(a)).find_map(|a| similar_name(a, names.iter().map(String::as_str)));
        if let Some(name) = similar {
            available.push_str(&format!(" (did you mean `{name}`?)"));
        }
    }
    let mut asked = cfg.target_modules.to_string();
    if let Some(layers) = &cfg.layers_to_transform {
        let list: Vec<String> = layers.as_slice().iter().map(usize::to_string).collect();
        asked.push_str(&format!(" in the blocks {} of layers_to_transform", list.join(", ")));
    }
    if let Some(exclude) = &cfg.exclude_modules {
        asked.push_str(&format!(" without {exclude} of exclude_modules"));
    }
    Error::NoTarget { asked, available }
}

/// Python's `re.fullmatch`.
fn full(key: &str, pattern: &str) -> Result<Regex> {
    compile(key, pattern, &format!("^(?:{pattern})$"))
}

/// A compiled configuration.
struct Rules<'a> {
    cfg: &'a LoraConfig,
    target: Option<Regex>,
    exclude: Option<Regex>,
    saved: Vec<Regex>,
    layer: Vec<Regex>,
}

impl<'a> Rules<'a> {
    fn new(cfg: &'a LoraConfig) -> Result<Rules<'a>> {
        let regex = |key, t: Option<&TargetModules>| match t {
            Some(TargetModules::Regex(p)) => full(key, p).map(Some),
            // as an exclusion the shorthand is a name
            Some(TargetModules::AllLinear) if key == "exclude_modules" => full(key, "all-linear").map(Some),
            _ => Ok(None),
        };
        let saved = cfg.modules_to_save.iter().flatten();
        let layer = match &cfg.layers_pattern {
            Some(p) if !p.as_slice().is_empty() => p
                .as_slice()
                .iter()
                .map(|p| compile("layers_pattern", p, &format!(r"^(?:(?:^|.*?\.){p}\.(?P<idx>\d+)\.)")))
                .collect::<Result<_>>()?,
            _ => vec![compile("layers_pattern", "", r"^.*?\.[^.]*\.(?P<idx>\d+)\.")?],
        };
        Ok(Rules {
            cfg,
            target: regex("target_modules", Some(&cfg.target_modules))?,
            exclude: regex("exclude_modules", cfg.exclude_modules.as_ref())?,
            saved: saved
                .map(|m| compile("modules_to_save", m, &format!(r"^(?:(^|.*\.){m}($|\..*))")))
                .collect::<Result<_>>()?,
            layer,
        })
    }

    fn target(&self, l: &LinearInfo) -> Result<bool> {
        if let Some(re) = &self.exclude {
            if is_match(re, &l.path)? {
                return Ok(false);
            }
        } else if let Some(TargetModules::Names(names)) = &self.cfg.exclude_modules
            && named(names, &l.path)
        {
            return Ok(false);
        }
        for re in &self.saved {
            if is_match(re, &l.path)? {
                return Ok(false);
            }
        }
        match &self.cfg.target_modules {
            TargetModules::AllLinear => Ok(!l.output_layer && self.in_chosen_layer(&l.path)?),
            TargetModules::Regex(_) => is_match(self.target.as_ref().expect("compiled"), &l.path),
            // a module that is named in full is taken whatever its layer
            TargetModules::Names(names) if names.contains(&l.path) => Ok(true),
            TargetModules::Names(names) => Ok(named(names, &l.path) && self.in_chosen_layer(&l.path)?),
        }
    }

    fn in_chosen_layer(&self, path: &str) -> Result<bool> {
        let chosen = match self.cfg.layers_to_transform.as_ref().map(OneOrMany::as_slice) {
            None | Some([]) => return Ok(true),
            Some(list) => list,
        };
        for re in &self.layer {
            if let Some(found) = re.captures(path).map_err(|e| Error::setting("layers_pattern", e.to_string()))? {
                let index = found.name("idx").and_then(|i| i.as_str().parse().ok());
                return Ok(index.is_some_and(|i| chosen.contains(&i)));
            }
        }
        Ok(false)
    }
}

fn named(names: &[String], path: &str) -> bool {
    names.iter().any(|n| module_ends_with(path, n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Vec<LinearInfo> {
        let mut list = Vec::new();
        for i in [0, 1, 10] {
            for (name, n, m) in [("self_attn.q_proj", 64, 64), ("self_attn.k_proj", 16, 64), ("mlp.up_proj", 128, 64)] {
                list.push(LinearInfo { path: format!("model.layers.{i}.{name}"), n, m, output_layer: false });
            }
        }
        list.push(LinearInfo { path: "lm_head".into(), n: 300, m: 64, output_layer: true });
        list
    }

    fn paths(change: impl FnOnce(&mut LoraConfig)) -> Result<Vec<String>> {
        let mut cfg = LoraConfig { r: 4, ..Default::default() };
        change(&mut cfg);
        Ok(plan_layers(&cfg, &model())?.into_iter().map(|p| p.path).collect())
    }

    fn names(list: &[&str]) -> TargetModules {
        TargetModules::Names(list.iter().map(|s| s.to_string()).collect())
    }

    #[test]
    fn suffixes_regexes_and_all_linear() {
        assert_eq!(paths(|_| ()).unwrap().len(), 9);
        assert_eq!(paths(|c| c.target_modules = names(&["q_proj"])).unwrap().len(), 3);
        assert_eq!(paths(|c| c.target_modules = names(&["proj"])).unwrap_err().exit_code(), 2);
        assert_eq!(paths(|c| c.target_modules = names(&["lm_head"])).unwrap(), ["lm_head"]);
        let regex = |s: &str| TargetModules::Regex(s.into());
        assert_eq!(paths(|c| c.target_modules = regex(r".*\.(q|k)_proj")).unwrap().len(), 6);
        assert!(paths(|c| c.target_modules = regex("q_proj")).is_err(), "the whole path must match");
        assert_eq!(
            paths(|c| c.target_modules = regex(r"(?!.*mlp).*_proj")).unwrap().len(),
            6,
            "lookahead as in Python"
        );
    }

    #[test]
    fn exclusions_layers_and_patterns() {
        assert_eq!(paths(|c| c.exclude_modules = Some(names(&["up_proj"]))).unwrap().len(), 6);
        assert_eq!(paths(|c| c.modules_to_save = Some(vec!["mlp".into()])).unwrap().len(), 6);
        assert_eq!(paths(|c| c.layers_to_transform = Some(OneOrMany::One(1))).unwrap().len(), 3);
        let two = OneOrMany::Many(vec![0, 10]);
        assert_eq!(paths(|c| c.layers_to_transform = Some(two)).unwrap().len(), 6);
        let mut cfg = LoraConfig { r: 4, lora_alpha: 8.0, use_rslora: true, ..Default::default() };
        cfg.rank_pattern.insert("k_proj".into(), 9);
        cfg.alpha_pattern.insert(r"layers\.1\..*".into(), 2.0);
        let plans = plan_layers(&cfg, &model()).unwrap();
        let k1 = plans.iter().find(|p| p.path == "model.layers.1.self_attn.k_proj").unwrap();
        assert_eq!((k1.r, k1.lora_alpha), (9, 2.0));
        assert!((k1.scaling - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(plans[0].scaling, 4.0);
    }

    #[test]
    fn errors_say_what_there_is() {
        let e = paths(|c| c.target_modules = names(&["query_proj"])).unwrap_err().to_string();
        assert!(e.contains("k_proj, lm_head, q_proj, up_proj") && e.contains("did you mean"), "{e}");
        let slip = LoraConfig { target_modules: names(&["q_proj", "up_prj"]), ..Default::default() };
        let e = check_targets(&slip, &model()).unwrap_err().to_string();
        assert!(
            e.starts_with("target_modules: up_prj matches no linear layer") && e.contains("did you mean `up_proj`"),
            "{e}"
        );
        let e = paths(|c| c.target_modules = names(&["all"])).unwrap_err().to_string();
        assert!(e.contains("did you mean `all-linear`?"), "{e}");
        let e = paths(|c| c.target_modules = TargetModules::Regex("q_(proj".into())).unwrap_err().to_string();
        let at = e
            .split("position ")
            .nth(1)
            .and_then(|t| t.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok());
        assert!(at.is_none_or(|at| at <= "q_(proj".len()), "{e}");
        let e = paths(|c| c.r = 17).unwrap_err().to_string();
        assert!(e.contains("model.layers.0.self_attn.k_proj") && e.contains("(16, 64)") && e.contains("17"), "{e}");
        assert!(
            paths(|c| c.target_modules = TargetModules::Regex("(".into())).unwrap_err().to_string().contains("`(`")
        );
    }
}
