//! Settings of a link, each with its reason.

use std::time::Duration;

use crate::emulation::Emulation;
use crate::error::TransportError;

/// Frames and windows of HTTP/2, advertised by the receiver and obeyed by the sender: both ends
/// of a link want the same ones.
///
/// Measured on loopback between two processes (2 cores, Zen 4, November 2026): frames of 1 MiB
/// instead of the default 16 KiB bring a 16 MiB message from 1033 to 18 writes of the sender and
/// from 2049 to 109 reads of the receiver, and a 1 MiB round trip from 2.2 to 0.7–0.9 ms. Larger
/// windows alone, adaptive windows and frames of 16 MiB change nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    /// Longest DATA frame in bytes, 16 384..=16 777 215. Default 1 MiB.
    ///
    /// A message that fits one frame, its 5-byte prefix included, is delivered without a copy; a
    /// longer one is gathered. A round trip of 1 MiB takes 750 µs with two frames and 550 µs just
    /// within one (`benches/echo.rs`): senders that cut their messages count the prefix.
    pub max_frame_size: u32,
    /// Bytes that one stream may have unread, 65 535..=2 147 483 647. Default 64 MiB.
    ///
    /// Wide enough that credits above, not flow control below, bound what is under way: a full
    /// window holds back every later message of the stream.
    pub stream_window: u32,
    /// Bytes that all streams of a connection together may have unread, 65 535..=2 147 483 647.
    /// Default 128 MiB: one full stream does not silence the others.
    pub connection_window: u32,
}

/// How endpoints connect, how long they wait and how much they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkOptions {
    /// Frames and windows.
    pub http2: Http2,
    /// Longest wait for a connection, and for the peer to accept a stream. Default 5 s: a host
    /// that drops packets would otherwise hold the caller for two minutes.
    pub connect_timeout: Duration,
    /// Longest wait for the reply of a unary call. Default 5 min, because `Configure` reads a
    /// layer's experts from disk.
    pub call_timeout: Duration,
    /// Longest message, without its 5-byte prefix, that is taken from a stream or a call; checked
    /// before a byte of it is stored. Default 64 MiB, eight times the longest chunk in use.
    pub max_message_bytes: usize,
    /// The same for `Forward`, whose request and reply hold a whole batch. Default 1 GiB.
    pub max_forward_bytes: usize,
    /// Pause between HTTP/2 pings while streams are open; `None` sends none. Default 10 s.
    ///
    /// A peer that dies takes its sockets along and is noticed at once. Pings are for the host
    /// that vanishes without a word.
    pub keepalive_interval: Option<Duration>,
    /// How long a ping may stay unanswered before the connection counts as lost. Default 20 s.
    pub keepalive_timeout: Duration,
    /// How long a server waits for calls in flight when it stops, and a closed stream for its
    /// peer's last words. Default 2 s.
    pub close_grace: Duration,
    /// Links of a topology in place of this machine's own. Default `None`.
    pub emulation: Option<Emulation>,
}

// === impl Http2 ===

impl Default for Http2 {
    fn default() -> Self {
        Self {
            max_frame_size: 1 << 20,
            stream_window: 64 << 20,
            connection_window: 128 << 20,
        }
    }
}

// === impl LinkOptions ===

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            http2: Http2::default(),
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(300),
            max_message_bytes: 64 << 20,
            max_forward_bytes: 1 << 30,
            keepalive_interval: Some(Duration::from_secs(10)),
            keepalive_timeout: Duration::from_secs(20),
            close_grace: Duration::from_secs(2),
            emulation: None,
        }
    }
}

impl LinkOptions {
    /// Checks what HTTP/2 limits; the library below would panic on these.
    ///
    /// # Errors
    /// [`TransportError::Option`] naming the first field that is out of range.
    pub fn validate(&self) -> Result<(), TransportError> {
        let Http2 {
            max_frame_size,
            stream_window,
            connection_window,
        } = self.http2;
        let checks = [
            (
                "http2.max_frame_size",
                max_frame_size,
                16_384..=16_777_215,
                "16384..=16777215",
            ),
            ("http2.stream_window", stream_window, WINDOW, WINDOW_TEXT),
            (
                "http2.connection_window",
                connection_window,
                WINDOW,
                WINDOW_TEXT,
            ),
        ];
        for (field, held, range, expected) in checks {
            if !range.contains(&held) {
                return Err(TransportError::Option {
                    field,
                    held: held.to_string(),
                    expected,
                });
            }
        }
        for (field, held) in [
            ("max_message_bytes", self.max_message_bytes),
            ("max_forward_bytes", self.max_forward_bytes),
        ] {
            // The prefix of a gRPC message has 32 bits for its length.
            if u32::try_from(held).is_err() {
                let held = held.to_string();
                return Err(TransportError::Option {
                    field,
                    held,
                    expected: "at most 4294967295",
                });
            }
        }
        Ok(())
    }
}

const WINDOW: std::ops::RangeInclusive<u32> = 65_535..=2_147_483_647;
const WINDOW_TEXT: &str = "65535..=2147483647";
