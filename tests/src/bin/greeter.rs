//! What the harness's own tests run in pods: an HTTP server of two answers. `/` says which pod this is; `/fetch/HOST:PORT`
//! asks another server and passes its answer on, so that a test sees what a pod can reach.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, ToSocketAddrs},
    thread,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    loop {
        let (stream, _) = listener.accept()?;
        // One thread each, because a Service may send a pod that asks for another to itself.
        thread::spawn(move || {
            if let Err(error) = answer(&stream) {
                eprintln!("{error}");
            }
        });
    }
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = String::new();
    let mut reader = BufReader::new(stream);
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path.strip_prefix("/fetch/") {
        None => ("200 OK", format!("hello from {}", fs::read_to_string("/etc/hostname")?.trim())),
        Some(address) => match fetch(address) {
            Ok(body) => ("200 OK", body),
            Err(error) => ("502 Bad Gateway", error.to_string()),
        },
    };
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// The body of another server's answer.
fn fetch(address: &str) -> io::Result<String> {
    let resolved = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&resolved, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
