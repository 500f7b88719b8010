//! Searches that were made before: a repeated run, and the runs of a comparison, need none.

use super::search::{Job, RateSearch};
use crate::Result;
use crate::dataset::data_checksum;
use crate::device;
use loram_core::scheme_option;
use loram_io::adapter::Fingerprint;
use loram_io::atomic;
use loram_io::checksum::hex;
use loram_io::family::TensorNames;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Changes with the algorithm.
const VERSION: u32 = 3;

/// The environment variable that names the cache folder; empty: no cache.
const FOLDER: &str = "LORAM_CACHE";

/// Keys that no step of a search depends on, beside options of schemes and keys that may change when a run is resumed.
const WITHOUT_EFFECT: [&str; 15] = [
    "init_lora_weights",
    "init_scale_a",
    "init_scale_b",
    "calibration_samples",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "warmup_steps",
    "num_train_epochs",
    "max_steps",
    "lora_dropout",
    "model_dropout",
    "base",
    "adam_beta1",
    "adam_beta2",
];

/// A search in a file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    key: String,
    search: RateSearch,
}

/// The checksum of everything that the result of a search depends on; `None` where it is not kept: for an adapter that is trained
/// further.
pub(super) fn key(job: &Job<'_>) -> Result<Option<String>> {
    let (c, base) = (job.config, job.base);
    if c.adapter_name_or_path.is_some() {
        return Ok(None);
    }
    let names = TensorNames::find(&base.checkpoint, &base.config)?;
    let targets = loram_io::target_modules(&base.checkpoint, Some(&base.config))?;
    let there = targets
        .iter()
        .map(|t| t.path.as_str())
        .filter(|p| base.checkpoint.contains(&names.stored(&format!("{p}.weight"))));
    let mut settings = c.fixed_keys(device::name(job.options.compute), &format!("{:?}", job.options.products));
    settings.retain(|key, _| !WITHOUT_EFFECT.contains(&key.as_str()) && scheme_option(key).is_none());
    let all = json!({
        "version": VERSION,
        "config": base.config.raw(),
        "weights": Fingerprint::of(&base.checkpoint, Some(&names), there)?,
        "data": data_checksum(job.examples),
        "settings": settings,
        "max_tokens": job.max_tokens,
        "share": job.share,
    });
    Ok(Some(hex(Sha256::digest(all.to_string()))))
}

/// The folder in which the program keeps searches: `learning-rate` in `LORAM_CACHE`, or in `loram` in the user's cache. `None`
/// where there is none, and for an empty `LORAM_CACHE`.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let folder = match set(FOLDER) {
        Some(folder) if folder.as_os_str().is_empty() => return None,
        Some(folder) => folder,
        None => set("XDG_CACHE_HOME")
            .filter(|p| p.is_absolute())
            .or_else(|| Some(set("HOME").filter(|p| p.is_absolute())?.join(".cache")))?
            .join("loram"),
    };
    Some(folder.join("learning-rate"))
}

fn file(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.json"))
}

/// The search of this key, if it was made before and its file is whole.
pub(super) fn read(folder: &Path, key: &str) -> Option<RateSearch> {
    let text = loram_io::input::read_text(file(folder, key)).ok()?;
    let entry: Entry = serde_json::from_str(&text).ok()?;
    (entry.key == key).then_some(entry.search)
}

/// Keeps a search. A cache that cannot be written must not end a run.
pub(super) fn write(folder: &Path, key: &str, search: &RateSearch) {
    if std::fs::create_dir_all(folder).is_ok() {
        let _ = atomic::write_json(file(folder, key), &Entry { key: key.into(), search: search.clone() });
    }
}
