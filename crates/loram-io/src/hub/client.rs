//! Requests to the hub: a token that only the hub's own host sees, time-outs, few redirects, answers of bounded size.

use super::cache::is_commit;
use super::hash::Etag;
use super::options::HubOptions;
use super::repo::{Kind, Repo};
use crate::Error;
use crate::inside::is_inside;
use std::collections::BTreeMap;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{Method, Request, Response, StatusCode};
use url::Url;

const MAX_REDIRECTS: usize = 10;
/// Tries of a request that the hub was too busy for, and of a download that made no progress.
pub(super) const TRIES: u32 = 4;
/// Longest list of files in bytes: about 100 000 files.
const MAX_LIST: u64 = 64 << 20;

/// Why a request failed: the caller falls back to the cache only when the hub could not be reached.
#[derive(Debug)]
pub(super) enum Failure {
    Unreachable {
        why: String,
        /// It may work the next time: too many requests, or a connection that broke.
        again: bool,
    },
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Refused(e)
    }
}

pub(super) type Result<T> = std::result::Result<T, Failure>;
pub(super) type Reply = Response<ureq::Body>;

/// A repository's files at one commit.
pub(super) struct Listing {
    pub commit: String,
    /// Size by name, where the hub says it. Only names that stay inside a folder.
    pub files: BTreeMap<String, Option<u64>>,
}

/// Properties of a file that the hub states before it is downloaded.
pub(super) struct FileInfo {
    pub etag: Etag,
    pub size: u64,
}

/// Asks the hub about one repository.
pub(super) struct Client<'a> {
    pub opts: &'a HubOptions,
    pub repo: Repo<'a>,
    endpoint: Url,
    agent: Agent,
}

impl<'a> Client<'a> {
    pub fn new(opts: &'a HubOptions, repo: Repo<'a>) -> Result<Client<'a>> {
        let endpoint = Url::parse(&opts.endpoint).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
        let endpoint = endpoint.ok_or_else(|| {
            let what = format!("HF_ENDPOINT: `{}` is not an address such as https://huggingface.co", opts.endpoint);
            Error::Usage(what)
        })?;
        let limit = Some(opts.timeout);
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // redirects are followed here, where it is known who may see the token
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("loram/", env!("CARGO_PKG_VERSION")))
            // sizes and hashes are those of the file as it is stored
            .accept_encoding("identity")
            .timeout_resolve(limit)
            .timeout_connect(limit)
            .timeout_send_request(limit)
            .timeout_recv_response(limit)
            .timeout_per_read(limit)
            .build();
        Ok(Client { opts, repo, endpoint, agent: config.new_agent() })
    }

    /// The commit of the revision and its files.
    pub fn list(&self, revision: &str) -> Result<Listing> {
        let mut url = self.url(&["api", self.repo.plural()]);
        self.extend(&mut url, &["revision", revision]);
        url.set_query(Some("blobs=true"));
        let body = again(|| {
            let mut reply = self.check(self.request(Method::GET, url.clone(), None, false)?)?;
            reply.body_mut().with_config().limit(MAX_LIST).read_to_vec().map_err(|e| match e {
                ureq::Error::BodyExceedsLimit(_) => {
                    self.refuse(format!("its list of files is longer than {MAX_LIST} bytes"))
                }
                e => broken(&url, &e),
            })
        })?;
        let info: Info = serde_json::from_slice(&body).map_err(|e| Failure::Unreachable {
            why: format!("{url} answers with no list of files: {e}"),
            again: false,
        })?;
        if !is_commit(&info.sha) {
            return Err(self.refuse(format!(
                "the commit is named `{}`; expected 40 hexadecimal digits, so the answer is not trusted",
                info.sha
            )));
        }
        let files = info.siblings.into_iter().filter(|s| is_inside(&s.rfilename)).map(|s| (s.rfilename, s.size));
        Ok(Listing { commit: info.sha, files: files.collect() })
    }

    /// Hash and size of a file; `listed` is its size as the list of files has it.
    pub fn info(&self, commit: &str, file: &str, listed: Option<u64>) -> Result<FileInfo> {
        let url = self.file_url(commit, file);
        let reply = again(|| {
            let head = self.request(Method::HEAD, url.clone(), None, true)?;
            match head.status() {
                // a mirror that knows only GET
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                    let one = self.request(Method::GET, url.clone(), Some("bytes=0-0"), true)?;
                    match one.status() {
                        StatusCode::RANGE_NOT_SATISFIABLE => Ok(one),
                        _ => self.check(one),
                    }
                }
                _ => self.check(head),
            }
        })?;
        if let Some(other) = header(&reply, "x-repo-commit").filter(|c| *c != commit) {
            return Err(self.refuse(format!("`{file}` is said to be of the commit `{other}`, not of {commit}")));
        }
        let tag = header(&reply, "x-linked-etag").or(header(&reply, "etag")).unwrap_or_default();
        let Some(etag) = Etag::parse(tag) else {
            return Err(self.refuse(format!(
                "`{file}` has the ETag `{tag}`; expected its SHA-256 or SHA-1 (64 or 40 hexadecimal digits), so the \
                 download could not be checked"
            )));
        };
        let total = || header(&reply, "content-range").and_then(|r| r.rsplit('/').next()).and_then(|n| n.parse().ok());
        let length = || header(&reply, "content-length").filter(|_| reply.status() == StatusCode::OK)?.parse().ok();
        let linked = header(&reply, "x-linked-size").and_then(|n| n.parse().ok());
        match linked.or_else(total).or_else(length).or(listed) {
            Some(size) => Ok(FileInfo { etag, size }),
            None => Err(self.refuse(format!("it does not say how long `{file}` is"))),
        }
    }

    /// Starts a download at a byte. The status is 200, 206 or 416.
    pub fn get(&self, commit: &str, file: &str, from: u64) -> Result<Reply> {
        let range = (from > 0).then(|| format!("bytes={from}-"));
        let reply = self.request(Method::GET, self.file_url(commit, file), range.as_deref(), false)?;
        match reply.status() {
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(reply),
            _ => self.check(reply),
        }
    }

    /// An error in which the hub is the subject.
    pub fn refuse(&self, what: impl std::fmt::Display) -> Failure {
        Error::Hub { what: format!("`{}`: the hub at {}: {what}", self.repo.id, self.opts.endpoint) }.into()
    }

    fn url(&self, first: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        url.path_segments_mut().expect("http addresses have a path").pop_if_empty().extend(first);
        self.extend(&mut url, &self.repo.id.split('/').collect::<Vec<_>>());
        url
    }

    /// Adds segments, each percent-encoded, slashes within one too.
    fn extend(&self, url: &mut Url, segments: &[&str]) {
        url.path_segments_mut().expect("http addresses have a path").extend(segments);
    }

    fn file_url(&self, commit: &str, file: &str) -> Url {
        let mut url = match self.repo.kind {
            Kind::Model => self.url(&[]),
            Kind::Dataset => self.url(&["datasets"]),
        };
        self.extend(&mut url, &["resolve", commit]);
        self.extend(&mut url, &file.split('/').collect::<Vec<_>>());
        url
    }

    /// Sends a request and follows redirects. With `info`, stops where the headers say what the file is: at the first
    /// answer with its hash, and at a redirect to another host.
    fn request(&self, method: Method, mut url: Url, range: Option<&str>, info: bool) -> Result<Reply> {
        for _ in 0..=MAX_REDIRECTS {
            let own = url.origin() == self.endpoint.origin();
            let mut request = Request::builder().method(method.clone()).uri(url.as_str());
            if let Some(range) = range {
                request = request.header("range", range);
            }
            if let Some(token) = self.opts.token.as_deref().filter(|_| own) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let request = request.body(()).map_err(|e| {
                // an address that Url accepts is one for a request too: what is left is the token
                Error::Usage(format!("cannot ask {url}: {e} (does HF_TOKEN hold line breaks or other characters?)"))
            })?;
            let reply = self.agent.run(request).map_err(|e| broken(&url, &e))?;
            let known = info && (header(&reply, "x-linked-etag").is_some());
            if !reply.status().is_redirection() || known {
                return Ok(reply);
            }
            let location = header(&reply, "location").and_then(|l| url.join(l).ok());
            let Some(next) = location.filter(|l| matches!(l.scheme(), "http" | "https")) else {
                return Err(self.refuse(format!("{url} redirects to no address")));
            };
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err(self.refuse(format!("{url} redirects to {next}, which is not encrypted")));
            }
            if info && next.origin() != self.endpoint.origin() {
                return Ok(reply);
            }
            url = next;
        }
        Err(self.refuse(format!("more than {MAX_REDIRECTS} redirects, the last to {url}")))
    }

    /// An error for an answer that is none.
    fn check(&self, reply: Reply) -> Result<Reply> {
        let opts = self.opts;
        match reply.status().as_u16() {
            200..=399 => Ok(reply),
            401 | 403 | 404 => {
                let token =
                    if opts.token.is_some() { "the token does not give access to it" } else { "HF_TOKEN is not set" };
                let what = format!(
                    "`{}` (revision `{}`): the hub at {} knows no such {}, or it is private or gated and {token}; \
                     if a local {} was meant, there is none of that name",
                    self.repo.id,
                    opts.revision(),
                    opts.endpoint,
                    self.repo.noun(),
                    self.repo.local()
                );
                Err(Error::Hub { what }.into())
            }
            code @ (429 | 500..) => Err(Failure::Unreachable { why: format!("http status {code}"), again: true }),
            code => Err(self.refuse(format!("refused the request with http status {code}"))),
        }
    }
}

/// Repeats what may work the next time.
fn again<T>(mut request: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 1;
    loop {
        match request() {
            Err(Failure::Unreachable { again: true, .. }) if tries < TRIES => pause(tries),
            done => return done,
        }
        tries += 1;
    }
}

/// Waits before the next try, each time twice as long.
pub(super) fn pause(tries: u32) {
    std::thread::sleep(Duration::from_millis(200 << tries.min(6)));
}

pub(super) fn header<'r>(reply: &'r Reply, name: &str) -> Option<&'r str> {
    reply.headers().get(name)?.to_str().ok()
}

/// A connection that failed. One that was never made, or that went silent, is not tried again: those without network
/// would wait for nothing.
fn broken(url: &Url, e: &ureq::Error) -> Failure {
    let again = match e {
        ureq::Error::Io(e) => !matches!(e.kind(), std::io::ErrorKind::ConnectionRefused),
        ureq::Error::Protocol(_) => true,
        _ => false,
    };
    Failure::Unreachable { why: format!("{}: {e}", url.origin().ascii_serialization()), again }
}

#[derive(serde::Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}
