//! Objectives over preferences: answers that are compared with each other, or judged one by one.

mod cpo;
mod dpo;
mod kto;
mod numeric;
mod orpo;
mod pairs;
mod reference;

pub use cpo::{Cpo, SimPo};
pub use dpo::Dpo;
pub use kto::Kto;
pub use orpo::Orpo;
pub use reference::add_reference;
