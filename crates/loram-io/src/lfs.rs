//! Git LFS pointers: small texts in place of files that were not downloaded.

/// Explanation of a pointer and how to get the file, for messages.
pub(crate) const POINTER: &str =
    "a Git LFS pointer in place of the file: run `git lfs pull` in its repository, or download the file";

/// Bytes at the start of a file by which a pointer is known.
pub(crate) const START: u64 = 64;

/// True for the content of a pointer.
pub(crate) fn is_pointer(content: &[u8]) -> bool {
    content.starts_with(b"version https://git-lfs.github.com/spec/")
}
