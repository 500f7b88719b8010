//! A model and its adapters over HTTP, with the interface of OpenAI: completions, chat completions, a list of models, and a page to
//! chat on.
//!
//! - [`serve`] answers until the program ends; each [`Served`] model has a name that requests give;
//! - `api` reads requests and writes answers, `worker` is the thread on which all models run: requests that arrive together are
//!   generated together ([`loram_train::generate::Batching`]).

mod api;
mod error;
mod models;
mod worker;

pub use error::Error;
pub use models::{ServeOptions, Served};

use api::state::State;
use models::Facts;
use std::net::SocketAddr;
use std::sync::Arc;

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
        let listener = tokio::net::TcpListener::bind((options.host.as_str(), options.port)).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let queue = worker::start(models, options.batch_size);
        let state = Arc::new(State::new(facts, queue, options.api_key.clone()));
        ready(bound);
        axum::serve(listener, api::routes(state)).await.map_err(failed)
    })
}
