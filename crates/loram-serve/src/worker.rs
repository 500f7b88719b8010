//! The thread on which all models run.

use crate::models::Served;
use loram_nn::{Batch, LogProbs, TokenLogProb};
use loram_train::generate::{Batching, GenerateOptions, Generated, Work};
use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::mpsc::UnboundedSender;

/// A text that a request asks for.
pub(crate) struct Job {
    /// Number of the model.
    pub model: usize,
    /// Number of the text in its request.
    pub choice: usize,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Settings.
    pub options: GenerateOptions,
    /// Compute the probabilities of the prompt's tokens too, with so many of the likeliest in their places.
    pub score: Option<usize>,
    /// Where its events go; closed when nobody waits for them any more.
    pub events: UnboundedSender<(usize, Event)>,
}

/// An event in the life of a text.
pub(crate) enum Event {
    /// Probabilities of the prompt's tokens from the second on.
    Scored(Vec<TokenLogProb>),
    /// A piece of the text.
    Piece(String),
    /// The end.
    Done(Generated),
    /// It cannot be generated.
    Failed(String),
}

/// Starts the thread. It ends when the queue is closed.
pub(crate) fn start(models: Vec<Served>, batch_size: usize) -> Sender<Job> {
    let (queue, jobs) = mpsc::channel();
    std::thread::spawn(move || run(&models, batch_size, &jobs));
    queue
}

type Waiting = HashMap<usize, (usize, UnboundedSender<(usize, Event)>)>;

fn run(models: &[Served], batch_size: usize, jobs: &Receiver<Job>) {
    let mut all = Vec::new();
    for Served { session, .. } in models {
        all.push(Batching::new(&session.model, &session.base.tokenizer, batch_size));
    }
    let mut waiting = Waiting::new();
    let mut next = 0;
    loop {
        if all.iter().all(Batching::is_empty) {
            let Ok(job) = jobs.recv() else { return };
            accept(models, &mut all, &mut waiting, &mut next, job);
        }
        while let Ok(job) = jobs.try_recv() {
            accept(models, &mut all, &mut waiting, &mut next, job);
        }
        for batching in all.iter_mut().filter(|b| !b.is_empty()) {
            for (id, made) in batching.step() {
                let Some((choice, events)) = waiting.remove(&id) else { continue };
                let event = match made {
                    Ok(made) => Event::Done(made),
                    Err(e) => Event::Failed(e.to_string()),
                };
                // nobody may be waiting any more
                let _ = events.send((choice, event));
            }
        }
    }
}

fn accept(models: &[Served], all: &mut [Batching<'_>], waiting: &mut Waiting, next: &mut usize, job: Job) {
    let Job { model, choice, prompt, options, score, events } = job;
    if events.is_closed() {
        return;
    }
    if let Some(top) = score {
        match probabilities(&models[model], &prompt, top) {
            Ok(found) => drop(events.send((choice, Event::Scored(found)))),
            Err(e) => {
                let _ = events.send((choice, Event::Failed(e.to_string())));
                return;
            }
        }
    }
    let (id, pieces) = (*next, events.clone());
    *next += 1;
    waiting.insert(id, (choice, events));
    let stream = Box::new(move |piece: &str| match pieces.is_closed() {
        true => false,
        false => pieces.send((choice, Event::Piece(piece.to_string()))).is_ok(),
    });
    all[model].add(Work { id, prompt, options, stream });
}

fn probabilities(served: &Served, tokens: &[u32], top: usize) -> Result<Vec<TokenLogProb>, loram_nn::Error> {
    let batch = Batch { tokens: tokens.to_vec(), lengths: vec![tokens.len()], ..Batch::default() };
    let mut found = LogProbs::new(tokens.to_vec(), top);
    served.session.model.evaluate(&batch, &mut found)?;
    Ok(found.into_found())
}
