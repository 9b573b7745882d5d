//! Files that lie, stop or say nonsense.

use super::*;

#[test]
fn moetraces_that_lie_are_refused() {
    let bytes = moetrace::write(&sample()).unwrap();
    let with = |at: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[at..at + new.len()].copy_from_slice(new);
        complaint("a.moetrace", bytes)
    };
    let huge = u64::MAX.to_le_bytes();
    let source = sample().header().source.len();
    // magic, version, experts, top_k, layers, source, its text, seed.
    let records = 8 + 4 + 12 + 8 + source + 9;
    let first = records + 8;
    for (error, expected) in [
        (
            with(0, b"x"),
            "byte 8: magic is \"xOETRACE\", expected \"MOETRACE\"",
        ),
        (with(8, &[9]), "version is 9, expected 1"),
        (
            with(24, &huge),
            "byte 24: source is 18446744073709551615 entries long, expected at most",
        ),
        (with(records, &huge), "step is"),
        (
            with(first + 16, &[2]),
            "ranks is marked 2, expected 0 (absent) or 1",
        ),
        (
            with(first + 17, &huge),
            "ranks is 18446744073709551615 entries long",
        ),
        (with(first + 12, &[3]), "expected 6"),
        (
            complaint("a.moetrace", [&bytes[..], b"!"].concat()),
            "rest is 1 bytes",
        ),
        (complaint("a.moetrace", b""), "byte 0: magic is"),
        (complaint("a.dat", b"MOETRACE"), "byte 8: version is"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn csv_that_is_no_trace_is_refused() {
    let head = "step,layer,src_rank,token,slot,expert,weight\n";
    for (rows, expected) in [
        (
            "0,0,,0,0,one,\n",
            "line 2: expert is \"one\", expected a number from 0",
        ),
        ("0,0,,0,0,-2,\n", "expert is \"-2\""),
        ("0,,,0,0,1,\n", "line 2: layer is empty"),
        ("0,0,,0,0,1,\n0,0,,1,0,1\n", "line 3: text is"),
        ("0,0,,0,0,1,0.5\n0,0,,1,0,1,\n", "line 3: weight is empty"),
        (
            "0,0,,0,0,1,NaN\n",
            "step 0, layer 0, token 0: weight is NaN, expected a finite",
        ),
        (
            "0,0,,0,0,1,\n0,0,,0,1,0,\n0,0,,1,0,1,\n",
            "line 4: last row of its step is slot 0",
        ),
        (
            "0,0,,0,0,1,\n0,0,,0,1,0,\n0,0,,1,1,1,\n",
            "expected token 1, slot 0 of step 0, layer 0",
        ),
        (
            "0,0,,0,0,1,\n0,0,,0,0,2,\n",
            "line 3: row is of token 0, slot 0",
        ),
        (
            "0,0,,0,4000000000,1,\n",
            "line 2: row is of token 0, slot 4000000000",
        ),
        (
            "0,0,,4294967295,0,1,\n",
            "line 2: row is of token 4294967295",
        ),
        (
            "0,0,,0,0,4294967294,\n",
            "experts is 4294967295, expected 1 to 65536",
        ),
        (
            "0,0,1,0,0,1,\n0,0,2,0,1,0,\n",
            "line 3: src_rank or token_id is not that of",
        ),
        (
            "0,0,,0,0,1,\n0,0,,0,1,1,\n",
            "token 0: expert is 1, expected each expert once",
        ),
        ("", "rows is 0, expected at least 1"),
    ] {
        let error = complaint("a.csv", format!("{head}{rows}"));
        assert!(error.contains(expected), "{rows}: {error}");
    }
    let error = complaint("a.csv", "step,layer,expert\n0,0,0\n");
    assert!(
        error.contains("line 1: columns is step,layer,expert, expected step,layer"),
        "{error}"
    );
}

#[test]
fn an_index_above_what_the_reader_knows_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.csv");
    sample().write(&path, None).unwrap();
    let options = ReadOptions {
        experts: Some(3),
        ..ReadOptions::default()
    };
    let error = Trace::read_with(&path, &options).unwrap_err().to_string();
    assert!(error.contains("expert is 3, expected below 3"), "{error}");
    let options = ReadOptions {
        max_bytes: 20,
        ..ReadOptions::default()
    };
    let error = Trace::read_with(&path, &options).unwrap_err().to_string();
    assert!(
        error.contains("length is more, expected at most 20 bytes"),
        "{error}"
    );
    let error = Trace::read(directory.path().join("b.csv"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("b.csv: "), "{error}");
    let error = Trace::read(directory.path()).unwrap_err().to_string();
    assert!(error.contains("jsonl files is 0"), "{error}");
}

#[test]
fn parquet_of_something_else_is_refused() {
    let error = complaint("a.parquet", b"PAR1 and no more");
    assert!(
        error.contains("expected a Parquet file of a trace"),
        "{error}"
    );
    let bytes = parquet::write(&sample()).unwrap();
    let error = complaint("a.parquet", &bytes[..bytes.len() - 9]);
    assert!(error.contains("expected a Parquet file"), "{error}");
}
