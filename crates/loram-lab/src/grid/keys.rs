//! Names of the keys of a grid file, and what to say of others.

use loram_train::config::fields;

/// Keys of the grid itself.
pub const OWN: [&str; 11] =
    ["schemes", "models", "tasks", "grid", "split", "halving", "keep", "jobs", "experiments", "output_dir", "output"];

/// Keys of a comparison that may also stand in a model or a task.
pub const OF_RUNS: [&str; 3] = ["score", "forgetting_data", "forgetting_samples"];

/// Keys that the comparison sets itself.
pub const TAKEN: [&str; 3] = ["resume_from_checkpoint", "overwrite_output_dir", "output_dir"];

/// The canonical name of a key of a training configuration.
pub fn canonical(key: &str) -> Option<&'static str> {
    fields().into_iter().find(|f| f.name == key || f.aliases.contains(&key)).map(|f| f.name)
}

/// "unknown key …; did you mean …?" with the nearest of `own` and, where they may stand there, of the training keys.
pub fn unknown(key: &str, place: &str, own: &[&str], training: bool) -> String {
    let training: Vec<&str> = match training {
        true => fields().iter().flat_map(|f| std::iter::once(f.name).chain(f.aliases.iter().copied())).collect(),
        false => Vec::new(),
    };
    let lower = key.to_lowercase().replace('-', "_");
    let near = own.iter().copied().chain(training).map(|n| (strsim::jaro_winkler(n, &lower), n));
    let hint = match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((score, name)) if score > 0.7 => format!("; did you mean `{name}`?"),
        _ => format!("; expected {}", own.join(", ")),
    };
    format!("unknown key `{key}` in {place}{hint}")
}
