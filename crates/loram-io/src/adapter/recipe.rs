//! `loram.json`: the recipe of an adapter's initialisation, which reproduces it bit for bit, and the base that it fits.

use crate::config::{PoolingMode, ProblemType};
use crate::family::TensorNames;
use crate::limits::{MAX_FACTORS, MAX_SIDE};
use crate::{Checkpoint, Error, LoadIn4Bit, Result, TensorRef};
use loram_core::{LayerRecipe, SchemeOptions};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// File name of the recipe.
pub const RECIPE_FILE: &str = "loram.json";

/// The form of an adapter: plain loads onto the untouched base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterForm {
    /// The update is `s·B·A`: PEFT's meaning.
    Plain,
    /// The update is `s·(B·A − B₀·A₀)`, with A₀ and B₀ given by the recipe.
    Native,
}

/// The recipe file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Version of this file's layout: 1.
    pub format: u32,
    /// Version of the program that wrote it.
    pub loram_version: String,
    /// How the factors beside this file are meant.
    pub form: AdapterForm,
    /// Canonical name of the scheme.
    pub scheme: String,
    /// The scheme's options, as its configuration keys.
    #[serde(default)]
    pub options: SchemeOptions,
    /// Seed of the initialisation.
    pub seed: u64,
    /// The recipe of each layer, by module path.
    pub layers: BTreeMap<String, LayerRecipe>,
    /// The base that the adapter was initialised on; `None` when it is not known.
    #[serde(default)]
    pub base: Option<Fingerprint>,
    /// Labels of the head, by id, when the adapter classifies; PEFT's files have no place for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// The states that the head reads, where that is another choice than the family's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<PoolingMode>,
    /// The kind of problem, where a record may have several labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<ProblemType>,
}

impl Recipe {
    /// A recipe of the current version.
    pub fn new(form: AdapterForm, scheme: impl Into<String>, seed: u64) -> Recipe {
        Recipe {
            format: 1,
            loram_version: env!("CARGO_PKG_VERSION").into(),
            form,
            scheme: scheme.into(),
            options: SchemeOptions::default(),
            seed,
            layers: BTreeMap::new(),
            base: None,
            labels: None,
            pooling: None,
            problem_type: None,
        }
    }

    /// Reads `loram.json`. Errors: not JSON, a missing or malformed key, a newer layout.
    pub fn read(path: &Path) -> Result<Recipe> {
        Recipe::parse(&crate::input::read_text(path)?, path)
    }

    /// Parses the text of a `loram.json`; `path` is used in errors, which are those of [`Recipe::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Recipe> {
        let recipe: Recipe =
            serde_json::from_str(text).map_err(|e| Error::json(path, format!("no valid recipe: {e}")))?;
        if recipe.format != 1 {
            let what = format!("recipe layout {} is newer than this program, which reads 1: update it", recipe.format);
            return Err(Error::json(path, what));
        }
        match recipe.layers.iter().find(|(_, l)| !is_possible(l)) {
            None => Ok(recipe),
            Some((name, l)) => {
                let what = format!(
                    "layer `{name}`: {} × {} with r {} is no layer of a model: the sides are at most {MAX_SIDE}, and the \
                     factors together at most {MAX_FACTORS} numbers",
                    l.n, l.m, l.r
                );
                Err(Error::json(path, what))
            }
        }
    }
}

/// True for shapes whose factors fit into memory.
fn is_possible(l: &LayerRecipe) -> bool {
    let sides = l.n <= MAX_SIDE && l.m <= MAX_SIDE;
    sides && (l.n + l.m).checked_mul(l.r).is_some_and(|n| n <= MAX_FACTORS)
}

/// Identifies the weights that an adapter was initialised on, per adapted layer.
///
/// Each entry is the first 16 hexadecimal digits of the SHA-256 of dtype, shape and 64 evenly spaced blocks of 4 KiB
/// (all bytes of tensors up to 256 KiB). It tells another model, another fine-tuning, another dtype or a residual base
/// apart and reads 60 MB of a model with 224 layers; it does not guard against somebody who forges weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// `sha256-blocks`.
    pub algorithm: String,
    /// Digest by module path.
    pub layers: BTreeMap<String, String>,
    /// How the weights were quantised while they were read; `None` for weights as they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_in_4bit: Option<LoadIn4Bit>,
}

const ALGORITHM: &str = "sha256-blocks";
const BLOCK: usize = 4096;
const BLOCKS: usize = 64;

impl Fingerprint {
    /// The fingerprint of these layers of a checkpoint; `names` translates module paths when given.
    pub fn of<'a>(
        ckpt: &Checkpoint,
        names: Option<&TensorNames>,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<Fingerprint> {
        Fingerprint::new(BTreeMap::new()).of_layers(ckpt, names, paths)
    }

    /// The fingerprint of these layers of a checkpoint, with the digests that are known already.
    pub fn of_layers<'a>(
        self,
        ckpt: &Checkpoint,
        names: Option<&TensorNames>,
        paths: impl IntoIterator<Item = &'a str>,
    ) -> Result<Fingerprint> {
        let digest = |path: &&str| {
            let name = format!("{path}.weight");
            let digest = match self.layers.get(*path) {
                Some(known) => known.clone(),
                None => Fingerprint::digest(&ckpt.tensor(&names.map_or(name.clone(), |n| n.stored(&name)))?),
            };
            Ok((path.to_string(), digest))
        };
        let paths: Vec<&str> = paths.into_iter().collect();
        let found: Vec<Result<_>> = paths.par_iter().map(digest).collect();
        // the error is that of the first layer
        Ok(Fingerprint::new(found.into_iter().collect::<Result<_>>()?).on(ckpt))
    }

    /// From digests by module path.
    pub fn new(layers: BTreeMap<String, String>) -> Fingerprint {
        Fingerprint { algorithm: ALGORITHM.into(), layers, load_in_4bit: None }
    }

    /// The same, with the way in which the weights of this checkpoint were quantised when it was read.
    pub(crate) fn on(self, ckpt: &Checkpoint) -> Fingerprint {
        Fingerprint { load_in_4bit: ckpt.loaded_in_4bit().cloned(), ..self }
    }

    /// The digest of one layer's tensor.
    pub(crate) fn digest(tensor: &TensorRef) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{} {:?}\n", tensor.dtype(), tensor.shape()));
        let bytes = tensor.bytes();
        if bytes.len() <= BLOCK * BLOCKS {
            hash.update(bytes);
        } else {
            for i in 0..BLOCKS {
                let at = (bytes.len() - BLOCK) / (BLOCKS - 1) * i;
                hash.update(&bytes[at..at + BLOCK]);
            }
        }
        hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// An error that names the first layer that differs when `ckpt` is not the base of this fingerprint.
    pub fn verify(&self, ckpt: &Checkpoint, names: Option<&TensorNames>) -> Result<()> {
        if self.algorithm != ALGORITHM {
            return Err(Error::Usage(format!("unknown fingerprint `{}` in {RECIPE_FILE}", self.algorithm)));
        }
        let found = Fingerprint::of(ckpt, names, self.layers.keys().map(String::as_str))?;
        let differs = self.layers.iter().find(|(path, digest)| found.layers.get(*path) != Some(digest));
        match differs {
            None => Ok(()),
            Some((path, digest)) => Err(Error::Tensor {
                name: format!("{path}.weight"),
                what: format!(
                    "the adapter was initialised on other weights (fingerprint {digest}, this model has {}): use its base \
                     model, in the same dtype",
                    found.layers.get(path).map_or("none", String::as_str)
                ),
            }),
        }
    }
}
