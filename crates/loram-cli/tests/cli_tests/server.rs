//! `loram serve`: requests of OpenAI's interface against what other commands say.

use super::program::json;
use loram_io::testing::tiny_llama;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(dir: &Path, args: &[&str]) -> Server {
        let mut process = Command::new(assert_cmd::cargo::cargo_bin("loram"))
            .current_dir(dir)
            .args(["serve", "--port", "0", "--json"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let address = ready["url"].as_str().unwrap().trim_start_matches("http://").to_string();
        Server { process, address }
    }

    /// Status and body of an answer.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}",
            self.address
        )
        .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let all = String::from_utf8(all).unwrap();
        let (head, mut rest) = all.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if !head.to_lowercase().contains("transfer-encoding: chunked") {
            return (status, rest.to_string());
        }
        let mut body = String::new();
        while let Some((size, after)) = rest.split_once("\r\n") {
            let n = usize::from_str_radix(size, 16).unwrap();
            body.push_str(&after[..n]);
            rest = after[n..].trim_start_matches("\r\n");
        }
        (status, body)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.send("POST", path, "", &body.to_string());
        (status, serde_json::from_str(&text).unwrap())
    }

    fn complete(&self, body: Value) -> Value {
        let (status, answer) = self.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The objects of an event stream, which ends as the protocol says.
    fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, text) = self.send("POST", path, "", &body.to_string());
        assert_eq!(status, 200);
        let mut lines: Vec<&str> = text.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        assert_eq!(lines.pop(), Some("[DONE]"));
        lines.into_iter().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

#[test]
fn completions() {
    let room = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    let server = Server::start(room.path(), &["--model", &model]);
    assert_eq!(server.send("GET", "/health", "", "").1, r#"{"status":"ok"}"#);
    let (_, list) = server.send("GET", "/v1/models", "", "");
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["data"][0]["id"], "tiny-llama-en");

    let prompts = ["Once", "The people of the village were all", "A"];
    let made: Vec<Value> = prompts
        .iter()
        .map(|p| json(room.path(), &["generate", "--model", &model, "--prompt", p, "--max-new-tokens", "12"]))
        .collect();
    let many = server.complete(json!({"prompt": prompts, "max_tokens": 12, "temperature": 0}));
    for (choice, made) in many["choices"].as_array().unwrap().iter().zip(&made) {
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&made["text"], &json!("length")));
    }
    assert_eq!(many["usage"]["completion_tokens"], 36);
    // the same piece by piece
    let body = json!({"prompt": prompts[1], "max_tokens": 12, "temperature": 0, "stream": true,
                      "stream_options": {"include_usage": true}});
    let events = server.events("/v1/completions", &body);
    let text: String = events.iter().filter_map(|e| e["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, made[1]["text"].as_str().unwrap());
    assert!(events.len() > 4 && events[events.len() - 1]["usage"]["completion_tokens"] == 12);
    // ids in place of a text, and a stop text
    let ids: Vec<u32> = {
        let one = server
            .complete(json!({"prompt": prompts[0], "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0}));
        assert_eq!(one["choices"][0]["logprobs"]["token_logprobs"][0], Value::Null);
        loram_io::tokenizer::TextTokenizer::load(tiny_llama()).unwrap().encode(prompts[0], true).unwrap().ids
    };
    let by_ids = server.complete(json!({"prompt": ids, "max_tokens": 12, "temperature": 0}));
    assert_eq!(by_ids["choices"][0]["text"], made[0]["text"]);
    let word = made[1]["text"].as_str().unwrap().split_whitespace().nth(2).unwrap();
    let cut = server.complete(json!({"prompt": prompts[1], "max_tokens": 12, "temperature": 0, "stop": [word]}));
    assert!(!cut["choices"][0]["text"].as_str().unwrap().contains(word));
    assert_eq!(cut["choices"][0]["finish_reason"], "stop");
    // seeds
    let seeded = |seed: u64| {
        server.complete(json!({"prompt": "Once", "max_tokens": 12, "n": 2, "seed": seed}))["choices"].clone()
    };
    let (first, again) = (seeded(5), seeded(5));
    assert_eq!(first, again);
    assert_ne!(first[0]["text"], first[1]["text"]);

    for (body, words) in [
        (json!({"prompt": "a", "model": "gpt"}), "the model `gpt` does not exist; there are `tiny-llama-en`"),
        (json!({"prompt": "a", "temperature": -1}), "temperature: expected 0 or more"),
        (json!({"prompt": "a", "n": 0}), "expected 1 to 128"),
        (json!({"prompt": "a", "frequency_penalty": 0.5}), "`frequency_penalty` is not supported"),
        (json!({"prompt": []}), "at least one token"),
        (json!({"prompt": [4_000_000]}), "token id 4000000"),
        (json!({"prompt": vec!["a"; 600], "n": 2}), "expected at most 1024 texts"),
        (json!({"text": "a"}), "prompt"),
        (json!({"prompt": "a ".repeat(3000)}), "tokens"),
    ] {
        let (status, answer) = server.post("/v1/completions", &body);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!((400..500).contains(&status) && message.contains(words), "{body}: {status} {message}");
    }
    let (status, _) = server.send("POST", "/v1/completions", "", "{");
    assert_eq!(status, 400);
    assert_eq!(server.send("GET", "/v2", "", "").0, 404);
    // still alive
    assert_eq!(
        server.complete(json!({"prompt": "Once", "max_tokens": 12, "temperature": 0}))["choices"][0]["text"],
        made[0]["text"]
    );
}

/// The figures that `lm-eval` reads: the loss of a text from the probabilities of its tokens.
#[test]
fn probabilities_of_a_prompt() {
    let room = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    let server = Server::start(room.path(), &["--model", &model, "--compute-dtype", "float32"]);
    let text = "The people of the village were all there .";
    let body = json!({"prompt": text, "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 2});
    let answer = server.complete(body);
    let found = &answer["choices"][0]["logprobs"];
    let values = found["token_logprobs"].as_array().unwrap();
    let n = values.len();
    assert!(values[0].is_null());
    assert_eq!(found["tokens"].as_array().unwrap().len(), n);
    for i in 1..n {
        let top: Vec<f64> =
            found["top_logprobs"][i].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).collect();
        assert!(top.len() == 2 && top[0] >= top[1] && values[i].as_f64().unwrap() <= top[0]);
    }
    let sum: f64 = values[1..n - 1].iter().map(|v| v.as_f64().unwrap()).sum();
    std::fs::write(room.path().join("data.jsonl"), json!({"text": text}).to_string()).unwrap();
    let eval = json(room.path(), &["eval", "--model", &model, "--data", "data.jsonl", "--compute-dtype", "float32"]);
    // the evaluation counts the end of the text too
    let tokens = eval["tokens"].as_f64().unwrap();
    let whole = eval["loss"].as_f64().unwrap() * tokens;
    assert_eq!(tokens as usize, n - 1);
    assert!(whole > -sum && whole + sum < 20.0, "{whole} {sum}");
}

#[test]
fn chats_with_an_adapter_and_a_key() {
    let room = tempfile::tempdir().unwrap();
    let model = tiny_llama().display().to_string();
    let how = ["--max-steps", "3", "--learning-rate", "3e-3", "-o", "tuned"];
    json(room.path(), &[&["train", "--model", &model, "--data", "demo:restaurants?n=24"], &how[..]].concat());
    let args = [
        "--adapter",
        "mine=tuned/adapter",
        "--adapter",
        "tuned/adapter",
        "--chat-template",
        "chatml",
        "--api-key",
        "secret",
    ];
    let server = Server::start(room.path(), &args);
    let body = |model: &str| {
        let messages = [json!({"role": "user", "content": "Hello"})];
        json!({"model": model, "messages": messages, "max_tokens": 8, "temperature": 0})
    };
    let ask = |body: &Value| {
        server.send("POST", "/v1/chat/completions", "Authorization: Bearer secret\r\n", &body.to_string())
    };
    assert_eq!(server.post("/v1/chat/completions", &body("mine")).0, 401);
    assert_eq!(server.send("GET", "/v1/models", "Authorization: Bearer other\r\n", "").0, 401);
    let answer = |name: &str| {
        let (status, text) = ask(&body(name));
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()["choices"][0]["message"]["content"].clone()
    };
    let said = |source: &[&str]| {
        let how = ["--chat", "--chat-template", "chatml", "--prompt", "Hello", "--max-new-tokens", "8"];
        json(room.path(), &[&["generate"], source, &how].concat())["text"].clone()
    };
    let (base, tuned) = (said(&["--model", &model]), said(&["--adapter", "tuned/adapter"]));
    assert_ne!(base, tuned);
    assert_eq!((answer("tiny-llama-en"), answer("mine"), answer("tuned")), (base, tuned.clone(), tuned.clone()));
    let mut streamed = body("mine");
    streamed["stream"] = json!(true);
    streamed["n"] = json!(2);
    let (_, text) = ask(&streamed);
    let events = text
        .lines()
        .filter_map(|l| l.strip_prefix("data: {"))
        .map(|l| serde_json::from_str::<Value>(&format!("{{{l}")).unwrap());
    let mut all = [String::new(), String::new()];
    for event in events {
        let choice = &event["choices"][0];
        all[choice["index"].as_u64().unwrap() as usize]
            .push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    assert!(all.iter().all(|text| *text == tuned.as_str().unwrap()), "{all:?}");
    // the page needs no key
    let (status, page) = server.send("GET", "/", "", "");
    assert!(status == 200 && page.contains("<title>loram</title>"));
}
