//! Training data: records in common formats, and tokenised examples.
//!
//! `sources` takes [raw records](raw_records) out of files, folders and the hub, a [`DataFormat`] makes [`Record`]s of their fields, and a
//! [`Preparer`] makes [`Example`]s of records. To add a format, see [`mod@formats`].

mod columns;
mod example;
mod fields;
mod format;
pub mod formats;
mod inputs;
mod prepare;
mod read;
mod record;
mod sources;

pub use example::{Example, Sequence, Target};
pub use fields::Fields;
pub use format::DataFormat;
pub use formats::{find_format, formats};
pub use inputs::{Answer, Input, load_inputs};
pub use prepare::{PrepareReport, Preparer, Span};
pub use read::{DataSpec, load_records};
pub use record::{Label, Labels, Record, Text};
pub use sources::{
    DOCUMENT_END, RawRecord, demo, expand as expand_paths, fetch as fetch_data, has_known_ending, raw_records,
};
