//! The integration tests of loram-core. One binary: each test target links the whole workspace again.

mod custom;
mod scheme_reference;
mod schemes;
