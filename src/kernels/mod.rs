//! Tensors flow in, tensors flow out: the hot operations as candle custom ops, each beside its plain-candle twin.

mod augment;
mod conv_block;
mod second_moments;
mod simd;

pub use augment::Transform;
pub use conv_block::{Wants, conv_block, conv_block_reference};
pub use second_moments::second_moments;

/// The kernel path of the CPU (`avx512`, `avx2`, `neon` or `portable`): part of the numerics tag of a sketch, since bits are the same only
/// along one path. The environment variable `DISTILL_KERNELS` can name a narrower one; it is read once.
pub fn path() -> &'static str {
    simd::Path::detect().name()
}
