mod foreign;
mod hostile;
mod round;
mod statistics;

use super::*;

/// A small trace: two steps, two layers, one token that chose once.
fn sample() -> Trace {
    let record = |step, layer, experts: [u32; 4]| Record {
        step,
        layer,
        tokens: 2,
        ranks: Some(vec![0, 1]),
        token_ids: Some(vec![7, 4_000_000_000]),
        experts: experts.to_vec(),
        weights: Some(vec![
            0.75,
            0.25,
            1.0,
            if experts[3] == NO_CHOICE { 0.0 } else { 0.1 },
        ]),
    };
    let header = Header {
        experts: 4,
        top_k: 2,
        layers: 6,
        source: "a test, with \"quotes\"".to_owned(),
        seed: Some(u64::MAX),
    };
    let records = vec![
        record(3, 5, [0, 1, 2, NO_CHOICE]),
        record(3, 1, [3, 1, 2, 0]),
        record(9, 1, [3, 2, 3, 0]),
    ];
    Trace::new(header, records).unwrap()
}

/// What a reader says of a file with this content.
fn complaint(name: &str, content: impl AsRef<[u8]>) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, content).unwrap();
    let error = Trace::read(&path).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    error
}

#[test]
fn steps_come_round_again() {
    let trace = sample();
    assert_eq!(trace.steps(), 2);
    let layers = |n| {
        trace
            .step(n)
            .iter()
            .map(|record| (record.step, record.layer))
    };
    assert_eq!(layers(0).collect::<Vec<_>>(), [(3, 1), (3, 5)]);
    assert_eq!(layers(1).collect::<Vec<_>>(), [(9, 1)]);
    assert_eq!(trace.step(2), trace.step(0));
    assert_eq!(trace.step(u64::MAX), trace.step(1));
    assert_eq!(trace.layer(4, 5).unwrap().experts[2], 2);
    assert!(trace.layer(1, 5).is_none());
    let rows: Vec<&[u32]> = trace.step(1)[0].rows().collect();
    assert_eq!(rows, [[3, 2], [3, 0]]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let change = |change: &dyn Fn(&mut Header, &mut Vec<Record>)| {
        let (mut header, mut records) = (sample().header.clone(), sample().records.clone());
        change(&mut header, &mut records);
        Trace::new(header, records).unwrap_err().to_string()
    };
    type Change<'a> = &'a dyn Fn(&mut Header, &mut Vec<Record>);
    let cases: [(Change<'_>, &str); 15] = [
        (
            &|header, _| header.experts = 0,
            "trace: header: experts is 0",
        ),
        (
            &|header, _| header.experts = MAX_EXPERTS + 1,
            "expected 1 to 65536",
        ),
        (&|header, _| header.top_k = 5, "top_k is 5, expected 1 to 4"),
        (
            &|header, _| header.top_k = 1,
            "experts is 4 entries, expected 2",
        ),
        (
            &|header, _| header.layers = 5,
            "step 3, layer 5: layer is 5, expected below 5",
        ),
        (&|_, records| records.clear(), "records is 0"),
        (
            &|_, records| records[1].layer = 1,
            "step 3, layer 1: record is a second one",
        ),
        (&|_, records| records[0].tokens = 0, "tokens is 0"),
        (
            &|_, records| records[0].tokens = 3,
            "experts is 4 entries, expected 6",
        ),
        (
            &|_, records| records[0].experts[3] = 4,
            "layer 1, token 1: expert is 4, expected below",
        ),
        (
            &|_, records| records[0].experts[0] = 1,
            "token 0: expert is 1, expected each expert once",
        ),
        (
            &|_, records| records[0].weights = Some(vec![1.0; 3]),
            "weights is 3 entries",
        ),
        (
            &|_, records| records[1].weights = Some(vec![1.0; 4]),
            "weight is 1, expected 0, as",
        ),
        (
            &|_, records| records[0].ranks = Some(vec![0]),
            "ranks is 1 entries, expected 2",
        ),
        (
            &|_, records| records[0].token_ids = Some(vec![]),
            "token_ids is 0 entries",
        ),
    ];
    for (at, (case, expected)) in cases.into_iter().enumerate() {
        let error = change(case);
        assert!(error.contains(expected), "case {at}: {error}");
    }
    for weight in [f32::NAN, f32::INFINITY] {
        let error = change(&|_, records| {
            records[0].weights = Some(vec![0.0, weight, 0.0, 0.0]);
        });
        assert!(error.contains("token 0: weight is"), "{error}");
    }
}
