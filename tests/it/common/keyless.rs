//! Redis as some services offer it: it runs no script that declares no keys.

use super::{RawClient, Reply, encode};
use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// What it answers to such a script, in the words of one of them.
const REFUSAL: &[u8] = b"-ERR Lua scripts without any input keys are not supported\r\n";

/// Passes what is asked on to a Redis, but for scripts without keys. It ends with the test's process.
pub struct Keyless {
    addr: SocketAddr,
}

impl Keyless {
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Ends when either side does.
                thread::spawn(move || serve(client, target));
            }
        });
        Self { addr }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// One request after another: so answers keep their order.
fn serve(client: TcpStream, target: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut requests = BufReader::new(client.try_clone()?);
    let mut server = RawClient::try_connect(target)?;
    loop {
        let words: Vec<Vec<u8>> = Reply::read(&mut requests)?.items().iter().map(Reply::bytes).collect();
        let is_script = words[0].to_ascii_uppercase().starts_with(b"EVAL");
        if is_script && words[2] == b"0" {
            (&client).write_all(REFUSAL)?;
            continue;
        }
        server.try_send(&encode(&words))?;
        if words[0].eq_ignore_ascii_case(b"SUBSCRIBE") {
            // From here on it sends what nobody has asked for.
            let mut messages = server.into_stream();
            let mut more = messages.get_ref().try_clone()?;
            thread::spawn(move || io::copy(&mut requests, &mut more));
            return io::copy(&mut messages, &mut &client).map(drop);
        }
        (&client).write_all(&server.read_raw_reply()?)?;
    }
}
