//! Unit tests of what has no public door.

use bytes::{BufMut as _, Bytes, BytesMut};
use expertmesh_wire::{ErrorCode, RemoteError};
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use crate::error::CloseReason;
use crate::framing::Deframer;
use crate::status::{close_reason, to_status, to_trailers};

fn framed(messages: &[Vec<u8>]) -> Bytes {
    let mut bytes = BytesMut::new();
    for message in messages {
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(message.len()).unwrap());
        bytes.extend_from_slice(message);
    }
    bytes.freeze()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cut_of_the_bytes_gives_the_same_messages(
        messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
        cuts in prop::collection::vec(1_usize..30, 0..64),
    ) {
        let mut bytes = framed(&messages);
        let mut deframer = Deframer::new(40);
        let mut delivered = Vec::new();
        for cut in cuts {
            let chunk = bytes.split_to(cut.min(bytes.len()));
            deframer.push(chunk, |message| delivered.push(message.to_vec())).unwrap();
        }
        deframer.push(bytes, |message| delivered.push(message.to_vec())).unwrap();
        prop_assert_eq!(delivered, messages);
        prop_assert!(!deframer.is_midway());
    }

    #[test]
    fn any_error_survives_the_trailers(
        message in ".{0,300}",
        code in 1_i32..=7,
        endpoint in any::<Option<u32>>(),
    ) {
        let code = ErrorCode::try_from(code).unwrap();
        let error = RemoteError { code, message, endpoint };
        prop_assert_eq!(close_reason(&to_trailers(Some(&error))), CloseReason::Remote(error));
    }

    #[test]
    fn no_details_of_a_peer_can_panic(details in "[A-Za-z0-9+/=_-]{0,12}") {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-status-details-bin", HeaderValue::try_from(details).unwrap());
        prop_assert!(matches!(close_reason(&trailers), CloseReason::Remote(_)));
    }
}

#[test]
fn a_message_within_one_chunk_is_not_copied() {
    let bytes = framed(&[vec![1; 100], vec![2; 100]]);
    let range = bytes.as_ptr_range();
    let mut deframer = Deframer::new(100);
    let mut count = 0;
    deframer
        .push(bytes, |message| {
            count += 1;
            assert!(range.contains(&message.as_ptr()));
        })
        .unwrap();
    assert_eq!(count, 2);
}

#[test]
fn gathered_messages_use_their_buffer_again() {
    let mut deframer = Deframer::new(1000);
    let mut places = Vec::new();
    for _ in 0..3 {
        let mut bytes = framed(&[vec![1; 1000]]);
        let first = bytes.split_to(500);
        for chunk in [first, bytes] {
            deframer
                .push(chunk, |message| places.push(message.as_ptr()))
                .unwrap();
        }
    }
    assert_eq!(places.len(), 3);
    assert!(places.iter().all(|place| *place == places[0]), "{places:?}");
}

#[test]
fn lengths_and_flags_are_checked_before_anything_is_stored() {
    let refuse = |prefix: &'static [u8]| {
        let mut deframer = Deframer::new(1 << 20);
        let error = deframer.push(Bytes::from_static(prefix), |_| panic!("delivered"));
        let error = error.unwrap_err();
        assert_eq!(error.code, ErrorCode::BadFrame);
        error.message
    };
    let words = refuse(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]);
    assert!(
        words.contains("4294967295") && words.contains("1048576"),
        "{words}"
    );
    let words = refuse(&[1, 0, 0, 0, 1, 9]);
    assert!(words.contains("compression flag 1"), "{words}");

    let mut deframer = Deframer::new(1 << 20);
    deframer
        .push(Bytes::from_static(&[0, 0, 0]), |_| panic!("delivered"))
        .unwrap();
    assert!(deframer.is_midway());
}

#[test]
fn trailers_in_good_order_and_none_at_all() {
    assert_eq!(close_reason(&to_trailers(None)), CloseReason::Finished);
    assert!(matches!(
        close_reason(&HeaderMap::new()),
        CloseReason::Lost(_)
    ));
}

#[test]
fn a_long_message_is_cut_at_a_character() {
    let error = RemoteError::new(ErrorCode::Internal, "ä".repeat(5000));
    let status = to_status(&error);
    assert!(status.message().len() <= 2048 + 3 && status.message().ends_with('…'));
    assert_eq!(to_trailers(Some(&error)).len(), 3);
}
