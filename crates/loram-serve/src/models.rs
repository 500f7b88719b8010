//! The models of a server.

use crate::error::Error;
use loram_io::chat::ChatTemplate;
use loram_io::tokenizer::TextTokenizer;
use loram_train::Session;
use loram_train::generate::{GenerateOptions, end_of_turn};
use serde_json::{Map, Value};

/// A model under a name.
pub struct Served {
    /// The name in requests.
    pub name: String,
    /// The model, with an adapter or without.
    pub session: Session,
}

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Address to listen on.
    pub host: String,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Texts that one model generates at a time.
    pub batch_size: usize,
    /// Key that requests have to give as `Authorization: Bearer KEY`.
    pub api_key: Option<String>,
    /// Chat template in place of the models' own.
    pub chat_template: Option<String>,
    /// Variables of the chat template.
    pub chat_template_kwargs: Map<String, Value>,
}

/// Facts about a model for the interface.
pub(crate) struct Facts {
    pub name: String,
    pub tokenizer: TextTokenizer,
    /// The template, or the reason why there is none.
    pub template: Result<ChatTemplate, String>,
    /// Settings of a text, and of an answer in a chat.
    pub text: GenerateOptions,
    pub chat: GenerateOptions,
}

impl Facts {
    pub fn of(served: &Served, options: &ServeOptions) -> Result<Facts, Error> {
        let session = &served.session;
        session.model.generator().map_err(|e| Error::Models(format!("{}: {e}", served.name)))?;
        let tokenizer = session.base.tokenizer.clone();
        let template = ChatTemplate::new(&tokenizer, options.chat_template.as_deref(), &options.chat_template_kwargs);
        let template = match (template, &options.chat_template) {
            // a template that was asked for has to compile
            (Err(e), Some(_)) => return Err(loram_train::Error::from(e).into()),
            (found, _) => found.map_err(|e| e.to_string()),
        };
        let text = session.generate_options();
        let mut chat = text.clone();
        if let Ok(template) = &template {
            let (id, end) = end_of_turn(template, &tokenizer)?;
            chat.eos.extend(id);
            chat.stop.extend(end);
        }
        Ok(Facts { name: served.name.clone(), tokenizer, template, text, chat })
    }
}
