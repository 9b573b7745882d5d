use super::*;

/// A file of this header and `data` zero bytes.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn refusal(content: &[u8]) -> String {
    read(Path::new("m.safetensors"), content)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_valid_header_gives_ranges_inside_the_file() {
    let header = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]},
        "a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#;
    let content = file(header, 12);
    let entries = read(Path::new("m.safetensors"), &content).unwrap();
    assert_eq!(entries.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(entries["a"].shape, [2, 1]);
    assert_eq!(entries["b"].dtype, Dtype::BF16);
    assert_eq!(entries["b"].bytes, content.len() - 4..content.len());
}

#[test]
fn lengths_that_the_file_does_not_have_are_refused() {
    assert!(refusal(b"").contains("the file has 0 bytes"));
    assert!(refusal(&[1; 7]).contains("the file has 7 bytes"));
    let huge = (1u64 << 60).to_le_bytes();
    assert!(refusal(&huge).contains("says 1152921504606846976 bytes, at most 100000000"));
    let beyond = 99_999_999u64.to_le_bytes();
    assert!(refusal(&beyond).contains("says 99999999 bytes, but the file ends after 0"));
    assert!(refusal(&u64::MAX.to_le_bytes()).contains("at most"));
}

#[test]
fn claims_are_compared_with_the_file_and_name_the_tensor() {
    let cases = [
        // (entries, data bytes, words of the refusal)
        (
            r#""t":{"dtype":"F32","shape":[288230376151711744],"data_offsets":[0,1152921504606846976]}"#,
            8,
            r#"tensor "t" claims bytes 0..1152921504606846976 of 8"#,
        ),
        (
            r#""t":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}"#,
            12,
            r#"tensor "t" claims bytes 0..16 of 12; the file is damaged or truncated"#,
        ),
        (
            r#""t":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}"#,
            8,
            r#"tensor "t" claims bytes 8..4 of 8"#,
        ),
        (
            r#""t":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#,
            8,
            r#"tensor "t" has shape [3] of F32, which does not fill its bytes 0..8"#,
        ),
        (
            r#""t":{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}"#,
            0,
            r#"tensor "t" has shape [4294967296, 4294967296, 4] of F32"#,
        ),
        (
            r#""t":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#,
            8,
            r#"tensor "t" has dtype "F33", which safetensors does not define"#,
        ),
        (
            r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},
               "b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#,
            12,
            r#"tensor "b" begins at byte 4, inside tensor "a" which ends at 8"#,
        ),
        (
            r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
               "a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#,
            8,
            r#"tensor "a" is named twice"#,
        ),
        (
            r#""t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#,
            4,
            r#"tensor "t": "#,
        ),
        (
            r#""t":{"dtype":"F32","data_offsets":[0,4]}"#,
            4,
            r#"tensor "t": missing field `shape`"#,
        ),
        (
            r#""t":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#,
            8,
            "m.safetensors",
        ),
        (
            r#""t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#,
            8,
            "m.safetensors",
        ),
    ];
    for (entries, data, words) in cases {
        let said = refusal(&file(&format!("{{{entries}}}"), data));
        assert!(
            said.starts_with("bad safetensors header in m.safetensors: "),
            "{said}"
        );
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn headers_that_are_not_an_object_are_refused() {
    for bad in ["", "[]", "3", "{", "nul", "\u{0}", &"[".repeat(10_000)] {
        assert!(
            refusal(&file(bad, 0)).starts_with("bad safetensors header"),
            "{bad:.9}"
        );
    }
    let mut not_text = file("{\"a\"}", 0);
    not_text[9] = 0xff;
    assert!(refusal(&not_text).starts_with("bad safetensors header"));
}
