//! Training data: records in common formats, and tokenised examples.
//!
//! [`read`](load_records) takes raw records out of files, a [`DataFormat`] makes [`Record`]s of their fields, and a
//! [`Preparer`] makes [`Example`]s of records. To add a format, see [`mod@formats`].

mod columns;
pub mod demo;
mod example;
mod fields;
mod file;
mod format;
pub mod formats;
mod paths;
mod prepare;
mod read;
mod record;

pub use example::{Example, Sequence, Target};
pub use fields::Fields;
pub use format::DataFormat;
pub use formats::{find_format, formats};
pub use paths::expand as expand_paths;
pub use prepare::{PrepareReport, Preparer, Span};
pub use read::{DOCUMENT_END, DataSpec, RawRecord, load_records, raw_records};
pub use record::{Label, Labels, Record, Text};
