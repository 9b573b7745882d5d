use super::*;
use proptest::prelude::*;

fn of(samples: &[u64]) -> Histogram {
    let mut histogram = Histogram::new();
    samples.iter().for_each(|ns| histogram.record(*ns));
    histogram
}

fn equal_samples(count: usize) -> Latency {
    of(&vec![5_000; count]).summary()
}

#[test]
fn an_empty_histogram_states_no_percentile() {
    assert_eq!(Histogram::new().summary(), Latency::default());
}

#[test]
fn a_percentile_needs_ten_samples_beyond_it() {
    type Pick = fn(&Latency) -> Option<f64>;
    let thresholds: [(Pick, usize); 5] = [
        (|l| l.p50, 20),
        (|l| l.p90, 100),
        (|l| l.p95, 200),
        (|l| l.p99, 1_000),
        (|l| l.p999, 10_000),
    ];
    for (percentile, needed) in thresholds {
        assert_eq!(percentile(&equal_samples(needed - 1)), None, "{needed}");
        assert!(percentile(&equal_samples(needed)).is_some(), "{needed}");
    }
}

#[test]
fn figures_are_microseconds_within_a_tenth_of_a_percent() {
    let samples: Vec<u64> = (1..=20_000).map(|i| i * 1_000).collect();
    let latency = of(&samples).summary();
    let close = |found: f64, expected: f64| {
        assert!(
            (found / expected - 1.0).abs() <= 1e-3,
            "{found} is not {expected}"
        );
    };
    assert_eq!(latency.count, 20_000);
    close(latency.min, 1.0);
    close(latency.mean, 10_000.5);
    close(latency.p50.unwrap(), 10_000.0);
    close(latency.p90.unwrap(), 18_000.0);
    close(latency.p95.unwrap(), 19_000.0);
    close(latency.p99.unwrap(), 19_800.0);
    close(latency.p999.unwrap(), 19_980.0);
    close(latency.max, 20_000.0);
}

#[test]
fn durations_beyond_an_hour_count_as_an_hour() {
    assert_eq!(of(&[u64::MAX]), of(&[MAX_NS]));
    assert_eq!(of(&[0]).summary().min, 0.0);
}

#[test]
fn clearing_forgets_everything() {
    let mut histogram = of(&[1, 2, 3]);
    histogram.clear();
    assert_eq!(histogram.summary(), Latency::default());
}

#[test]
fn wrong_bytes_are_refused_by_field() {
    let good = of(&[1, 10, 1_000_000]).to_bytes();
    let refused = |bytes: &[u8], field: &str| {
        let error = Histogram::from_bytes(bytes).unwrap_err().to_string();
        assert!(
            error.contains(&format!("histogram bytes: {field} is")),
            "{error}"
        );
    };
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    refused(&[], "length");
    refused(&good[..39], "length");
    refused(&with(0, 9), "cookie");
    refused(&with(4, 0xff), "payload length");
    refused(&good[..good.len() - 1], "payload length");
    refused(&with(15, 5), "significant digits");
    refused(&with(23, 7), "bounds");
    refused(&with(24, 0x7f), "bounds");
    refused(&with(11, 1), "counts"); // normalising offset
}

#[test]
fn counts_that_would_overflow_are_refused() {
    let with_counts = |counts: &[u8]| {
        let mut bytes = Histogram::new().to_bytes()[..40].to_vec();
        bytes[4..8].copy_from_slice(&u32::try_from(counts.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(counts);
        Histogram::from_bytes(&bytes)
    };
    // i64::MIN as a run of zeros, u63::MAX as a count, a number without its end.
    assert!(with_counts(&[0xff; 9]).is_err());
    assert!(with_counts(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
    assert!(with_counts(&[0x80]).is_err());
    // A run of zeros past the last bucket, then a count.
    assert!(with_counts(&[0xff, 0xff, 0xff, 0x0f, 0x02]).is_err());
    assert_eq!(with_counts(&[0x00, 0x04]).unwrap(), of(&[1, 1]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_equals_recording_all_in_one(
        parts in prop::collection::vec(prop::collection::vec(0_u64..=MAX_NS * 2, 0..40), 0..5),
    ) {
        let mut merged = Histogram::new();
        for part in &parts {
            merged.merge(&of(part));
        }
        let one = of(&parts.concat());
        prop_assert_eq!(&merged, &one);
        prop_assert_eq!(merged.summary(), one.summary());
        prop_assert_eq!(merged.to_bytes(), one.to_bytes());
    }

    #[test]
    fn bytes_round_trip(samples in prop::collection::vec(0_u64..=MAX_NS, 0..60)) {
        let histogram = of(&samples);
        let read = Histogram::from_bytes(&histogram.to_bytes()).unwrap();
        prop_assert_eq!(&read, &histogram);
        prop_assert_eq!(read.summary(), histogram.summary());
    }

    #[test]
    fn corrupt_bytes_never_panic(
        samples in prop::collection::vec(0_u64..=MAX_NS, 0..20),
        flips in prop::collection::vec((0_usize..200, any::<u8>()), 1..6),
    ) {
        let mut bytes = of(&samples).to_bytes();
        for (at, byte) in flips {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        if let Ok(read) = Histogram::from_bytes(&bytes) {
            let mut other = of(&samples);
            other.merge(&read);
            let latency = other.summary();
            prop_assert!(latency.min <= latency.max || latency.count == 0);
        }
    }

    #[test]
    fn percentiles_are_ordered(samples in prop::collection::vec(0_u64..=MAX_NS, 20..300)) {
        let latency = of(&samples).summary();
        let mut stated: Vec<f64> = vec![latency.min];
        stated.extend([latency.p50, latency.p90, latency.p95].into_iter().flatten());
        stated.push(latency.max);
        prop_assert!(stated.is_sorted(), "{:?}", stated);
    }
}
