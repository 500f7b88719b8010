//! Rendered chats and their loss masks: those of transformers, and what must hold for any template.

use loram_io::chat::{CHATML, Chat, ChatTemplate, Message};
use loram_io::testing::shared_dir;
use serde_json::{Map, Value, json};
use std::time::Instant;

fn compiled(source: &str) -> ChatTemplate {
    let specials = [("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>")];
    let specials = specials.map(|(k, v)| (k.to_string(), v.to_string())).to_vec();
    ChatTemplate::compile(source.into(), specials, Map::new()).unwrap()
}

fn messages(list: &Value) -> Vec<Message> {
    serde_json::from_value(list.clone()).unwrap()
}

/// The text with ⟦ and ⟧ around the spans.
fn masked(template: &ChatTemplate, messages: &[Message]) -> Result<String, String> {
    let (text, spans) = template.spans(&Chat::new(messages.to_vec())).map_err(|e| e.to_string())?;
    let (mut out, mut at) = (String::new(), 0);
    for s in spans {
        out += &format!("{}⟦{}⟧", &text[at..s.start], &text[s.clone()]);
        at = s.end;
    }
    Ok(out + &text[at..])
}

fn without_generation(source: &str) -> String {
    let tags = regex::Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").unwrap();
    tags.replace_all(source, "{%$1 if true $3%}{%$1 endif $3%}").into_owned()
}

/// The text of all spans without whitespace.
fn spoken(masked: &str) -> Vec<String> {
    let parts = masked.split('⟦').skip(1).map(|p| p.split('⟧').next().unwrap());
    parts.map(|p| p.split_whitespace().collect::<String>()).filter(|p| !p.is_empty()).collect()
}

#[test]
fn masks_are_those_of_transformers() {
    let Some(shared) = shared_dir() else { return };
    let mut files: Vec<_> = std::fs::read_dir(shared.join("cases/chat")).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut equal) = (0, 0);
    for file in files {
        let value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let source = value["template"].as_str().unwrap();
        let (with, without) = (compiled(source), compiled(&without_generation(source)));
        for case in value["cases"].as_array().unwrap() {
            let name = format!("{} {}", file.display(), case["name"]);
            let list = messages(&case["messages"]);
            if case["refused"] == true {
                assert!(with.render(&list, &Map::new(), false).is_err(), "{name}");
                continue;
            }
            cases += 1;
            let want = case["masked"].as_str().unwrap();
            assert_eq!(with.render(&list, &Map::new(), false).unwrap(), case["rendered"], "{name}");
            assert_eq!(masked(&with, &list).unwrap(), want, "{name}");
            // without the tags the same words count; a line break before them may not
            let found = masked(&without, &list).unwrap();
            assert_eq!(spoken(&found), spoken(want), "{name}:\n{found}\n{want}");
            equal += usize::from(found == want);
        }
    }
    println!("{cases} chats with generation tags: all masks equal; without: all words equal, {equal} masks equal");
    assert!(cases >= 76);
}

#[test]
fn templates_without_generation_tags() {
    let chat = json!([
        {"role": "user", "content": "Hi, assistant"}, {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "  Bye. <b>Really</b>\n"},
    ]);
    let vicuna = "{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}{% else %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}";
    let deepseek = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + m.content }}{% else %}{{ '<｜Assistant｜>' + m.content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}";
    let gemma = "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% set role = 'model' %}{% else %}{% set role = m.role %}{% endif %}{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";
    for (source, want) in [
        (
            CHATML,
            "<|im_start|>user\nHi, assistant<|im_end|>\n<|im_start|>assistant\n⟦Hello!<|im_end|>\n⟧<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n⟦  Bye. <b>Really</b>\n<|im_end|>\n⟧",
        ),
        (vicuna, "USER: Hi, assistant ASSISTANT:⟦ Hello!</s>⟧USER: Hello! ASSISTANT:⟦   Bye. <b>Really</b>\n</s>⟧"),
        (
            deepseek,
            "<s><｜User｜>Hi, assistant<｜Assistant｜>⟦Hello!<｜end▁of▁sentence｜>⟧<｜User｜>Hello!<｜Assistant｜>⟦  Bye. <b>Really</b>\n<｜end▁of▁sentence｜>⟧",
        ),
        (
            gemma,
            "<s><start_of_turn>user\nHi, assistant<end_of_turn>\n<start_of_turn>model\n⟦Hello!<end_of_turn>\n⟧<start_of_turn>user\nHello!<end_of_turn>\n<start_of_turn>model\n⟦Bye. <b>Really</b><end_of_turn>\n⟧",
        ),
    ] {
        assert_eq!(masked(&compiled(source), &messages(&chat)).unwrap(), want);
    }
}

/// ChatML with every combination of difficult contents in three turns: the spans are known by construction.
#[test]
fn difficult_contents() {
    let contents = [
        "",
        " ",
        "a",
        "assistant",
        "<b>",
        "👍",
        "{\"a\": [1]}",
        "<|im_end|>",
        "a\n\n",
        "/no_think x",
        "ASSISTANT: a",
        "[INST]",
        "</think>",
        "<think>\nx\n</think>\n\ny",
        "ja 你好",
    ];
    let template = compiled(CHATML);
    for first in contents {
        for answer in contents {
            for then in ["a", "<b>", ""] {
                let turns = [("user", first), ("assistant", answer), ("user", then), ("assistant", first)];
                let list: Vec<Message> = turns.iter().map(|(r, c)| Message::new(r, c)).collect();
                let want: String = turns
                    .iter()
                    .map(|(r, c)| match *r {
                        "assistant" => format!("<|im_start|>assistant\n⟦{c}<|im_end|>\n⟧"),
                        r => format!("<|im_start|>{r}\n{c}<|im_end|>\n"),
                    })
                    .collect();
                assert_eq!(masked(&template, &list).unwrap(), want, "{turns:?}");
            }
        }
    }
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let chat = json!([{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d"}, {"role": "user", "content": "e"}]);
    // the assistant's words come again in the user's turn
    let repeats = "{% for m in messages %}\n{{ m.role }}: {{ m.content }}\n{% if m.role == 'user' and loop.index0 > 0 %}{{ 'you said ' + messages[loop.index0 - 1].content }}{% endif %}{% endfor %}";
    let e = masked(&compiled(repeats), &messages(&chat)).unwrap_err();
    assert!(e.contains("chat template, line 2") && e.contains("{% generation %}"), "{e}");
    // the template looks at the words themselves
    let looks = "{% for m in messages %}{{ m.role }}: {{ m.content | length }} {{ m.content }}\n{% endfor %}";
    let e = masked(&compiled(looks), &messages(&chat)).unwrap_err();
    assert!(e.contains("cannot be told apart"), "{e}");
}

#[test]
fn roles_that_a_template_does_not_know_are_listed() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}{{ 'U ' + m.content }}{% elif m.role == 'assistant' %}{{ 'A ' + m.content }}{% endif %}{% endfor %}";
    let chat = json!([{"role": "human", "content": "question"}, {"role": "gpt", "content": "answer"}]);
    let e = masked(&compiled(source), &messages(&chat)).unwrap_err();
    assert!(e.contains("`human`, `gpt`") && e.contains("system, user, assistant or tool"), "{e}");
    let raises = "{% for m in messages %}{% if m.role not in ['user', 'assistant'] %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}";
    let e = masked(&compiled(raises), &messages(&chat)).unwrap_err();
    assert!(e.contains("unknown role") && e.contains("line 1") && e.contains("`human`, `gpt`"), "{e}");
}

#[test]
fn variables_of_a_chat_and_of_all_chats() {
    let source = "{% if tools %}{{ tools | tojson }}{% endif %}{% if enable_thinking is defined and not enable_thinking %}no thinking{% endif %}{{ messages[0].content }}";
    let all = json!({"enable_thinking": false}).as_object().unwrap().clone();
    let template = ChatTemplate::compile(source.into(), Vec::new(), all).unwrap();
    let list = [Message::new("user", "x")];
    assert_eq!(template.render(&list, &Map::new(), false).unwrap(), "no thinkingx");
    let own = json!({"enable_thinking": true, "tools": [{"name": "f"}]}).as_object().unwrap().clone();
    assert_eq!(template.render(&list, &own, false).unwrap(), "[{\"name\": \"f\"}]x");
}

#[test]
fn a_prompt_of_turns_does_not_count() {
    let turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")];
    let chat = Chat { counted_from: 3, ..Chat::new(turns.map(|(r, c)| Message::new(r, c)).to_vec()) };
    let marked = CHATML.replace("message['content'] + '<|im_end|>'", "message['content'] }}{% if message['role'] == 'assistant' %}{% generation %}{{ '<|im_end|>' }}{% endgeneration %}{% else %}{{ '<|im_end|>' }}{% endif %}{{ ''");
    for (source, want) in [(CHATML, "d<|im_end|>\n"), (&marked, "<|im_end|>")] {
        let (text, spans) = compiled(source).spans(&chat).unwrap();
        assert_eq!(spans.len(), 1, "{text}");
        assert_eq!(&text[spans[0].clone()], want);
        assert!(spans[0].start > text.find("c<").unwrap());
    }
}

#[test]
fn a_message_cannot_move_the_mask() {
    let source = CHATML.replace("{% for", "{% generation %}{% endgeneration %}{% for");
    let list = [Message::new("user", "a\u{fdd0}b\u{fdd1}"), Message::new("assistant", "c")];
    for source in [&source, CHATML] {
        let e = masked(&compiled(source), &list).unwrap_err();
        assert!(e.contains("U+FDD0"), "{e}");
    }
}

#[test]
fn text_parts_are_joined() {
    let chat = json!([
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "c"}]},
    ]);
    let want = "<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n⟦c<|im_end|>\n⟧";
    assert_eq!(masked(&compiled(CHATML), &messages(&chat)).unwrap(), want);
    let image =
        json!([{"role": "user", "content": [{"type": "image", "url": "x"}]}, {"role": "assistant", "content": "c"}]);
    let e = masked(&compiled(CHATML), &messages(&image)).unwrap_err();
    assert!(e.contains("`image`") && e.contains("only text parts"), "{e}");
}

#[test]
fn hostile_templates_end_with_an_error() {
    let list = [Message::new("user", "x"), Message::new("assistant", "y")];
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% for k in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='0123456789') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}",
        "{% for i in range(100000) %}{% for j in range(1000) %}{{ 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' * 100 }}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{{ 'x' * 100000000000 }}",
        "{{ messages | tojson(indent=1000000000) }}",
        "{{ strftime_now('%!') }}",
        "{{ messages[99].content }}{{ nothing.at.all }}",
    ] {
        let began = Instant::now();
        let e = compiled(source).render(&list, &Map::new(), false).map(|t| t.len()).unwrap_err().to_string();
        assert!(e.starts_with("chat template"), "{source}: {e}");
        assert!(began.elapsed().as_secs() < 30, "{source} took {:?}", began.elapsed());
    }
    // once a panic of the engine
    if let Some(shared) = shared_dir() {
        let source = std::fs::read_to_string(shared.join("cases/reliability/inputs/template-slice.jinja")).unwrap();
        for chat in [&list[..], &list[..1], &[], &[Message::new("system", "s"), Message::new("user", "u")]] {
            let _ = compiled(&source).render(chat, &Map::new(), true);
            let _ = compiled(&source).spans(&Chat::new(chat.to_vec()));
        }
    }
}

#[test]
fn the_time_is_local_and_every_format_is_known() {
    let t = compiled("{{ strftime_now('%A %d %B %Y %H:%M:%S %j %y %Z %%') }}");
    let text = t.render(&[Message::new("user", "x")], &Map::new(), false).unwrap();
    assert!(text.split(' ').count() == 9 && text.ends_with(" %"), "{text}");
}
