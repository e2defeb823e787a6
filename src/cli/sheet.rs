//! Pictures by class flow in, one contact sheet flows out.

use font8x8::legacy::BASIC_LEGACY;
use image::{Rgb, RgbImage};

use crate::cli::failure::{Failure, Outcome};

/// One row of the sheet.
pub(super) struct Row {
    /// The class's name, drawn at the left.
    pub(super) name: String,
    /// Its pictures, all of one size.
    pub(super) pictures: Vec<RgbImage>,
}

const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([32, 32, 32]);
/// Smaller pictures are magnified to at least this many pixels a side.
const SMALLEST: u32 = 32;
const GAP: u32 = 4;
const LETTER: u32 = 8;
/// Longer names are cut.
const LONGEST_NAME: usize = 24;
/// Most pixels of a sheet: 256 megapixels are 768 MB of memory.
const MOST_PIXELS: u64 = 1 << 28;

/// Draws one line a class: its name, then its pictures.
pub(super) fn draw(rows: &[Row]) -> Outcome<RgbImage> {
    let Some(first) = rows.iter().find_map(|row| row.pictures.first()) else {
        return Err(Failure::new("no pictures to draw"));
    };
    let magnified = SMALLEST.div_ceil(first.width().min(first.height()).max(1));
    let (width, height) = (first.width() * magnified, first.height() * magnified);
    let names: Vec<Vec<char>> = rows.iter().map(|row| row.name.chars().take(LONGEST_NAME).collect()).collect();
    let text = LETTER * names.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let columns = rows.iter().map(|row| row.pictures.len()).max().unwrap_or(0) as u32;
    let left = GAP + text + GAP;
    let sheet_width = u64::from(left) + u64::from(columns) * u64::from(width + GAP);
    let sheet_height = u64::from(GAP) + rows.len() as u64 * u64::from(height + GAP);
    if sheet_width * sheet_height > MOST_PIXELS {
        return Err(Failure::new(format!(
            "a sheet of {} classes with {columns} pictures each would have {sheet_width} x {sheet_height} pixels; \
             choose fewer with --classes or --columns",
            rows.len()
        )));
    }
    let mut sheet = RgbImage::from_pixel(sheet_width as u32, sheet_height as u32, BACKGROUND);
    for (i, (row, name)) in rows.iter().zip(&names).enumerate() {
        let top = GAP + i as u32 * (height + GAP);
        write(&mut sheet, name, GAP, top + (height - LETTER) / 2);
        for (j, picture) in row.pictures.iter().enumerate() {
            let x0 = left + j as u32 * (width + GAP);
            for (x, y) in (0..width).flat_map(|x| (0..height).map(move |y| (x, y))) {
                sheet.put_pixel(x0 + x, top + y, *picture.get_pixel(x / magnified, y / magnified));
            }
        }
    }
    Ok(sheet)
}

/// Writes `text` with its upper left corner at (`x`, `y`).
fn write(sheet: &mut RgbImage, text: &[char], x: u32, y: u32) {
    for (i, letter) in text.iter().enumerate() {
        let glyph = BASIC_LEGACY.get(*letter as usize).unwrap_or(&BASIC_LEGACY['?' as usize]);
        for (dy, line) in glyph.iter().enumerate() {
            for dx in (0..8).filter(|dx| line & (1 << dx) != 0) {
                sheet.put_pixel(x + i as u32 * LETTER + dx, y + dy as u32, INK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(grey: u8) -> RgbImage {
        RgbImage::from_pixel(8, 8, Rgb([grey; 3]))
    }

    #[test]
    fn each_class_is_a_row_with_its_name_and_magnified_pictures() {
        let rows = [
            Row { name: "I".into(), pictures: vec![picture(10), picture(20)] },
            Row { name: "é".into(), pictures: vec![picture(30)] },
        ];
        let sheet = draw(&rows).unwrap();
        let left = GAP + LETTER + GAP;
        assert_eq!(sheet.dimensions(), (left + 2 * (32 + GAP), GAP + 2 * (32 + GAP)));
        let grey = |x, y| sheet.get_pixel(x, y).0[0];
        assert_eq!([grey(left, GAP), grey(left + 31, GAP + 31), grey(left + 32, GAP)], [10, 10, 255]);
        assert_eq!([grey(left + 32 + GAP, GAP), grey(left, GAP + 32 + GAP)], [20, 30]);
        assert_eq!(grey(left + 32 + GAP, GAP + 32 + GAP), 255, "the second class has one picture only");
        let ink = |row: u32| {
            let top = GAP + row * (32 + GAP);
            (0..left)
                .flat_map(|x| (top..top + 32).map(move |y| (x, y)))
                .filter(|(x, y)| grey(*x, *y) == INK.0[0])
                .count()
        };
        assert!(ink(0) > 10 && ink(1) > 10 && ink(0) != ink(1), "{} {}", ink(0), ink(1));
    }

    #[test]
    fn a_sheet_beyond_reason_is_refused() {
        let rows: Vec<Row> =
            (0..100_000).map(|i| Row { name: i.to_string(), pictures: vec![picture(0), picture(0)] }).collect();
        assert!(matches!(draw(&rows), Err(Failure::Failed { messages, .. }) if messages[0].contains("--columns")));
    }
}
