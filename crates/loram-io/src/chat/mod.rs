//! Chats as text: the model's Jinja template, rendered as transformers renders it, and the text that the assistant wrote.
//!
//! - [`ChatTemplate`]: compiling and rendering, with limits on time and output, since templates come from strangers;
//! - `spans`: which bytes of a rendered chat the loss counts;
//! - `json`: the `tojson` filter.

mod json;
mod message;
mod spans;
mod template;

pub(crate) use message::roles;
pub use message::{ASSISTANT, Chat, Message};
pub use template::{CHATML, ChatTemplate};
