//! A TCP connection that counts its bytes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::counters::WireCounters;
use crate::error::TransportError;

/// The socket of a link, on either side.
#[derive(Debug)]
pub(crate) struct CountingIo {
    stream: TcpStream,
    wire: Arc<WireCounters>,
}

/// Connects to `addr` within `limit`.
pub(crate) async fn dial(
    addr: &str,
    wire: Arc<WireCounters>,
    limit: Duration,
) -> Result<CountingIo, TransportError> {
    let connect = |source| TransportError::Connect {
        addr: addr.to_owned(),
        source,
    };
    let dialled = tokio::time::timeout(limit, async {
        let resolved =
            tokio::net::lookup_host(addr)
                .await
                .map_err(|error| TransportError::Address {
                    addr: addr.to_owned(),
                    reason: error.to_string(),
                })?;
        let resolved: Vec<SocketAddr> = resolved.collect();
        let stream = TcpStream::connect(resolved.as_slice())
            .await
            .map_err(connect)?;
        CountingIo::new(stream, wire).map_err(connect)
    });
    dialled.await.unwrap_or_else(|_| {
        let words = format!("no answer within {limit:?}");
        Err(connect(io::Error::new(io::ErrorKind::TimedOut, words)))
    })
}

// === impl CountingIo ===

impl CountingIo {
    pub(crate) fn new(stream: TcpStream, wire: Arc<WireCounters>) -> io::Result<Self> {
        // A small frame must not wait for the acknowledgement of the one before.
        stream.set_nodelay(true)?;
        Ok(Self { stream, wire })
    }
}

impl AsyncRead for CountingIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.wire.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountingIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wire.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.wire.wrote(written);
        Poll::Ready(Ok(written))
    }

    // Without this, HTTP/2 would copy every message behind its frame header to write both at once.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
