//! Decoding of pictures: a small PNG of Fashion-MNIST's size, a PNG and a JPEG of 640x426, through the crate's decoder of columns and through the `image` crate alone:
//! what lies between the two is ours. `elem/s` reads as pictures a second, on one thread.

use std::io::Cursor;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datafusion_distill::arrow::array::{ArrayRef, BinaryArray, Int64Array};
use datafusion_distill::arrow::datatypes::{DataType, Field, Schema};
use datafusion_distill::options::Options;
use datafusion_distill::random::{normal, stream};
use datafusion_distill::rows::{Decoder, Layout};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};

const PICTURES: usize = 64;

/// A soft shape on a black ground, with grain on the shape: about as well compressed as the real ones (500 bytes at 28x28).
fn brightness(width: u32, height: u32, grain: &[f32], x: u32, y: u32) -> u8 {
    let place = |v: u32, n: u32| 2.0 * (v as f32 + 0.5) / n as f32 - 1.0;
    let (u, v) = (place(x, width), place(y, height));
    let inside = 1.0 - (u * u * 1.6 + v * v);
    if inside < 0.0 {
        0
    } else {
        (90.0 + 120.0 * inside + 6.0 * grain[(y * width + x) as usize]).clamp(0.0, 255.0) as u8
    }
}

fn encoded(picture: DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    picture.write_to(&mut bytes, format).expect("a picture of 8 bits");
    bytes.into_inner()
}

fn grey(n: usize) -> DynamicImage {
    let grain = normal(&mut stream(n as u64, "grain"), 28 * 28);
    GrayImage::from_fn(28, 28, |x, y| Luma([brightness(28, 28, &grain, x, y)])).into()
}

fn colours() -> DynamicImage {
    let grain = normal(&mut stream(1, "grain"), 640 * 426);
    RgbImage::from_fn(640, 426, |x, y| {
        let value = brightness(640, 426, &grain, x, y);
        Rgb([value, value / 2, 255 - value])
    })
    .into()
}

fn decode(criterion: &mut Criterion) {
    let fields = [("image", DataType::Binary), ("label", DataType::Int64)].map(|(n, t)| Field::new(n, t, true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let options = Options::default();
    let layout = Layout::infer(&schema, &options).expect("a picture and a label");
    let decoder = Decoder::new(&layout, &options).expect("options that suit the layout");
    let mut group = criterion.benchmark_group("decode");
    for (name, pictures) in [
        ("png-1x28x28", (0..PICTURES).map(|n| encoded(grey(n), ImageFormat::Png)).collect::<Vec<_>>()),
        ("png-3x426x640", vec![encoded(colours(), ImageFormat::Png)]),
        ("jpeg-3x426x640", vec![encoded(colours(), ImageFormat::Jpeg)]),
    ] {
        let bytes: usize = pictures.iter().map(Vec::len).sum();
        println!("{name}: {} bytes a picture", bytes / pictures.len());
        group.throughput(Throughput::Elements(pictures.len() as u64));
        group.bench_function(format!("{name}/image"), |b| {
            b.iter(|| {
                pictures
                    .iter()
                    .map(|p| image::load_from_memory(p).expect("what was encoded").as_bytes().len())
                    .sum::<usize>()
            });
        });
        let labels = Int64Array::from(vec![1; pictures.len()]);
        let values = BinaryArray::from_iter_values(&pictures);
        let columns: [ArrayRef; 2] = [Arc::new(values), Arc::new(labels)];
        group.bench_function(format!("{name}/rows"), |b| {
            b.iter(|| decoder.decode(&columns, None, None, "bench", 0).expect("what was encoded").values.len());
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
