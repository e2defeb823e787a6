//! A pool's width and depth and an extractor's number flow in, that extractor's own width and depth flow out.

/// Sizes that take turns in a pool of mixed ones.
pub(crate) const SIZES: usize = 4;

/// Which of the [`SIZES`] extractor `n` has: each once in four, one place on in the next four. So whatever else takes turns in fours, such as how
/// far networks are trained, meets each size within sixteen extractors.
pub(crate) fn turn(n: usize) -> usize {
    (n + n / SIZES) % SIZES
}

/// Width and depth of extractor `n` of a mixed pool of `width` and `depth`: as these, half as wide, one block less, and both. Never wider or deeper, so
/// that the pool's own size bounds features and memory; widths are multiples of 8 if `width` is, and there is at least one block.
pub(crate) fn mixed(width: usize, depth: usize, n: usize) -> (usize, usize) {
    let narrow = (width / 2).next_multiple_of(8).min(width);
    let shallow = depth.saturating_sub(1).max(1);
    [(width, depth), (narrow, depth), (width, shallow), (narrow, shallow)][turn(n)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_sizes_take_turns_and_none_is_larger_than_the_first() {
        let sizes = |width, depth| [0, 1, 2, 3].map(|n| mixed(width, depth, n));
        assert_eq!(sizes(64, 3), [(64, 3), (32, 3), (64, 2), (32, 2)]);
        assert_eq!(sizes(24, 1), [(24, 1), (16, 1), (24, 1), (16, 1)]);
        assert_eq!(sizes(8, 2), [(8, 2), (8, 2), (8, 1), (8, 1)]);
        assert_eq!(sizes(3, 1), [(3, 1); 4]);
    }

    #[test]
    fn sixteen_extractors_meet_each_size_in_each_place() {
        let met: std::collections::BTreeSet<_> = (0..16).map(|n| (turn(n), n % 4)).collect();
        assert_eq!(met.len(), 16);
    }
}
