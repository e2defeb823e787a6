//! PNG and JPEG bytes flow in, pixels from 0 to 255 flow out, channels first; and back, as PNG.

use std::io::Cursor;

use image::codecs::png::PngEncoder;
use image::imageops::{FilterType, resize};
use image::metadata::Orientation;
use image::{
    DynamicImage, ExtendedColorType, ImageBuffer, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits, Luma,
    Rgb,
};

use crate::error::{Error, Result};
use crate::options::ImageSize;
use crate::rows::Shape;

/// The longest side and the most memory of one picture: a few bytes may claim to be a picture of terabytes.
const MAX_SIDE: u32 = 16_384;
const MAX_BYTES: u64 = 256 << 20;

/// Decodes one PNG or JPEG, as `datasets` and torchvision show it, and appends its pixels to `out`.
///
/// Grey stays one channel, everything else becomes RGB; 16 bits keep their precision as fractions; transparency is laid
/// over white; a JPEG's EXIF orientation is applied. `size` resizes (linearly, averaging where it shrinks, the aspect ratio not
/// kept) and converts the channels: RGB to grey by the luma of ITU-R BT.601, grey to RGB by repetition.
pub(super) fn decode(bytes: &[u8], size: Option<ImageSize>, out: &mut Vec<f32>) -> Result<Shape, String> {
    if bytes.is_empty() {
        return Err("no bytes; expected a PNG or JPEG".into());
    }
    let picture = read(bytes)?;
    let (mut width, mut height) = (picture.width() as usize, picture.height() as usize);
    let as_it_is = |channels: usize| match size {
        Some(size) => {
            (size.height, size.width) == (height, width) && size.channels.is_none_or(|asked| asked == channels)
        }
        None => true,
    };
    match &picture {
        DynamicImage::ImageLuma8(grey) if as_it_is(1) => {
            out.extend(grey.iter().map(|v| f32::from(*v)));
            return Ok(Shape::Picture { channels: 1, height, width });
        }
        DynamicImage::ImageRgb8(rgb) if as_it_is(3) => {
            let start = out.len();
            out.resize(start + 3 * height * width, 0.0);
            let (red, others) = out[start..].split_at_mut(height * width);
            let (green, blue) = others.split_at_mut(height * width);
            for (((p, red), green), blue) in rgb.chunks_exact(3).zip(red).zip(green).zip(blue) {
                (*red, *green, *blue) = (f32::from(p[0]), f32::from(p[1]), f32::from(p[2]));
            }
            return Ok(Shape::Picture { channels: 3, height, width });
        }
        _ => {}
    }
    let (mut channels, mut pixels) = interleaved(&picture)?;
    if let Some(size) = size {
        if (size.height, size.width) != (height, width) {
            pixels = resized(pixels, channels, [height, width], [size.height, size.width])?;
            (height, width) = (size.height, size.width);
        }
        match (channels, size.channels) {
            (3, Some(1)) => {
                // In thousandths: a grey RGB pixel keeps its exact value.
                let luma = |p: &[f32]| (299.0 * p[0] + 587.0 * p[1] + 114.0 * p[2]) / 1000.0;
                pixels = pixels.chunks_exact(3).map(luma).collect();
                channels = 1;
            }
            (1, Some(3)) => {
                pixels = pixels.into_iter().flat_map(|v| [v; 3]).collect();
                channels = 3;
            }
            _ => {}
        }
    }
    if channels == 1 {
        out.extend_from_slice(&pixels);
        return Ok(Shape::Picture { channels, height, width });
    }
    for c in 0..channels {
        out.extend(pixels.iter().skip(c).step_by(channels));
    }
    Ok(Shape::Picture { channels, height, width })
}

fn read(bytes: &[u8]) -> Result<DynamicImage, String> {
    let expected = "expected a PNG or JPEG";
    let format = match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg)) => format,
        Ok(other) => return Err(format!("a picture in {other:?} format; {expected}")),
        Err(_) => return Err(format!("not a picture; {expected}")),
    };
    let unreadable = |e| format!("not a readable picture: {e}; leave the row out in a subquery, or mend the source");
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    limits.reserve(decoder.total_bytes()).map_err(unreadable)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Channels (1 or 3) and pixels `[height, width, channels]` from 0 to 255.
fn interleaved(picture: &DynamicImage) -> Result<(usize, Vec<f32>), String> {
    // 65535 / 257 = 255
    let bytes = |v: &[u8]| v.iter().map(|v| f32::from(*v)).collect::<Vec<_>>();
    let words = |v: &[u16]| v.iter().map(|v| f32::from(*v) / 257.0).collect::<Vec<_>>();
    Ok(match picture {
        DynamicImage::ImageLuma8(p) => (1, bytes(p)),
        DynamicImage::ImageLumaA8(p) => (1, over_white(&bytes(p), 1)),
        DynamicImage::ImageRgb8(p) => (3, bytes(p)),
        DynamicImage::ImageRgba8(p) => (3, over_white(&bytes(p), 3)),
        DynamicImage::ImageLuma16(p) => (1, words(p)),
        DynamicImage::ImageLumaA16(p) => (1, over_white(&words(p), 1)),
        DynamicImage::ImageRgb16(p) => (3, words(p)),
        DynamicImage::ImageRgba16(p) => (3, over_white(&words(p), 3)),
        other => return Err(format!("pixels of type {:?}; expected 8 or 16 bits, grey or RGB", other.color())),
    })
}

fn over_white(pixels: &[f32], channels: usize) -> Vec<f32> {
    let pixel = |p: &[f32]| {
        let alpha = p[channels] / 255.0;
        let blend = move |v: f32| if alpha == 1.0 { v } else { v * alpha + 255.0 * (1.0 - alpha) };
        [0, 1, 2].map(|c| p.get(c).copied().map_or(0.0, blend))
    };
    pixels.chunks_exact(channels + 1).flat_map(|p| pixel(p).into_iter().take(channels)).collect()
}

fn resized(pixels: Vec<f32>, channels: usize, from: [usize; 2], to: [usize; 2]) -> Result<Vec<f32>, String> {
    // The resizing clamps floats to 0..1.
    let unit: Vec<f32> = pixels.into_iter().map(|v| v / 255.0).collect();
    let ([h, w], [height, width]) = (from.map(|v| v as u32), to.map(|v| v as u32));
    let unit = if channels == 1 {
        ImageBuffer::<Luma<f32>, _>::from_raw(w, h, unit)
            .map(|p| resize(&p, width, height, FilterType::Triangle).into_raw())
    } else {
        ImageBuffer::<Rgb<f32>, _>::from_raw(w, h, unit)
            .map(|p| resize(&p, width, height, FilterType::Triangle).into_raw())
    };
    let unit = unit.ok_or("fewer pixels than its size says")?;
    Ok(unit.into_iter().map(|v| v * 255.0).collect())
}

/// `values` `[channels, height, width]` as an 8 bit PNG, rounded to the nearest and clamped to 0..255.
pub(super) fn encode_png(shape: Shape, values: &[f32]) -> Result<Vec<u8>> {
    let Shape::Picture { channels, height, width } = shape else {
        return Err(Error::Data(format!("a {shape} can't be written as a picture")));
    };
    let plane = height * width;
    let pixels: Vec<u8> = (0..plane)
        .flat_map(|p| (0..channels).map(move |c| values[c * plane + p].round().clamp(0.0, 255.0) as u8))
        .collect();
    let colour = if channels == 1 { ExtendedColorType::L8 } else { ExtendedColorType::Rgb8 };
    let mut png = vec![];
    PngEncoder::new(&mut png)
        .write_image(&pixels, width as u32, height as u32, colour)
        .map_err(|e| Error::Data(format!("a {shape} can't be written as PNG: {e}")))?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayAlphaImage, GrayImage, ImageBuffer, RgbImage, Rgba, RgbaImage};

    fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        picture.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn decoded(bytes: &[u8], size: Option<ImageSize>) -> (Shape, Vec<f32>) {
        let mut out = vec![];
        let shape = decode(bytes, size, &mut out).unwrap();
        assert_eq!(out.len(), shape.len());
        (shape, out)
    }

    fn size(height: usize, width: usize, channels: Option<usize>) -> Option<ImageSize> {
        Some(ImageSize { height, width, channels })
    }

    #[test]
    fn pixels_come_channels_first_and_16_bits_keep_their_fractions() {
        let rgb = RgbImage::from_raw(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let shape = Shape::Picture { channels: 3, height: 1, width: 2 };
        assert_eq!(decoded(&png(rgb), None), (shape, vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
        let deep: ImageBuffer<Luma<u16>, _> = ImageBuffer::from_raw(3, 1, vec![0u16, 257, 65535]).unwrap();
        assert_eq!(decoded(&png(deep), None).1, [0.0, 1.0, 255.0]);
    }

    #[test]
    fn a_palette_becomes_rgb() {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        // 2x1 pixels of 8 bits, colour type 3; the indices 1, 0 after the filter byte 0 in a stored zlib block
        for (kind, data) in [
            (b"IHDR", &[0, 0, 0, 2, 0, 0, 0, 1, 8, 3, 0, 0, 0][..]),
            (b"PLTE", &[10, 20, 30, 40, 50, 60]),
            (b"IDAT", &[0x78, 1, 1, 3, 0, 0xFC, 0xFF, 0, 1, 0, 0, 5, 0, 2]),
            (b"IEND", &[]),
        ] {
            let chunk = [kind, data].concat();
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(&chunk);
            bytes.extend(crc(&chunk).to_be_bytes());
        }
        assert_eq!(decoded(&bytes, None).1, [40.0, 10.0, 50.0, 20.0, 60.0, 30.0]);
    }

    #[test]
    fn transparency_is_laid_over_white() {
        let rgba = RgbaImage::from_fn(2, 1, |x, _| Rgba([9, 9, 9, if x == 0 { 255 } else { 0 }]));
        assert_eq!(decoded(&png(rgba), None).1, [9.0, 255.0, 9.0, 255.0, 9.0, 255.0]);
        let grey = GrayAlphaImage::from_raw(1, 1, vec![0, 51]).unwrap();
        assert_eq!(decoded(&png(grey), None).1, [204.0]);
    }

    #[test]
    fn a_jpeg_is_read_and_stays_grey() {
        let mut bytes = Cursor::new(vec![]);
        GrayImage::from_pixel(16, 8, Luma([100])).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        let (shape, values) = decoded(&bytes.into_inner(), None);
        assert_eq!(shape, Shape::Picture { channels: 1, height: 8, width: 16 });
        assert!(values.iter().all(|v| (v - 100.0).abs() <= 2.0));
    }

    #[test]
    fn image_size_resizes_and_converts_channels() {
        let rgb = png(RgbImage::from_pixel(8, 8, Rgb([200, 100, 50])));
        let (shape, values) = decoded(&rgb, size(4, 6, Some(1)));
        assert_eq!(shape, Shape::Picture { channels: 1, height: 4, width: 6 });
        assert!(values.iter().all(|v| (v - 124.2).abs() < 0.01), "{values:?}");
        let grey = png(GrayImage::from_raw(4, 4, (0..16).collect()).unwrap());
        let (shape, values) = decoded(&grey, size(4, 4, Some(3)));
        assert_eq!(shape, Shape::Picture { channels: 3, height: 4, width: 4 });
        assert_eq!(values[..16], values[32..]);
        let (_, half) = decoded(&png(GrayImage::from_fn(8, 8, |x, _| Luma([x as u8 * 10]))), size(4, 4, None));
        assert!(half.chunks(4).all(|row| row.windows(2).all(|w| w[0] < w[1])), "{half:?}");
    }

    #[test]
    fn damaged_pictures_are_errors_that_say_why() {
        let whole = png(GrayImage::from_fn(64, 64, |x, y| Luma([(x * y) as u8])));
        let mut damaged = whole.clone();
        let middle = damaged.len() / 2;
        damaged[middle..middle + 8].fill(0xAA);
        let mut bomb = whole.clone();
        // IHDR: the width at 16..20, the height at 20..24, then the checksum of the chunk at 29..33
        bomb[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        let checksum = crc(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
        for (bytes, part) in [
            (&[][..], "no bytes"),
            (b"hello, world", "not a picture"),
            (b"GIF89a\x01\x00\x01\x00", "Gif format"),
            (&whole[..whole.len() / 2], "not a readable picture"),
            (&whole[..20], "not a readable picture"),
            (&damaged, "not a readable picture"),
            (&bomb, "not a readable picture"),
        ] {
            let e = decode(bytes, None, &mut vec![]).unwrap_err();
            assert!(e.contains(part), "{e}");
        }
        assert!(decode(&bomb, None, &mut vec![]).unwrap_err().contains("limit"));
    }

    /// The checksum of PNG chunks (ISO 3309), bit by bit.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn written_pixels_are_rounded_and_clamped() {
        let shape = Shape::Picture { channels: 1, height: 1, width: 4 };
        let png = encode_png(shape, &[-3.0, 1.4, 1.6, 300.0]).unwrap();
        assert_eq!(decoded(&png, None).1, [0.0, 1.0, 2.0, 255.0]);
    }
}
