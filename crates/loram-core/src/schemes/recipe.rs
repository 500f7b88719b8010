//! How an initialisation is kept in files.

use super::option::SchemeOptions;
use super::registry::{registry, scheme_option};
use crate::basis::Basis;
use crate::first_step::FirstStep;
use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How a layer was initialised. For LoRAM, and for schemes that read nothing but the shape, this is enough to recompute
/// A₀ and B₀ bit for bit ([`from_recipe`](crate::from_recipe)).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerRecipe {
    /// Canonical name of the scheme.
    pub scheme: String,
    /// Module path, part of the random stream.
    pub path: String,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub m: usize,
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// Seed of the random stream.
    pub seed: u64,
    /// Multiple of the scheme's A₀.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub init_scale_a: f64,
    /// Multiple of the scheme's B₀.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub init_scale_b: f64,
    /// The module is an embedding, n its rows and m its width.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub embedding: bool,
    /// LoRAM's scale of both factors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beta: Option<f64>,
    /// LoRAM's gain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// LoRAM's basis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
    /// Options of a scheme that reads nothing but the shape, where they are not at their default.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, Value>,
}

fn one() -> f64 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_one(x: &f64) -> bool {
    *x == 1.0
}

/// In files, every option of every scheme has its value, in the order of the registry; the rest is written where it is set.
impl Serialize for SchemeOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (i, scheme) in registry().iter().enumerate() {
            for option in scheme.options {
                let given = self.values.get(option.key).cloned();
                map.serialize_entry(option.key, &given.unwrap_or_else(|| option.default_value()))?;
            }
            if let Some(first_step) = self.first_step.filter(|_| i == 0) {
                map.serialize_entry("first_step", &first_step)?;
            }
        }
        // of schemes that are not in the registry
        for (key, value) in self.values.iter().filter(|(key, _)| scheme_option(key).is_none()) {
            map.serialize_entry(key, value)?;
        }
        for (key, scale) in [("init_scale_a", self.init_scale_a), ("init_scale_b", self.init_scale_b)] {
            if scale != 1.0 {
                map.serialize_entry(key, &scale)?;
            }
        }
        map.end()
    }
}

/// Options at their default are left out, and so are keys that no scheme here has: those of another version or program.
impl<'de> Deserialize<'de> for SchemeOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SchemeOptions, D::Error> {
        #[derive(Deserialize)]
        struct Common {
            #[serde(default)]
            first_step: Option<FirstStep>,
            #[serde(default = "one")]
            init_scale_a: f64,
            #[serde(default = "one")]
            init_scale_b: f64,
            #[serde(flatten)]
            values: Map<String, Value>,
        }
        let Common { first_step, init_scale_a, init_scale_b, values: all } = Common::deserialize(deserializer)?;
        let mut values = BTreeMap::new();
        for (key, value) in all {
            let Some(option) = scheme_option(&key) else { continue };
            let value = option.parse(&value).map_err(D::Error::custom)?;
            if value != option.default_value() {
                values.insert(key, value);
            }
        }
        Ok(SchemeOptions { values, first_step, init_scale_a, init_scale_b })
    }
}
