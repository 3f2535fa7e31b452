//! A TCP proxy between Tollgate and Redis that does what bad networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What happens to bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// They pass.
    Fair,
    /// None passes, in either direction, and nobody is told: a black hole. What was sent arrives when it ends.
    BlackHole,
    /// Each piece takes so long, and holds up those behind it.
    Slow(Duration),
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
    /// Connections made before the generation are forgotten: see [`Proxy::forget`].
    generation: u64,
    /// Each connection's two ends, for as long as either direction is open.
    streams: Vec<TcpStream>,
    ended: bool,
}

impl Proxy {
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = State { target, weather: Weather::Fair, generation: 0, streams: Vec::new(), ended: false };
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
        self.shared.lock().generation += 1;
    }

    /// Closes all connections.
    pub fn cut(&self) {
        for stream in self.shared.lock().streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
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

    /// Waits for as long as the weather says. Whether the connection leads anywhere still.
    fn wait(&self, generation: u64) -> bool {
        let state = self.changed.wait_while(self.lock(), |state| state.weather == Weather::BlackHole && !state.ended);
        let (weather, leads_on) = state.map(|state| (state.weather, state.generation == generation)).unwrap();
        if let Weather::Slow(delay) = weather {
            thread::sleep(delay);
        }
        leads_on
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let (target, generation) = {
            let state = shared.lock();
            if state.ended {
                return;
            }
            (state.target, state.generation)
        };
        let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else { continue };
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            shared.lock().streams.push(stream.try_clone().unwrap());
        }
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (shared, from, to) = (shared.clone(), from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || pump(&shared, from, to, generation));
        }
    }
}

fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, generation: u64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if shared.wait(generation) && to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The end of a connection is not told across a black hole, nor for one that is forgotten.
    if shared.wait(generation) {
        let _ = to.shutdown(Shutdown::Both);
    }
    let _ = from.shutdown(Shutdown::Both);
}
