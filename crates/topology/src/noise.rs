//! What is random about a link: a function of a seed and the message, in any order of asking.

/// Payload of a TCP segment in an Ethernet frame of 1,500 bytes: 20 bytes of IPv4, 20 of TCP and 12
/// of timestamps off (RFC 791, RFC 9293, RFC 7323).
pub(crate) const SEGMENT: u64 = 1448;

/// Shortest retransmission timeout: Linux' `TCP_RTO_MIN`, 200 ms.
pub(crate) const RTO_MIN_NS: u64 = 200_000_000;

/// Segments from which on three duplicate acknowledgements can show that one is lost (RFC 5681 §3.2).
const FAST_FROM: u64 = 4;

/// Retransmissions of one segment after which a connection would be given up (Linux'
/// `tcp_retries2`).
const MOST_ROUNDS: u32 = 15;

/// Streams of numbers that must not repeat each other.
const JITTER: u64 = 0x6a69_7474_6572;
const LOSS: u64 = 0x6c6f_7373;
const PACKET: u64 = 0x7061_636b_6574;

/// Jitter of message `message_number` from `from` to `to`: uniform in `0..=jitter_ns`.
#[must_use]
pub fn jitter_ns(seed: u64, from: u32, to: u32, message_number: u64, jitter_ns: u64) -> u64 {
    if jitter_ns == 0 {
        return 0;
    }
    let drawn = u128::from(draw(seed, from, to, message_number, JITTER));
    let scaled = (drawn * (u128::from(jitter_ns) + 1)) >> 64;
    u64::try_from(scaled).unwrap_or(jitter_ns)
}

/// Delay of a message of `bytes` bytes whose lost packets are sent again.
///
/// The message is n = ⌈bytes / 1448⌉ segments, each lost with probability `loss`, each time anew. All
/// have arrived after r rounds with probability (1 − lossʳ)ⁿ; one uniform number of the message
/// inverts that. Of r rounds r − 1 are delays: the first costs a round trip where n ≥ 4 (fast
/// retransmit, RFC 5681 §3.2) and a timeout otherwise; each later one a timeout, doubled each time
/// (RFC 6298 §5.5). A timeout is max(200 ms, 3 round trips): smoothed time + 4 · its variance, which
/// begins as half of it (RFC 6298 §2.2), above Linux' floor. What a smaller congestion window does
/// to the rate is not counted.
#[must_use]
pub fn retransmission_ns(
    seed: u64,
    from: u32,
    to: u32,
    message_number: u64,
    bytes: u64,
    loss: f64,
    rtt_ns: u64,
) -> u64 {
    if loss <= 0.0 {
        return 0;
    }
    let segments = bytes.div_ceil(SEGMENT).max(1);
    let uniform = uniform(draw(seed, from, to, message_number, LOSS));
    let timeout = RTO_MIN_NS.max(rtt_ns.saturating_mul(3));
    let mut still_lost = loss;
    let mut delay = 0u64;
    let mut wait = timeout;
    for round in 1..MOST_ROUNDS {
        if uniform < power(1.0 - still_lost, segments) {
            break;
        }
        if round == 1 && segments >= FAST_FROM {
            delay = delay.saturating_add(rtt_ns);
        } else {
            delay = delay.saturating_add(wait);
            wait = wait.saturating_mul(2);
        }
        still_lost *= loss;
    }
    delay
}

/// Whether packet `packet_number` from `from` to `to` is lost, for links that lose packets instead of
/// delaying messages: with probability `loss`, each packet apart from all others.
#[must_use]
pub fn is_lost(seed: u64, from: u32, to: u32, packet_number: u64, loss: f64) -> bool {
    uniform(draw(seed, from, to, packet_number, PACKET)) < loss
}

/// A number in [0, 1): 53 bits, every value on a grid of doubles.
#[allow(clippy::cast_precision_loss)]
fn uniform(drawn: u64) -> f64 {
    (drawn >> 11) as f64 / (1u64 << 53) as f64
}

/// baseⁿ by squaring: multiplications only, so that every machine gets the same bits.
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut product = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    product
}

/// 64 random bits of a message: SplitMix64's finalizer (Steele, Lea, Flood 2014) over its names.
fn draw(seed: u64, from: u32, to: u32, message_number: u64, stream: u64) -> u64 {
    let pair = (u64::from(from) << 32) | u64::from(to);
    [pair, message_number, stream]
        .into_iter()
        .fold(mix(seed), |state, word| mix(state ^ mix(word)))
}

fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
