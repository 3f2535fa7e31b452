//! A TCP proxy between Tollgate and Redis that does what bad networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Fair,
    /// None passes, in either direction, and nobody is told: a black hole. What was sent arrives when it ends.
    BlackHole,
    /// What is sent to the target passes, but nothing that comes back.
    NoReplies,
    /// Each piece takes so long, and holds up those behind it.
    Slow(Duration),
    /// Each piece takes so long, and holds up nobody: a long way.
    Far(Duration),
}

/// A proxy on a free port. It ends, with all its connections, when dropped.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    target: SocketAddr,
    weather: Weather,
    /// All that were made and not cut.
    connections: Vec<Arc<Connection>>,
    ended: bool,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    /// Leads nowhere: see [`Proxy::forget`].
    forgotten: AtomicBool,
}

impl Proxy {
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State { target, weather: Weather::Fair, connections: Vec::new(), ended: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Self { addr, shared }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn set_weather(&self, weather: Weather) {
        self.shared.lock().weather = weather;
        self.shared.changed.notify_all();
    }

    /// New connections go there; those that are open stay where they are.
    pub fn set_target(&self, target: SocketAddr) {
        self.shared.lock().target = target;
    }

    /// Half-open connections: those that there are lead nowhere from now on, as behind a router that was restarted.
    /// What is sent on them is swallowed, and nothing ever comes. New ones work.
    pub fn forget(&self) {
        self.shared.lock().connections.iter().for_each(|connection| connection.forgotten.store(true, Relaxed));
    }

    /// The same of one connection, that which the target knows by this address.
    #[track_caller]
    pub fn forget_one(&self, peer: SocketAddr) {
        let state = self.shared.lock();
        let is_it = |connection: &&Arc<Connection>| connection.server.local_addr().is_ok_and(|addr| addr == peer);
        state.connections.iter().find(is_it).expect("a connection of this address").forgotten.store(true, Relaxed);
    }

    /// Whether the target knows one of its connections by this address.
    pub fn has(&self, peer: SocketAddr) -> bool {
        let is_it = |connection: &Arc<Connection>| connection.server.local_addr().is_ok_and(|addr| addr == peer);
        self.shared.lock().connections.iter().any(is_it)
    }

    /// Closes one connection, that which the target knows by this address. What is on its way there or back is lost.
    #[track_caller]
    pub fn cut_one(&self, peer: SocketAddr) {
        let connections = &mut self.shared.lock().connections;
        let is_it = |connection: &Arc<Connection>| connection.server.local_addr().is_ok_and(|addr| addr == peer);
        let place = connections.iter().position(is_it).expect("a connection of this address");
        connections.swap_remove(place).shutdown();
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.shared.lock().connections.drain(..).for_each(|connection| connection.shutdown());
    }
}

impl Connection {
    fn shutdown(&self) {
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        self.cut();
        // The accepting thread looks up when somebody comes.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits for as long as the weather says, and returns when what has come is to arrive.
    fn wait(&self, is_request: bool) -> Instant {
        let is_held = |weather| match weather {
            Weather::BlackHole => true,
            Weather::NoReplies => !is_request,
            Weather::Fair | Weather::Slow(_) | Weather::Far(_) => false,
        };
        let state = self.changed.wait_while(self.lock(), |state| is_held(state.weather) && !state.ended);
        let weather = state.unwrap().weather;
        match weather {
            Weather::Slow(delay) => thread::sleep(delay),
            Weather::Far(delay) => return Instant::now() + delay,
            Weather::Fair | Weather::BlackHole | Weather::NoReplies => {}
        }
        Instant::now()
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let target = {
            let state = shared.lock();
            if state.ended {
                return;
            }
            state.target
        };
        let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else { continue };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let connection = Arc::new(Connection { client, server, forgotten: AtomicBool::new(false) });
        shared.lock().connections.push(connection.clone());
        for is_request in [true, false] {
            let (shared, connection) = (shared.clone(), connection.clone());
            thread::spawn(move || {
                let Connection { client, server, forgotten } = &*connection;
                let (from, to) = if is_request { (client, server) } else { (server, client) };
                pump(&shared, is_request, from, to, forgotten);
            });
        }
    }
}

fn pump(shared: &Shared, is_request: bool, mut from: &TcpStream, to: &TcpStream, forgotten: &AtomicBool) {
    let (sender, receiver) = channel();
    thread::scope(|scope| {
        scope.spawn(move || deliver(&receiver, to, forgotten));
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((shared.wait(is_request), buffer[..read].to_vec())).is_err() {
                break;
            }
        }
        // The end of a connection is not told across a black hole, nor for one that is forgotten.
        shared.wait(is_request);
        drop(sender);
    });
    if !forgotten.load(Relaxed) {
        let _ = to.shutdown(Shutdown::Both);
    }
    let _ = from.shutdown(Shutdown::Both);
}

/// Passes on what has come, each piece when it is to arrive, until one cannot be.
fn deliver(pieces: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream, forgotten: &AtomicBool) {
    for (at, piece) in pieces {
        thread::sleep(at.saturating_duration_since(Instant::now()));
        if !forgotten.load(Relaxed) && to.write_all(&piece).is_err() {
            // So that the other half ends, which has nobody to read for.
            let _ = to.shutdown(Shutdown::Both);
            break;
        }
    }
}
