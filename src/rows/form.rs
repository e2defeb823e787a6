//! The type of a list column flows in; the shape of its rows and the order of their numbers flow out.

use crate::arrow::datatypes::{DataType, Field};
use crate::options::ImageSize;
use crate::rows::Shape;

/// Which of a picture's dimensions is stored outermost. Inside the crate it is always the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// `[channels, height, width]`, as PyTorch has it; also for vectors and `[height, width]`.
    ChannelsFirst,
    /// `[height, width, channels]`, as NumPy and Hugging Face have it.
    ChannelsLast,
}

/// How deep the lists of `data_type` are nested (1 to 3) and the type of their numbers, `None` for anything else.
pub(super) fn nesting(data_type: &DataType) -> Option<(usize, &DataType)> {
    let (mut levels, mut element) = (0, data_type);
    while let DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) = element {
        levels += 1;
        element = item.data_type();
    }
    ((1..=3).contains(&levels) && element.is_numeric()).then_some((levels, element))
}

/// The lengths of lists that are fixed on every level.
fn fixed_dims(data_type: &DataType) -> Option<Vec<usize>> {
    let (mut dims, mut element) = (vec![], data_type);
    while let DataType::FixedSizeList(item, n) = element {
        dims.push(usize::try_from(*n).ok()?);
        element = item.data_type();
    }
    (!dims.is_empty() && element.is_numeric()).then_some(dims)
}

/// The shape of a row whose lists have the lengths `dims`, outermost first.
///
/// One dimension is a vector, unless `image_size` makes it a picture (channels last, one channel where not given). Two
/// are the height and width of a grey picture. Of three, the last or else the first is the channels, and must be 1 or 3.
pub(super) fn shape_of(dims: &[usize], image_size: Option<ImageSize>) -> Result<(Shape, Order), String> {
    if dims.contains(&0) {
        return Err("an empty list; leave such rows out in a subquery".into());
    }
    let (shape, order) = match (dims, image_size) {
        ([n], None) => (Shape::Vector { len: *n }, Order::ChannelsFirst),
        ([n], Some(size)) => {
            let shape = flat_picture(size);
            if *n != shape.len() {
                let colour = if *n == 3 * size.height * size.width {
                    format!("; is it image_size => '{}x{}x3'?", size.height, size.width)
                } else {
                    String::new()
                };
                return Err(format!(
                    "a list of {n} numbers, where image_size => '{size}' asks for {}{colour}",
                    shape.len()
                ));
            }
            (shape, Order::ChannelsLast)
        }
        ([height, width], _) => (Shape::Picture { channels: 1, height: *height, width: *width }, Order::ChannelsFirst),
        ([height, width, channels @ (1 | 3)], _) => {
            (Shape::Picture { channels: *channels, height: *height, width: *width }, Order::ChannelsLast)
        }
        ([channels @ (1 | 3), height, width], _) => {
            (Shape::Picture { channels: *channels, height: *height, width: *width }, Order::ChannelsFirst)
        }
        _ => {
            return Err(format!(
                "dimensions {dims:?} are not a picture's; expected height x width, or these with 1 or 3 channels first or last"
            ));
        }
    };
    if let (Shape::Picture { channels, height, width }, Some(size)) = (shape, image_size)
        && ((height, width) != (size.height, size.width) || size.channels.is_some_and(|c| c != channels))
    {
        return Err(format!("lists are not resized: they hold a {shape}, image_size => '{size}' asks for another"));
    }
    Ok((shape, order))
}

fn flat_picture(size: ImageSize) -> Shape {
    Shape::Picture { channels: size.channels.unwrap_or(1), height: size.height, width: size.width }
}

/// Shape and order of the rows of `field`, where its type, `image_size` or `declared` (the dimensions that Hugging Face
/// metadata gives) tell them; `None` where only the rows do.
pub(super) fn static_form(
    field: &Field,
    declared: Option<Vec<usize>>,
    image_size: Option<ImageSize>,
) -> Result<Option<(Shape, Order)>, String> {
    let Some((levels, _)) = nesting(field.data_type()) else { return Ok(None) };
    if let Some(dims) = tensor_dims(field)? {
        return shape_of(&dims, image_size).map(Some);
    }
    let dims = fixed_dims(field.data_type()).or(declared.filter(|d| d.len() == levels));
    match (dims, image_size) {
        (Some(dims), _) => shape_of(&dims, image_size).map(Some),
        (None, Some(size)) if levels == 1 => Ok(Some((flat_picture(size), Order::ChannelsLast))),
        (None, _) => Ok(None),
    }
}

/// The dimensions of an `arrow.fixed_shape_tensor`
/// (<https://arrow.apache.org/docs/format/CanonicalExtensions.html#fixed-shape-tensor>), as it is stored.
fn tensor_dims(field: &Field) -> Result<Option<Vec<usize>>, String> {
    let metadata = field.metadata();
    let DataType::FixedSizeList(_, length) = field.data_type() else { return Ok(None) };
    if metadata.get("ARROW:extension:name").map(String::as_str) != Some("arrow.fixed_shape_tensor") {
        return Ok(None);
    }
    let text = metadata.get("ARROW:extension:metadata").map_or("", String::as_str);
    let dims: Option<Vec<usize>> = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|json| {
        json.get("shape")?.as_array()?.iter().map(|d| d.as_u64().and_then(|d| usize::try_from(d).ok())).collect()
    });
    let count = |dims: &[usize]| dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match dims {
        Some(dims) if !dims.is_empty() && count(&dims) == usize::try_from(*length).ok() => Ok(Some(dims)),
        _ => Err(format!(
            "an arrow.fixed_shape_tensor of {length} numbers whose metadata '{text}' gives another shape or none"
        )),
    }
}

/// The lengths of the lists of `levels` levels that hold one row of `shape`; `None` where they can't.
pub(super) fn storage_dims(shape: Shape, order: Order, levels: usize) -> Option<Vec<usize>> {
    match (shape, levels) {
        (_, 1) => Some(vec![shape.len()]),
        (Shape::Picture { channels: 1, height, width }, 2) => Some(vec![height, width]),
        (Shape::Picture { channels, height, width }, 3) => Some(match order {
            Order::ChannelsFirst => vec![channels, height, width],
            Order::ChannelsLast => vec![height, width, channels],
        }),
        _ => None,
    }
}

/// Appends the numbers of one row, stored in `order`, channels first.
pub(super) fn append_channels_first(row: &[f32], shape: Shape, order: Order, out: &mut Vec<f32>) {
    match shape {
        Shape::Picture { channels, .. } if channels > 1 && order == Order::ChannelsLast => {
            for c in 0..channels {
                out.extend(row.iter().skip(c).step_by(channels));
            }
        }
        _ => out.extend_from_slice(row),
    }
}

/// Appends the numbers of one row, channels first, as `order` stores them.
pub(super) fn append_stored(row: &[f32], shape: Shape, order: Order, out: &mut Vec<f32>) {
    match shape {
        Shape::Picture { channels, height, width } if channels > 1 && order == Order::ChannelsLast => {
            let plane = height * width;
            out.extend((0..plane).flat_map(|p| (0..channels).map(move |c| row[c * plane + p])));
        }
        _ => out.extend_from_slice(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOUR: Shape = Shape::Picture { channels: 3, height: 4, width: 5 };

    #[test]
    fn the_dimension_of_1_or_3_tells_the_channels() {
        assert_eq!(shape_of(&[4, 5, 3], None), Ok((COLOUR, Order::ChannelsLast)));
        assert_eq!(shape_of(&[3, 4, 5], None), Ok((COLOUR, Order::ChannelsFirst)));
        assert_eq!(shape_of(&[20], None), Ok((Shape::Vector { len: 20 }, Order::ChannelsFirst)));
        assert!(shape_of(&[4, 5, 6], None).unwrap_err().contains("[4, 5, 6]"));
        assert!(shape_of(&[0], None).is_err());
    }

    #[test]
    fn image_size_makes_pictures_of_flat_lists_and_must_fit() {
        let size = |channels| Some(ImageSize { height: 4, width: 5, channels });
        assert_eq!(shape_of(&[60], size(Some(3))), Ok((COLOUR, Order::ChannelsLast)));
        assert_eq!(shape_of(&[20], size(None)), shape_of(&[20], size(Some(1))));
        assert!(shape_of(&[60], size(None)).unwrap_err().contains("'4x5x3'"));
        assert!(shape_of(&[5, 4], size(None)).unwrap_err().contains("not resized"));
    }

    #[test]
    fn a_tensor_type_declares_its_shape_and_must_hold_it() {
        let tensor = |shape: &str| {
            let item = Field::new("item", DataType::UInt8, true);
            Field::new("x", DataType::FixedSizeList(item.into(), 60), true).with_metadata(
                [("ARROW:extension:name", "arrow.fixed_shape_tensor"), ("ARROW:extension:metadata", shape)]
                    .map(|(k, v)| (k.to_string(), v.to_string()))
                    .into(),
            )
        };
        let form = |shape| static_form(&tensor(shape), None, None);
        assert_eq!(form(r#"{"shape":[3,4,5]}"#), Ok(Some((COLOUR, Order::ChannelsFirst))));
        assert_eq!(form(r#"{"shape":[4,5,3]}"#), Ok(Some((COLOUR, Order::ChannelsLast))));
        assert!(form(r#"{"shape":[4,5]}"#).unwrap_err().contains("60"));
        assert!(form("").is_err());
    }

    #[test]
    fn channels_last_comes_back_as_it_was() {
        let stored: Vec<f32> = (0..60).map(|v| v as f32).collect();
        let (mut first, mut back) = (vec![], vec![]);
        append_channels_first(&stored, COLOUR, Order::ChannelsLast, &mut first);
        assert_eq!(first[..3], [0.0, 3.0, 6.0]);
        append_stored(&first, COLOUR, Order::ChannelsLast, &mut back);
        assert_eq!(back, stored);
    }
}
