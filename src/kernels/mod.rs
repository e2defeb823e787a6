//! Tensors flow in, tensors flow out: the hot operations as candle custom ops, each beside its plain-candle twin.

mod arena;
mod augment;
mod characteristic;
mod conv_block;
mod convolution;
mod groups;
mod instance_norm;
mod ridge;
mod second_moments;
mod simd;
pub(crate) mod sincos;
pub(crate) mod sums;

pub use arena::Arena;
pub use augment::Transform;
pub(crate) use augment::outside;
pub use characteristic::{CosSin, Frequencies, characteristic, characteristic_learned, characteristic_reference};
pub use conv_block::{ConvStack, Wants, conv_block, conv_block_reference, conv_blocks};
pub use convolution::{convolution, convolution_reference};
pub use groups::Groups;
pub use instance_norm::{instance_norm, instance_norm_reference, instance_norm_relu};
pub use ridge::ridge_solve;
pub use second_moments::{MOMENT_BOUND, second_moments};
pub use sincos::COS_SCALE;

/// Changes whenever a kernel's results do, if only in their last bits: part of the numerics tag of a sketch.
pub const REVISION: u32 = 2;

/// The most channels that lie in one block on any path: kernels hold whole blocks.
pub(crate) const LARGEST_BLOCK: usize = 32;

/// The kernel path of the CPU (`avx512`, `avx2`, `neon` or `portable`): part of the numerics tag of a sketch, since bits are the same only
/// along one path. The environment variable `DISTILL_KERNELS` can name a narrower one; it is read once.
pub fn path() -> &'static str {
    simd::Path::detect().name()
}
