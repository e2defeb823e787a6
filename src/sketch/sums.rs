//! Per-row contributions flow in, rounded once to fixed point; integer sums flow out.
//!
//! Integer addition is associative: any order, any split and any merge tree of the same rows give the same bits.

use crate::arrow::buffer::ScalarBuffer;
use crate::error::{Error, Result};
pub use crate::kernels::COS_SCALE;
use crate::kernels::sincos::fixed;
use crate::kernels::sums::{self, SEVERAL};
use crate::sketch::moments::{UNITS, rows_after};
use crate::sketch::{Header, Kept, MomentsHeader, Reservoir, Shared};

/// Fixed-point units per 1.0 of an embedding.
pub const EMBEDDING_SCALE: f64 = (1u64 << 20) as f64;
/// Embeddings are clipped to +-this, and the clipped values counted.
pub const EMBEDDING_BOUND: f32 = 4096.0;
/// Most rows in one sketch: with it no sum can overflow (2^30 rows of at most 2^32 units each).
pub const MAX_COUNT: u64 = 1 << 30;

/// The sums of one extractor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberSums {
    /// `[feature_len]` sums of embeddings, in units of 1 / [`EMBEDDING_SCALE`].
    pub embedding: Shared<i64>,
    /// `[frequencies]` sums of cosines, in units of 1 / [`COS_SCALE`].
    pub cos: Shared<i64>,
    /// `[frequencies]` sums of sines, in units of 1 / [`COS_SCALE`].
    pub sin: Shared<i64>,
    /// Packed upper triangle of the sums of products of rounded features, see [`MomentsHeader`](crate::sketch::MomentsHeader); empty: all are 0.
    pub moments: Shared<i64>,
    /// Values that were clipped for `moments`.
    pub moments_clipped: u64,
}

impl MemberSums {
    /// The sums of no rows.
    pub fn zeros(feature_len: usize, frequencies: usize) -> Self {
        let zeros = |length: usize| Shared::from(vec![0; length]);
        let (embedding, cos, sin) = (zeros(feature_len), zeros(frequencies), zeros(frequencies));
        Self { embedding, cos, sin, ..Self::default() }
    }

    fn lengths(&self) -> [usize; 3] {
        [self.embedding.len(), self.cos.len(), self.sin.len()]
    }

    fn merge(&mut self, other: &MemberSums) {
        for (to, from) in
            [(&mut self.embedding, &other.embedding), (&mut self.cos, &other.cos), (&mut self.sin, &other.sin)]
        {
            to.iter_mut().zip(from.iter()).for_each(|(to, from)| *to += from);
        }
        self.merge_moments(other);
    }

    /// Takes back sums that were added, but for second moments.
    fn take_back(&mut self, other: &MemberSums) {
        (0..3).for_each(|kind| sums::subtract(self.of_kind_mut(kind), other.of_kind(kind)));
    }

    /// Sums of embeddings, of cosines, of sines: kind 0 to 2.
    fn of_kind(&self, kind: usize) -> &[i64] {
        [&self.embedding, &self.cos, &self.sin][kind]
    }

    fn of_kind_mut(&mut self, kind: usize) -> &mut [i64] {
        [&mut self.embedding, &mut self.cos, &mut self.sin][kind]
    }

    fn merge_moments(&mut self, other: &MemberSums) {
        if !other.moments.is_empty() {
            self.moments.to_mut().resize(other.moments.len(), 0);
            self.moments.iter_mut().zip(other.moments.iter()).for_each(|(to, from)| *to += from);
        }
        self.moments_clipped = self.moments_clipped.saturating_add(other.moments_clipped);
    }

    /// The first second moment that `rows` rows can't have: its position and the sum.
    pub(crate) fn impossible_moment(&self, rows: u64, dim: usize) -> Option<(usize, i64)> {
        // rows <= 2^40 and the square <= 2^22: no overflow.
        let most = rows * u64::from(UNITS.unsigned_abs()).pow(2);
        let mut diagonal = (0..dim).scan(0, |at, i| Some(std::mem::replace(at, *at + dim - i)));
        let negative = diagonal.find(|at| self.moments.get(*at).is_some_and(|sum| *sum < 0));
        let at = negative.or_else(|| self.moments.iter().position(|sum| sum.unsigned_abs() > most))?;
        Some((at, self.moments[at]))
    }

    /// The first sum that is too large for `count` rows: its name, its position and the sum.
    pub(super) fn too_large(&self, count: u64) -> Option<(&'static str, usize, i64)> {
        self.by_name().into_iter().zip(limits(count)).find_map(|((name, sums), limit)| {
            if sums::within(sums, limit) {
                return None;
            }
            let at = sums.iter().position(|sum| sum.unsigned_abs() > limit.unsigned_abs())?;
            Some((name, at, sums[at]))
        })
    }

    fn by_name(&self) -> [(&'static str, &[i64]); 3] {
        [("embedding", &self.embedding), ("cos", &self.cos), ("sin", &self.sin)]
    }

    /// Adds one row's embedding `[feature_len]`; gives how many of its values were clipped. The values must be finite.
    pub(crate) fn add_embedding(&mut self, features: &[f32]) -> u64 {
        let mut clipped = 0;
        for (sum, value) in self.embedding.iter_mut().zip(features) {
            let inside = value.clamp(-EMBEDDING_BOUND, EMBEDDING_BOUND);
            clipped += u64::from(inside != *value);
            *sum += fixed(f64::from(inside) * EMBEDDING_SCALE);
        }
        clipped
    }
}

/// The sums, but for second moments, that are left of sketches of which parts were taken back, one extractor after the other: as Arrow wants them.
#[derive(Debug, Default)]
pub(crate) struct LeftSums {
    pub(crate) embedding: Vec<i64>,
    pub(crate) cos: Vec<i64>,
    pub(crate) sin: Vec<i64>,
    /// There are so many that no cache holds them until they are read.
    past_cache: bool,
}

/// Bytes from which on what is written goes past the caches.
const PAST_CACHE: usize = 4 << 20;

impl LeftSums {
    /// Room for those of `sketches` of the form of `like`.
    pub(crate) fn for_sketches(sketches: usize, like: &ClassSketch) -> Self {
        let [features, frequencies, _] = like.members.first().map_or([0; 3], MemberSums::lengths);
        let lists = sketches * like.members.len();
        let room = |length: usize| Vec::with_capacity(lists * length);
        let past_cache = 8 * lists * (features + 2 * frequencies) >= PAST_CACHE;
        Self { embedding: room(features), cos: room(frequencies), sin: room(frequencies), past_cache }
    }

    /// Appends what is left, `count` rows, of the sums of `whole` without those of `part`, of the same shape, whose sums needn't have been looked at.
    fn push(&mut self, whole: &ClassSketch, part: &ClassSketch, count: u64) -> Left {
        let most = [whole.count, part.count, count].map(limits);
        let (mut sound, mut first) = (true, None);
        // Kind by kind: the order of memory.
        for (kind, to) in [&mut self.embedding, &mut self.cos, &mut self.sin].into_iter().enumerate() {
            let limits = most.map(|limits| limits[kind]);
            for (extractor, (here, there)) in whole.members.iter().zip(&part.members).enumerate() {
                let from = to.len();
                let (here, there) = (here.of_kind(kind), there.of_kind(kind));
                let [of_whole, of_part, of_left] = sums::difference(here, there, limits, to, self.past_cache);
                sound &= of_whole && of_part;
                if !of_left && first.is_none() {
                    let left = &to[from..];
                    let at = left.iter().position(|sum| sum.unsigned_abs() > limits[2].unsigned_abs()).unwrap_or(0);
                    let name = whole.members[extractor].by_name()[kind].0;
                    first = Some(Left::Impossible { extractor, name, at, sum: left[at] });
                }
            }
        }
        if sound { first.unwrap_or(Left::Fits) } else { Left::Damaged }
    }

    fn lengths(&self) -> [usize; 3] {
        [self.embedding.len(), self.cos.len(), self.sin.len()]
    }

    fn truncate(&mut self, [embedding, cos, sin]: [usize; 3]) {
        self.embedding.truncate(embedding);
        self.cos.truncate(cos);
        self.sin.truncate(sin);
    }
}

/// What [`LeftSums::push`] found.
enum Left {
    /// Sums that the rows left can have.
    Fits,
    /// A sum that they can't have.
    Impossible { extractor: usize, name: &'static str, at: usize, sum: i64 },
    /// Sums, of the whole or of the part, that its own rows can't have.
    Damaged,
}

/// Second moments without those of a part; either may be empty, which is all 0, and so is the result where it would be.
fn difference_of_moments(here: &[i64], there: &[i64]) -> Shared<i64> {
    if here.is_empty() && there.is_empty() {
        return Shared::default();
    }
    let at = |sums: &[i64], i: usize| sums.get(i).copied().unwrap_or(0);
    let mut rest: Vec<i64> = (0..here.len().max(there.len())).map(|i| at(here, i) - at(there, i)).collect();
    if rest.iter().all(|sum| *sum == 0) {
        rest = vec![];
    }
    rest.into()
}

/// Largest sums of `count` rows: of embeddings, of cosines, of sines. At most [`MAX_COUNT`] rows of 2^32 units.
pub(super) fn limits(count: u64) -> [i64; 3] {
    let of = |unit: f64| (count * fixed(unit).unsigned_abs()) as i64;
    [of(f64::from(EMBEDDING_BOUND) * EMBEDDING_SCALE), of(COS_SCALE), of(COS_SCALE)]
}

/// The sketch of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassSketch {
    /// Rows.
    pub count: u64,
    /// Embedding values that were clipped.
    pub clipped: u64,
    /// Rows that miss a value, one entry for each of [`Header::missing`].
    pub missing: Vec<u64>,
    /// One entry an extractor.
    pub members: Vec<MemberSums>,
    /// Rows in the second moments: those of the class, of others too where moments are pooled, or none.
    pub moment_rows: u64,
    /// Real rows, bottom-k by content hash.
    pub reservoir: Reservoir,
}

impl ClassSketch {
    /// The sketch of no rows.
    pub fn empty(header: &Header) -> Self {
        let zeros = MemberSums::zeros(header.recipe.feature_len(), header.frequencies);
        Self {
            count: 0,
            clipped: 0,
            missing: vec![0; header.missing().len()],
            members: vec![zeros; header.recipe.extractors],
            moment_rows: 0,
            reservoir: Reservoir::new(header.reservoir),
        }
    }

    /// Adds another sketch of the same header, exactly. On an error this one is unchanged.
    pub fn merge(&mut self, other: &ClassSketch) -> Result<()> {
        let counts = self.check_merge(other)?;
        self.members.iter_mut().zip(&other.members).for_each(|(to, from)| to.merge(from));
        self.merge_others(other, counts);
        Ok(())
    }

    /// Adds all but sums; `counts` are what [`ClassSketch::check_merge`] gives.
    fn merge_others(&mut self, other: &ClassSketch, counts: (u64, u64)) {
        (self.count, self.moment_rows) = counts;
        self.clipped = self.clipped.saturating_add(other.clipped);
        self.missing.iter_mut().zip(&other.missing).for_each(|(to, from)| *to += from);
        self.reservoir.merge(&other.reservoir);
    }

    /// [`ClassSketch::merge`] of several, one after the other, whose sums weren't looked at; `false`: the rows of one can't have them, and nothing was added.
    pub(crate) fn merge_several_unchecked(&mut self, others: &[&ClassSketch]) -> Result<bool> {
        // One without second moments or kept rows goes with any: those that have them have to go with each other.
        let with_moments = others.iter().find(|other| other.members.iter().any(|m| !m.moments.is_empty()));
        let with_rows = others.iter().find(|other| !other.reservoir.rows.is_empty());
        // After each of them.
        let mut counts: Vec<(u64, u64)> = Vec::with_capacity(others.len());
        for other in others {
            let beside = [with_moments, with_rows].into_iter().flatten().copied();
            beside.chain([&*self]).try_for_each(|before| before.check_shape(other))?;
            let (count, moment_rows) = counts.last().copied().unwrap_or((self.count, self.moment_rows));
            counts.push((count_after(count, other.count)?, rows_after(moment_rows, other.moment_rows)?));
        }
        let limits: Vec<[i64; 3]> = others.iter().map(|other| limits(other.count)).collect();
        let (at_once, rest) = others.as_chunks::<SEVERAL>();
        let (limits_at_once, rest_limits) = limits.as_chunks::<SEVERAL>();
        let mut fits = true;
        // Stored sketches have the sums of a kind of all extractors one after the other, and memory is fastest in that order.
        for kind in 0..3 {
            for (n, member) in self.members.iter_mut().enumerate() {
                let to = member.of_kind_mut(kind);
                for (others, limits) in at_once.iter().zip(limits_at_once) {
                    let from = others.map(|other| other.members[n].of_kind(kind));
                    fits &= sums::add_several(to, from, limits.map(|limits| limits[kind]));
                }
                for (other, limits) in rest.iter().zip(rest_limits) {
                    fits &= sums::add(to, other.members[n].of_kind(kind), limits[kind]);
                }
            }
        }
        if !fits {
            for other in others {
                self.members.iter_mut().zip(&other.members).for_each(|(to, from)| to.take_back(from));
            }
            return Ok(false);
        }
        for (other, counts) in others.iter().zip(counts) {
            self.members.iter_mut().zip(&other.members).for_each(|(to, from)| to.merge_moments(from));
            self.merge_others(other, counts);
        }
        Ok(true)
    }

    /// Refuses what [`ClassSketch::merge`] refuses; gives the rows, and those in second moments, that there would be.
    pub(super) fn check_merge(&self, other: &ClassSketch) -> Result<(u64, u64)> {
        self.check_shape(other)?;
        Ok((count_after(self.count, other.count)?, rows_after(self.moment_rows, other.moment_rows)?))
    }

    /// Takes back a sketch of the same header whose rows were added to this one before: the sums are exactly those of the other rows; of
    /// the reservoir see [`Reservoir::without`]. On an error this one is unchanged.
    ///
    /// Refuses what can't be part of this one: more rows, clipped values or missing values than there are here, a row that isn't here, sums
    /// that the rows left can't have.
    pub fn subtract(&mut self, part: &ClassSketch) -> Result<()> {
        let lengths: Vec<[usize; 3]> = self.members.iter().map(MemberSums::lengths).collect();
        let mut left = LeftSums::for_sketches(1, self);
        if !self.subtract_to(part, &mut left)? {
            let damaged = |what: &str, sketch: &ClassSketch| {
                let find = |(n, member): (usize, &MemberSums)| member.too_large(sketch.count).map(|found| (n, found));
                let (extractor, (name, at, sum)) = sketch.members.iter().enumerate().find_map(find)?;
                let rows = sketch.count;
                Some(format!(
                    "the {what} has the sum {sum} in extractors[{extractor}].{name}[{at}], which {rows} rows can't have"
                ))
            };
            let what = damaged("first", self).or_else(|| damaged("second", part)).unwrap_or_default();
            return Err(Error::Sketch(format!("{what}; the sketch is damaged, make it again")));
        }
        let (embedding, cos, sin) =
            (ScalarBuffer::from(left.embedding), ScalarBuffer::from(left.cos), ScalarBuffer::from(left.sin));
        let mut from = [0; 3];
        for (member, lengths) in self.members.iter_mut().zip(lengths) {
            member.embedding = embedding.slice(from[0], lengths[0]).into();
            member.cos = cos.slice(from[1], lengths[1]).into();
            member.sin = sin.slice(from[2], lengths[2]).into();
            from.iter_mut().zip(lengths).for_each(|(from, length)| *from += length);
        }
        Ok(())
    }

    /// [`ClassSketch::subtract`], with the sums that are left, but for second moments, appended to `left`; this one has none then. Neither's sums need have been looked at: `false` if one has
    /// some that its rows can't have. Then, and on an error, neither has changed.
    pub(crate) fn subtract_to(&mut self, part: &ClassSketch, left_sums: &mut LeftSums) -> Result<bool> {
        let before = left_sums.lengths();
        let done = self.take_back(part, left_sums);
        if !matches!(done, Ok(true)) {
            left_sums.truncate(before);
        }
        done
    }

    fn take_back(&mut self, part: &ClassSketch, left_sums: &mut LeftSums) -> Result<bool> {
        self.check_shape(part)?;
        let left = |what: &str, here: u64, there: u64| {
            here.checked_sub(there).ok_or_else(|| {
                Error::Sketch(format!(
                    "the second isn't part of the first: it has {there} {what}, the first {here}; subtract only what was added"
                ))
            })
        };
        // Everything is checked before anything changes.
        let count = left("rows", self.count, part.count)?;
        let clipped = left("clipped values", self.clipped, part.clipped)?;
        let mut missing = self.missing.clone();
        for (rest, taken) in missing.iter_mut().zip(&part.missing) {
            *rest = left("rows that miss a value", *rest, *taken)?;
        }
        let moment_rows = left("rows in second moments", self.moment_rows, part.moment_rows)?;
        let reservoir = self.reservoir.without(&part.reservoir)?;
        let impossible = |what: String| {
            Err(Error::Sketch(format!(
                "the second isn't part of the first: {count} rows would be left, which can't have {what}; subtract only what was added"
            )))
        };
        match left_sums.push(self, part, count) {
            Left::Fits => {}
            Left::Impossible { extractor, name, at, sum } => {
                return impossible(format!("the sum {sum} in extractors[{extractor}].{name}[{at}]"));
            }
            Left::Damaged => return Ok(false),
        }
        let mut members = Vec::with_capacity(self.members.len());
        for (n, (here, there)) in self.members.iter().zip(&part.members).enumerate() {
            let member = MemberSums {
                moments: difference_of_moments(&here.moments, &there.moments),
                moments_clipped: left("clipped second moments", here.moments_clipped, there.moments_clipped)?,
                ..MemberSums::default()
            };
            // The dimensions follow from the length: dim * (dim + 1) / 2 of them.
            let dim = (2 * member.moments.len()).isqrt();
            if let Some((at, sum)) = member.impossible_moment(moment_rows, dim) {
                return impossible(format!("the sum {sum} as second moment {at} of extractor {n}"));
            }
            members.push(member);
        }
        if let Some(missing) = missing.iter().find(|n| **n > count) {
            return impossible(format!("{missing} that miss a value"));
        }
        if count == 0 && clipped > 0 {
            return impossible(format!("{clipped} clipped values"));
        }
        let kept = reservoir.rows.iter().map(|row| row.copies).sum::<u64>();
        if kept > count {
            return impossible(format!("{kept} in the reservoir"));
        }
        (self.count, self.clipped, self.missing, self.moment_rows) = (count, clipped, missing, moment_rows);
        (self.members, self.reservoir) = (members, reservoir);
        Ok(true)
    }

    fn check_shape(&self, other: &ClassSketch) -> Result<()> {
        let shape = |s: &ClassSketch| (s.missing.len(), s.reservoir.capacity);
        // Second moments that are all 0 have any length.
        let same = |(a, b): (&MemberSums, &MemberSums)| a.lengths() == b.lengths();
        let alike = self.members.len() == other.members.len() && self.members.iter().zip(&other.members).all(same);
        if !alike || shape(self) != shape(other) {
            let shown = |s: &ClassSketch| {
                let [features, frequencies, _] = s.members.first().map_or([0; 3], MemberSums::lengths);
                let (extractors, kept) = (s.members.len(), s.reservoir.capacity);
                format!("{extractors} extractors, {features} features, {frequencies} frequencies, reservoir of {kept}")
            };
            return Err(Error::Sketch(format!(
                "sketches of different shapes don't merge: {} here, {} there",
                shown(self),
                shown(other)
            )));
        }
        let exact = |s: &ClassSketch| s.reservoir.rows.first().map(|row| row.exact.len());
        if let (Some(here), Some(there)) = (exact(self), exact(other))
            && here != there
        {
            return Err(Error::Sketch(format!(
                "sketches of different shapes don't merge: the kept rows have {here} bytes of numbers that an f32 can't hold here, {there} there;                  make both for choosing rows (method) or neither"
            )));
        }
        let moments = |s: &ClassSketch| s.members.iter().map(|m| m.moments.len()).max().unwrap_or(0);
        match (moments(self), moments(other)) {
            (0, _) | (_, 0) => Ok(()),
            (here, there) if here == there => Ok(()),
            (here, there) => Err(Error::Sketch(format!(
                "sketches of different shapes don't merge: {here} second moments an extractor here, {there} there"
            ))),
        }
    }

    /// Mean embedding of extractor `member`, `[feature_len]`; zeros for no rows. Panics if there is no such extractor.
    pub fn mean(&self, member: usize) -> Vec<f32> {
        self.means(&self.members[member].embedding, EMBEDDING_SCALE)
    }

    /// Empirical characteristic function of extractor `member`: `(real, imaginary)`, `[frequencies]` each; zeros for no rows.
    /// Panics if there is no such extractor.
    pub fn characteristic(&self, member: usize) -> (Vec<f32>, Vec<f32>) {
        let sums = &self.members[member];
        (self.means(&sums.cos, COS_SCALE), self.means(&sums.sin, COS_SCALE))
    }

    fn means(&self, sums: &[i64], scale: f64) -> Vec<f32> {
        let unit = self.count.max(1) as f64 * scale;
        sums.iter().map(|s| (*s as f64 / unit) as f32).collect()
    }

    /// Copies what is shared with the array that it was read from, so that the array can go.
    pub fn make_own(&mut self) {
        for member in &mut self.members {
            for sums in [&mut member.embedding, &mut member.cos, &mut member.sin, &mut member.moments] {
                sums.to_mut();
            }
        }
        for row in &mut self.reservoir.rows {
            row.values = row.values.to_own();
        }
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        let members = self
            .members
            .iter()
            .map(|m| bytes_of_member(m.embedding.len(), m.cos.len(), m.moments.len()))
            .sum::<usize>();
        let rows =
            self.reservoir.rows.iter().map(|r| size_of::<Kept>() + r.values.bytes() + r.exact.len()).sum::<usize>();
        size_of::<Self>() + 8 * self.missing.len() + members + rows
    }

    /// Bytes of memory the sketch of one class with `header` can grow to.
    pub fn bytes_of(header: &Header) -> usize {
        let moments = header.moments.as_ref().map_or(0, MomentsHeader::len);
        let member = bytes_of_member(header.recipe.feature_len(), header.frequencies, moments);
        // Pictures of 8 bits are held as such.
        let number = if header.recipe.scaling.of_bytes() { 1 } else { size_of::<f32>() };
        let row = size_of::<Kept>() + number * header.recipe.shape.len();
        size_of::<Self>() + 8 * header.missing().len() + header.recipe.extractors * member + header.reservoir * row
    }
}

fn bytes_of_member(feature_len: usize, frequencies: usize, moments: usize) -> usize {
    size_of::<MemberSums>() + 8 * (feature_len + 2 * frequencies + moments)
}

/// The count of a class after `more` rows, if no sum can overflow with it.
pub(crate) fn count_after(count: u64, more: u64) -> Result<u64> {
    count.checked_add(more).filter(|n| *n <= MAX_COUNT).ok_or_else(|| {
        Error::Sketch(format!(
            "a class of {count} and {more} more rows; a sketch holds at most {MAX_COUNT} a class: sample the source"
        ))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(rows: &[[f32; 2]]) -> ClassSketch {
        let mut s = ClassSketch {
            count: 0,
            clipped: 0,
            missing: vec![],
            members: vec![MemberSums::zeros(2, 2)],
            moment_rows: 0,
            reservoir: Reservoir::new(2),
        };
        for row in rows {
            s.count = count_after(s.count, 1).unwrap();
            s.clipped += s.members[0].add_embedding(row);
            let MemberSums { cos, sin, .. } = &mut s.members[0];
            crate::kernels::sincos::add(row, cos, sin);
            s.reservoir.offer(Reservoir::hash(1, row, &[]), 1, row, &[]);
        }
        s
    }

    proptest! {
        #[test]
        fn merging_parts_gives_the_sketch_of_the_whole(
            rows in prop::collection::vec(prop::array::uniform2(-5000f32..5000f32), 0..40),
            cut in 0usize..40,
        ) {
            let (a, b) = rows.split_at(cut.min(rows.len()));
            let mut merged = sketch(b);
            merged.merge(&sketch(a)).unwrap();
            prop_assert_eq!(merged, sketch(&rows));
        }
    }

    #[test]
    fn means_are_those_of_the_rows_and_clipped_values_are_counted() {
        let s = sketch(&[[1.5, -0.25], [0.5, 5000.0]]);
        assert_eq!(s.mean(0), [1.0, (-0.25 + EMBEDDING_BOUND) / 2.0]);
        assert_eq!((s.count, s.clipped), (2, 1));
        let (re, im) = s.characteristic(0);
        assert!((f64::from(re[0]) - (1.5f64.cos() + 0.5f64.cos()) / 2.0).abs() < 2e-7);
        assert!((f64::from(im[0]) - (1.5f64.sin() + 0.5f64.sin()) / 2.0).abs() < 2e-7);
        assert_eq!(sketch(&[]).mean(0), [0.0, 0.0]);
    }

    #[test]
    fn too_many_rows_and_other_shapes_are_refused_and_change_nothing() {
        let mut full = sketch(&[[1.0, 2.0]]);
        full.count = MAX_COUNT;
        let before = full.clone();
        let e = full.merge(&sketch(&[[1.0, 2.0]])).unwrap_err().to_string();
        assert!(e.contains("at most 1073741824"), "{e}");
        let mut narrow = sketch(&[]);
        narrow.members[0].cos.to_mut().pop();
        narrow.members[0].sin.to_mut().pop();
        let e = full.merge(&narrow).unwrap_err().to_string();
        assert!(e.contains("2 frequencies") && e.contains("1 frequencies"), "{e}");
        let mut exact = sketch(&[]);
        exact.reservoir.offer(Reservoir::hash(1, &[3.0, 4.0], &[7; 8]), 1, &[3.0, 4.0], &[7; 8]);
        let e = full.merge(&exact).unwrap_err().to_string();
        assert!(e.contains("0 bytes of numbers") && e.contains("8 there"), "{e}");
        assert_eq!(full, before);
    }

    #[test]
    fn the_largest_count_of_the_largest_values_does_not_overflow() {
        let most = i128::from(fixed(f64::from(EMBEDDING_BOUND) * EMBEDDING_SCALE)) * i128::from(MAX_COUNT);
        assert!(most < i128::from(i64::MAX) && (COS_SCALE as i128) * i128::from(MAX_COUNT) < i128::from(i64::MAX));
    }
}
