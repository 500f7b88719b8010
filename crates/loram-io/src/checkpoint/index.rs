//! `model.safetensors.index.json`: which shard holds which tensor.

use crate::inside::is_inside;
use std::collections::BTreeMap;

/// File name of the index of a sharded model.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// File name of an unsharded model.
pub const SINGLE_FILE: &str = "model.safetensors";

/// File and index of a model in the layout of transformers, and of one that is a part of a diffusers pipeline.
pub(super) const LAYOUTS: [(&str, &str); 2] = [
    (SINGLE_FILE, INDEX_FILE),
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
];

/// The rule that an index file breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum IndexProblem {
    #[error("not JSON: {why}")]
    NotJson { why: String },
    #[error("no `weight_map` object (tensor name → shard file)")]
    NoWeightMap,
    #[error("`weight_map` is empty")]
    Empty,
    #[error("`weight_map` entry of `{tensor}` is not a file name")]
    BadEntry { tensor: String },
    #[error("tensor `{tensor}` is said to be in `{file}`, which is outside the model folder")]
    OutsideFolder { tensor: String, file: String },
    #[error("shard `{file}` is missing ({tensors} tensors, e.g. `{example}`): download the model again, completely")]
    MissingShard { file: String, tensors: usize, example: String },
    #[error("tensor `{tensor}` is said to be in `{file}`, which does not hold it")]
    MissingTensor { tensor: String, file: String },
    #[error("tensor `{tensor}` is in two shards, `{first}` and `{second}`, and the index does not say which counts")]
    TwoShards { tensor: String, first: String, second: String },
}

/// Parses an index: tensor name → shard file name, all of them inside the folder.
pub fn parse_index(text: &str) -> Result<BTreeMap<String, String>, IndexProblem> {
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|e| IndexProblem::NotJson { why: e.to_string() })?;
    let map = json.get("weight_map").and_then(|m| m.as_object()).ok_or(IndexProblem::NoWeightMap)?;
    if map.is_empty() {
        return Err(IndexProblem::Empty);
    }
    let mut out = BTreeMap::new();
    for (tensor, file) in map {
        let Some(file) = file.as_str().filter(|f| !f.is_empty()) else {
            return Err(IndexProblem::BadEntry { tensor: tensor.clone() });
        };
        // judged by name only: shards in the hub cache are links to files elsewhere
        if !is_inside(file) {
            return Err(IndexProblem::OutsideFolder { tensor: tensor.clone(), file: file.to_string() });
        }
        out.insert(tensor.clone(), file.to_string());
    }
    Ok(out)
}
