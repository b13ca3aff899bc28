//! The bench's contender on socketioxide: lines on TCP in, Socket.IO rooms out. Tuned as ../README.md says.

use clap::Parser;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use mimalloc::MiMalloc;
use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide::extract::{Data, SocketRef};
use socketioxide::{SocketIo, TransportType};
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// A room server on socketioxide.
#[derive(Parser)]
struct Options {
    /// Clients' port.
    #[arg(long)]
    listen: SocketAddr,
    /// Publishers' port.
    #[arg(long)]
    ingest: SocketAddr,
    /// Threads that work; one is tokio's current-thread runtime, without the cost of moving tasks between threads.
    #[arg(long, default_value_t = 1)]
    cores: usize,
}

/// A publisher's line. Its data goes on as it came, unparsed.
#[derive(Deserialize)]
struct Line<'a> {
    room: &'a str,
    event: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Subscribe {
    room: String,
}

/// The storm has 500 connections on their way at a time.
const BACKLOG: u32 = 4096;
/// Packets that may wait for a client: beyond this an event would be lost, which must not happen here.
const PACKETS_MAX: usize = 1 << 16;
/// What one read of a publisher takes at most.
const READ: usize = 64 << 10;
/// Nobody is pinged, and nobody is given up, while something is measured.
const LONG: Duration = Duration::from_secs(600);

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut builder = match options.cores {
        0 | 1 => runtime::Builder::new_current_thread(),
        _ => runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(options.cores.max(1)).enable_all().build()?.block_on(serve(&options))
}

async fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let (service, io) = SocketIo::builder()
        .transports([TransportType::Websocket])
        .max_buffer_size(PACKETS_MAX)
        .ping_interval(LONG)
        .ping_timeout(LONG)
        .connect_timeout(LONG)
        .build_svc();
    io.ns("/", async |socket: SocketRef| {
        socket.on("subscribe", async |socket: SocketRef, Data(Subscribe { room }): Data<Subscribe>| {
            let answer = serde_json::json!({ "room": room });
            socket.join(room);
            // It has left if there is an error.
            let _ = socket.emit("subscribed", &answer);
        });
    });
    let (clients, publishers) = (listener(options.listen)?, listener(options.ingest)?);
    println!("ready");
    tokio::spawn(async move {
        loop {
            if let Some(stream) = accept(&publishers).await {
                tokio::spawn(publisher(stream, io.clone()));
            }
        }
    });
    loop {
        if let Some(stream) = accept(&clients).await {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone());
            // A client that fails is none of the others' business.
            tokio::spawn(async move { drop(connection.with_upgrades().await) });
        }
    }
}

fn listener(address: SocketAddr) -> Result<TcpListener, String> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|error: io::Error| format!("cannot listen on {address}: {error}"))
}

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true);
            Some(stream)
        }
        Err(error) => {
            eprintln!("cannot accept: {error}");
            // Descriptors come back when connections end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            None
        }
    }
}

async fn publisher(stream: TcpStream, io: SocketIo) {
    let mut stream = BufReader::with_capacity(READ, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        match stream.read_until(b'\n', &mut line).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => return eprintln!("a publisher: {error}"),
        }
        match serde_json::from_slice(&line) {
            Ok(Line { room, event, data }) => {
                if let Err(error) = io.to(room.to_owned()).emit(event, data).await {
                    eprintln!("an event was lost: {error}");
                }
            }
            Err(error) => eprintln!("ignored a line: {error}"),
        }
    }
}
