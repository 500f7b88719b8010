//! Errors for paths that hold no `config.json`: they name the kind of the path and what to give in its place.

use super::fields::CONFIG_FILE;
use crate::Error;
use std::path::Path;

/// The error for a path that is not a model folder: it names the adapter of a run folder, the folder of a file, the kind of a
/// file.
pub(crate) fn not_a_model(path: &Path) -> Error {
    let what = match path.is_file() {
        true => of_file(path),
        false => of_folder(path),
    };
    Error::NotFound { path: path.to_path_buf(), what }
}

fn of_file(path: &Path) -> String {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match path.extension().and_then(|e| e.to_str()) {
        Some("bin" | "pt" | "pth" | "ckpt") => {
            "is a pickled file, which can run code and is never loaded: give a folder with safetensors".into()
        }
        _ if folder.join(CONFIG_FILE).exists() => {
            format!("is a file of a model: give its folder, {}", folder.display())
        }
        _ => format!("is a file: expected a model folder with {CONFIG_FILE} and model.safetensors"),
    }
}

fn of_folder(path: &Path) -> String {
    let holds = |names: &[&str]| names.iter().all(|n| path.join(n).exists());
    if holds(&["adapter/adapter_config.json"]) {
        let adapter = path.join("adapter");
        return format!("is a run folder, not a model: its adapter is {0} (--adapter {0})", adapter.display());
    }
    if holds(&["model/config.json"]) {
        return format!("is a run folder: the trained model is {}", path.join("model").display());
    }
    if holds(&["adapter_config.json"]) {
        return "is an adapter, not a model: give its base model, and it as the adapter (--adapter)".into();
    }
    let gguf = std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.file_name());
    if let Some(file) = gguf.into_iter().find(|n| n.to_string_lossy().ends_with(".gguf")) {
        return format!(
            "no {CONFIG_FILE}: not a model folder; it holds a GGUF file: give {}",
            path.join(file).display()
        );
    }
    format!("no {CONFIG_FILE}: not a model folder")
}

#[cfg(test)]
mod tests {
    use super::not_a_model;
    use std::fs;

    #[test]
    fn the_error_says_what_is_there() {
        let room = tempfile::tempdir().unwrap();
        let path = |name: &str| room.path().join(name);
        let file = |name: &str| {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "").unwrap();
        };
        for name in [
            "run/adapter/adapter_config.json",
            "full/model/config.json",
            "gguf/m.gguf",
            "m/config.json",
            "m/model.safetensors",
        ] {
            file(name);
        }
        for (name, words) in [
            ("run", "is a run folder, not a model: its adapter is"),
            ("full", "the trained model is"),
            ("run/adapter", "is an adapter, not a model"),
            ("gguf", "holds a GGUF file: give "),
            ("m/model.safetensors", "is a file of a model: give its folder"),
        ] {
            let e = not_a_model(&path(name)).to_string();
            assert!(e.contains(words), "{name}: {e}");
        }
    }
}
