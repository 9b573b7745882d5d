use super::*;

const SHAPES: [(usize, usize); 8] = [
    (0, 0),
    (0, 5),
    (5, 0),
    (1, 1),
    (3, 70),
    (32, 64),
    (33, 65),
    (77, 300),
];

fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|index| (index as f32 - 7.5) * 0.37)
        .collect()
}

#[test]
fn unpacking_gives_back_what_was_packed() {
    for (out, inner) in SHAPES {
        let w = values(out * inner);
        let packed = PackedMatrix::from_f32(&w, out, inner).unwrap();
        assert_eq!(
            (packed.out(), packed.inner(), packed.format()),
            (out, inner, Format::F32)
        );
        assert_eq!(packed.bytes(), 4 * out * inner);
        assert_eq!(packed.to_f32(), w);

        let bits: Vec<u16> = w.iter().map(|&value| f32_to_bf16(value)).collect();
        let rounded: Vec<f32> = bits.iter().map(|&bits| bf16_to_f32(bits)).collect();
        let packed = PackedMatrix::from_bf16_bits(&bits, out, inner).unwrap();
        assert_eq!(
            (packed.format(), packed.bytes()),
            (Format::Bf16, 2 * out * inner)
        );
        assert_eq!(packed.to_f32(), rounded);
        let packed = PackedMatrix::from_f32_as(Format::Bf16, &w, out, inner).unwrap();
        assert_eq!(packed.to_f32(), rounded);
    }
}

#[test]
fn bytes_may_be_unaligned() {
    let (out, inner) = (33, 65);
    let w = values(out * inner);
    for format in [Format::F32, Format::Bf16] {
        let mut bytes = vec![0; 1 + w.len() * format.bytes()];
        crate::encode_row(format, &w, &mut bytes[1..]);
        let packed = PackedMatrix::from_le_bytes(format, &bytes[1..], out, inner).unwrap();
        let expected = PackedMatrix::from_f32_as(format, &w, out, inner).unwrap();
        assert_eq!(packed.to_f32(), expected.to_f32());
    }
}

#[test]
fn a_wrong_size_names_the_shape() {
    let error = PackedMatrix::from_f32(&[0.0; 5], 2, 3).unwrap_err();
    assert_eq!(
        error,
        KernelError::WeightSize {
            out: 2,
            inner: 3,
            format: Format::F32,
            expected: 24,
            actual: 20
        }
    );
    assert_eq!(
        error.to_string(),
        "weights of shape [2, 3] in f32 need 24 bytes, got 20; \
         pass the whole matrix in nn.Linear layout"
    );
    assert!(PackedMatrix::from_bf16_bits(&[0; 7], 2, 3).is_err());
    assert!(PackedMatrix::from_f32_as(Format::Bf16, &[0.0; 7], 2, 3).is_err());
    assert!(PackedMatrix::from_le_bytes(Format::Bf16, &[0; 11], 2, 3).is_err());
}

#[test]
fn a_shape_past_the_address_space_is_an_error() {
    let error = PackedMatrix::from_f32(&[], usize::MAX, 2).unwrap_err();
    assert_eq!(
        error,
        KernelError::WeightOverflow {
            out: usize::MAX,
            inner: 2
        }
    );
    let error = PackedMatrix::from_le_bytes(Format::F32, &[], usize::MAX / 2, 1).unwrap_err();
    assert!(matches!(error, KernelError::WeightOverflow { .. }));
    // Lengths saturate, products do not: nothing of 2⁶² values passes for something else.
    assert!(PackedMatrix::from_bf16_bits(&[1], 1 << 32, 1 << 30).is_err());
}

#[test]
fn debug_shows_the_shape_and_not_the_weights() {
    let packed = PackedMatrix::from_f32(&[0.0; 6], 2, 3).unwrap();
    assert_eq!(
        format!("{packed:?}"),
        "PackedMatrix { out: 2, inner: 3, format: F32 }"
    );
}
