//! What can be wrong with the operands of a kernel.

use crate::Format;

/// An operand whose size does not fit its announced shape.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Weights whose length is not `out * inner` elements.
    #[error(
        "weights of shape [{out}, {inner}] in {format} need {expected} bytes, got {actual}; \
         pass the whole matrix in nn.Linear layout"
    )]
    WeightSize {
        /// Announced number of outputs.
        out: usize,
        /// Announced length of the inner dimension.
        inner: usize,
        /// Announced number format.
        format: Format,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes that were handed over.
        actual: usize,
    },
    /// A shape whose number of bytes does not fit the address space.
    #[error("weights of shape [{out}, {inner}] do not fit the address space; check the shape")]
    WeightOverflow {
        /// Announced number of outputs.
        out: usize,
        /// Announced length of the inner dimension.
        inner: usize,
    },
    /// Inputs and outputs of a product that disagree about the number of rows.
    #[error(
        "product with weights [{out}, {inner}]: x holds {x} values and y {y}; \
         expected rows * {inner} and rows * {out} for one number of rows"
    )]
    ProductShape {
        /// Outputs of the weights.
        out: usize,
        /// Inner dimension of the weights.
        inner: usize,
        /// Length of `x` in values.
        x: usize,
        /// Length of `y` in values.
        y: usize,
    },
}
