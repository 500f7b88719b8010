//! Notices a rank whose process has ended, whatever the engine: most wait for ever for one that is gone.
//!
//! Every rank keeps a TCP connection to rank 0. The system closes it with the process, however that ends; a machine that
//! cannot be reached sends no more signs of life. Rank 0 then tells the others.

use super::collective::{Collective, Lost};
use crate::Result;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Time between two signs of life, and how long a rank may go without one. A process that was stopped and continued sends
/// none for as long; so a rank counts as gone only after several times in a row.
const BEAT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
const SILENCES: usize = 5;
/// Time to connect.
const CONNECT: Duration = Duration::from_secs(5);

/// Messages other than the number of a rank that is gone.
const ALIVE: u32 = u32::MAX;
const GOODBYE: u32 = u32::MAX - 1;

/// The bytes of all ranks.
type Gather<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<Vec<u8>>>;

/// The connections of a rank: of rank 0 to all others, of another to rank 0. Dropped, it says goodbye.
#[derive(Debug)]
pub(super) struct Watch {
    peers: Arc<Mutex<Vec<(usize, TcpStream)>>>,
    closing: Arc<AtomicBool>,
}

impl Watch {
    /// Connects the ranks, on machines of these names; `gather` gives the bytes of all of them. Where that is not possible, as behind a firewall, only the engine notices what happens.
    ///
    /// # Errors
    /// Those of an exchange.
    pub fn start(ranks: &dyn Collective, hosts: &[String], gather: Gather<'_>) -> Result<Watch> {
        let (rank, is_first) = (ranks.rank(), ranks.rank() == 0);
        let listener = if is_first { TcpListener::bind(("0.0.0.0", 0)).ok() } else { None };
        let port = listener.as_ref().and_then(|l| l.local_addr().ok()).map_or(0, |a| a.port());
        let port = gather(&port.to_le_bytes())?[0].clone();
        let port = u16::from_le_bytes([port[0], port[1]]);
        let mut peers = Vec::new();
        if !is_first && let Some(stream) = reach(rank, hosts, port) {
            peers.push((0, stream));
        }
        let connected = gather(&[u8::from(!peers.is_empty())])?.iter().filter(|b| b[0] == 1).count();
        if let Some(listener) = listener {
            accept(&listener, connected, &mut peers);
        }
        let lost = ranks.lost().clone();
        let watch = Watch { peers: Arc::new(Mutex::new(peers)), closing: Arc::default() };
        watch.listen(&lost);
        watch.beat();
        Ok(watch)
    }

    /// A thread for each connection that waits for what comes, or for its end.
    fn listen(&self, lost: &Lost) {
        for (rank, stream) in self.peers.lock().expect("no panic holds it").iter() {
            let Ok(stream) = stream.try_clone() else { continue };
            let (rank, lost, peers, closing) = (*rank, lost.clone(), self.peers.clone(), self.closing.clone());
            let wait = move || {
                let Some(gone) = next_loss(stream, rank) else { return };
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                lost.note(gone);
                // those behind rank 0 hear of it from there
                send(&peers, gone as u32, Some(gone));
            };
            let _ = std::thread::Builder::new().name("ranks".into()).stack_size(1 << 16).spawn(wait);
        }
    }

    fn beat(&self) {
        let (peers, closing) = (self.peers.clone(), self.closing.clone());
        let beat = move || {
            while !closing.load(Ordering::SeqCst) {
                std::thread::park_timeout(BEAT);
                send(&peers, ALIVE, None);
            }
        };
        let _ = std::thread::Builder::new().name("beat".into()).stack_size(1 << 16).spawn(beat);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // a panic is no goodbye: the others must not wait for this rank
        if !std::thread::panicking() {
            send(&self.peers, GOODBYE, None);
        }
        for (_, stream) in self.peers.lock().expect("no panic holds it").iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn send(peers: &Mutex<Vec<(usize, TcpStream)>>, message: u32, but: Option<usize>) {
    for (rank, stream) in peers.lock().expect("no panic holds it").iter_mut() {
        if Some(*rank) != but {
            // the thread that reads from it notices where this fails
            let _ = stream.write_all(&message.to_le_bytes());
        }
    }
}

/// The rank that is gone, by what comes from `rank` or does not come any more; `None` after a goodbye.
fn next_loss(mut stream: TcpStream, rank: usize) -> Option<usize> {
    let (mut message, mut silences) = ([0; 4], 0);
    let _ = stream.set_read_timeout(Some(SILENCE));
    loop {
        match stream.read_exact(&mut message) {
            Ok(()) => match u32::from_le_bytes(message) {
                ALIVE => silences = 0,
                GOODBYE => return None,
                gone => return Some(gone as usize),
            },
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) && silences < SILENCES => {
                silences += 1;
            }
            Err(_) => return Some(rank),
        }
    }
}

/// A connection to rank 0, by the name of its machine.
fn reach(rank: usize, hosts: &[String], port: u16) -> Option<TcpStream> {
    let host = if hosts[rank] == hosts[0] { "127.0.0.1" } else { &hosts[0] };
    let addresses = (host, port).to_socket_addrs().ok()?;
    let mut stream = addresses.filter(|_| port > 0).find_map(|a| TcpStream::connect_timeout(&a, CONNECT).ok())?;
    stream.write_all(&(rank as u32).to_le_bytes()).ok()?;
    Some(stream)
}

/// Takes so many connections; each begins with the number of its rank.
fn accept(listener: &TcpListener, connected: usize, peers: &mut Vec<(usize, TcpStream)>) {
    let _ = listener.set_nonblocking(true);
    let begun = Instant::now();
    while peers.len() < connected && begun.elapsed() < CONNECT {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(2));
            continue;
        };
        let mut rank = [0; 4];
        let named = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(CONNECT)));
        if named.and_then(|()| stream.read_exact(&mut rank)).is_ok() {
            peers.push((u32::from_le_bytes(rank) as usize, stream));
        }
    }
}
