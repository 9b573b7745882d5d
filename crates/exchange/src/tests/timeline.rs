use proptest::prelude::*;

use crate::Timeline;
use crate::timeline::TIMELINE_WORDS;

fn timeline(fields: [u64; 12]) -> Timeline {
    let [
        critical,
        packed,
        received,
        started,
        computed,
        arrived,
        rest @ ..,
    ] = fields;
    let [
        done,
        dispatched,
        first_result,
        longest_experts,
        shared,
        clock_error,
    ] = rest;
    Timeline {
        critical,
        packed,
        received,
        started,
        computed,
        arrived,
        done,
        dispatched,
        first_result,
        longest_experts,
        shared,
        clock_error,
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(fields in any::<[u64; 12]>()) {
        let line = timeline(fields);
        let mut index = vec![0; TIMELINE_WORDS * 4];
        line.write(&mut index);
        prop_assert_eq!(Timeline::read(&index), Some(line));
        prop_assert_eq!(Timeline::read(&index[1..]), None);
    }
}

#[test]
fn moments_that_follow_each_other_are_ordered() {
    let good = timeline([3, 1, 2, 2, 9, 9, 12, 5, 7, u64::MAX, u64::MAX, u64::MAX]);
    assert!(good.is_ordered() && Timeline::default().is_ordered());
    let bad = [
        Timeline { packed: 3, ..good },
        Timeline {
            received: 10,
            ..good
        },
        Timeline { started: 1, ..good },
        Timeline {
            computed: 10,
            ..good
        },
        Timeline {
            arrived: 13,
            ..good
        },
        Timeline {
            dispatched: 13,
            ..good
        },
        Timeline {
            first_result: 13,
            ..good
        },
        Timeline {
            done: u64::MAX,
            ..good
        },
    ];
    for line in bad {
        assert!(!line.is_ordered(), "{line:?}");
    }
}
