//! Names in files of others that are to become paths.

use std::path::{Component, Path};

/// True for the name of a file, with slashes for folders, that stays inside the folder that it is joined to.
pub(crate) fn is_inside(name: &str) -> bool {
    let parts = name.split('/');
    let plain = |c: char| !c.is_control() && c != '\\' && c != ':';
    !name.is_empty()
        && name.chars().all(plain)
        && parts.clone().all(|p| !p.is_empty() && p.len() <= 255)
        && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
        && Path::new(name).components().count() == parts.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_folder_are_told() {
        for yes in ["config.json", "a/b.safetensors", "refs/pr/1", "v1.0", "ä"] {
            assert!(is_inside(yes), "{yes}");
        }
        for no in ["", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a/.", "a/", "a\\b", "C:x", "a\0b", "a\u{1b}[2J"]
        {
            assert!(!is_inside(no), "{no}");
        }
    }
}
