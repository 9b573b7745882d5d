//! What steps moved, and between whom.

use super::Page;
use crate::{human, table};
use expertmesh_telemetry::{Communication, ExchangeKind, Run};

/// Endpoints of the largest matrix that is printed whole.
const MATRIX: usize = 10;
/// Endpoints of the largest matrix whose cells carry their unit.
const ROOMY: usize = 7;
/// Endpoints that are named when the matrix is not printed.
const NAMED: usize = 16;

pub(super) fn write(page: &mut Page, run: &Run) {
    let c = &run.communication;
    page.heading("Communication", "all recorded steps together");
    let steps = run.load.steps.max(1);
    let messages = human::count(c.messages);
    let step = human::bytes(c.payload_bytes / steps);
    page.figure(
        "payload",
        &human::bytes(c.payload_bytes),
        &format!("encoded rows between endpoints, in {messages} messages; {step} a step"),
    );
    match c.wire_bytes {
        Some(wire) => page.figure("on the wire", &human::bytes(wire), &overhead(c, wire)),
        None => page.figure("on the wire", human::NONE, "no socket was counted"),
    }
    page.figure(
        "stayed local",
        &human::bytes(c.local_bytes),
        "rows whose experts are at home",
    );
    page.figure(
        "saved by dedup",
        &human::bytes(c.saved_by_dedup_bytes),
        match run.identity.exchange {
            ExchangeKind::Hierarchical => "at homes, by sending a row once to each group",
            ExchangeKind::Star | ExchangeKind::AllToAll => "by sending a row once to each endpoint",
        },
    );
    if c.resent_bytes > 0 {
        page.figure(
            "resent",
            &human::bytes(c.resent_bytes),
            "by retries and hedges",
        );
    }
    if c.migrated_bytes > 0 {
        page.figure(
            "migrated",
            &human::bytes(c.migrated_bytes),
            "expert weights between workers",
        );
    }
    page.figure(
        "time share",
        &human::maybe_share(c.time_share),
        "of a step is exchange beyond the longest expert time",
    );
    page.figure(
        "algbw",
        &human::maybe_bandwidth(c.algbw_gbps),
        "most bytes of one endpoint / exchange time (as nccl-tests)",
    );
    let busbw = match run.identity.exchange {
        ExchangeKind::Star => "not defined for a star",
        ExchangeKind::AllToAll | ExchangeKind::Hierarchical => "algbw · (n − 1) / n",
    };
    page.figure("busbw", &human::maybe_bandwidth(c.busbw_gbps), busbw);
    traffic(page, &run.identity.endpoints, &c.matrix_bytes);
}

fn overhead(c: &Communication, wire: u64) -> String {
    if c.payload_bytes == 0 {
        return "framing and headers".to_owned();
    }
    let more = wire as f64 / c.payload_bytes as f64 - 1.0;
    let sign = if more > 0.0 { "+" } else { "" };
    format!(
        "{sign}{} over payload: framing and headers",
        human::share(more)
    )
}

fn traffic(page: &mut Page, names: &[String], matrix: &[Vec<u64>]) {
    let n = matrix.len();
    if n == 0 {
        return;
    }
    let name =
        |index: usize, columns| human::fit(names.get(index).map_or("?", String::as_str), columns);
    let sent: Vec<u64> = matrix.iter().map(|row| total(row.iter())).collect();
    let received: Vec<u64> = (0..n)
        .map(|to| total(matrix.iter().filter_map(|row| row.get(to))))
        .collect();
    if n > MATRIX {
        return sums(page, name, &sent, &received);
    }
    let roomy = n <= ROOMY;
    let note = if roomy {
        "from row to column"
    } else {
        "from row to column; K is KiB, M is MiB"
    };
    page.heading("Bytes sent", note);
    let size = |bytes: u64| match bytes {
        0 => "·".to_owned(),
        bytes if roomy => human::bytes(bytes),
        bytes => human::bytes_dense(bytes),
    };
    let columns: Vec<String> = (0..n).map(|to| format!("→{to}")).collect();
    let header: Vec<&str> = [""]
        .into_iter()
        .chain(columns.iter().map(String::as_str))
        .chain(["sent"])
        .collect();
    let mut rows: Vec<Vec<String>> = (0..n)
        .map(|from| {
            let cells = (0..n).map(|to| size(matrix[from].get(to).copied().unwrap_or(0)));
            let label = format!("{from} {}", name(from, 14));
            std::iter::once(label)
                .chain(cells)
                .chain([size(sent[from])])
                .collect()
        })
        .collect();
    let last = received
        .iter()
        .map(|bytes| size(*bytes))
        .chain([size(total(sent.iter()))]);
    rows.push(std::iter::once("received".to_owned()).chain(last).collect());
    page.table(table::lines(&header, table::numbers, rows));
}

/// Sums by endpoint, the busiest first, where a matrix would not fit.
fn sums(page: &mut Page, name: impl Fn(usize, usize) -> String, sent: &[u64], received: &[u64]) {
    let n = sent.len();
    page.heading(
        "Bytes by endpoint",
        &format!("{n} endpoints, the busiest first"),
    );
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|i| std::cmp::Reverse((sent[*i].saturating_add(received[*i]), n - i)));
    let (named, others) = order.split_at(NAMED.min(n));
    let all = total(sent.iter());
    let row = |label: String, sent: u64, received: u64| {
        let share = human::share_of(sent, all);
        vec![label, human::bytes(sent), share, human::bytes(received)]
    };
    let mut rows: Vec<Vec<String>> = named
        .iter()
        .map(|i| row(format!("{i} {}", name(*i, 40)), sent[*i], received[*i]))
        .collect();
    if !others.is_empty() {
        rows.push(row(
            format!("{} others", others.len()),
            total(others.iter().map(|i| &sent[*i])),
            total(others.iter().map(|i| &received[*i])),
        ));
    }
    rows.push(row("all".to_owned(), all, total(received.iter())));
    page.table(table::lines(
        &["", "sent", "of all", "received"],
        table::numbers,
        rows,
    ));
}

fn total<'a>(bytes: impl Iterator<Item = &'a u64>) -> u64 {
    bytes.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes))
}
