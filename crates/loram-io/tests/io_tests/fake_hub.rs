//! A hub on this machine, with faults on request.

use loram_io::hub::{HubOptions, resolve_with};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

pub fn options(cache: &Path) -> HubOptions {
    HubOptions {
        revision: None,
        cache_dir: cache.to_path_buf(),
        offline: true,
        token: None,
        // nothing listens there: as if there were no network
        endpoint: "http://127.0.0.1:9".into(),
        timeout: Duration::from_millis(700),
    }
}

pub fn resolve(name: &str, opts: &HubOptions) -> loram_io::Result<PathBuf> {
    resolve_with(name, opts, &mut |_| ())
}

/// Bytes of a safetensors file with one tensor.
pub fn weights() -> Vec<u8> {
    let header = br#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    [&(header.len() as u64).to_le_bytes()[..], header, &1.0f32.to_le_bytes()].concat()
}

pub type Files = BTreeMap<&'static str, Vec<u8>>;

pub fn model_files() -> Files {
    BTreeMap::from([
        ("config.json", b"{\"model_type\": \"llama\"}".to_vec()),
        ("tokenizer.json", b"{\"a\":1}".to_vec()),
        ("chat_template.jinja", b"{{ messages }}".to_vec()),
        ("model.safetensors.index.json", br#"{"weight_map":{"w":"model-00001-of-00001.safetensors"}}"#.to_vec()),
        ("model-00001-of-00001.safetensors", weights()),
        ("consolidated.safetensors", vec![b'x'; 5000]),
        ("pytorch_model.bin", vec![b'x'; 5000]),
        ("README.md", b"read me".to_vec()),
        ("onnx/model.onnx", vec![b'x'; 100]),
    ])
}

/// The hash that the hub names as ETag: SHA-256 of weights, git's SHA-1 of all other files.
pub fn etag(name: &str, data: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    match name.ends_with(".safetensors") {
        true => hex(&Sha256::digest(data)),
        false => hex(&Sha1::digest([format!("blob {}\0", data.len()).as_bytes(), data].concat())),
    }
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let named = |h: &&String| h.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name));
        self.headers.iter().find(named).map(|h| h[name.len() + 1..].trim())
    }

    /// Name of the file that is asked for.
    pub fn file(&self) -> Option<&str> {
        self.path.strip_prefix(&format!("/org/model/resolve/{COMMIT}/"))
    }

    /// First byte that is asked for.
    pub fn from(&self) -> usize {
        self.header("range").and_then(|r| r.strip_prefix("bytes=")?.split('-').next()?.parse().ok()).unwrap_or(0)
    }
}

/// The answer of a hub: status and headers, then these bytes. `None` keeps the connection open and says nothing.
pub struct Reply {
    pub head: String,
    pub body: Vec<u8>,
    /// Say nothing more, and do not close, after the body.
    pub stall: bool,
}

impl Reply {
    pub fn new(status: &str, headers: &[String], body: Vec<u8>) -> Reply {
        let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
        if !headers.iter().any(|h| h.starts_with("content-length")) {
            head += &format!("content-length: {}\r\n", body.len());
        }
        headers.iter().for_each(|h| head += &format!("{h}\r\n"));
        Reply { head: head + "\r\n", body, stall: false }
    }

    pub fn status(status: &str) -> Reply {
        Reply::new(status, &[], Vec::new())
    }
}

/// A server whose answers a function makes.
pub struct FakeHub {
    pub address: String,
    log: Arc<Mutex<Vec<Request>>>,
}

impl FakeHub {
    pub fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> FakeHub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (log.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (seen.clone(), answer.clone());
                std::thread::spawn(move || talk(stream, &seen, &*answer));
            }
        });
        FakeHub { address, log }
    }

    /// A hub with one model, `org/model`.
    pub fn of(model: Model) -> FakeHub {
        FakeHub::new(move |r| model.answer(r))
    }

    pub fn options(&self, cache: &Path) -> HubOptions {
        HubOptions { endpoint: self.address.clone(), offline: false, ..options(cache) }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// Downloads that were begun of a file, by the byte that they began at.
    pub fn downloads(&self, file: &str) -> Vec<usize> {
        let of = |r: &Request| r.method == "GET" && r.file() == Some(file);
        self.requests().iter().filter(|r| of(r)).map(Request::from).collect()
    }
}

fn talk(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let (method, path) = first.split_once(' ').unwrap();
    let path = path.split(' ').next().unwrap().to_string();
    let headers = lines.map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
    let request = Request { method: method.into(), path, headers };
    seen.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let body = if request.method == "HEAD" { &[][..] } else { &reply.body };
    let _ = stream.write_all(reply.head.as_bytes()).and_then(|()| stream.write_all(body));
    let _ = stream.flush();
    if reply.stall {
        std::thread::sleep(Duration::from_secs(20));
    }
}

/// A model, and how its hub treats the ones who ask.
#[derive(Clone)]
pub struct Model {
    pub files: Files,
    /// Only this token sees it.
    pub token: Option<&'static str>,
    /// The commit that the list of files names.
    pub commit: String,
    /// A name in the list of files that no file has.
    pub extra: Option<String>,
    /// The server knows HEAD, as the hub does.
    pub head: bool,
}

impl Model {
    pub fn new(files: Files) -> Model {
        Model { files, token: None, commit: COMMIT.into(), extra: None, head: true }
    }

    pub fn answer(&self, r: &Request) -> Reply {
        let bearer = self.token.map(|t| format!("Bearer {t}"));
        if bearer.is_some() && r.header("authorization") != bearer.as_deref() {
            return Reply::status("404 Not Found");
        }
        if r.path.starts_with("/api/models/org/model/revision/") {
            let size = |n: &str, s: usize| serde_json::json!({"rfilename": n, "size": s});
            let files = self.files.iter().map(|(n, b)| size(n, b.len()));
            let all: Vec<_> = files.chain(self.extra.iter().map(|n| size(n, 5))).collect();
            let text = serde_json::json!({"sha": self.commit, "siblings": all}).to_string();
            return Reply::new("200 OK", &["content-type: application/json".into()], text.into_bytes());
        }
        let Some((name, data)) = r.file().and_then(|n| self.files.get_key_value(n)) else {
            return Reply::status("404 Not Found");
        };
        if r.method == "HEAD" && !self.head {
            return Reply::status("501 Not Implemented");
        }
        let tags = [format!("etag: \"{}\"", etag(name, data)), format!("x-repo-commit: {COMMIT}")];
        match r.header("range") {
            None => {
                Reply::new("200 OK", &[&tags[..], &[format!("content-length: {}", data.len())]].concat(), data.clone())
            }
            Some(_) if r.from() >= data.len() => Reply::status("416 Range Not Satisfiable"),
            Some(range) => {
                let end = if range == "bytes=0-0" { 1 } else { data.len() };
                let place = format!("content-range: bytes {}-{}/{}", r.from(), end - 1, data.len());
                Reply::new("206 Partial Content", &[&tags[..], &[place]].concat(), data[r.from()..end].to_vec())
            }
        }
    }
}
