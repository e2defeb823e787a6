//! The classes' row counts and the options flow in; how many synthetic rows each class gets flows out.

use crate::error::{Error, Result};
use crate::options::{Allocation, Options};
use crate::sketch::Sketches;

/// Synthetic rows of each class, in label order: at least one each, `options.rows` or `options.ipc` times the classes in all, split as
/// option `allocation` says. Fails where there are fewer rows than classes.
pub(crate) fn of(sketches: &Sketches, options: &Options) -> Result<Vec<usize>> {
    let counts: Vec<u64> = sketches.classes.values().map(|sketch| sketch.count).collect();
    let total = options.rows.unwrap_or(options.ipc * counts.len());
    if total < counts.len() {
        return Err(Error::option(
            "rows",
            format!(
                "{total} rows can't be split over {0} classes, each of which gets at least one; give rows => {0} or more, or fewer classes",
                counts.len()
            ),
        ));
    }
    Ok(allot(&counts, total, options.allocation))
}

/// Splits `total`, at least the number of classes, in proportion to the weights of `counts`; at least 1 each.
///
/// By largest remainders: a class gets its quota rounded down, and the rows left over go to the largest remainders, of equals to the
/// larger class, then to the first. Classes whose quota is below 1 get 1, and the quotas of the others are those of the rows that are left. Whole
/// numbers throughout: the sum is exact, and a larger class never gets fewer rows than a smaller one.
fn allot(counts: &[u64], total: usize, allocation: Allocation) -> Vec<usize> {
    let weights: Vec<u128> = counts.iter().map(|count| weight(*count, allocation)).collect();
    let mut rows = vec![1; counts.len()];
    let mut open: Vec<usize> = (0..counts.len()).collect();
    loop {
        // Rows and weights of the classes that aren't settled at 1.
        let left = (total - (counts.len() - open.len())) as u128;
        let sum = open.iter().map(|class| weights[*class]).sum::<u128>().max(1);
        let before = open.len();
        open.retain(|class| left * weights[*class] >= sum);
        if open.len() < before {
            continue;
        }
        open.iter().for_each(|class| rows[*class] = (left * weights[*class] / sum) as usize);
        let given: usize = open.iter().map(|class| rows[*class]).sum();
        let remainder = |class: usize| left * weights[class] % sum;
        open.sort_by(|a, b| (remainder(*b), counts[*b], *a).cmp(&(remainder(*a), counts[*a], *b)));
        open.iter().take(left as usize - given).for_each(|class| rows[*class] += 1);
        return rows;
    }
}

fn weight(count: u64, allocation: Allocation) -> u128 {
    match allocation {
        Allocation::Equal => 1,
        Allocation::Proportional => u128::from(count),
        // In units of 2^-32: the root of a count up to 2^30 to ten digits, the same on every machine.
        Allocation::Sqrt => (u128::from(count) << 64).isqrt(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Allocation; 3] = [Allocation::Equal, Allocation::Proportional, Allocation::Sqrt];

    proptest! {
        #[test]
        fn shares_add_up_are_at_least_one_follow_the_counts_and_stay_near_their_quotas(
            counts in prop::collection::vec(1u64..1 << 30, 1..40),
            more in 0usize..5000,
        ) {
            let total = counts.len() + more;
            for allocation in ALL {
                let rows = allot(&counts, total, allocation);
                prop_assert_eq!(rows.iter().sum::<usize>(), total);
                prop_assert!(rows.iter().all(|n| *n >= 1));
                for (a, b) in (0..counts.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    let apart = rows[a].abs_diff(rows[b]);
                    if counts[a] > counts[b] { prop_assert!(rows[a] >= rows[b]) }
                    if counts[a] < counts[b] { prop_assert!(rows[a] <= rows[b]) }
                    if counts[a] == counts[b] || allocation == Allocation::Equal { prop_assert!(apart <= 1) }
                }
                let sum: f64 = counts.iter().map(|n| weight(*n, allocation) as f64).sum();
                for (rows, count) in rows.iter().zip(&counts) {
                    // Never more than a row above its share of the whole: what small classes get beyond theirs, others lack.
                    prop_assert!((*rows as f64) < total as f64 * weight(*count, allocation) as f64 / sum + 1.0 + 1e-6 || *rows == 1);
                }
            }
        }
    }

    #[test]
    fn examples_by_hand() {
        use Allocation::*;
        assert_eq!(allot(&[900, 90, 10], 20, Proportional), [17, 2, 1]);
        assert_eq!(allot(&[900, 100, 4], 20, Sqrt), [14, 5, 1]);
        assert_eq!(allot(&[900, 90, 10], 20, Equal), [7, 7, 6]);
        assert_eq!(allot(&[5, 5, 5, 5], 6, Proportional), [2, 2, 1, 1]);
        assert_eq!(allot(&[1 << 30, 1, 1], 3, Proportional), [1, 1, 1]);
        assert_eq!(allot(&[1 << 30, 1, 1], 10, Proportional), [8, 1, 1]);
        assert_eq!(allot(&[7; 3], 30, Equal), [10; 3]);
    }
}
