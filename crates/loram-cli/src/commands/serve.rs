//! `loram serve`: a model and its adapters over HTTP.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::keys;
use crate::progress::Show;
use clap::{ArgMatches, Args};
use loram_serve::{ServeOptions, Served, serve};
use loram_train::{Session, SessionOptions, TrainConfig};
use serde_json::{Map, Value, json};
use std::path::Path;

/// Arguments of `loram serve`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(true))]
pub struct ServeArgs {
    /// Model folder, GGUF file or hub id [default: the base model that the first adapter names]
    #[arg(long, group = "source", value_name = "DIR|HUB_ID", visible_alias = "model-name-or-path")]
    pub model: Option<String>,
    /// Adapter folder or hub id, served beside its base model under the name of the folder or under NAME; may be repeated
    #[arg(long, group = "source", value_name = "[NAME=]DIR|HUB_ID")]
    pub adapter: Vec<String>,
    /// Name of the base model in requests [default: that of its folder or hub id]
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub host: String,
    /// Port; 0 takes a free one
    #[arg(long, short, value_name = "N", default_value_t = 8000)]
    pub port: u16,
    /// Key that requests have to give as `Authorization: Bearer KEY` [env: LORAM_API_KEY]
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,
    /// Texts that a model generates at a time; others wait
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_num_seqs: usize,
    /// Chat template: Jinja source, a file, or chatml
    #[arg(long, value_name = "TEMPLATE")]
    pub chat_template: Option<String>,
    /// Variables of the chat template, as a JSON object: '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON", value_parser = super::generate::json_object)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
}

pub fn run(args: &ServeArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    let config = keys::partial(matches)?;
    let mut show = Show::new(console);
    let adapters: Vec<(String, String)> = args.adapter.iter().map(|a| named(a)).collect::<Result<_>>()?;
    let given = args.model.as_deref().unwrap_or_default();
    let mut models = Vec::new();
    for (name, adapter) in &adapters {
        let session = open(args, &config, given, Some(adapter), &mut show)?;
        session.warnings.iter().for_each(|w| console.warn(w));
        models.push(Served { name: name.clone(), session });
    }
    let named = models.first().map(|m| m.session.base.name.clone());
    let base = named.filter(|_| given.is_empty()).unwrap_or_else(|| given.to_string());
    // weights are mapped: on the CPU a model that is opened once more takes little memory
    let session = open(args, &config, &base, None, &mut show)?;
    let name = args.served_model_name.clone().unwrap_or_else(|| short(&base));
    models.insert(0, Served { name, session });
    show.clear();
    let names: Vec<String> = models.iter().map(|m| m.name.clone()).collect();
    let options = ServeOptions {
        host: args.host.clone(),
        port: args.port,
        batch_size: args.max_num_seqs,
        api_key: args.api_key.clone().or_else(|| std::env::var("LORAM_API_KEY").ok().filter(|k| !k.is_empty())),
        chat_template: args.chat_template.clone(),
        chat_template_kwargs: args.chat_template_kwargs.clone().unwrap_or_default(),
    };
    let mut told = Ok(());
    serve(models, &options, |address| {
        let url = format!("http://{address}");
        let text = || {
            let names = names.join(", ");
            format!(
                "{names}\nchat: {url}\nAPI:  {url}/v1 (completions, chat/completions, models)\nCtrl-C ends the server\n"
            )
        };
        told = console.result(text, &json!({"url": url, "models": names}));
    })?;
    told
}

fn open(
    args: &ServeArgs,
    config: &TrainConfig,
    model: &str,
    adapter: Option<&str>,
    show: &mut Show<'_>,
) -> Result<Session> {
    let options = SessionOptions {
        model: model.to_string(),
        revision: args.revision.clone(),
        adapter: adapter.map(str::to_string),
        task: None,
        weights: config.base_weights(),
        device: config.device,
        compute_dtype: config.compute_dtype,
    };
    Ok(Session::open(&options, show)?)
}

/// `NAME=DIR`, or a folder or hub id under its own name.
fn named(given: &str) -> Result<(String, String)> {
    let (name, adapter) = match given.split_once('=') {
        Some((name, adapter)) => (name.to_string(), adapter),
        None => (short(given), given),
    };
    match name.is_empty() || adapter.is_empty() {
        true => Err(Error::Usage(format!("--adapter {given}: expected DIR, a hub id, or NAME=DIR"))),
        false => Ok((name, adapter.to_string())),
    }
}

/// The name of a folder or file; a hub id as it is. An adapter in the folder of its run has the name of the run.
fn short(name: &str) -> String {
    let path = Path::new(name);
    if !path.exists() {
        return name.to_string();
    }
    let last = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned());
    match last(path) {
        Some(folder) if folder == "adapter" => path.parent().and_then(last).unwrap_or(folder),
        Some(folder) => folder,
        None => name.to_string(),
    }
}
