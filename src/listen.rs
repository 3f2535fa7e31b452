//! The sockets that clients come to: bound here, or inherited from whoever started this process and goes on listening
//! while one process makes way for the next.
//!
//! The second is systemd's socket activation (sd_listen_fds(3)). Its sockets are numbered from 3 on; LISTEN_FDS says how
//! many there are, LISTEN_PID whom they are for and LISTEN_FDNAMES what each is called.

use crate::config::HostPort;
use socket2::{Domain, Protocol, Socket, Type};
use std::env;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// Most sockets that are inherited: three keys of the configuration name up to 16 addresses each.
const MAX_INHERITED: usize = 48;

/// A socket that clients come to.
#[derive(Debug)]
pub struct Listener {
    /// It listens, and does not block.
    pub socket: TcpListener,
    /// Whoever started this process holds it too: clients that are not accepted here wait for the next process.
    pub is_inherited: bool,
}

/// Where sockets come from.
#[derive(Debug)]
pub struct Listeners {
    inherited: Vec<Inherited>,
    backlog: i32,
    reuse_port: bool,
}

#[derive(Debug)]
struct Inherited {
    name: String,
    addr: SocketAddr,
    /// It takes clients that come by IPv4 too.
    is_dual: bool,
    socket: TcpListener,
}

impl Listeners {
    /// Those that this process was started with, and those that it binds: each holds `backlog` connections until they
    /// are accepted, and lets others bind its address if they all `reuse_port`.
    ///
    /// # Errors
    /// A socket that was inherited and that no client can come to.
    pub fn new(inherited: Vec<(String, Socket)>, backlog: u32, reuse_port: bool) -> Result<Self, String> {
        let inherited = inherited.into_iter().map(|(name, socket)| Inherited::new(name, socket));
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        Ok(Self { inherited: inherited.collect::<Result<_, _>>()?, backlog, reuse_port })
    }

    /// The sockets of a key of the configuration: those that were inherited by the name of the key, and then no others;
    /// else one for each of its `addresses`, bound unless it was inherited.
    ///
    /// # Errors
    /// An address that cannot be had. The text names it.
    pub fn listen(&mut self, key: &str, addresses: &[HostPort]) -> Result<Vec<Listener>, String> {
        let named: Vec<_> = self.inherited.extract_if(.., |inherited| inherited.name == key).collect();
        if !named.is_empty() {
            return Ok(named.into_iter().map(Inherited::into_listener).collect());
        }
        let mut taken: Vec<Inherited> = Vec::new();
        let mut listeners = Vec::new();
        for address in addresses {
            let cannot = |error: io::Error| format!("cannot listen on {address}: {error}");
            for addr in resolve(address).map_err(cannot)? {
                taken.extend(self.inherited.extract_if(.., |inherited| inherited.serves(addr)));
                if !taken.iter().any(|inherited| inherited.serves(addr)) {
                    let bound = bind(addr, self.backlog, self.reuse_port);
                    let socket = bound.map_err(|error| self.in_the_way(addr).unwrap_or_else(|| cannot(error)))?;
                    listeners.push(Listener { socket, is_inherited: false });
                }
            }
        }
        listeners.extend(taken.into_iter().map(Inherited::into_listener));
        Ok(listeners)
    }

    /// All keys have been asked for.
    ///
    /// # Errors
    /// A socket that was inherited and that none of them names: its clients would wait for ever.
    pub fn finish(self) -> Result<(), String> {
        self.inherited.first().map_or(Ok(()), |inherited| Err(inherited.unknown()))
    }

    /// What keeps an address from being bound, if it is a socket that was inherited and serves another.
    fn in_the_way(&self, addr: SocketAddr) -> Option<String> {
        self.inherited.iter().find(|inherited| inherited.addr.port() == addr.port()).map(Inherited::unknown)
    }
}

impl Inherited {
    fn new(name: String, socket: Socket) -> Result<Self, String> {
        let cannot = |error: &dyn std::fmt::Display| format!("cannot take the inherited socket '{name}': {error}");
        let is_listening = socket.is_listener().map_err(|error| cannot(&error))?;
        let addr = socket.local_addr().map_err(|error| cannot(&error))?;
        let Some(addr) = addr.as_socket().filter(|_| is_listening) else {
            return Err(cannot(&"it does not listen for TCP (ListenStream=port, with Accept=no)"));
        };
        socket.set_nonblocking(true).map_err(|error| cannot(&error))?;
        let is_dual = addr.ip() == Ipv6Addr::UNSPECIFIED && socket.only_v6().is_ok_and(|only_v6| !only_v6);
        Ok(Self { name, addr, is_dual, socket: socket.into() })
    }

    /// Whether who connects to this address comes to this socket.
    fn serves(&self, addr: SocketAddr) -> bool {
        self.addr == addr || self.is_dual && addr == SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.addr.port()))
    }

    fn unknown(&self) -> String {
        let Self { name, addr, .. } = self;
        format!(
            "the inherited socket '{name}' listens on {addr}, which none of server.listen, tls.listen and http.listen \
             names: write it there, or name the socket after one of these (FileDescriptorName=server.listen)"
        )
    }

    fn into_listener(self) -> Listener {
        Listener { socket: self.socket, is_inherited: true }
    }
}

/// Where to listen for `address`. All interfaces are those of IPv4, and of IPv6 where the system has it.
fn resolve(address: &HostPort) -> io::Result<Vec<SocketAddr>> {
    let HostPort { host, port } = address;
    if !host.is_empty() {
        return Ok((host.as_str(), *port).to_socket_addrs()?.collect());
    }
    let has_ipv6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok();
    let ipv6 = has_ipv6.then(|| SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)));
    Ok([SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port))].into_iter().chain(ipv6).collect())
}

fn bind(addr: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if addr.is_ipv6() {
        // `[::]` and `0.0.0.0` can then both be listened on.
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// The sockets that this process was started with, each with its name. To be called once, at the start: it takes them for
/// its own.
///
/// # Errors
/// A variable that makes no sense.
pub fn inherited() -> Result<Vec<(String, Socket)>, String> {
    let is_for_this_process = env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let Some(count) = env::var("LISTEN_FDS").ok().filter(|_| is_for_this_process) else { return Ok(vec![]) };
    let count = count.parse().ok().filter(|count| *count <= MAX_INHERITED);
    let count = count.ok_or_else(|| format!("LISTEN_FDS must be a number from 0 to {MAX_INHERITED}"))?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    descriptors::FIRST.zip(names).take(count).map(|(number, name)| Ok((name, descriptors::take(number)?))).collect()
}

#[expect(
    unsafe_code,
    reason = "a descriptor that is known by its number alone is owned by nobody, for all that Rust knows"
)]
mod descriptors {
    use socket2::Socket;
    use std::ops::RangeFrom;
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};

    /// The numbers of descriptors that a process is started with, behind those of input, output and errors.
    pub const FIRST: RangeFrom<RawFd> = 3..;

    /// The descriptor of this number, closed when another program is started.
    pub fn take(number: RawFd) -> Result<Socket, String> {
        // SAFETY: no pointers. It fails if there is no such descriptor.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == -1 {
            let error = std::io::Error::last_os_error();
            return Err(format!("LISTEN_FDS tells of a socket {number}, which is not there: {error}"));
        }
        // SAFETY: it is open, and this process was started with it to own it. The caller takes each once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
    }
}
