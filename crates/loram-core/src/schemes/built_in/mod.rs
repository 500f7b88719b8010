//! The schemes of this crate: a new one is a file here and a line below.

use crate::schemes::info::SchemeInfo;

/// Declares the file of each scheme and lists its entries.
macro_rules! schemes {
    ($($file:ident: $($entry:ident),+;)*) => {
        $(mod $file;)*

        /// All entries, the default first.
        pub(super) static BUILT_IN: &[&SchemeInfo] = &[$($(&$file::$entry),+),*];
    };
}

schemes! {
    loram: INFO;
    lora: INFO;
    gaussian: INFO;
    pissa: INFO, RANDOMISED;
    milora: INFO;
    olora: INFO;
    orthogonal: INFO;
    init_ab: INFO;
    rlpo: INFO;
    rlmo: INFO;
    mica: INFO;
    lora_alpha: INFO;
    eva: INFO;
    corda: INFO;
    lora_ga: INFO;
    loftq: INFO;
}

pub use eva::{principal_components, redistribute_ranks};
