//! The network between members: a TCP proxy in front of each of them, on which every directed link has a state of its own.
//!
//! Members know each other by one peer URL each, from which their ids are made, so that all of them call one proxy. Who
//! calls is read from the kernel: the port at the other end belongs to a socket, and the socket to a member's process.
//!
//! A link that is cut keeps the bytes that are on their way and delivers them when it is whole again, as TCP does. What one
//! member answers on a connection that another one opened travels on its own link to that one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How much is passed on at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that may be on their way on one connection.
const CHUNKS_MAX: usize = 64;

/// How often a caller is looked for, and the time between two readings of who has which connection.
const LOOKS: u32 = 4;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a link does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// It passes them on.
    #[default]
    Whole,
    /// It keeps them.
    Cut,
    /// It passes them on after this time and up to as much again.
    Slow(Duration),
}

/// The state of all links.
#[derive(Debug, Clone)]
struct Links {
    size: usize,
    links: Vec<Link>,
    /// How often connections between two members were broken; the pair counts in both directions.
    resets: Vec<u64>,
}

impl Links {
    /// A caller that is no member has a link that is always whole.
    fn of(&self, from: Option<usize>, to: Option<usize>) -> Link {
        let (Some(from), Some(to)) = (from, to) else { return Link::Whole };
        self.links[from * self.size + to]
    }
}

#[derive(Debug)]
struct Shared {
    links: watch::Sender<Links>,
    processes: Mutex<Vec<Option<u32>>>,
    callers: tokio::sync::Mutex<Callers>,
    toward: Vec<AtomicU64>,
}

impl Shared {
    fn processes(&self) -> MutexGuard<'_, Vec<Option<u32>>> {
        self.processes.lock().expect("no holder of the lock panics")
    }
}

/// The network. Dropping it ends all connections and listens no more.
#[derive(Debug)]
pub struct Network {
    routes: Vec<String>,
    shared: Arc<Shared>,
    accepting: Vec<JoinHandle<()>>,
}

impl Network {
    /// A network that leads to the members that listen, or will listen, at these URLs. All links are whole.
    pub async fn to(targets: &[String]) -> Result<Self> {
        let size = targets.len();
        let links = Links { size, links: vec![Link::Whole; size * size], resets: vec![0; size * size] };
        let shared = Arc::new(Shared {
            links: watch::Sender::new(links),
            processes: Mutex::new(vec![None; size]),
            callers: tokio::sync::Mutex::default(),
            toward: targets.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let (mut routes, mut accepting) = (Vec::new(), Vec::new());
        for (member, target) in targets.iter().enumerate() {
            let target: Arc<str> = target.strip_prefix("http://").unwrap_or(target).into();
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("no port for a proxy")?;
            routes.push(format!("http://{}", listener.local_addr().context("a proxy without an address")?));
            accepting.push(tokio::spawn(accept(listener, member, target, Arc::clone(&shared))));
        }
        Ok(Self { routes, shared, accepting })
    }

    /// Where others reach a member.
    pub fn route(&self, member: usize) -> &str {
        &self.routes[member]
    }

    /// Members, and places for members.
    pub fn size(&self) -> usize {
        self.routes.len()
    }

    /// Says which process a member is. Until then its connections count as those of a stranger.
    pub fn set_process(&self, member: usize, pid: Option<u32>) {
        self.shared.processes()[member] = pid;
    }

    /// Sets one directed link.
    pub fn set(&self, from: usize, to: usize, link: Link) {
        self.shared.links.send_modify(|links| links.links[from * links.size + to] = link);
    }

    /// Sets every link between these members and all others, in both directions.
    pub fn set_around(&self, members: &[usize], link: Link) {
        let outside = |member: &usize| !members.contains(member);
        for other in (0..self.size()).filter(outside) {
            for member in members {
                self.set(*member, other, link);
                self.set(other, *member, link);
            }
        }
    }

    /// Makes every link whole.
    pub fn heal(&self) {
        self.shared.links.send_modify(|links| links.links.fill(Link::Whole));
    }

    /// Breaks the connections between two members. New ones are passed on.
    pub fn reset(&self, one: usize, other: usize) {
        self.shared.links.send_modify(|links| {
            links.resets[one * links.size + other] += 1;
            links.resets[other * links.size + one] += 1;
        });
    }

    /// Breaks every connection of a member with another one, or with a stranger.
    pub fn reset_around(&self, member: usize) {
        (0..self.size()).for_each(|other| self.reset(member, other));
    }

    /// Bytes that went to a member on connections that others opened.
    pub fn toward(&self, member: usize) -> u64 {
        self.shared.toward[member].load(Ordering::Relaxed)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
        // Connections end with a reset.
        self.shared.links.send_modify(|links| links.resets.iter_mut().for_each(|resets| *resets += 1));
    }
}

async fn accept(listener: TcpListener, member: usize, target: Arc<str>, shared: Arc<Shared>) {
    while let Ok((stream, address)) = listener.accept().await {
        let (target, shared) = (Arc::clone(&target), Arc::clone(&shared));
        tokio::spawn(async move {
            let mut links = shared.links.subscribe();
            let resets = links.borrow().resets.clone();
            let connection = Connection {
                caller: OnceLock::new(),
                port: address.port(),
                member,
                shared: Arc::clone(&shared),
            };
            tokio::select! {
                // A reset comes before anything else: what a cut has kept is not to slip through.
                biased;
                // Nothing that is lost here was promised to anybody.
                _ = links.wait_for(|links| {
                    let way = connection.caller().unwrap_or(member) * links.size + member;
                    links.resets[way] != resets[way]
                }) => {}
                () = connection.run(stream, &target) => {}
            }
        });
    }
}

/// Which member has a connection at which local port. Reading it takes the kernel long, so that many share one reading.
#[derive(Debug, Default)]
struct Callers {
    read_at: Option<Instant>,
    members: HashMap<u16, usize>,
}

impl Callers {
    fn read(processes: &[Option<u32>]) -> HashMap<u16, usize> {
        let ports = ports();
        let mut members = HashMap::new();
        for (member, process) in processes.iter().enumerate() {
            let Some(descriptors) = process.and_then(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok())
            else {
                continue;
            };
            for target in descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()) {
                let inode = target.to_string_lossy();
                let inode = inode.strip_prefix("socket:[").and_then(|inode| inode.strip_suffix(']'));
                if let Some(port) = inode.and_then(|inode| ports.get(inode)) {
                    members.insert(*port, member);
                }
            }
        }
        members
    }
}

/// The local ports of connections, by inode.
fn ports() -> HashMap<String, u16> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let connected = table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (local, state) = (words.nth(1)?, words.nth(1)?);
        let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        (state == "01").then_some(())?;
        Some((words.nth(5)?.to_owned(), port))
    });
    connected.collect()
}

/// A connection that a caller has opened to a member.
struct Connection {
    /// The member that calls, once it is known.
    caller: OnceLock<usize>,
    port: u16,
    member: usize,
    shared: Arc<Shared>,
}

impl Connection {
    fn caller(&self) -> Option<usize> {
        self.caller.get().copied()
    }

    /// Finds out who calls. A stranger stays one.
    async fn look(&self) {
        for _ in 0..LOOKS {
            let accepted = Instant::now();
            {
                let mut callers = self.shared.callers.lock().await;
                if callers.read_at.is_none_or(|read| read + LOOK_EVERY <= accepted) {
                    let processes = self.shared.processes().clone();
                    let read = tokio::task::spawn_blocking(move || Callers::read(&processes)).await;
                    (callers.members, callers.read_at) = (read.unwrap_or_default(), Some(Instant::now()));
                }
                if let Some(member) = callers.members.get(&self.port) {
                    self.caller.get_or_init(|| *member);
                    return;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Passes bytes on until either end closes it. What cannot be reached is closed at once.
    async fn run(&self, from: TcpStream, target: &str) {
        let mut links = self.shared.links.subscribe();
        // As long as every link is whole, it makes no difference who calls.
        if links.borrow().links.iter().any(|link| *link != Link::Whole) {
            self.look().await;
        }
        let is_open = |links: &Links| links.of(self.caller(), Some(self.member)) != Link::Cut;
        if links.wait_for(is_open).await.is_err() {
            return;
        }
        let Ok(to) = TcpStream::connect(target).await else { return };
        // Without it small frames would wait for each other; where it cannot be set they do.
        drop(from.set_nodelay(true));
        drop(to.set_nodelay(true));
        let ((from_read, from_write), (to_read, to_write)) = (from.into_split(), to.into_split());
        let nobody = AtomicU64::new(0);
        let both = async {
            tokio::select! {
                // The end of either direction is the end of the connection: gRPC has no half-open ones.
                () = self.pass(from_read, to_write, Direction::There, &self.shared.toward[self.member]) => {}
                () = self.pass(to_read, from_write, Direction::Back, &nobody) => {}
            }
        };
        tokio::pin!(both);
        tokio::select! {
            () = &mut both => {}
            () = async { if self.caller().is_none() { self.look().await } } => both.await,
        }
    }

    fn link(&self, links: &Links, direction: Direction) -> Link {
        match direction {
            Direction::There => links.of(self.caller(), Some(self.member)),
            Direction::Back => links.of(Some(self.member), self.caller()),
        }
    }

    async fn pass(
        &self,
        from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        direction: Direction,
        passed: &AtomicU64,
    ) {
        let mut links = self.shared.links.subscribe();
        let (sender, mut chunks) = mpsc::channel(CHUNKS_MAX);
        let state = self.shared.links.subscribe();
        let reading = take(from, sender, move || self.link(&state.borrow(), direction));
        let writing = async {
            while let Some((due, chunk)) = chunks.recv().await {
                let chunk: Vec<u8> = chunk;
                tokio::time::sleep_until(due).await;
                if links.wait_for(|links| self.link(links, direction) != Link::Cut).await.is_err()
                    || to.write_all(&chunk).await.is_err()
                {
                    return;
                }
                passed.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        };
        tokio::join!(reading, writing);
    }
}

/// From the caller to the member, or back.
#[derive(Debug, Clone, Copy)]
enum Direction {
    There,
    Back,
}

/// Reads until the end, and says of each chunk when it is due at the other side.
async fn take(mut from: OwnedReadHalf, sender: mpsc::Sender<(Instant, Vec<u8>)>, link: impl Fn() -> Link) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(bytes @ 1..) = from.read(&mut chunk).await {
        let delay = match link() {
            Link::Whole | Link::Cut => Duration::ZERO,
            Link::Slow(time) => time.mul_f64(rand::rng().random_range(1.0..2.0)),
        };
        if sender.send((Instant::now() + delay, chunk[..bytes].to_vec())).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> String {
        let echo = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let target = format!("http://{}", echo.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        target
    }

    /// Two members; this process is the second one, and known as such.
    async fn scene() -> (Network, TcpStream) {
        let network = Network::to(&[echo().await, echo().await]).await.unwrap();
        network.set_process(1, Some(std::process::id()));
        let stream = TcpStream::connect(network.route(0).strip_prefix("http://").unwrap()).await.unwrap();
        let port = stream.local_addr().unwrap().port();
        let deadline = Instant::now() + LONG;
        while !network.shared.callers.lock().await.members.contains_key(&port) {
            assert!(Instant::now() < deadline, "who calls is found out");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        (network, stream)
    }

    async fn answer(stream: &mut TcpStream, patience: Duration) -> Option<[u8; 5]> {
        let mut answer = [0; 5];
        let read = tokio::time::timeout(patience, stream.read_exact(&mut answer)).await;
        read.ok()?.ok().map(|_| answer)
    }

    const LONG: Duration = Duration::from_secs(10);
    const SHORT: Duration = Duration::from_millis(150);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_pass_are_counted_and_end_with_a_reset() {
        let (network, mut stream) = scene().await;
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(answer(&mut stream, LONG).await.as_ref(), Some(b"hello"));
        assert_eq!(network.toward(0), 5);
        network.reset(0, 1);
        assert!(answer(&mut stream, LONG).await.is_none());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_direction_is_cut_by_itself_and_nothing_is_lost() {
        let (network, mut stream) = scene().await;
        network.set(0, 1, Link::Cut);
        stream.write_all(b"there").await.unwrap();
        // It has arrived, and the answer has not.
        assert_eq!(answer(&mut stream, SHORT).await, None);
        assert_eq!(network.toward(0), 5);
        network.heal();
        assert_eq!(answer(&mut stream, LONG).await.as_ref(), Some(b"there"));
        network.set(1, 0, Link::Cut);
        stream.write_all(b"again").await.unwrap();
        assert_eq!(answer(&mut stream, SHORT).await, None);
        assert_eq!(network.toward(0), 5);
        network.heal();
        assert_eq!(answer(&mut stream, LONG).await.as_ref(), Some(b"again"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_slow_link_delays() {
        let (network, mut stream) = scene().await;
        network.set_around(&[0], Link::Slow(Duration::from_millis(60)));
        let began = Instant::now();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(answer(&mut stream, LONG).await.as_ref(), Some(b"hello"));
        assert!(began.elapsed() >= Duration::from_millis(120));
    }
}
