//! A model and its adapters over HTTP, with the interface of OpenAI: completions, chat completions, a list of models, and a page to
//! chat on.
//!
//! - [`serve`] answers until the program ends; each [`Served`] model has a name that requests give;
//! - `api` reads requests and writes answers, `worker` is the thread on which all models run: requests that arrive together are
//!   generated together ([`loram_train::generate::Batching`]).

mod api;
mod worker;

use api::state::State;
use loram_io::chat::ChatTemplate;
use loram_train::Session;
use loram_train::generate::{GenerateOptions, end_of_turn};
use serde_json::{Map, Value};
use std::net::SocketAddr;
use std::sync::Arc;

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

/// An error of a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Host and port.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A model that does not generate texts, or a name that two models have.
    #[error("{0}")]
    Models(String),
    /// A chat template.
    #[error(transparent)]
    Train(#[from] loram_train::Error),
}

impl Error {
    /// 2 for wrong input, 1 for a failure while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Listen { .. } => 1,
            Error::Models(_) => 2,
            Error::Train(e) => e.exit_code(),
        }
    }
}

/// What the interface knows of a model.
struct Facts {
    name: String,
    tokenizer: loram_io::tokenizer::TextTokenizer,
    /// The template, or the reason why there is none.
    template: Result<ChatTemplate, String>,
    /// Settings of a text, and of an answer in a chat.
    text: GenerateOptions,
    chat: GenerateOptions,
}

impl Facts {
    fn of(served: &Served, options: &ServeOptions) -> Result<Facts, Error> {
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

/// Answers requests until the program ends. `ready` gets the address once it is listened on.
///
/// # Errors
/// A model that is no language model, a chat template that does not compile, an address that is in use.
pub fn serve(models: Vec<Served>, options: &ServeOptions, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    let facts = models.iter().map(|m| Facts::of(m, options)).collect::<Result<Vec<_>, _>>()?;
    for (i, one) in facts.iter().enumerate() {
        if facts[..i].iter().any(|other| other.name == one.name) {
            return Err(Error::Models(format!("two models are called `{}`: give one of them another name", one.name)));
        }
    }
    let address = format!("{}:{}", options.host, options.port);
    let failed = |source| Error::Listen { address: address.clone(), source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(&address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let queue = worker::start(models, options.batch_size);
        let state = Arc::new(State::new(facts, queue, options.api_key.clone()));
        ready(bound);
        axum::serve(listener, api::routes(state)).await.map_err(failed)
    })
}
