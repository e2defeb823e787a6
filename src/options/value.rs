//! A value as SQL, `SET`, a flag or a file gives it flows in; a number, text or list in its bounds flows out.

use std::fmt;

use crate::error::{Error, Result, nearest_hint};
use crate::options::{Declared, ImageSize, Range, Ranges};

/// An option's value as SQL, a flag or a file gives it, before it is checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `NULL`: back to the default.
    Null,
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Text; numbers, lists (comma-separated) and booleans are accepted in this form too.
    Text(String),
    /// `true` or `false`.
    Bool(bool),
    /// A list, as `['a', 'b']` in SQL.
    List(Vec<Value>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => write!(f, "NULL"),
            Value::Int(v) => write!(f, "{v}"),
            Value::Float(v) => write!(f, "{v}"),
            Value::Text(v) => write!(f, "{v}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::List(v) => write!(f, "{}", v.iter().map(Value::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

pub(super) fn wrong(name: &str, value: &Value, expected: impl fmt::Display) -> Error {
    Error::option(name, format!("expected {expected}, found '{value}'"))
}

pub(super) fn text(name: &str, value: &Value) -> Result<String> {
    match value {
        Value::Text(t) if !t.is_empty() => Ok(t.clone()),
        _ => Err(wrong(name, value, "text")),
    }
}

pub(super) fn text_option(name: &str, value: &Value) -> Result<Option<String>> {
    text(name, value).map(Some)
}

pub(super) fn int<T: TryFrom<i64>>(name: &str, value: &Value, low: i64, high: i64) -> Result<T> {
    let expected = || wrong(name, value, format!("a whole number from {low} to {high}"));
    let n = match value {
        Value::Int(n) => *n,
        Value::Float(f) if f.fract() == 0.0 && f.abs() < 9e15 => *f as i64,
        Value::Text(t) => t.trim().parse().map_err(|_| expected())?,
        _ => return Err(expected()),
    };
    if n < low || n > high {
        return Err(expected());
    }
    T::try_from(n).map_err(|_| expected())
}

pub(super) fn int_option(name: &str, value: &Value, low: i64, high: i64) -> Result<Option<usize>> {
    int(name, value, low, high).map(Some)
}

pub(super) fn multiple_of_8(name: &str, width: Option<usize>) -> Result<Option<usize>> {
    match width {
        Some(w) if w % 8 != 0 => Err(Error::option(name, format!("expected a multiple of 8, found {w}"))),
        _ => Ok(width),
    }
}

pub(super) fn number(name: &str, value: &Value, low: f64, high: f64) -> Result<f64> {
    let n = match value {
        Value::Int(n) => Some(*n as f64),
        Value::Float(f) => Some(*f),
        Value::Text(t) => t.trim().parse().ok(),
        _ => None,
    };
    n.filter(|n| (low..=high).contains(n)).ok_or_else(|| wrong(name, value, format!("a number from {low} to {high}")))
}

pub(super) fn list(name: &str, value: &Value) -> Result<Vec<String>> {
    let items: Vec<String> = match value {
        Value::Text(t) => t.split(',').map(|s| s.trim().to_string()).filter(|s| !s.is_empty()).collect(),
        Value::List(items) => items.iter().map(Value::to_string).collect(),
        Value::Int(_) | Value::Bool(_) => vec![value.to_string()],
        _ => return Err(wrong(name, value, "a list, ['a', 'b'] or 'a,b'")),
    };
    if items.is_empty() { Err(wrong(name, value, "a list that is not empty")) } else { Ok(items) }
}

pub(super) fn list_option(name: &str, value: &Value) -> Result<Option<Vec<String>>> {
    list(name, value).map(Some)
}

pub(super) fn image_size(name: &str, value: &Value) -> Result<ImageSize> {
    let expected = || wrong(name, value, "'HxW', 'HxWxC' or 'N', with sides from 4 to 1024 and 1 or 3 channels");
    let parts: Vec<usize> =
        value.to_string().split('x').map(|p| p.trim().parse().map_err(|_| expected())).collect::<Result<_>>()?;
    let size = match parts[..] {
        [n] => ImageSize { height: n, width: n, channels: None },
        [height, width] => ImageSize { height, width, channels: None },
        [height, width, c] => ImageSize { height, width, channels: Some(c) },
        _ => return Err(expected()),
    };
    let sides = 4..=1024;
    if sides.contains(&size.height) && sides.contains(&size.width) && matches!(size.channels, None | Some(1 | 3)) {
        Ok(size)
    } else {
        Err(expected())
    }
}

pub(super) fn ranges(name: &str, value: &Value) -> Result<Ranges> {
    let text = value.to_string();
    if !text.contains('=') {
        return Ok(Ranges::List(range(name, value, &text)?));
    }
    let column = |part: &str| -> Result<(String, Declared)> {
        let wrong = || wrong(name, value, "'column=low..high' or 'column=a|b|c', separated by commas");
        let (column, declared) = part.split_once('=').ok_or_else(wrong)?;
        let declared = declared.trim();
        Ok((
            column.trim().to_string(),
            match declared.split_once("..") {
                Some((low, high)) => Declared::Numbers(range(name, value, &format!("{low},{high}"))?),
                None => {
                    let values: Vec<String> = declared.split('|').map(|v| v.trim().to_string()).collect();
                    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
                    if values.len() < 2 || distinct.len() < values.len() {
                        return Err(wrong());
                    }
                    Declared::Categories(values)
                }
            },
        ))
    };
    let columns: Vec<_> = text.split(',').map(column).collect::<Result<_>>()?;
    match columns.iter().enumerate().find(|(i, (name, _))| columns[..*i].iter().any(|(n, _)| n == name)) {
        Some((_, (twice, _))) => Err(Error::option(name, format!("column '{twice}' is declared twice"))),
        None => Ok(Ranges::Columns(columns)),
    }
}

pub(super) fn range(name: &str, value: &Value, text: &str) -> Result<Range> {
    let expected = || wrong(name, value, "two numbers, 'low,high' with low < high");
    let parts: Vec<f64> = text.split(',').map(|p| p.trim().parse().map_err(|_| expected())).collect::<Result<_>>()?;
    match parts[..] {
        [low, high] if low < high && low.is_finite() && high.is_finite() => Ok(Range { low, high }),
        _ => Err(expected()),
    }
}

/// The transforms that `augment` may name.
pub const AUGMENTS: &[&str] = &["color", "crop", "cutout", "flip", "scale", "rotate"];

pub(super) fn augment(name: &str, value: &Value) -> Result<String> {
    let t = text(name, value)?.to_ascii_lowercase();
    if t != "none"
        && let Some(bad) = t.split('_').find(|part| !AUGMENTS.contains(part))
    {
        let hint = nearest_hint(bad, AUGMENTS.iter().copied());
        return Err(Error::option(name, format!("'{bad}' is not a transform{hint}")));
    }
    Ok(t)
}

pub(super) fn device(name: &str, value: &Value) -> Result<String> {
    let t = text(name, value)?.to_ascii_lowercase();
    let cuda_index = t.strip_prefix("cuda:").is_some_and(|n| n.parse::<u16>().is_ok());
    if cuda_index || ["auto", "cpu", "cuda", "metal"].contains(&t.as_str()) {
        Ok(t)
    } else {
        Err(wrong(name, value, "'auto', 'cpu', 'cuda', 'cuda:N' or 'metal'"))
    }
}
