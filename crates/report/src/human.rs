//! Numbers with units as people read them: three significant digits, and a width that no input
//! can exceed, because tables are laid out around it.

#[cfg(test)]
mod tests;

/// What stands where a figure does not apply or could not be stated.
pub const NONE: &str = "–";

/// A duration given in microseconds, at most 7 columns: `123 ns`, `1.23 µs`, `12.3 ms`, `123 s`.
pub fn duration(us: f64) -> String {
    if !us.is_finite() || us < 0.0 {
        return NONE.to_owned();
    }
    if us == 0.0 {
        return "0 µs".to_owned();
    }
    match us {
        us if us < 0.9995 => format!("{:.0} ns", (us * 1e3).max(1.0)),
        us if us < 999.5 => format!("{} µs", three(us)),
        us if us < 999.5e3 => format!("{} ms", three(us / 1e3)),
        us if us < 9999.5e6 => format!("{} s", three(us / 1e6)),
        _ => ">9999 s".to_owned(),
    }
}

/// A duration that may be absent.
pub fn maybe_duration(us: Option<f64>) -> String {
    us.map_or_else(|| NONE.to_owned(), duration)
}

/// A size in binary units, at most 8 columns: `512 B`, `1.25 KiB`, `12.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.5 would print as 1024 of the smaller unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three(value), UNITS[unit])
}

/// The same at most 5 columns wide, for dense matrices: `512`, `1.25K`, `12.0M`.
pub fn bytes_dense(size: u64) -> String {
    bytes(size)
        .replace("iB", "")
        .replace(" B", "")
        .replace(' ', "")
}

/// An exact count with thousands separators, at most 17 columns; beyond 10¹³ in three digits.
pub fn count(count: u64) -> String {
    if count >= 10_000_000_000_000 {
        return scaled(count);
    }
    grouped(count)
}

/// A count at most 9 columns wide: exact up to ten million, then in three digits.
pub fn count_short(count: u64) -> String {
    if count >= 10_000_000 {
        scaled(count)
    } else {
        grouped(count)
    }
}

/// A share of one in percent, at most 8 columns: `34.5 %`, `<0.1 %`.
pub fn share(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if !p.is_finite() => NONE.to_owned(),
        0.0 => "0 %".to_owned(),
        // A whole is a whole: what misses a little of it must not look like it.
        100.0 => "100 %".to_owned(),
        p if (99.95..100.0).contains(&p) => ">99.9 %".to_owned(),
        p if p.abs() < 0.05 => (if p < 0.0 { ">-0.1 %" } else { "<0.1 %" }).to_owned(),
        p if p >= 9999.5 => ">9999 %".to_owned(),
        p if p <= -9999.5 => "<-9999 %".to_owned(),
        p if p.abs() >= 999.95 => format!("{p:.0} %"),
        p => format!("{p:.1} %"),
    }
}

/// A share that may be absent.
pub fn maybe_share(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), share)
}

/// `part` of `whole` as a share; absent when there is no whole.
pub fn share_of(part: u64, whole: u64) -> String {
    maybe_share((whole > 0).then(|| part as f64 / whole as f64))
}

/// A bandwidth given in GB/s (10⁹ bytes a second), at most 11 columns.
pub fn bandwidth(gbps: f64) -> String {
    match gbps {
        g if !g.is_finite() || g < 0.0 => NONE.to_owned(),
        0.0 => "0 GB/s".to_owned(),
        g if g < 0.9995e-6 => "<1 kB/s".to_owned(),
        g if g < 0.9995e-3 => format!("{} kB/s", three(g * 1e6)),
        g if g < 0.9995 => format!("{} MB/s", three(g * 1e3)),
        g if g < 99_999.5 => format!("{} GB/s", three(g)),
        _ => ">99999 GB/s".to_owned(),
    }
}

/// A bandwidth that may be absent.
pub fn maybe_bandwidth(gbps: Option<f64>) -> String {
    gbps.map_or_else(|| NONE.to_owned(), bandwidth)
}

/// A plain number of four significant digits or a whole one below ten million, at most 11 columns.
pub fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => NONE.to_owned(),
        0.0 => "0".to_owned(),
        a if !(1e-3..1e7).contains(&a) => format!("{value:.3e}"),
        a if a >= 999.95 => {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", separated(&format!("{a:.0}")))
        }
        a if a >= 99.995 => format!("{value:.1}"),
        a if a >= 9.9995 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A number that may be absent.
pub fn maybe_number(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), number)
}

/// How many times a figure is another one, at most 6 columns: `0.87×`.
pub fn ratio(ratio: f64) -> String {
    match ratio {
        r if !r.is_finite() || r < 0.0 => NONE.to_owned(),
        r if r >= 9999.5 => ">9999×".to_owned(),
        r => format!("{}×", three(r)),
    }
}

/// Text that is at most `columns` wide and holds no control character: what does not fit gives
/// way to an ellipsis in the middle, because names mostly differ at their ends.
pub fn fit(text: &str, columns: usize) -> String {
    let text: Vec<char> = text
        .chars()
        .map(|c| if harmless(c) { c } else { '\u{fffd}' })
        .collect();
    if text.iter().map(|c| char_columns(*c)).sum::<usize>() <= columns {
        return text.into_iter().collect();
    }
    let room = columns.saturating_sub(1);
    let head = taken(text.iter(), room.div_ceil(2));
    let tail = taken(text.iter().rev(), room / 2);
    let tail = text[text.len() - tail..].iter();
    text[..head].iter().chain(&['…']).chain(tail).collect()
}

/// How many characters from the front of `text` fit in `columns`.
fn taken<'a>(text: impl Iterator<Item = &'a char>, columns: usize) -> usize {
    text.scan(0, |used, c| {
        *used += char_columns(*c);
        Some(*used)
    })
    .take_while(|used| *used <= columns)
    .count()
}

/// Columns that a character takes at most: from Hangul on, scripts and symbols may be wide.
fn char_columns(c: char) -> usize {
    if c >= '\u{1100}' { 2 } else { 1 }
}

/// Neither a control character nor one that reorders the line around it.
fn harmless(c: char) -> bool {
    let reorders = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !c.is_control() && !reorders
}

/// Three significant digits for values from 1 to 999; more digits before the point are kept.
fn three(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

fn scaled(count: u64) -> String {
    let value = count as f64;
    match value {
        v if v < 999.5e6 => format!("{} M", three(v / 1e6)),
        v if v < 999.5e9 => format!("{} G", three(v / 1e9)),
        v if v < 999.5e12 => format!("{} T", three(v / 1e12)),
        v if v < 999.5e15 => format!("{} P", three(v / 1e15)),
        v => format!("{} E", three(v / 1e18)),
    }
}

fn grouped(count: u64) -> String {
    separated(&count.to_string())
}

/// Decimal digits with a comma before every third from the end.
fn separated(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
