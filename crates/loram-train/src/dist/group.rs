//! The processes of a run as one: values that all of them receive, and one error where some of them fail.
//!
//! Every exchange begins with a header from each rank: what it is about to do, a few numbers that come with it, and its exit
//! code where it has failed. So a rank that fails takes part in one more exchange, whichever that is for the others, and all
//! ranks return the same error.

use super::collective::{Collective, Failure, Solo, Wire};
use super::watch::Watch;
use crate::{Error, Result};
use loram_io::lock::host_name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Numbers that come with an exchange.
pub type Words = [u64; 6];

/// Numbers of a header: kind of exchange, exit code, length, and those that come with it.
const HEADER: usize = 3 + 6;

/// The exchanges. Ranks that are about to do different things have lost their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Kind {
    Agree = 1,
    Gather,
    Broadcast,
    Sum,
    Failed,
}

/// The processes of a run. Clones are the same group; the default is a single process.
#[derive(Debug, Clone)]
pub struct ProcessGroup(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Before the engine, which must not wait for ranks that are gone.
    watch: OnceLock<Watch>,
    collective: Box<dyn Collective>,
    /// Names of the machines, by rank.
    hosts: Vec<String>,
    /// True when an error has ended the group.
    ended: AtomicBool,
    /// The step that the run is at; 0 before the first.
    step: AtomicUsize,
}

impl Default for ProcessGroup {
    fn default() -> ProcessGroup {
        let inner = Inner {
            watch: OnceLock::new(),
            collective: Box::new(Solo::default()),
            hosts: vec![host_name()],
            ended: AtomicBool::new(false),
            step: AtomicUsize::new(0),
        };
        ProcessGroup(Arc::new(inner))
    }
}

impl ProcessGroup {
    /// The group of an engine's ranks. All of them call it together.
    ///
    /// # Errors
    /// A failure of the engine.
    pub fn new(collective: Box<dyn Collective>) -> Result<ProcessGroup> {
        let inner = Inner {
            watch: OnceLock::new(),
            collective,
            hosts: Vec::new(),
            ended: AtomicBool::new(false),
            step: AtomicUsize::new(0),
        };
        let mut group = ProcessGroup(Arc::new(inner));
        let hosts = group.gather(host_name().as_bytes())?;
        let hosts = hosts.into_iter().map(|h| String::from_utf8_lossy(&h).into_owned()).collect();
        Arc::get_mut(&mut group.0).expect("a new group has no clones").hosts = hosts;
        Ok(group)
    }

    /// Notices from now on when the process of a rank ends, for engines that would wait for it.
    ///
    /// # Errors
    /// Those of a rank.
    pub fn watch(&self) -> Result<()> {
        let _ = self.0.watch.set(Watch::start(self.collective(), self.hosts(), &|bytes| self.gather(bytes))?);
        Ok(())
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.collective.rank()
    }

    /// Number of processes.
    pub fn world(&self) -> usize {
        self.0.collective.world()
    }

    /// True for rank 0, which writes files and messages.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// True for a single process.
    pub fn is_solo(&self) -> bool {
        self.world() == 1
    }

    /// The engine.
    pub fn collective(&self) -> &dyn Collective {
        &*self.0.collective
    }

    /// Names of the machines, by rank.
    pub fn hosts(&self) -> &[String] {
        &self.0.hosts
    }

    /// "rank 1 of 4 on node17".
    pub fn name(&self, rank: usize) -> String {
        let host = self.hosts().get(rank).map_or(String::new(), |h| format!(" on {h}"));
        format!("rank {rank} of {}{host}", self.world())
    }

    /// Notes the step that the run is at, for errors.
    pub fn at_step(&self, step: usize) {
        self.0.step.store(step, Ordering::Relaxed);
    }

    /// The bytes of every rank, in their order.
    ///
    /// # Errors
    /// Those of a rank.
    pub fn gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.is_solo() {
            return Ok(vec![mine.to_vec()]);
        }
        let lengths: Vec<usize> =
            self.exchange(Kind::Gather, 0, mine.len(), Words::default())?.iter().map(|h| h[2] as usize).collect();
        self.gather_padded(mine, &lengths)
    }

    fn gather_padded(&self, mine: &[u8], lengths: &[usize]) -> Result<Vec<Vec<u8>>> {
        let most = lengths.iter().copied().max().unwrap_or(0);
        let (mut padded, mut all) = (mine.to_vec(), vec![0; most * self.world()]);
        padded.resize(most, 0);
        self.done(self.0.collective.all_gather(&padded, &mut all))?;
        Ok(lengths.iter().enumerate().map(|(rank, n)| all[rank * most..][..*n].to_vec()).collect())
    }

    /// Returns the value that rank 0 computes, on all ranks. The others do not call `compute`.
    ///
    /// # Errors
    /// That of `compute`, or of another rank.
    pub fn from_first<T: Serialize + DeserializeOwned>(&self, compute: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_solo() {
            return compute();
        }
        let mine = match self.is_first() {
            true => Some(compute()),
            false => None,
        };
        let (value, mut bytes) = match mine {
            Some(Err(e)) => return self.agree(Err(e)),
            Some(Ok(value)) => {
                let bytes = serde_json::to_vec(&value).expect("values between ranks are plain data");
                (Some(value), bytes)
            }
            None => (None, Vec::new()),
        };
        let length = self.exchange(Kind::Broadcast, 0, bytes.len(), Words::default())?[0][2] as usize;
        bytes.resize(length, 0);
        self.done(self.0.collective.broadcast(&mut bytes, 0))?;
        match value {
            Some(value) => Ok(value),
            None => serde_json::from_slice(&bytes)
                .map_err(|e| self.engine_error(format!("rank 0 sent what cannot be read: {e} (another version?)"))),
        }
    }

    /// Overwrites `values` with those of rank 0.
    ///
    /// # Errors
    /// Those of a rank.
    pub fn take_from_first(&self, values: &mut [f32]) -> Result<()> {
        self.exchange(Kind::Broadcast, 0, values.len(), Words::default())?;
        let mut bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.done(self.0.collective.broadcast(&mut bytes, 0))?;
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
            *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Ok(())
    }

    /// Replaces `values`, which travel as `wire` says, by their sums over all ranks, and returns the numbers that each rank sent along.
    ///
    /// # Errors
    /// Those of a rank; another number of values on some rank.
    pub fn sum(&self, values: &mut [f32], wire: Wire, words: Words) -> Result<Vec<Words>> {
        let headers = self.exchange(Kind::Sum, 0, values.len(), words)?;
        if let Some(rank) = headers.iter().position(|h| h[2] != headers[0][2]) {
            let (found, expected) = (headers[rank][2], headers[0][2]);
            let what = format!("{} trains {found} values, rank 0 {expected}", self.name(rank));
            return Err(self.engine_error(format!("{what}: all ranks need the same model and configuration")));
        }
        if !values.is_empty() {
            self.done(self.0.collective.all_reduce_sum(values, wire))?;
        }
        Ok(headers.iter().map(|h| std::array::from_fn(|i| h[3 + i])).collect())
    }

    /// The result of this rank if all ranks have succeeded; else the error of the first rank that has not, on all of them.
    ///
    /// # Errors
    /// That of a rank.
    pub fn agree<T>(&self, mine: Result<T>) -> Result<T> {
        if self.is_solo() || self.0.ended.load(Ordering::Relaxed) {
            return mine;
        }
        match mine {
            Ok(value) => self.exchange(Kind::Agree, 0, 0, Words::default()).map(|_| value),
            Err(e) => {
                let text = e.to_string();
                match self.tell_failure(e.exit_code() as u64, text.as_bytes(), u64::from(e.is_divergence())) {
                    Err(of_all) => Err(of_all),
                    Ok(_) => unreachable!("an exchange with a failed rank is an error"),
                }
            }
        }
    }

    fn exchange(&self, kind: Kind, code: u64, length: usize, words: Words) -> Result<Vec<[u64; HEADER]>> {
        let mut header = [0; HEADER];
        header[..3].copy_from_slice(&[kind as u64, code, length as u64]);
        header[3..].copy_from_slice(&words);
        let mine: Vec<u8> = header.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut all = vec![0; mine.len() * self.world()];
        self.done(self.0.collective.all_gather(&mine, &mut all))?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let words: Vec<u64> = all.chunks_exact(8).map(word).collect();
        let headers: Vec<[u64; HEADER]> =
            words.chunks_exact(HEADER).map(|h| h.try_into().expect("a whole header")).collect();
        if headers.iter().any(|h| h[0] == Kind::Failed as u64) {
            return match kind {
                // goes on in `tell_failure`, which has the text
                Kind::Failed => Ok(headers),
                _ => Err(self.failed(&headers, b"")),
            };
        }
        if let Some(rank) = headers.iter().position(|h| h[0] != headers[0][0]) {
            let what = format!("{} is at another point of the run than rank 0", self.name(rank));
            return Err(self.engine_error(format!("{what}: are all of them the same version of loram?")));
        }
        Ok(headers)
    }

    /// Tells the others that this rank has failed.
    fn tell_failure(&self, code: u64, text: &[u8], divergence: u64) -> Result<()> {
        let words = [divergence, 0, 0, 0, 0, 0];
        let headers = self.exchange(Kind::Failed, code, text.len(), words)?;
        Err(self.failed(&headers, text))
    }

    /// The error of the first rank that failed.
    fn failed(&self, headers: &[[u64; HEADER]], mine: &[u8]) -> Error {
        let is_failed = |h: &[u64; HEADER]| h[0] == Kind::Failed as u64;
        let lengths: Vec<usize> = headers.iter().map(|h| if is_failed(h) { h[2] as usize } else { 0 }).collect();
        let texts = match self.gather_padded(mine, &lengths) {
            Ok(texts) => texts,
            Err(e) => return e,
        };
        self.0.ended.store(true, Ordering::Relaxed);
        let rank = headers.iter().position(is_failed).unwrap_or(0);
        let text = String::from_utf8_lossy(&texts[rank]).into_owned();
        // what is wrong everywhere is no rank's own
        let everywhere = texts.iter().all(|t| *t == texts[rank]);
        let what = if everywhere { text } else { format!("{}: {text}", self.name(rank)) };
        let diverged = headers[rank][3] != 0;
        Error::Rank { what, code: headers[rank][1] as i32, diverged, told: !self.is_first() }
    }

    /// Checks that all ranks have the bytes of rank 0. The error is that the first other rank `differs`, and what to give to
    /// all of them.
    ///
    /// # Errors
    /// Other bytes on a rank.
    pub fn same(&self, mine: &[u8], differs: &str, give: &str) -> Result<()> {
        if self.is_solo() {
            return Ok(());
        }
        let all = self.gather(mine)?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(self.common(format!("{} {differs}: give all ranks {give}", self.name(rank)))),
        }
    }

    /// An error about the input that all ranks have found in what they exchanged.
    pub fn common(&self, what: String) -> Error {
        self.0.ended.store(true, Ordering::Relaxed);
        Error::Rank { what, code: 2, diverged: false, told: !self.is_first() }
    }

    fn engine_error(&self, what: String) -> Error {
        self.0.ended.store(true, Ordering::Relaxed);
        Error::Rank { what, code: 1, diverged: false, told: !self.is_first() }
    }

    /// The error of an exchange that failed.
    fn done(&self, outcome: std::result::Result<(), Failure>) -> Result<()> {
        match outcome {
            Ok(()) => Ok(()),
            Err(Failure::Engine(what)) => Err(self.engine_error(format!("{}: {what}", self.0.collective.engine()))),
            Err(Failure::Lost(rank)) => {
                self.0.ended.store(true, Ordering::Relaxed);
                let when = match self.0.step.load(Ordering::Relaxed) {
                    0 => "before the first step".into(),
                    step => format!("in step {step}"),
                };
                // the lowest rank that is left tells
                let told = self.rank() != usize::from(rank == 0);
                Err(Error::RankLost { name: self.name(rank), when, last: String::new(), told })
            }
        }
    }
}
