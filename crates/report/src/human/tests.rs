use super::*;

#[test]
fn durations_keep_three_digits_and_change_unit_before_they_round_up() {
    let cases = [
        (0.0, "0 µs"),
        (0.0001, "1 ns"),
        (0.123, "123 ns"),
        (0.9996, "1.00 µs"),
        (1.234, "1.23 µs"),
        (9.996, "10.0 µs"),
        (99.96, "100 µs"),
        (999.6, "1.00 ms"),
        (1_234.0, "1.23 ms"),
        (12_345_678.0, "12.3 s"),
        (3.6e9, "3600 s"),
        (1e300, ">9999 s"),
        (-1.0, NONE),
        (f64::NAN, NONE),
    ];
    for (us, text) in cases {
        assert_eq!(duration(us), text, "{us}");
    }
}

#[test]
fn sizes_are_binary() {
    let cases = [
        (0, "0 B", "0"),
        (1023, "1023 B", "1023"),
        (1024, "1.00 KiB", "1.00K"),
        (524_288, "512 KiB", "512K"),
        (1_048_063, "1023 KiB", "1023K"),
        (1_048_064, "1.00 MiB", "1.00M"),
        (u64::MAX, "16.0 EiB", "16.0E"),
    ];
    for (size, text, dense) in cases {
        assert_eq!(bytes(size), text);
        assert_eq!(bytes_dense(size), dense);
    }
}

#[test]
fn counts_are_exact_as_long_as_they_fit() {
    assert_eq!(count(0), "0");
    assert_eq!(count(999), "999");
    assert_eq!(count(1_000), "1,000");
    assert_eq!(count(123_456_789_012), "123,456,789,012");
    assert_eq!(count(u64::MAX), "18.4 E");
    assert_eq!(count_short(9_999_999), "9,999,999");
    assert_eq!(count_short(123_456_789_012), "123 G");
}

#[test]
fn shares_never_round_something_to_nothing() {
    let cases = [
        (0.0, "0 %"),
        (0.0001, "<0.1 %"),
        (-0.0001, ">-0.1 %"),
        (0.3456, "34.6 %"),
        (0.9999, ">99.9 %"),
        (1.0, "100 %"),
        (-0.5, "-50.0 %"),
        (12.0, "1200 %"),
        (1e9, ">9999 %"),
        (-1e9, "<-9999 %"),
        (f64::INFINITY, NONE),
    ];
    for (value, text) in cases {
        assert_eq!(share(value), text, "{value}");
    }
    assert_eq!(share_of(1, 0), NONE);
}

#[test]
fn bandwidths_ratios_and_plain_numbers() {
    assert_eq!(bandwidth(1.234), "1.23 GB/s");
    assert_eq!(bandwidth(0.0123), "12.3 MB/s");
    assert_eq!(bandwidth(0.000_5), "500 kB/s");
    assert_eq!(bandwidth(1e-9), "<1 kB/s");
    assert_eq!(bandwidth(1e12), ">99999 GB/s");
    assert_eq!(ratio(0.874), "0.87×");
    assert_eq!(ratio(1e9), ">9999×");
    assert_eq!(number(1.023_45), "1.023");
    assert_eq!(number(-4096.4), "-4,096");
    assert_eq!(number(9_999_999.0), "9,999,999");
    assert_eq!(number(1.5e-7), "1.500e-7");
    assert_eq!(number(-1.5e-107), "-1.500e-107");
}

#[test]
fn nothing_exceeds_its_stated_width() {
    let columns = |text: String| text.chars().count();
    let mut value = 1e-300_f64;
    while value < 1e300 {
        for value in [value, -value] {
            assert!(columns(duration(value)) <= 7);
            assert!(columns(share(value)) <= 8);
            assert!(columns(bandwidth(value)) <= 11);
            assert!(columns(number(value)) <= 11);
            assert!(columns(ratio(value)) <= 6);
        }
        value *= 1.37;
    }
    for shift in 0..64 {
        for size in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
            assert!(columns(bytes(size)) <= 8);
            assert!(columns(bytes_dense(size)) <= 5);
            assert!(columns(count(size)) <= 17);
            assert!(columns(count_short(size)) <= 9);
        }
    }
}

#[test]
fn long_text_gives_way_in_the_middle() {
    assert_eq!(fit("worker-0", 8), "worker-0");
    assert_eq!(fit("very-long-worker-17", 9), "very…r-17");
    assert_eq!(fit("abc", 0), "…");
    assert_eq!(fit("機械学習", 5), "機…習");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    assert_eq!(
        fit("a\x1b[31mb\n\u{202e}c", 20),
        "a\u{fffd}[31mb\u{fffd}\u{fffd}c"
    );
}
