//! The page: what it looks like, and that no report can make it wider than it may be.

mod common;

use common::{edge, report, run};
use expertmesh_report::{WIDTH, terminal};
use expertmesh_telemetry::{ExchangeKind, LatencyUs, Run, Source};

/// Columns, with scripts and symbols from Hangul on taken as wide unless the page draws them.
fn columns(line: &str) -> usize {
    let drawn = "█▒░▏─═→…−–";
    line.chars()
        .map(|c| {
            if c >= '\u{1100}' && !drawn.contains(c) {
                2
            } else {
                1
            }
        })
        .sum()
}

fn check(runs: Vec<Run>) -> String {
    let text = terminal(&report(runs));
    for line in text.lines() {
        assert!(columns(line) <= WIDTH, "{} columns: {line}", columns(line));
        assert_eq!(line.trim_end(), line, "trailing space");
    }
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    text
}

#[test]
fn one_run() {
    let text = check(vec![run(ExchangeKind::AllToAll, 4, 1_000, 100)]);
    insta::assert_snapshot!(text, @r"
    expertmesh 0.1.0 · loopback network · 8 cores · avx512f kernels · Linux 6.8.0

    Run: all-to-all exchange, 4 workers, exact combine
    ════════════════════════════════════════════════════════════════════════════════════════════════════
      model             mixtral (layer 3)
      layer             8 swiglu experts, top-2, hidden 1,024, ffn 3,584, bf16, bf16 on the wire
      batch             256 tokens a step
      workload          zipf 1.1, seed 42
      placement         9b74c9897bac770ffc029102a200c5de0f3c1d6b1a5d6f0c4e8d7a6b5c4d3e2f
      numerics          fma-chain/2
      load              closed loop: 1,000 steps after 20 of warm-up, 322.6/s
      figures           all measured

    Latency (exchange is plan to outputs; dispatch rows out; combine results back)
                count      min     mean      p50      p90      p95      p99  p99.9      max
      ─────────────────────────────────────────────────────────────────────────────────────
      step      1,000  3.03 ms  3.06 ms  3.03 ms  3.03 ms  3.03 ms  4.54 ms      –  4.54 ms
      exchange  1,000  2.57 ms  2.60 ms  2.57 ms  2.57 ms  2.57 ms  3.86 ms      –  3.86 ms
      dispatch  1,000   506 µs   511 µs   506 µs   506 µs   506 µs   759 µs      –   759 µs
      combine   1,000   510 µs   515 µs   510 µs   510 µs   510 µs   765 µs      –   765 µs
      – fewer than 10 samples lie beyond this percentile

    Where a step goes (bars and shares by mean, on the critical path)
      phase                                                       p50     mean  of step
      ─────────────────────────────────────────────────────────────────────────────────
      gate      █████·······································   310 µs   313 µs   10.2 %
      plan      ·····▏······································  42.0 µs  42.5 µs    1.4 %
      pack      ·····██·····································  96.1 µs  97.0 µs    3.2 %
      send      ·······█████································   410 µs   414 µs   13.5 %
      queue     ············█·······························  35.0 µs  35.4 µs    1.2 %
      experts   ·············█████████████████████··········  1.48 ms  1.49 ms   48.9 %
      shared    ·······▒▒▒▒▒▒▒▒▒····························   621 µs   626 µs   20.5 %
      return    ··································██████····   380 µs   384 µs   12.6 %
      combine   ········································██··   130 µs   131 µs    4.3 %
      residual  ··········································░░        –   146 µs    4.8 %
      ░ residual: what no phase explains   ▒ shared experts run beside the exchange

    Communication (all recorded steps together)
      payload           879 MiB      encoded rows between endpoints, in 20,000 messages; 900 KiB a step
      on the wire       901 MiB      +2.5 % over payload: framing and headers
      stayed local      93.8 MiB     rows whose experts are at home
      saved by dedup    39.1 MiB     by sending a row once to each endpoint
      time share        36.1 %       of a step is exchange beyond the longest expert time
      algbw             103 MB/s     most bytes of one endpoint / exchange time (as nccl-tests)
      busbw             82.3 MB/s    algbw · (n − 1) / n

    Bytes sent (from row to column)
                           →0        →1        →2        →3        →4     sent
      ────────────────────────────────────────────────────────────────────────
      0 coordinator         ·  63.0 MiB  63.5 MiB  64.0 MiB  64.5 MiB  255 MiB
      1 worker-0     63.0 MiB         ·  27.3 MiB  28.3 MiB  29.3 MiB  148 MiB
      2 worker-1     63.5 MiB  28.3 MiB         ·  30.3 MiB  31.2 MiB  153 MiB
      3 worker-2     64.0 MiB  30.3 MiB  31.2 MiB         ·  33.2 MiB  159 MiB
      4 worker-3     64.5 MiB  32.2 MiB  33.2 MiB  34.2 MiB         ·  164 MiB
      received        255 MiB   154 MiB   155 MiB   157 MiB   158 MiB  879 MiB

    Overflow (choices of the gate by fate)
                   assigned  computed  rerouted  dropped  skipped  lost
      ─────────────────────────────────────────────────────────────────
      choices       512,000   495,000         0   17,000        0     0
      of assigned     100 %    96.7 %       0 %    3.3 %      0 %   0 %
      weight lost       6,375        gate weight of dropped and lost choices, 2.5 % of 256,000
      capacity factor   1.250        smallest factor under which nothing would drop: 1.516

    Experts (all 8, the busiest first)
      expert                        of load  assigned  computed  rerouted  dropped  lost
      ──────────────────────────────────────────────────────────────────────────────────
           0  ████████████████████   18.9 %    97,000    80,000         0   17,000     0
           4  ███████████████·····   13.9 %    71,000    71,000         0        0     0
           2  ██████████████······   12.9 %    66,000    66,000         0        0     0
           5  ██████████████······   12.5 %    64,000    64,000         0        0     0
           6  ██████████████······   12.5 %    64,000    64,000         0        0     0
           3  ████████████········   11.3 %    58,000    58,000         0        0     0
           7  ███████████·········   10.2 %    52,000    52,000         0        0     0
           1  █████████···········    7.8 %    40,000    40,000         0        0     0

    Balance (of choices over experts)
      gini              0.126        0 is even
      max / mean        1.516        1 is even
      entropy           2.051        nats; 2.079 is even
      idle              0 of 8 experts, 0 of 4 workers

    Losses (mean over steps)
      load_balancing    1.023

      output digest     5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
    ");
}

#[test]
fn a_sweep_ends_with_a_comparison() {
    let mut quick = run(ExchangeKind::AllToAll, 4, 1_000, 80);
    quick.digest = Some(common::DIGEST.to_owned());
    let runs = vec![
        run(ExchangeKind::Star, 4, 1_000, 100),
        quick,
        run(ExchangeKind::AllToAll, 2, 15, 140),
    ];
    let text = check(runs);
    assert_eq!(text.matches("\nRun ").count(), 3);
    let comparison = text.split_once("\nComparison").unwrap().1;
    insta::assert_snapshot!(comparison, @r"

    ════════════════════════════════════════════════════════════════════════════════════════════════════
      run  differs in                step      p50      p99   vs 1    bytes  exchange  dropped
      ────────────────────────────────────────────────────────────────────────────────────────
        1  star, 4 workers        3.06 ms  3.03 ms  4.54 ms  1.00×  522 KiB    36.1 %    3.3 %
        2  all-to-all, 4 workers  2.45 ms  2.42 ms  3.63 ms  0.80×  900 KiB    36.1 %    3.3 %
        3  all-to-all, 2 workers  4.24 ms        –        –  1.39×  316 KiB    36.1 %    3.3 %
      step: mean; vs 1: its ratio to run 1; bytes: payload a step; exchange: time share;
      dropped: choices dropped or lost
      outputs           the same bits in every run (5f70bf18)
    ");
}

#[test]
fn different_outputs_are_told_by_run() {
    let mut other = run(ExchangeKind::Star, 2, 1, 100);
    other.digest = Some("00112233445566".to_owned());
    let mut none = other.clone();
    none.digest = None;
    let text = check(vec![run(ExchangeKind::Star, 2, 1, 100), other, none]);
    assert!(
        text.contains("differ: 1 5f70bf18, 2 00112233, 3 –"),
        "{text}"
    );
}

#[test]
fn no_report_is_wider_than_the_page() {
    let long = "a-very-long-name-of-something-that-never-seems-to-end-".repeat(5);
    let wide = "機械学習".repeat(40);
    let hostile = "\x1b[2J\r\n\t\u{202e}".repeat(30);
    for text in ["", "x", &long, &wide, &hostile] {
        for endpoints in [0, 1, 2, 7, 8, 10, 11, 40] {
            for size in [0, 1, 999_999_999, 123_456_789_012, u64::MAX] {
                for us in [0.0, 1e-9, 0.5, 999.95, 1e6, 3.6e9, 1e300, f64::NAN] {
                    let run = edge(endpoints, size, us, text);
                    check(vec![run.clone(), run]);
                }
            }
        }
    }
}

#[test]
fn many_endpoints_are_summed_by_endpoint() {
    let text = check(vec![run(ExchangeKind::AllToAll, 40, 2, 100)]);
    let start = text.find("Bytes by endpoint").unwrap();
    let section = text[start..].split("\n\n").next().unwrap();
    insta::assert_snapshot!(section, @r"
    Bytes by endpoint (41 endpoints, the busiest first)
                        sent  of all  received
      ────────────────────────────────────────
      40 worker-39  9.61 MiB   3.5 %  8.09 MiB
      39 worker-38  9.46 MiB   3.5 %  8.01 MiB
      38 worker-37  9.31 MiB   3.4 %  7.94 MiB
      37 worker-36  9.16 MiB   3.4 %  7.87 MiB
      36 worker-35  9.00 MiB   3.3 %  7.79 MiB
      35 worker-34  8.85 MiB   3.3 %  7.72 MiB
      34 worker-33  8.70 MiB   3.2 %  7.65 MiB
      33 worker-32  8.55 MiB   3.1 %  7.57 MiB
      32 worker-31  8.40 MiB   3.1 %  7.50 MiB
      31 worker-30  8.25 MiB   3.0 %  7.43 MiB
      30 worker-29  8.10 MiB   3.0 %  7.35 MiB
      29 worker-28  7.94 MiB   2.9 %  7.28 MiB
      28 worker-27  7.79 MiB   2.9 %  7.21 MiB
      27 worker-26  7.64 MiB   2.8 %  7.13 MiB
      26 worker-25  7.49 MiB   2.8 %  7.06 MiB
      25 worker-24  7.34 MiB   2.7 %  6.99 MiB
      25 others      137 MiB  50.2 %   152 MiB
      all            272 MiB   100 %   272 MiB
    ");
}

#[test]
fn ten_endpoints_still_show_their_matrix() {
    let text = check(vec![run(ExchangeKind::AllToAll, 9, 2, 100)]);
    assert!(
        text.contains("Bytes sent (from row to column; K is KiB, M is MiB)"),
        "{text}"
    );
    assert!(text.contains("9 worker-8"), "{text}");
}

#[test]
fn a_report_without_runs_says_so() {
    assert!(check(Vec::new()).contains("No runs."));
}

#[test]
fn every_number_shows_where_it_comes_from() {
    let mut run = run(ExchangeKind::Star, 2, 30, 100);
    let text = check(vec![run.clone()]);
    assert!(
        text.contains("  figures           all measured\n"),
        "{text}"
    );
    run.source
        .insert("latency_us.dispatch".to_owned(), Source::Preset);
    run.source
        .insert("latency_us.step".to_owned(), Source::Calibrated);
    let text = check(vec![run]);
    assert!(
        text.contains("times calibrated, bytes measured, choices measured"),
        "{text}"
    );
    assert!(
        text.contains("  figures           latency_us.dispatch preset\n"),
        "{text}"
    );
}

#[test]
fn bars_stay_on_the_track_when_phases_overlap() {
    let mut run = run(ExchangeKind::Star, 2, 30, 100);
    let LatencyUs {
        step,
        residual_share,
        ..
    } = &mut run.latency_us;
    step.mean /= 3.0;
    *residual_share = Some(-1.9);
    let text = check(vec![run]);
    assert!(text.contains("-190.0 %"), "{text}");
}

#[test]
fn a_prediction_differs_from_what_was_measured_in_its_times() {
    let measured = run(ExchangeKind::Star, 2, 20, 100);
    let mut predicted = measured.clone();
    let sources = predicted.source.values_mut();
    sources.for_each(|source| *source = Source::Preset);
    let text = check(vec![measured, predicted]);
    let (_, comparison) = text.split_once("Comparison").unwrap();
    for words in ["1  measured times  ", "2  preset times    "] {
        assert!(comparison.contains(words), "{comparison}");
    }
}
