//! Real rows flow in, the positions of a few of them flow out: methods of their own, baselines and initialisations.
//!
//! A function a method, on features `[n, d]`; each gives all rows where it is asked for as many or more, and the same rows for any
//! number of threads.

mod distance;
mod herding;
mod k_center;
mod k_means;
mod random;

pub use distance::mean;
pub use herding::herding;
pub use k_center::k_center;
pub use k_means::k_means;
pub use random::random;
