//! The integration tests of loram-cli. One binary: each test target links the whole workspace again.

mod compare;
mod examples;
mod mistakes;
mod verbs;
