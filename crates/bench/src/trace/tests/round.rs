//! What is written is what is read.

use proptest::prelude::*;

use super::*;

/// Traces of every form that the model has.
fn traces() -> impl Strategy<Value = Trace> {
    let header = (1..9_u32, any::<Option<u64>>(), "[ -~]{0,9}");
    let columns = any::<[bool; 3]>();
    (header, columns, any::<u64>(), 1..5_usize, 1..4_u32)
        .prop_flat_map(|((experts, seed, source), columns, first, steps, layers)| {
            (1..=experts).prop_flat_map(move |top_k| {
                let source = source.clone();
                let header = Header {
                    experts,
                    top_k,
                    layers,
                    source,
                    seed,
                };
                let tokens = 1..7_u32;
                let of_step = move |at: usize| {
                    let step = (first / 2).wrapping_add(at as u64 * 3);
                    let layer = at as u32 % layers;
                    let record = record(header.clone(), step, layer, columns);
                    tokens.clone().prop_flat_map(record)
                };
                let header = Header {
                    experts,
                    top_k,
                    layers,
                    source: String::new(),
                    seed,
                };
                let records: Vec<_> = (0..steps).map(of_step).collect();
                (Just(header), records)
            })
        })
        .prop_map(|(header, records)| Trace::new(header, records).unwrap())
}

fn record(
    header: Header,
    step: u64,
    layer: u32,
    [ranks, token_ids, weights]: [bool; 3],
) -> impl Fn(u32) -> BoxedStrategy<Record> {
    move |tokens| {
        let t = tokens as usize;
        let choices = t * header.top_k as usize;
        let order: Vec<u32> = (0..header.experts).collect();
        let row = Just(order).prop_shuffle();
        let (top_k, step) = (header.top_k as usize, step);
        (
            prop::collection::vec(row, t),
            prop::collection::vec(prop::bool::weighted(0.1), choices),
            prop::collection::vec(any::<u32>(), t),
            prop::collection::vec(any::<u32>(), t),
            prop::collection::vec(-1e30_f32..1e30, choices),
        )
            .prop_map(move |(rows, holes, of_rank, ids, mut values)| {
                let rows = rows.into_iter().flat_map(|row| row.into_iter().take(top_k));
                let mut experts: Vec<u32> = rows.collect();
                for (at, hole) in holes.into_iter().enumerate() {
                    if hole {
                        experts[at] = NO_CHOICE;
                        values[at] = 0.0;
                    }
                }
                Record {
                    step,
                    layer,
                    tokens,
                    ranks: ranks.then_some(of_rank),
                    token_ids: token_ids.then_some(ids),
                    experts,
                    weights: weights.then_some(values),
                }
            })
            .boxed()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn moetrace_is_bincode(trace in traces()) {
        let bytes = moetrace::write(&trace).unwrap();
        let file = (moetrace::MAGIC, moetrace::VERSION, trace.header(), trace.records());
        prop_assert_eq!(&bytes, &bincode::serialize(&file).unwrap());
        let (_, _, header, records): ([u8; 8], u32, Header, Vec<Record>) =
            bincode::deserialize(&bytes).unwrap();
        prop_assert_eq!(Trace::new(header, records).unwrap(), trace.clone());
        prop_assert_eq!(moetrace::read(&bytes).unwrap(), trace);
    }

    #[test]
    fn parquet_keeps_everything(trace in traces()) {
        let bytes = parquet::write(&trace).unwrap();
        let read = parquet::read(bytes, None, "another".to_owned()).unwrap();
        prop_assert_eq!(read, trace);
    }

    #[test]
    fn csv_keeps_the_records(trace in traces()) {
        let bytes = csv::write(&trace).unwrap();
        let read = csv::read(&bytes, Some(trace.header().experts), String::new()).unwrap();
        prop_assert_eq!(read.records(), trace.records());
        prop_assert_eq!(read.header().top_k, trace.header().top_k);
    }

    /// Whatever is cut off is missed, and nothing that is changed makes a reader panic.
    #[test]
    fn damage_is_no_panic(trace in traces(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
        for write in [moetrace::write, csv::write, parquet::write] {
            let bytes = write(&trace).unwrap();
            let cut = &bytes[..at.index(bytes.len())];
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= by;
            for bytes in [cut.to_vec(), changed] {
                let _ = moetrace::read(&bytes);
                let _ = csv::read(&bytes, None, String::new());
                let _ = parquet::read(bytes, None, String::new());
            }
        }
        let bytes = moetrace::write(&trace).unwrap();
        prop_assert!(moetrace::read(&bytes[..at.index(bytes.len())]).is_err());
    }
}

#[test]
fn files_are_known_by_name_and_by_content() {
    let directory = tempfile::tempdir().unwrap();
    let trace = sample();
    for format in [
        TraceFormat::Moetrace,
        TraceFormat::Parquet,
        TraceFormat::Csv,
    ] {
        let named = directory.path().join(format!("trace.{format}"));
        trace.write(&named, None).unwrap();
        let other = directory.path().join("trace.dat");
        trace.write(&other, Some(format)).unwrap();
        for path in [&named, &other] {
            let read = Trace::read(path).unwrap();
            assert_eq!(read.records(), trace.records(), "{format}");
            match format {
                TraceFormat::Csv => assert_eq!(read.header().source, path.display().to_string()),
                _ => assert_eq!(read, trace),
            }
        }
    }
    for format in TraceFormat::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
    }
    assert!(
        "xml"
            .parse::<TraceFormat>()
            .unwrap_err()
            .contains("moetrace, csv, parquet")
    );
    let error = trace.write("a.jsonl", None).unwrap_err().to_string();
    assert!(
        error.contains("a.jsonl: format is megatron, which is only read"),
        "{error}"
    );
    let error = trace.write("a.dat", None).unwrap_err().to_string();
    assert!(
        error.contains("expected moetrace, csv or parquet"),
        "{error}"
    );
}

#[test]
fn csv_is_as_documented() {
    let text = String::from_utf8(csv::write(&sample()).unwrap()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "step,layer,src_rank,token,slot,expert,weight,token_id"
    );
    assert_eq!(lines[1], "3,1,0,0,0,3,0.75,7");
    assert_eq!(lines[8], "3,5,1,1,1,,0,4000000000");
    // Columns in another order, without the optional ones, and -1 for none.
    let text = "expert,slot,token,layer,step\n-1,1,0,2,0\n3,0,0,2,0\n";
    let trace = csv::read(text.as_bytes(), None, String::new()).unwrap();
    assert_eq!(trace.records()[0].experts, [3, NO_CHOICE]);
    assert_eq!((trace.header().experts, trace.header().layers), (4, 3));
}

/// wincode's own limit is 4 MiB a sequence, in either direction.
#[test]
fn long_steps_are_written_and_read() {
    let tokens = 600_000_u32;
    let record = Record {
        step: 0,
        layer: 0,
        tokens,
        ranks: None,
        token_ids: None,
        experts: (0..2 * tokens).map(|choice| choice % 2).collect(),
        weights: None,
    };
    let header = Header {
        experts: 2,
        top_k: 2,
        layers: 1,
        source: String::new(),
        seed: None,
    };
    let trace = Trace::new(header, vec![record]).unwrap();
    let bytes = moetrace::write(&trace).unwrap();
    assert!(bytes.len() > 4 << 20);
    assert!(moetrace::read(&bytes).unwrap() == trace);
}
