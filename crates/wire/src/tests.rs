use bytes::Bytes;
use expertmesh_kernels::Format;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

fn header(kind: FrameKind, row_count: u32, hidden: u32, format: Format) -> Header {
    let tag = Tag {
        session: 7,
        epoch: 1,
        step: 0,
        layer: 3,
        shard: 2,
        chunk: 1,
        attempt: 0,
    };
    let mut header = Header::new(kind, tag, hidden, format);
    header.row_count = row_count;
    header.extent = 4;
    header.budget_ns = 5_000_000;
    header.times = Times {
        received_ns: 1,
        started_ns: 2,
        computed_ns: 3,
        sent_ns: u64::MAX,
    };
    header
}

fn sample(rows: u32, hidden: u32) -> (Header, Bytes) {
    let header = header(FrameKind::Rows, rows, hidden, Format::F32);
    let pool = BufferPool::default();
    let mut writer = FrameWriter::new(&pool, &header, 3, rows as usize * header.row_bytes());
    let (index, body) = writer.parts();
    for (at, word) in index.chunks_exact_mut(4).enumerate() {
        word.copy_from_slice(&u32::try_from(at).unwrap().to_le_bytes());
    }
    for (at, byte) in body.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    (header, writer.finish())
}

#[test]
fn a_generated_decoder_reads_what_we_write() {
    let (header, message) = sample(5, 9);
    let frame = v1::Frame::decode(message.slice(GRPC_PREFIX..)).unwrap();
    assert_eq!(frame.header.as_ref(), Some(&header.to_wire()));
    assert_eq!(frame.rows.len(), 5 * 9 * 4);
    let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
    assert_eq!(length as usize, message.len() - GRPC_PREFIX);
    // A generated encoder gives the same bytes, as long as no part is empty.
    assert_eq!(frame.encode_to_vec(), message.slice(GRPC_PREFIX..));
}

#[test]
fn we_read_what_a_generated_encoder_writes_even_without_empty_parts() {
    let header = header(FrameKind::Results, 0, 16, Format::Bf16);
    let frame = v1::Frame {
        header: Some(header.to_wire()),
        ..Default::default()
    };
    let view = FrameView::read(frame.encode_to_vec().into()).unwrap();
    assert_eq!(view.header, header);
    assert!(view.rows.is_empty());
}

#[test]
fn a_lying_row_count_is_refused() {
    let (header, message) = sample(5, 9);
    let mut frame = v1::Frame::decode(message.slice(GRPC_PREFIX..)).unwrap();
    frame.header = Some(
        Header {
            row_count: 6,
            ..header
        }
        .to_wire(),
    );
    let error = FrameView::read(frame.encode_to_vec().into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame field `rows` holds 180 bytes, expected 216 bytes (6 rows of 9 f32 elements)"
    );
}

#[test]
fn an_absent_header_field_is_named() {
    let (header, _) = sample(1, 1);
    let mut wire = header.to_wire();
    wire.chunk = None;
    let frame = v1::Frame {
        header: Some(wire),
        ..Default::default()
    };
    let error = FrameView::read(frame.encode_to_vec().into()).unwrap_err();
    assert!(error.to_string().contains("`chunk`"), "{error}");
}

#[test]
fn buffers_come_back() {
    let pool = BufferPool::default();
    let first = pool.take(10_000).freeze();
    let at = first.as_ptr();
    drop(first);
    assert_eq!(pool.take(9_000).as_ref().as_ptr(), at);
}

#[test]
fn another_major_is_refused_with_both_versions() {
    let peer = v1::ProtocolVersion { major: 9, minor: 4 };
    let error = check_protocol(Some(&peer), "worker at 10.0.0.1:7000").unwrap_err();
    assert_eq!(error.code, ErrorCode::ProtocolMismatch);
    assert!(
        error.message.contains("9.4") && error.message.contains("1.0"),
        "{error}"
    );
}

#[test]
fn an_error_keeps_its_kind_across_the_wire() {
    let error = RemoteError::new(ErrorCode::WorkerLost, "worker-2 is gone").about(3);
    assert_eq!(RemoteError::from_detail(&error.to_detail()), error);
}

proptest! {
    #[test]
    fn length_depends_on_sizes_alone(rows in 0u32..40, hidden in 1u32..50, step: u64, sent: u64) {
        let mut header = header(FrameKind::Rows, rows, hidden, Format::Bf16);
        header.tag.step = step;
        header.times.sent_ns = sent;
        let rows_len = rows as usize * header.row_bytes();
        let message = FrameWriter::new(&BufferPool::default(), &header, 7, rows_len).finish();
        prop_assert_eq!(message.len(), encoded_len(7, rows_len));
        let view = FrameView::read_prefixed(message).unwrap();
        prop_assert_eq!(view.header, header);
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = FrameView::read(bytes.into());
    }

    #[test]
    fn a_flipped_byte_never_panics(at in 0usize..300, value: u8) {
        let (_, message) = sample(4, 11);
        let mut bytes = message.to_vec();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = FrameView::read_prefixed(bytes.into());
    }
}
