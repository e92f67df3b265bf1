//! A small HTTP client that takes little processor time from the measured server: one persistent connection, one request
//! at a time, reused buffers. It reads only the HTTP that the servers of the bench write.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Initial size of the buffer in bytes. Most answers fit.
const ANSWER: usize = 2048;

pub(crate) struct Client {
    stream: TcpStream,
    /// The part of the answer that was read.
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(ANSWER) })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> io::Result<Head<'_>> {
        let end = self.open(request).await?;
        self.read_body(end).await?;
        Ok(Head(&self.buffer[..end]))
    }

    /// Sends a request and reads the whole answer. Returns the time until its head, and its body.
    pub(crate) async fn fetch(&mut self, request: &[u8], status: &str) -> io::Result<(Duration, &[u8])> {
        let sent = Instant::now();
        let end = self.open(request).await?;
        let took = sent.elapsed();
        self.read_body(end).await?;
        Head(&self.buffer[..end]).expect(status)?;
        Ok((took, &self.buffer[end..]))
    }

    /// Sends a request and reads the JSON of the answer.
    pub(crate) async fn json(&mut self, request: &[u8], status: &str) -> io::Result<Value> {
        Ok(serde_json::from_slice(self.fetch(request, status).await?.1)?)
    }

    async fn read_body(&mut self, end: usize) -> io::Result<()> {
        let length = Head(&self.buffer[..end]).header("content-length").and_then(|text| text.parse::<usize>().ok());
        let length = length.ok_or_else(|| io::Error::other("an answer without content-length"))?;
        while self.buffer.len() < end + length {
            self.read_more().await?;
        }
        Ok(())
    }

    /// Sends a request and reads the head of the answer, whose body may be endless.
    pub(crate) async fn stream(&mut self, request: &[u8]) -> io::Result<Head<'_>> {
        let end = self.open(request).await?;
        Ok(Head(&self.buffer[..end]))
    }

    /// Reads a stream until an event is `wanted`.
    pub(crate) async fn until_event(&mut self, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|bytes| bytes == b"\n\n") {
                let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if wanted(&String::from_utf8_lossy(&event)) {
                    return Ok(());
                }
            }
            self.read_more().await?;
        }
    }

    /// Reads and discards bytes until the server closes the connection.
    pub(crate) async fn drain(&mut self) -> io::Result<()> {
        loop {
            self.buffer.clear();
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Sends a request and reads the head of the answer. Returns the length of the head.
    async fn open(&mut self, request: &[u8]) -> io::Result<usize> {
        self.stream.write_all(request).await?;
        // The buffer holds nothing but the previous answer: there is one request at a time.
        self.buffer.clear();
        loop {
            self.read_more().await?;
            if let Some(end) = self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                return Ok(end + 4);
            }
        }
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection within an answer")),
            _ => Ok(()),
        }
    }
}

/// Status line and headers of an answer.
pub(crate) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    /// # Errors
    /// If the answer has another status.
    pub(crate) fn expect(self, status: &str) -> io::Result<Self> {
        match self.0.strip_prefix(b"HTTP/1.1 ").is_some_and(|rest| rest.starts_with(status.as_bytes())) {
            true => Ok(self),
            false => {
                let line = self.0.split(|byte| *byte == b'\r').next().unwrap_or_default();
                Err(io::Error::other(format!("invalid status {:?}: expected {status}", String::from_utf8_lossy(line))))
            }
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        let lines = self.0.split(|byte| *byte == b'\n');
        let mut values = lines.filter_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.strip_prefix(b":"))?
        });
        std::str::from_utf8(values.next()?).ok().map(str::trim)
    }
}

/// A request with the headers that most clients send.
pub(crate) fn post(path: &str, json: &str) -> Vec<u8> {
    let length = json.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    )
    .into_bytes()
}

pub(crate) fn get(path: &str, accept: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: {accept}\r\n\r\n").into_bytes()
}

pub(crate) fn delete(path: &str) -> Vec<u8> {
    format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\r\n").into_bytes()
}
