//! Uniformly chosen rows.

use rand::Rng;

use crate::random::stream;

/// `k` of `n` positions, drawn without replacement from `seed`, ascending; all of them if `k >= n`.
pub fn random(n: usize, k: usize, seed: u64) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..n).collect();
    let k = k.min(n);
    let mut draws = stream(seed, "select random rows");
    for i in 0..k {
        positions.swap(i, draws.random_range(i as u64..n as u64) as usize);
    }
    positions.truncate(k);
    positions.sort_unstable();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_distinct_ascending_and_repeat_with_the_seed() {
        let drawn = random(100, 30, 1);
        assert!(drawn.len() == 30 && drawn.windows(2).all(|w| w[0] < w[1]) && drawn[29] < 100);
        assert_eq!(drawn, random(100, 30, 1));
        assert_ne!(drawn, random(100, 30, 2));
        assert_eq!(random(3, 5, 1), [0, 1, 2]);
        assert!(random(0, 5, 1).is_empty());
    }

    #[test]
    fn every_position_is_as_likely() {
        let mut hits = [0; 10];
        (0..5000).for_each(|seed| random(10, 3, seed).into_iter().for_each(|i| hits[i] += 1));
        assert!(hits.iter().all(|h| (1350..1650).contains(h)), "{hits:?}");
    }
}
