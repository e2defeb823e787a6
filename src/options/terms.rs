//! The method, or a list of terms with weights, flows in; the terms of the loss flow out.

use std::fmt;

use super::value::{text, wrong};
use super::{Method, Options, Term, Value};
use crate::error::{Error, Result};

/// Terms of a loss with their weights, each term once.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms(pub Vec<(Term, f64)>);

impl Terms {
    /// Whether `term` is among them.
    pub fn has(&self, term: Term) -> bool {
        self.0.iter().any(|(t, _)| *t == term)
    }

    /// Whether one of them is computed from second moments.
    pub fn need_moments(&self) -> bool {
        self.0.iter().any(|(term, _)| term.needs_moments())
    }
}

/// Weight of the mean embeddings beside a ridge regression where classes have few rows.
const FEW_ROWS_MEAN: f64 = 0.01;

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (term, weight)) in self.0.iter().enumerate() {
            write!(f, "{}{term}={weight}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

pub(super) fn parse(name: &str, value: &Value) -> Result<Terms> {
    let mut terms: Vec<(Term, f64)> = vec![];
    for part in text(name, value)?.split(',').map(str::trim) {
        let (term, weight) = part.split_once('=').unwrap_or((part, "1"));
        let term = Term::parse(name, term.trim())?;
        let positive = weight.trim().parse().ok().filter(|w: &f64| *w > 0.0 && w.is_finite());
        let weight =
            positive.ok_or_else(|| wrong(name, value, "'term=weight' with weights above 0, as 'ridge=1,mean=0.1'"))?;
        if terms.iter().any(|(t, _)| *t == term) {
            return Err(Error::option(name, format!("'{term}' is there twice")));
        }
        terms.push((term, weight));
    }
    Ok(Terms(terms))
}

impl Options {
    /// The terms of the loss: `terms`, else those of the method. None where real rows are chosen.
    pub fn loss_terms(&self) -> Terms {
        if self.method.selects() {
            return Terms(vec![]);
        }
        if let Some(terms) = &self.terms {
            return terms.clone();
        }
        Terms(match self.method {
            Method::Mean => vec![(Term::Mean, 1.0)],
            // Few rows fit a regression in too many ways: what is typical of their class helps (measured at ipc 1 and 10).
            Method::Ridge if self.ipc < 5 && self.is_ipc_each() => {
                vec![(Term::Ridge, 1.0), (Term::Mean, FEW_ROWS_MEAN)]
            }
            Method::Ridge => vec![(Term::Ridge, 1.0)],
            _ => vec![(Term::Characteristic, 1.0)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_with_their_weights_and_shown_as_they_are_read() {
        let read = |text: &str| parse("terms", &Value::Text(text.into()));
        let terms = read("ridge, dm = 0.25").unwrap();
        assert_eq!(terms.0, [(Term::Ridge, 1.0), (Term::Mean, 0.25)]);
        assert_eq!(terms.to_string(), "ridge=1,mean=0.25");
        assert_eq!(read(&terms.to_string()).unwrap(), terms);
        for (text, part) in [
            ("rigde", "did you mean 'ridge'"),
            ("mean,mean=2", "'mean' is there twice"),
            ("mean=0", "weights above 0"),
            ("mean=x", "weights above 0"),
            ("", "text"),
        ] {
            let e = read(text).unwrap_err().to_string();
            assert!(e.contains("'terms'") && e.contains(part), "{e}");
        }
    }
}
