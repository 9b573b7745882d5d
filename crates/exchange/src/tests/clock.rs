use proptest::prelude::*;

use crate::ClockMap;

#[test]
fn one_kernel_has_one_clock() {
    let mut clock = ClockMap::shared();
    clock.observe(10, 900, 910, 40);
    assert_eq!((clock.to_local(500), clock.error_ns()), (500, 0));
}

#[test]
fn nothing_is_known_at_first() {
    let clock = ClockMap::unknown();
    assert_eq!((clock.to_local(500), clock.error_ns()), (500, 0));
}

#[test]
fn an_even_way_gives_the_offset_exactly() {
    // Their clock is 1000 ahead; 20 there, 5 of work, 20 back.
    let mut clock = ClockMap::unknown();
    clock.observe(100, 1120, 1125, 145);
    assert_eq!(clock.to_local(1120), 120);
    assert_eq!(clock.error_ns(), 20);
    // Theirs is behind.
    let mut clock = ClockMap::unknown();
    clock.observe(10_000, 20, 30, 10_030);
    assert_eq!(clock.to_local(20), 10_010);
}

#[test]
fn the_shortest_round_trip_is_kept_until_it_is_old() {
    let mut clock = ClockMap::unknown();
    clock.observe(0, 1010, 1010, 20);
    clock.observe(0, 1900, 1900, 1000);
    assert_eq!((clock.to_local(1010), clock.error_ns()), (10, 10));
    // The clocks drift; every later round trip is longer.
    for _ in 0..300 {
        clock.observe(0, 5050, 5050, 100);
    }
    assert_eq!((clock.to_local(5050), clock.error_ns()), (50, 50));
}

proptest! {
    /// However uneven the way, a moment is off by no more than the error that is told.
    #[test]
    fn the_error_bounds_any_asymmetry(
        offset in -1_000_000_000_000i64..1_000_000_000_000,
        samples in prop::collection::vec((0..1_000_000u64, 0..1_000_000u64, 0..1_000_000u64), 1..20),
        moment in 0..1_000_000_000u64,
    ) {
        let base = 2_000_000_000_000u64;
        let theirs = |ours: u64| (ours.cast_signed() + offset).cast_unsigned();
        let mut clock = ClockMap::unknown();
        let mut now = base;
        for (there, work, back) in samples {
            let (arrived, left) = (now + there, now + there + work);
            clock.observe(now, theirs(arrived), theirs(left), left + back);
            now = left + back;
        }
        let ours = base + moment;
        let off = clock.to_local(theirs(ours)).abs_diff(ours);
        // Halves are taken of two integers: a nanosecond may be lost in each.
        prop_assert!(off <= clock.error_ns() + 2, "{} {}", off, clock.error_ns());
    }

    #[test]
    fn any_moments_whatever_do_not_panic(
        samples in prop::collection::vec(any::<[u64; 4]>(), 1..5),
        moment in any::<u64>(),
    ) {
        let mut clock = ClockMap::unknown();
        for [t0, t1, t2, t3] in samples {
            clock.observe(t0, t1, t2, t3);
        }
        let _ = (clock.to_local(moment), clock.error_ns());
    }
}
