//! What is declared of the rows, so that nothing has to look for it: the size of pictures, the ranges and categories of columns.

use std::fmt;

/// The size of a picture, as `image_size` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows of pixels.
    pub height: usize,
    /// Columns of pixels.
    pub width: usize,
    /// Channels, where given (`28x28x3`).
    pub channels: Option<usize>,
}

impl fmt::Display for ImageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)?;
        self.channels.map_or(Ok(()), |c| write!(f, "x{c}"))
    }
}

/// The lowest and the highest value that the numbers of a list column can take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Lowest.
    pub low: f64,
    /// Highest.
    pub high: f64,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.low, self.high)
    }
}

/// What is declared of a feature column's values, so that no scan has to find it.
#[derive(Clone, Debug, PartialEq)]
pub enum Ranges {
    /// Of the numbers of the one list column: `0,16`.
    List(Range),
    /// Of each column of a table: `age=0..100, sex=female|male`.
    Columns(Vec<(String, Declared)>),
}

/// What is declared of one column of a table.
#[derive(Clone, Debug, PartialEq)]
pub enum Declared {
    /// The lowest and the highest number.
    Numbers(Range),
    /// The categories, as text.
    Categories(Vec<String>),
}

impl Ranges {
    /// What is declared of the one list column.
    pub fn list(&self) -> Option<Range> {
        match self {
            Self::List(range) => Some(*range),
            Self::Columns(_) => None,
        }
    }

    /// What is declared of column `name` of a table.
    pub fn column(&self, name: &str) -> Option<&Declared> {
        match self {
            Self::List(_) => None,
            Self::Columns(columns) => columns.iter().find(|(n, _)| n == name).map(|(_, declared)| declared),
        }
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = match self {
            Self::List(range) => return range.fmt(f),
            Self::Columns(columns) => columns,
        };
        for (i, (name, declared)) in columns.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match declared {
                Declared::Numbers(range) => write!(f, "{comma}{name}={}..{}", range.low, range.high)?,
                Declared::Categories(values) => write!(f, "{comma}{name}={}", values.join("|"))?,
            }
        }
        Ok(())
    }
}
