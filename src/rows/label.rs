//! Label columns flow in, class labels that can be ordered, hashed and written back flow out.

use std::sync::Arc;

use crate::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, DictionaryArray, Int64Array, LargeStringArray,
    PrimitiveArray, StringArray, StringViewArray,
};
use crate::arrow::compute::{CastOptions, cast_with_options};
use crate::arrow::datatypes::{
    ArrowDictionaryKeyType, ArrowNativeType, DataType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use crate::error::{Error, Result};

/// One class label. Labels sort as their column does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Label {
    /// A boolean label.
    Bool(bool),
    /// An integer label.
    Int(i64),
    /// A text label.
    Text(String),
}

/// Out-of-range values are errors, not NULLs.
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: crate::arrow::util::display::FormatOptions::new() };

impl Label {
    /// Fails with [`Error::Column`], which says what to do, where a column of `data_type` can't be a label.
    pub fn check_type(column: &str, data_type: &DataType) -> Result<()> {
        use DataType::*;
        let name = sql_name(column);
        let way_out = match data_type {
            Boolean | Utf8 | LargeUtf8 | Utf8View => return Ok(()),
            t if t.is_integer() => return Ok(()),
            Dictionary(_, value) if !matches!(**value, Dictionary(..)) => return Self::check_type(column, value),
            t if t.is_floating() || t.is_decimal() => {
                format!("if its values are whole numbers, select CAST({name} AS BIGINT) AS {name} in a subquery")
            }
            t if t.is_temporal() => format!("select CAST({name} AS VARCHAR) AS {name} in a subquery"),
            _ => "name another column with label => '...'".into(),
        };
        Err(Error::column(
            column,
            format!(
                "a {data_type} can't be a label, which is integer, text, boolean or a dictionary of these; {way_out}"
            ),
        ))
    }

    /// The label of a column of type `data_type` that is written `text`; `None` where there is none.
    pub(super) fn parse(text: &str, data_type: &DataType) -> Option<Label> {
        match data_type {
            DataType::Dictionary(_, value) => Self::parse(text, value),
            DataType::Boolean => match text.to_ascii_lowercase().as_str() {
                "true" => Some(Label::Bool(true)),
                "false" => Some(Label::Bool(false)),
                _ => None,
            },
            t if t.is_integer() => text.parse().ok().map(Label::Int),
            _ => Some(Label::Text(text.into())),
        }
    }

    /// The labels of `array` (integer, text, boolean, or a dictionary of these), `None` for NULL.
    ///
    /// Fails with [`Error::Column`] for other types and for unsigned integers above `i64::MAX`.
    pub fn from_array(column: &str, array: &ArrayRef) -> Result<Vec<Option<Label>>> {
        Self::check_type(column, array.data_type())?;
        let text = |v: Option<&str>| v.map(|v| Label::Text(v.into()));
        Ok(match array.data_type() {
            DataType::Boolean => array.as_boolean().iter().map(|v| v.map(Label::Bool)).collect(),
            DataType::Utf8 => array.as_string::<i32>().iter().map(text).collect(),
            DataType::LargeUtf8 => array.as_string::<i64>().iter().map(text).collect(),
            DataType::Utf8View => array.as_string_view().iter().map(text).collect(),
            DataType::Dictionary(..) => {
                let dictionary = array.as_any_dictionary();
                let values = Self::from_array(column, dictionary.values())?;
                let keys = cast_with_options(dictionary.keys(), &DataType::UInt64, &STRICT)?;
                let value = |key: u64| values.get(key as usize).cloned().flatten();
                keys.as_primitive::<UInt64Type>().iter().map(|key| key.and_then(value)).collect()
            }
            _ => {
                let whole = cast_with_options(array, &DataType::Int64, &STRICT).map_err(|_| {
                    Error::column(
                        column,
                        format!("holds a label above {}, the largest there can be; select another or CAST it to VARCHAR in a subquery", i64::MAX),
                    )
                })?;
                whole.as_primitive::<Int64Type>().iter().map(|v| v.map(Label::Int)).collect()
            }
        })
    }

    /// An array of type `data_type` with these labels.
    ///
    /// Fails with [`Error::Data`] where a label isn't of that type or doesn't fit into it.
    pub fn to_array(labels: &[Label], data_type: &DataType) -> Result<ArrayRef> {
        let misfit =
            |label: &Label| Error::Data(format!("label '{label}' doesn't fit into a column of type {data_type}"));
        match data_type {
            DataType::Boolean => {
                let values = labels.iter().map(|l| if let Label::Bool(v) = l { Ok(*v) } else { Err(misfit(l)) });
                Ok(Arc::new(BooleanArray::from(values.collect::<Result<Vec<bool>>>()?)))
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let values =
                    labels.iter().map(|l| if let Label::Text(v) = l { Ok(v.as_str()) } else { Err(misfit(l)) });
                let values = values.collect::<Result<Vec<&str>>>()?;
                Ok(match data_type {
                    DataType::Utf8 => Arc::new(StringArray::from(values)),
                    DataType::LargeUtf8 => Arc::new(LargeStringArray::from(values)),
                    _ => Arc::new(StringViewArray::from(values)),
                })
            }
            t if t.is_integer() => {
                let values = labels.iter().map(|l| if let Label::Int(v) = l { Ok(*v) } else { Err(misfit(l)) });
                let values = Int64Array::from(values.collect::<Result<Vec<i64>>>()?);
                cast_with_options(&values, t, &STRICT)
                    .map_err(|e| Error::Data(format!("labels don't fit into {t}: {e}")))
            }
            DataType::Dictionary(key, value) => {
                let mut distinct: Vec<Label> = labels.to_vec();
                distinct.sort();
                distinct.dedup();
                let keys: Vec<usize> = labels.iter().map(|l| distinct.partition_point(|d| d < l)).collect();
                let values = Self::to_array(&distinct, value)?;
                match **key {
                    DataType::Int8 => dictionary::<Int8Type>(&keys, values),
                    DataType::Int16 => dictionary::<Int16Type>(&keys, values),
                    DataType::Int32 => dictionary::<Int32Type>(&keys, values),
                    DataType::Int64 => dictionary::<Int64Type>(&keys, values),
                    DataType::UInt8 => dictionary::<UInt8Type>(&keys, values),
                    DataType::UInt16 => dictionary::<UInt16Type>(&keys, values),
                    DataType::UInt32 => dictionary::<UInt32Type>(&keys, values),
                    _ => dictionary::<UInt64Type>(&keys, values),
                }
            }
            _ => Err(Error::Data(format!("labels can't be written as {data_type}"))),
        }
    }
}

/// `column` as SQL needs it written.
pub(super) fn sql_name(column: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if column.chars().all(plain) && column.starts_with(|c: char| !c.is_ascii_digit()) {
        column.into()
    } else {
        format!("\"{}\"", column.replace('"', "\"\""))
    }
}

fn dictionary<K: ArrowDictionaryKeyType>(keys: &[usize], values: ArrayRef) -> Result<ArrayRef> {
    let key = |key: &usize| {
        <K as ArrowPrimitiveType>::Native::from_usize(*key).ok_or_else(|| {
            Error::Data(format!("{} labels are too many for a dictionary of {} keys", values.len(), K::DATA_TYPE))
        })
    };
    let keys = PrimitiveArray::<K>::from_iter_values(keys.iter().map(key).collect::<Result<Vec<_>>>()?);
    Ok(Arc::new(DictionaryArray::<K>::try_new(keys, values)?))
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Label::Bool(v) => write!(f, "{v}"),
            Label::Int(v) => write!(f, "{v}"),
            Label::Text(v) => write!(f, "{v}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrow::array::{Date32Array, Float64Array, UInt64Array};

    #[test]
    fn labels_of_every_type_come_back_as_they_were() {
        let dictionary = |key, value| DataType::Dictionary(Box::new(key), Box::new(value));
        let whole = [Label::Int(7), Label::Int(0), Label::Int(7), Label::Int(3)];
        let text = ["b", "a", "", "b"].map(|t| Label::Text(t.into()));
        let boolean = [true, false, true].map(Label::Bool);
        use DataType::*;
        for t in [
            Int8,
            Int16,
            Int32,
            Int64,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            dictionary(UInt8, Int32),
            dictionary(Int64, UInt64),
        ] {
            round_trip(&whole, &t);
        }
        for t in [
            Utf8,
            LargeUtf8,
            Utf8View,
            dictionary(Int8, Utf8),
            dictionary(Int32, LargeUtf8),
            dictionary(UInt16, Utf8View),
        ] {
            round_trip(&text, &t);
        }
        for t in [Boolean, dictionary(Int16, Boolean)] {
            round_trip(&boolean, &t);
        }
    }

    fn round_trip(labels: &[Label], data_type: &DataType) {
        let array = Label::to_array(labels, data_type).unwrap();
        assert_eq!(array.data_type(), data_type);
        let back: Vec<Label> = Label::from_array("label", &array).unwrap().into_iter().flatten().collect();
        assert_eq!(back, labels, "{data_type}");
    }

    #[test]
    fn nulls_are_told_apart_in_plain_and_dictionary_columns() {
        let plain: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        assert_eq!(Label::from_array("label", &plain).unwrap(), [Some(Label::Int(1)), None]);
        let keys: DictionaryArray<Int32Type> = vec![Some("x"), None, Some("x")].into_iter().collect();
        let keys: ArrayRef = Arc::new(keys);
        let x = Some(Label::Text("x".into()));
        assert_eq!(Label::from_array("label", &keys).unwrap(), [x.clone(), None, x]);
    }

    #[test]
    fn types_that_cannot_be_labels_are_named_with_a_way_out() {
        let arrays: [(ArrayRef, &str); 3] = [
            (Arc::new(Float64Array::from(vec![1.0])), "CAST(y AS BIGINT)"),
            (Arc::new(Date32Array::from(vec![1])), "CAST(y AS VARCHAR) AS y"),
            (Arc::new(UInt64Array::from(vec![u64::MAX])), "9223372036854775807"),
        ];
        for (array, part) in arrays {
            let e = Label::from_array("y", &array).unwrap_err().to_string();
            assert!(e.contains("column 'y'") && e.contains(part), "{e}");
        }
    }

    #[test]
    fn labels_that_do_not_fit_are_errors() {
        let e = Label::to_array(&[Label::Int(300)], &DataType::UInt8).unwrap_err().to_string();
        assert!(e.contains("300"), "{e}");
        let e = Label::to_array(&[Label::Text("cat".into())], &DataType::Int64).unwrap_err().to_string();
        assert!(e.contains("'cat'"), "{e}");
        let many: Vec<Label> = (0..200).map(Label::Int).collect();
        let narrow = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Int64));
        assert!(Label::to_array(&many, &narrow).unwrap_err().to_string().contains("200 labels"));
    }
}
