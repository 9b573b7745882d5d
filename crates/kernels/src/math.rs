//! Transcendentals with the same bits everywhere.
//!
//! The C library's `expf` and its relatives differ between systems and versions in their last bits,
//! and a vectorised loop would call none of them. These are polynomials in multiplications, additions
//! and fused multiply-adds, each of which IEEE 754 defines to the bit, and Rust fuses none by itself:
//! a value has the same bits alone, in a slice, and on any CPU. Each function states its accuracy in
//! ulp (units in the last place of the f32 result), which the tests check against f64.
//!
//! Functions named after a slice verb (`…_slice`, [`silu_mul`]) apply the scalar function to every
//! value in vector registers. Many values should go through them: alone, a fused multiply-add is a
//! call into the C library wherever the compiler must not assume that the CPU has one.

mod activation;
mod elementary;
mod reduce;
#[cfg(test)]
mod tests;

pub(crate) use activation::sigmoid_normal;
pub use activation::{
    gelu, gelu_slice, gelu_tanh, gelu_tanh_slice, mul_slice, relu, relu_slice, sigmoid,
    sigmoid_slice, silu, silu_mul, silu_slice, softplus, softplus_slice,
};
pub(crate) use elementary::NORMAL;
pub use elementary::{exp, exp_slice, log, tanh, tanh_slice};
pub(crate) use reduce::softmax_row;
pub use reduce::{logsumexp, softmax};
