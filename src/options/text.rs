//! One text `name=value name='other value'` flows in; names and values flow out: options for engines that have no struct literals.

use super::{Options, Value};
use crate::error::{Error, Result};

impl Options {
    /// Sets the options of `text`, `name=value` separated by spaces; a value with spaces stands in single quotes, a quote in it is written
    /// twice. Gives the names. Fails as [`Options::set`] does, and for what isn't `name=value` or a name given twice.
    pub fn set_text(&mut self, text: &str) -> Result<Vec<String>> {
        let pairs = pairs(text)?;
        for (name, value) in &pairs {
            self.set(name, &Value::Text(value.clone()))?;
        }
        Ok(pairs.into_iter().map(|(name, _)| name).collect())
    }
}

fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = vec![];
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let wrong = |at: &str| {
            let shown: String = at.chars().take(40).collect();
            Error::option("options", format!("expected name=value, found '{shown}'; write 'extractors=4 seed=7'"))
        };
        let (name, after) = rest.split_once('=').ok_or_else(|| wrong(rest))?;
        let name = name.trim();
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\'') {
            return Err(wrong(rest));
        }
        let (value, left) = match after.strip_prefix('\'') {
            Some(quoted) => quoted_value(quoted).ok_or_else(|| wrong(rest))?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (after[..end].to_string(), &after[end..])
            }
        };
        if value.is_empty() || !(left.is_empty() || left.starts_with(char::is_whitespace)) {
            return Err(wrong(rest));
        }
        if found.iter().any(|(known, _)| known == name) {
            return Err(Error::option(name, "is given twice"));
        }
        found.push((name.to_string(), value));
        rest = left.trim_start();
    }
    Ok(found)
}

/// The value up to its closing quote, and what follows it.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('\'')?;
        value.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_one_text_are_those_of_single_values() {
        let mut options = Options::default();
        let names = options.set_text(" extractors=4  seed=7 ranges='age=0..9, sex=it''s|b' ").unwrap();
        assert_eq!(names, ["extractors", "seed", "ranges"]);
        assert_eq!((options.extractors, options.seed), (Some(4), 7));
        assert_eq!(options.ranges.unwrap().to_string(), "age=0..9, sex=it's|b");
        assert_eq!(Options::default().set_text("  ").unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_list_of_options_is_an_error_that_shows_where() {
        for (text, part) in [
            ("extractors", "found 'extractors'"),
            ("seed=1 4", "found '4'"),
            ("=4", "found '=4'"),
            ("seed=", "found 'seed='"),
            ("seed='4", "found 'seed='4'"),
            ("seed='4'5", "found 'seed="),
            ("a b=4", "found 'a b=4'"),
            ("seed=1 seed=2", "'seed': is given twice"),
            ("extractor=4", "did you mean 'extractors'"),
            ("seed=many", "whole number"),
        ] {
            let e = Options::default().set_text(text).unwrap_err().to_string();
            assert!(e.contains(part), "{text}: {e}");
        }
    }
}
