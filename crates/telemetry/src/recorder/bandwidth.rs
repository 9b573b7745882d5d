//! Bandwidths in the definitions of nccl-tests, so that the same matrix run there compares.
//!
//! nccl-tests see an exchange as one alltoallv whose ranks are our endpoints:
//! `algBw = max(max_send, max_recv) / 1e9 / sec` and `busBw = algBw · (n − 1) / n`
//! (`src/alltoallv.cu`, `AlltoAllvGetBw`).

/// Algorithm bandwidth in GB/s (10⁹ bytes a second): the most bytes that one endpoint sent or
/// received, over `ns` nanoseconds of exchange.
///
/// `matrix[source][destination]` in bytes; several steps may be summed when `ns` is their sum.
/// `None` when no time passed.
pub fn algbw_gbps(matrix: &[Vec<u64>], ns: u64) -> Option<f64> {
    if ns == 0 {
        return None;
    }
    let sum = |bytes: u64, more: &u64| bytes.saturating_add(*more);
    let sent = matrix
        .iter()
        .map(|row| row.iter().fold(0, sum))
        .max()
        .unwrap_or(0);
    let columns = matrix.iter().map(Vec::len).max().unwrap_or(0);
    let received = (0..columns)
        .map(|to| matrix.iter().filter_map(|row| row.get(to)).fold(0, sum))
        .max()
        .unwrap_or(0);
    // Bytes a nanosecond are GB a second.
    Some(sent.max(received) as f64 / ns as f64)
}

/// Bus bandwidth in GB/s: what the links carried, `algbw · (n − 1) / n` over `n` endpoints.
pub fn busbw_gbps(algbw_gbps: f64, endpoints: usize) -> f64 {
    match endpoints {
        0 => 0.0,
        n => algbw_gbps * (n - 1) as f64 / n as f64,
    }
}
