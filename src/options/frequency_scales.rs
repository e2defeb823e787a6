//! A list of numbers flows in, as text; the scales of frequencies flow out, checked.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Value;
use super::value::wrong;
use crate::error::Result;

/// Most scales.
const MOST: usize = 16;

/// The least and the largest scale. Beyond, sines of the angles would be less exact than their sums
/// ([`kernels::sincos`](crate::kernels)).
const BOUNDS: std::ops::RangeInclusive<f64> = 0.001..=64.0;

/// Standard deviations of the normal distributions that frequencies are drawn from, in equal shares: a scale mixture. By default one, 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrequencyScales(Vec<f64>);

impl Default for FrequencyScales {
    fn default() -> Self {
        Self(vec![1.0])
    }
}

impl fmt::Display for FrequencyScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(f64::to_string).collect::<Vec<_>>().join(","))
    }
}

impl FrequencyScales {
    /// These scales; `None`: they are none, too many, too small or too large.
    pub fn new(scales: Vec<f64>) -> Option<Self> {
        let sound = (1..=MOST).contains(&scales.len()) && scales.iter().all(|scale| BOUNDS.contains(scale));
        // What is 1 throughout is the default, however often it is said.
        let plain = scales.iter().all(|scale| *scale == 1.0);
        sound.then(|| if plain { Self::default() } else { Self(scales) })
    }

    /// The numbers.
    pub fn to_vec(&self) -> Vec<f64> {
        self.0.clone()
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// That of frequency `frequency`: they take turns.
    pub fn of(&self, frequency: usize) -> f64 {
        self.0.get(frequency % self.count().max(1)).copied().unwrap_or(1.0)
    }

    pub(super) fn parse(name: &str, value: &Value) -> Result<Self> {
        let (least, largest) = (BOUNDS.start(), BOUNDS.end());
        let expected = || wrong(name, value, format!("1 to {MOST} numbers from {least} to {largest}, as '0.5,1,2'"));
        let numbers = value.to_string().split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>();
        numbers.and_then(Self::new).ok_or_else(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read_in_all_forms_and_shown_as_they_are_read() {
        let read = |value: Value| FrequencyScales::parse("frequency_scales", &value);
        let scales = read(Value::Text(" 0.5, 1,2 ".into())).unwrap();
        assert_eq!((scales.to_string().as_str(), scales.count()), ("0.5,1,2", 3));
        assert_eq!([0, 1, 2, 3, 7].map(|k| scales.of(k)), [0.5, 1.0, 2.0, 0.5, 1.0]);
        assert_eq!(read(Value::List(vec![Value::Float(0.5), Value::Int(1), Value::Int(2)])).unwrap(), scales);
        assert_eq!(read(Value::Float(0.25)).unwrap().to_string(), "0.25");
        assert_eq!(read(Value::Text("1,1".into())).unwrap(), FrequencyScales::default());
        for wrong in ["", "0", "-1", "1,,2", "NaN", "inf", "1e9", "x", &["1"; 17].join(",")] {
            let e = read(Value::Text(wrong.into())).unwrap_err().to_string();
            assert!(e.contains("'frequency_scales'") && e.contains("1 to 16 numbers from 0.001 to 64"), "{e}");
        }
    }
}
