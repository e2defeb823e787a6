//! Rows of small integers flow in, the sums of their products flow out, exactly.

/// Adds, row by row, `r[i] * r[j]` for `i <= j` of each row `r` of `rows` `[n, dim]` to the packed upper triangle `sums`, first that of
/// `i = 0`; values are at most 2047 in size. Panics if the lengths don't fit.
pub fn second_moments(rows: &[i16], dim: usize, sums: &mut [i64]) {
    assert_eq!(sums.len(), dim * (dim + 1) / 2);
    assert!(dim > 0 && rows.len().is_multiple_of(dim));
    for row in rows.chunks_exact(dim) {
        let mut rest = &mut sums[..];
        for (i, left) in row.iter().enumerate() {
            let (own, others) = rest.split_at_mut(dim - i);
            for (sum, right) in own.iter_mut().zip(&row[i..]) {
                *sum += i64::from(i32::from(*left) * i32::from(*right));
            }
            rest = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_products_by_hand() {
        let mut sums = vec![1; 6];
        second_moments(&[1, -2, 3, 2047, 0, -2047], 3, &mut sums);
        let square = 2047 * 2047;
        assert_eq!(sums, [2 + square, -1, 4 - square, 5, -5, 10 + square]);
    }
}
