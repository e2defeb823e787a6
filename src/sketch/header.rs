//! What a sketch was made with flows in; whether two sketches belong together flows out.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::error::{Error, Result};
use crate::extract::{PoolRecipe, Scaling, Source};
use crate::options::FrequencyScales;
use crate::rows::TableScaling;
use crate::rows::table::Missing;
use crate::sketch::{MomentsHeader, Origin};

/// The format's name and version, first field of every sketch.
pub const FORMAT: &str = "datafusion-distill/sketch/1";

/// Between the numerics tags of merged sketches that were made on different machines or versions.
const JOINED: &str = " + ";

/// What a sketch was made with. Sketches merge only if all of it but `numerics` is the same, and `origin` as far as [`Origin`] says.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// The pool's fingerprint.
    pub pool: String,
    /// The pool's recipe.
    pub recipe: PoolRecipe,
    /// Frequencies of the characteristic function per extractor; 0: none.
    pub frequencies: usize,
    /// The standard deviations of the normal distributions that they are drawn from, in turn.
    pub frequency_scales: FrequencyScales,
    /// The seed that the frequencies are drawn from and the reservoir's hash is keyed with.
    pub frequency_seed: u64,
    /// Most real rows kept per class.
    pub reservoir: usize,
    /// Kernel path, version and device: bits are the same within one tag. Tags that differ merge into both, joined by ` + `.
    pub numerics: String,
    /// How second moments were made; `None`: there are none.
    pub moments: Option<MomentsHeader>,
    /// Where the rows come from; `None`: that isn't known.
    pub origin: Option<Origin>,
}

impl Header {
    /// Where rows of a table can miss a value: a sketch counts how often they do.
    pub fn missing(&self) -> Vec<Missing> {
        self.recipe.scaling.table().map(TableScaling::missing).unwrap_or_default()
    }

    /// Whether sketches of different machines or versions were merged.
    pub fn is_mixed(&self) -> bool {
        self.numerics.contains(JOINED)
    }

    /// Refuses a header that doesn't belong with this one, with both values named; joins differing numerics tags.
    ///
    /// The path of a pool file may differ: the fingerprint says whether it is the same pool.
    pub fn join(&mut self, other: &Header) -> Result<()> {
        let mut differences = vec![];
        let mut differ = |what: &str, here: &dyn Display, there: &dyn Display| {
            let (here, there) = (here.to_string(), there.to_string());
            if here != there {
                differences.push(format!("{what} {here} here, {there} there"));
            }
        };
        let (a, b) = (&self.recipe, &other.recipe);
        differ("pool fingerprint", &self.pool, &other.pool);
        differ("row shape", &a.shape, &b.shape);
        differ("range of values", &a.scaling.described(), &b.scaling.described());
        if a.scaling != b.scaling {
            let (here, there) = scalings(&a.scaling, &b.scaling);
            differ("input scaling", &here, &there);
        }
        differ("network", &a.network, &b.network);
        differ("pool source", &source(a), &source(b));
        differ("extractors", &a.extractors, &b.extractors);
        differ("width", &a.width, &b.width);
        differ("depth", &a.depth, &b.depth);
        differ("layers", &a.layers, &b.layers);
        differ("sizes", &a.sizes, &b.sizes);
        differ("augment", &a.augment, &b.augment);
        differ("frequencies", &self.frequencies, &other.frequencies);
        differ("frequency_scales", &self.frequency_scales, &other.frequency_scales);
        differ("frequency seed", &self.frequency_seed, &other.frequency_seed);
        differ("reservoir_per_class", &self.reservoir, &other.reservoir);
        let moments = |header: &Header| MomentsHeader::described(header.moments.as_ref());
        differ("second moments", &moments(self), &moments(other));
        if !differences.is_empty() {
            return Err(Error::Sketch(format!(
                "these sketches were made differently and don't merge: {}; make them with the same options and seed",
                differences.join("; ")
            )));
        }
        match (&mut self.origin, &other.origin) {
            (Some(ours), Some(theirs)) => ours.join(theirs)?,
            (ours @ None, theirs) => *ours = theirs.clone(),
            (Some(_), None) => {}
        }
        // The same pool, read from two places: the same one of them in any order.
        if let (Source::File { path: ours }, Source::File { path: theirs }) =
            (&mut self.recipe.source, &other.recipe.source)
            && *theirs < *ours
        {
            ours.clone_from(theirs);
        }
        if self.numerics != other.numerics {
            let tags: BTreeSet<&str> = self.numerics.split(JOINED).chain(other.numerics.split(JOINED)).collect();
            self.numerics = tags.into_iter().collect::<Vec<_>>().join(JOINED);
        }
        Ok(())
    }
}

/// Two scalings that differ, each as far as it does.
fn scalings(here: &Scaling, there: &Scaling) -> (String, String) {
    if let (Scaling::Table(a), Scaling::Table(b)) = (here, there)
        && let Some((a, b)) = a.columns.iter().zip(&b.columns).find(|(a, b)| a != b)
    {
        return (format!("{a:?}"), format!("{b:?}"));
    }
    let map = |scaling: &Scaling| match scaling {
        Scaling::Affine(a) => format!("x * {} + {}", a.scale, a.offset),
        Scaling::Table(table) => format!("of {} columns", table.columns.len()),
    };
    (map(here), map(there))
}

fn source(recipe: &PoolRecipe) -> String {
    match &recipe.source {
        Source::Random { seed } => format!("random (seed {seed})"),
        Source::File { .. } => "a file".into(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::extract::Affine;
    use crate::options::{Layers, Network, Sizes};
    use crate::rows::Shape;

    /// A header of a small pool for vectors of 6 numbers.
    pub(crate) fn header() -> Header {
        Header {
            pool: "a1b2".into(),
            recipe: PoolRecipe {
                shape: Shape::Vector { len: 6 },
                scaling: Scaling::Affine(Affine { low: 0.0, high: 16.0, scale: 0.125, offset: -1.0 }),
                source: Source::Random { seed: 5 },
                extractors: 3,
                network: Network::Mlp,
                width: 8,
                depth: 2,
                layers: Layers::Last,
                sizes: Sizes::Same,
                augment: "none".into(),
            },
            frequencies: 4,
            frequency_scales: FrequencyScales::default(),
            frequency_seed: 5,
            reservoir: 3,
            numerics: "portable 0.1.0 cpu".into(),
            moments: None,
            origin: None,
        }
    }

    #[test]
    fn a_difference_is_named_with_both_values() {
        let mut other = header();
        other.pool = "c3d4".into();
        other.recipe.width = 16;
        let e = header().join(&other).unwrap_err().to_string();
        assert!(e.contains("pool fingerprint a1b2 here, c3d4 there"), "{e}");
        assert!(e.contains("width 8 here, 16 there") && !e.contains("depth"), "{e}");
        let scales = FrequencyScales::new(vec![0.5, 1.0, 2.0]).unwrap();
        let e = header().join(&Header { frequency_scales: scales, ..header() }).unwrap_err().to_string();
        assert!(e.contains("frequency_scales 1 here, 0.5,1,2 there"), "{e}");
    }

    #[test]
    fn numerics_tags_join_into_a_set_whatever_the_order() {
        let tagged = |numerics: &str| Header { numerics: numerics.into(), ..header() };
        let (mut a, mut b) = (tagged("avx2"), tagged("avx512"));
        a.join(&tagged("avx512")).unwrap();
        a.join(&tagged("avx512 + avx2")).unwrap();
        b.join(&tagged("avx2")).unwrap();
        assert_eq!((a.numerics.as_str(), b.numerics.as_str()), ("avx2 + avx512", "avx2 + avx512"));
    }
}
