//! A GET of a broker's HTTP port, small enough to need no client library.

use anyhow::{Context as _, bail};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The body of `GET path`; an error for any status but 200, with the body in it.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("no end of the HTTP headers")?;
    if head.split_whitespace().nth(1) != Some("200") {
        bail!(
            "{} for {path}: {body}",
            head.lines().next().unwrap_or_default()
        );
    }
    Ok(body.to_owned())
}

/// `GET path`, parsed as JSON.
pub fn get_json(address: SocketAddr, path: &str) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::from_str(&get(address, path)?)?)
}
