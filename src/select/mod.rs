//! Real rows flow in, the positions of a few of them flow out: baselines and initialisations.

mod herding;
mod random;

pub use herding::herding;
pub use random::random;
