#![no_main]
//! Chat templates with messages: rendering, and the bytes that the assistant wrote.

use libfuzzer_sys::fuzz_target;
use loram_io::chat::{Chat, ChatTemplate, Message};
use serde_json::Map;

fuzz_target!(|data: &[u8]| {
    let Some([template, messages, context]) = loram_fuzz::parts(data) else { return };
    let special = vec![("bos_token".to_string(), "<s>".to_string()), ("eos_token".to_string(), "</s>".to_string())];
    let Ok(template) = ChatTemplate::compile(template.to_string(), special, Map::new()) else { return };
    let messages: Vec<Message> = serde_json::from_str(messages)
        .unwrap_or_else(|_| vec![Message::new("user", "Where?"), Message::new("assistant", "Here.")]);
    let chat = Chat { context: serde_json::from_str(context).unwrap_or_default(), ..Chat::new(messages) };
    let _ = template.render(&chat.messages, &chat.context, true);
    let _ = template.end_of_turn();
    let Ok((text, spans)) = template.spans(&chat) else { return };
    for s in spans {
        assert!(text.get(s).is_some(), "a span outside the text");
    }
});
