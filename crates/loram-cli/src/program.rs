//! The program as it was called, so that a suggested command can be run as it stands.

use loram_train::shell::quoted;
use std::path::Path;

/// The program as the shell was told to run it: `loram` if it is on the path, else the path that was given, such as
/// `target/release/loram` under `cargo run`.
pub fn program() -> String {
    std::env::args_os().next().map_or_else(|| "loram".into(), |name| quoted(&name.to_string_lossy()))
}

/// A command that begins with `loram`, with the program as it was called.
pub fn as_called(command: &str) -> String {
    match command.strip_prefix("loram ") {
        Some(rest) => format!("{} {rest}", program()),
        None => command.to_string(),
    }
}

/// True if a program of this name is on the path.
pub fn on_path(name: &str) -> bool {
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs)
        .any(|dir| dir.join(name).is_file() || dir.join(Path::new(name).with_extension("exe")).is_file())
}
