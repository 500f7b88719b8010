//! `loram generate`: continues texts, and chats.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::keys;
use crate::model::ModelArgs;
use crate::progress::Show;
use crate::sampling::SamplingArgs;
use clap::{ArgMatches, Args};
use loram_train::Session;
use loram_train::generate::{Chat, GenerateOptions, Generated, generate};
use serde_json::{Map, Value, json};
use std::io::{BufRead, IsTerminal, Read, Write};

/// Arguments of `loram generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    pub source: ModelArgs,
    /// Text to continue [default: standard input]; may be repeated
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Chat through the model's chat template; with --prompt, a single turn
    #[arg(long)]
    pub chat: bool,
    /// System message of the chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// Chat template: Jinja source, a file, or chatml
    #[arg(long, value_name = "TEMPLATE", requires = "chat")]
    pub chat_template: Option<String>,
    /// Variables of the chat template, as a JSON object: '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON", requires = "chat", value_parser = json_object)]
    pub chat_template_kwargs: Option<Map<String, Value>>,
    #[command(flatten)]
    pub sampling: SamplingArgs,
}

pub fn run(args: &GenerateArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    let talk = args.chat && args.prompt.is_empty();
    if talk && console.json {
        return Err(Error::Usage("--json with --chat needs a --prompt".into()));
    }
    let mut show = Show::new(console);
    let options = args.source.session(None, &keys::partial(matches)?);
    let session = Session::open(&options, &mut show)?;
    show.clear();
    session.warnings.iter().for_each(|w| console.warn(w));
    let options = args.sampling.options(session.generate_options())?;
    if talk {
        return converse(args, &session, &options, console);
    }
    let prompts = match args.prompt.is_empty() {
        false => args.prompt.clone(),
        true => vec![read_stdin(console)?],
    };
    let mut all = Vec::new();
    for prompt in &prompts {
        let mut stream = |piece: &str| console.json || console.stream(piece).is_ok();
        let made = match args.chat {
            true => chat(args, &session)?.say(prompt, &options, &mut stream)?,
            false => {
                if !console.json && prompts.len() > 1 {
                    console.stream(prompt)?;
                }
                generate(&session.model, &session.base.tokenizer, prompt, &options, &mut stream)?
            }
        };
        if !console.json {
            console.stream("\n")?;
        }
        all.push(object(prompt, &made));
    }
    if !console.json {
        return Ok(());
    }
    let result = match &mut all[..] {
        [one] => one.take(),
        many => json!({ "generations": many }),
    };
    console.result(String::new, &result)
}

fn object(prompt: &str, made: &Generated) -> Value {
    json!({
        "prompt": prompt,
        "text": made.text,
        "token_ids": made.token_ids,
        "prompt_tokens": made.prompt_tokens,
        "finish": made.finish,
    })
}

fn chat<'a>(args: &GenerateArgs, session: &'a Session) -> Result<Chat<'a>> {
    let (template, system) = (args.chat_template.as_deref(), args.system.as_deref());
    let kwargs = args.chat_template_kwargs.clone().unwrap_or_default();
    Ok(Chat::new(&session.model, &session.base.tokenizer, template, &kwargs, system)?)
}

pub(super) fn json_object(text: &str) -> std::result::Result<Map<String, Value>, String> {
    serde_json::from_str(text)
        .map_err(|e| format!("expected a JSON object such as {{\"enable_thinking\": false}}: {e}"))
}

fn read_stdin(console: &Console) -> Result<String> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        console.say("no --prompt given: type a text, then Ctrl-D");
    }
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Error::Usage(format!("cannot read a prompt from standard input: {e}")))?;
    Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_string))
}

/// Chats turn by turn until the end of the input.
fn converse(args: &GenerateArgs, session: &Session, options: &GenerateOptions, console: &Console) -> Result<()> {
    let mut chat = chat(args, session)?;
    let terminal = std::io::stdin().is_terminal();
    if terminal {
        console.say_painted(&console.dim("an empty line, /quit or Ctrl-D ends the chat, /new starts over"));
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if terminal {
            eprint!("{} ", console.bold(">"));
            // a prompt that does not appear is no reason to stop
            let _ = std::io::stderr().flush();
        }
        let line = match lines.next() {
            None => return Ok(()),
            Some(line) => line.map_err(|e| Error::Usage(format!("cannot read from standard input: {e}")))?,
        };
        match line.trim() {
            "" | "/quit" | "/exit" => return Ok(()),
            "/new" => {
                chat = self::chat(args, session)?;
                continue;
            }
            text => drop(chat.say(text, options, &mut |piece| console.stream(piece).is_ok())?),
        }
        console.stream("\n")?;
    }
}
