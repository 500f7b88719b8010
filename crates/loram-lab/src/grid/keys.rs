//! The keys of a grid file beside those of a training configuration.

use loram_train::config::similar_key;

/// Keys of the grid itself.
pub const GRID_KEYS: [&str; 11] =
    ["schemes", "models", "tasks", "grid", "split", "halving", "keep", "jobs", "experiments", "output_dir", "output"];

/// Keys of a comparison that a model, a task or an arm may set, too.
pub const RUN_KEYS: [&str; 3] = ["score", "forgetting_data", "forgetting_samples"];

/// "unknown key …; did you mean …?", where keys of a training configuration and `own` ones are expected.
pub fn unknown_key(key: &str, place: &str, own: &[&'static str]) -> String {
    message(key, place, similar_key(key, own), own)
}

/// "unknown key …; did you mean …?", where only `own` keys are expected.
pub fn unknown_option(key: &str, place: &str, own: &[&'static str]) -> String {
    message(key, place, loram_core::similar_name(key, own.iter().copied()), own)
}

fn message(key: &str, place: &str, similar: Option<&str>, own: &[&str]) -> String {
    let hint = match similar {
        Some(name) => format!("; did you mean `{name}`?"),
        None if own.is_empty() => "; `loram train --help-keys` lists all keys".into(),
        None => format!("; expected {}", own.join(", ")),
    };
    format!("unknown key `{key}` in {place}{hint}")
}
