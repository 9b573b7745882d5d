use std::sync::atomic::Ordering::SeqCst;

use super::*;

#[test]
fn two_mappings_of_a_file_are_the_same_words() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(64).unwrap();
    let one = SharedWords::map(&file, 8).unwrap();
    let other = SharedWords::map(&file, 3).unwrap();
    assert_eq!(one.as_ref().len(), 8);
    one.as_ref()[2].store(41, SeqCst);
    assert_eq!(other.as_ref()[2].fetch_add(1, SeqCst), 41);
    assert_eq!(one.as_ref()[2].load(SeqCst), 42);
    assert_eq!(format!("{other:?}"), "SharedWords { words: 3 }");
}

#[test]
fn a_file_that_is_too_short_is_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(15).unwrap();
    assert!(SharedWords::map(&file, 2).is_err());
    assert!(SharedWords::map(&file, 0).is_err());
}
