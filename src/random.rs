//! A seed and a purpose flow in; an independent, reproducible ChaCha stream flows out.
//!
//! Every random draw of the crate comes from a stream named by its purpose, so that adding a draw in one place changes
//! nothing in another, and no device's or thread's own generator is ever used.

use rand::SeedableRng;
use rand_chacha::ChaCha12Rng;

/// The stream of `seed` for `purpose`: the same two always give the same stream.
pub fn stream(seed: u64, purpose: &str) -> ChaCha12Rng {
    let mut hasher = blake3::Hasher::new_derive_key("datafusion-distill random stream 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(purpose.as_bytes());
    ChaCha12Rng::from_seed(*hasher.finalize().as_bytes())
}

/// `n` draws from the standard normal distribution, by the polar form of Box and Muller.
pub fn normal(rng: &mut impl rand::Rng, n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n + 1);
    while out.len() < n {
        let (u, v) = (2.0 * rng.random::<f64>() - 1.0, 2.0 * rng.random::<f64>() - 1.0);
        let s = u * u + v * v;
        if s > 0.0 && s < 1.0 {
            let r = (-2.0 * s.ln() / s).sqrt();
            out.push((u * r) as f32);
            out.push((v * r) as f32);
        }
    }
    out.truncate(n);
    out
}

/// `n` draws from the uniform distribution on `[-bound, bound)`.
pub fn uniform(rng: &mut impl rand::Rng, n: usize, bound: f32) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-bound..bound)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_purpose_and_seed_and_repeat() {
        let draw = |seed, purpose| normal(&mut stream(seed, purpose), 4);
        assert_eq!(draw(1, "pool"), draw(1, "pool"));
        assert_ne!(draw(1, "pool"), draw(1, "init"));
        assert_ne!(draw(1, "pool"), draw(2, "pool"));
    }

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let x = normal(&mut stream(7, "test"), 20_000);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
