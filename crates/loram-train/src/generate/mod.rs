//! Text generation: one text, a chat, or many texts at a time.

mod batching;
mod chat;
mod options;
mod single;
mod writer;

pub use batching::{Batching, Work, generate_all};
pub use chat::{Chat, end_of_turn};
pub use options::{Finish, GenerateOptions, Generated};
pub use single::{continue_tokens, generate, prompt_ids};
