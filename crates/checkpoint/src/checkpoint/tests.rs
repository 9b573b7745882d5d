use super::*;

#[test]
fn layer_numbers_are_abbreviated() {
    assert_eq!(runs(&[]), "none");
    assert_eq!(runs(&[4]), "4");
    assert_eq!(runs(&[0, 1, 2, 3, 5, 7, 8]), "0-3, 5, 7-8");
    let every_other: Vec<u32> = (0..50_000).step_by(2).collect();
    assert!(runs(&every_other).ends_with("44, 46, …"));
}
