//! Quantities with their units, read and written.

/// A factor by its name.
type Unit = (&'static str, f64);

/// Nanoseconds.
const TIMES: &[Unit] = &[
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
];

/// Bytes per nanosecond, which is 10⁹ bytes a second. SI prefixes, as networks have them.
const RATES: &[Unit] = &[
    ("bit/s", 1.25e-10),
    ("kbit/s", 1.25e-7),
    ("Mbit/s", 1.25e-4),
    ("Gbit/s", 0.125),
    ("Tbit/s", 125.0),
    ("B/s", 1e-9),
    ("kB/s", 1e-6),
    ("MB/s", 1e-3),
    ("GB/s", 1.0),
    ("TB/s", 1e3),
    ("KiB/s", 1.024e-6),
    ("MiB/s", 1.048_576e-3),
    ("GiB/s", 1.073_741_824),
];

/// Floating-point operations a second.
const FLOPS: &[Unit] = &[
    ("MFLOP/s", 1e6),
    ("GFLOP/s", 1e9),
    ("TFLOP/s", 1e12),
    ("PFLOP/s", 1e15),
];

pub(crate) const TIME: &str = "a time with its unit, such as \"25 us\" (ns, us, ms, s)";
pub(crate) const RATE: &str = "a rate of at least 1 kbit/s with its unit, such as \"10 Gbit/s\" or \"3.35 TB/s\" (bit/s or B/s with k, M, G, T)";
pub(crate) const FLOP_RATE: &str =
    "a rate above 0 with its unit, such as \"989 TFLOP/s\" (MFLOP/s, GFLOP/s, TFLOP/s, PFLOP/s)";
pub(crate) const SHARE: &str =
    "a share of packets below a half, such as \"0.01 %\" or a number such as 1e-4";

/// Longest time that a file may hold: an hour.
const LONGEST_NS: f64 = 3.6e12;

/// Lowest rate, 1 kbit/s: slower links carry no message within an hour.
const LEAST_RATE: f64 = 1.25e-7;

/// Nanoseconds of a text such as `25 us`.
pub(crate) fn time(text: &str) -> Option<u64> {
    let nanos = quantity(text, TIMES)?.round();
    // In range, so that the cast keeps the value.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    (0.0..=LONGEST_NS).contains(&nanos).then_some(nanos as u64)
}

/// Bytes per nanosecond of a text such as `10 Gbit/s`.
pub(crate) fn rate(text: &str) -> Option<f64> {
    positive(quantity(text, RATES)?).filter(|rate| *rate >= LEAST_RATE)
}

/// Operations a second of a text such as `989 TFLOP/s`.
pub(crate) fn flops(text: &str) -> Option<f64> {
    positive(quantity(text, FLOPS)?)
}

/// A share of a text such as `0.01 %`.
pub(crate) fn share(text: &str) -> Option<f64> {
    let value = match text.trim().strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.trim().parse().ok()?,
    };
    is_share(value).then_some(value)
}

/// Whether packets may be lost with this probability.
pub(crate) fn is_share(value: f64) -> bool {
    (0.0..0.5).contains(&value)
}

fn positive(value: f64) -> Option<f64> {
    (value > 0.0 && value.is_finite()).then_some(value)
}

fn quantity(text: &str, units: &[Unit]) -> Option<f64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.replace('_', "").parse().ok()?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    Some(number * factor)
}

/// A time for people: `25 µs`, `2.5 ms`.
#[must_use]
pub fn show_time(ns: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let nanos = ns as f64;
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{} µs", short(nanos / 1e3)),
        1_000_000..1_000_000_000 => format!("{} ms", short(nanos / 1e6)),
        _ => format!("{} s", short(nanos / 1e9)),
    }
}

/// A rate for people, in bits up to 200 Gbit/s and in bytes above: `10 Gbit/s`, `450 GB/s`.
#[must_use]
pub fn show_rate(bytes_per_ns: f64) -> String {
    let bits = bytes_per_ns * 8e9;
    match bytes_per_ns {
        rate if rate >= 1e3 => format!("{} TB/s", short(rate / 1e3)),
        rate if rate > 25.0 => format!("{} GB/s", short(rate)),
        _ if bits >= 1e9 => format!("{} Gbit/s", short(bits / 1e9)),
        _ if bits >= 1e6 => format!("{} Mbit/s", short(bits / 1e6)),
        _ => format!("{} kbit/s", short(bits / 1e3)),
    }
}

/// At most three decimals, none that say nothing.
fn short(value: f64) -> String {
    let text = match value {
        value if value >= 100.0 => format!("{value:.1}"),
        value if value >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
