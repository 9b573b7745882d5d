use std::io::Write;

use super::*;

#[test]
fn a_mapped_file_shows_its_bytes() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"weights").unwrap();
    let mapped = MappedFile::open(file.path()).unwrap();
    assert_eq!(mapped.as_ref(), b"weights");
    assert_eq!(format!("{mapped:?}"), "MappedFile { bytes: 7 }");
}

#[test]
fn an_empty_file_maps_to_no_bytes() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(MappedFile::open(file.path()).unwrap().as_ref().is_empty());
}

#[test]
fn a_missing_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = MappedFile::open(&folder.path().join("absent")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}
