//! Limits on what is read from files of others. Each is far beyond real models and data, and small enough that a false
//! number in a file ends in an error and not in an exhausted memory.

/// Blocks of a model (`num_hidden_layers`).
pub const MAX_LAYERS: usize = 1 << 14;

/// A dimension of a model: width, vocabulary, number of heads.
pub const MAX_SIDE: usize = 1 << 28;

/// Numbers in the two factors of one layer that a recipe asks for.
pub const MAX_FACTORS: usize = 1 << 30;

/// Classes of a classifier.
pub const MAX_LABELS: usize = 1 << 16;

/// Bytes of a data file, as stored.
pub const MAX_DATA: u64 = 64 << 30;

/// Bytes of a line of data.
pub const MAX_LINE: usize = 64 << 20;

/// Bytes of unpacked data for each byte of a `.gz` file beyond [`UNPACKED_ALWAYS`]; text is packed to a fifth or a tenth.
pub const MAX_UNPACKED_RATIO: u64 = 100;

/// Bytes that any `.gz` file may unpack to.
pub const UNPACKED_ALWAYS: u64 = 64 << 20;

/// Records of a generated source (`demo:restaurants?n=…`).
pub const MAX_GENERATED: usize = 10_000_000;

/// Bytes of a file that is read as a whole, where it is no weights and no data: configurations, tokenizers, templates,
/// recipes, metrics.
pub const MAX_TEXT: u64 = 1 << 30;
