//! Training data: records in common formats, and tokenised examples.

pub mod demo;
mod format;
mod prepare;
mod read;

pub use format::{Body, Format, Label, Labels, Record};
pub use prepare::{Example, PrepareReport, Preparer, Span, Target};
pub use read::{DOCUMENT_END, DataSpec, RawRecord, load_records, raw_records};
