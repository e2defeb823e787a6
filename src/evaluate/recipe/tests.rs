use super::*;
use crate::random;
use candle_core::Device;

#[test]
fn rates_fall_when_the_published_codes_let_them() {
    let rates = |recipe: TrainingRecipe, epochs| (0..epochs).map(|e| recipe.rate(1.0, e, epochs)).collect::<Vec<_>>();
    assert_eq!(rates(TrainingRecipe::Dc, 5), [1.0, 1.0, 1.0, 0.1, 0.1]);
    assert_eq!(rates(TrainingRecipe::Idc, 6), [1.0, 1.0, 1.0, 1.0, 0.2, 0.2f64.powi(2)]);
}

#[test]
fn idc_puts_transforms_on_top_of_each_other_and_dc_picks_one() {
    let dims = [1, 8, 8];
    let x = Tensor::from_vec(random::normal(&mut random::stream(1, "x"), 2 * 64), (2, 1, 8, 8), &Device::Cpu).unwrap();
    let numbers = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut both = 0;
    for seed in 0..20 {
        let of = |recipe: TrainingRecipe, strategy: &str| {
            numbers(&recipe.augmented(strategy, &x, dims, &mut random::stream(seed, "augmentation")).unwrap())
        };
        // A cutout zeroes a quarter of the pixels at most, colours none: both of them only where they come together.
        let idc = of(TrainingRecipe::Idc, "color_cutout");
        let untouched = idc.iter().zip(numbers(&x)).filter(|(a, b)| **a == *b).count();
        both += usize::from(idc.contains(&0.0) && untouched == 0);
        let dc = of(TrainingRecipe::Dc, "color_cutout");
        let untouched = dc.iter().zip(numbers(&x)).filter(|(a, b)| **a == *b).count();
        assert!(dc.contains(&0.0) != (untouched == 0), "one of the two");
    }
    assert_eq!(both, 20);
}

#[test]
fn idc_mixes_every_other_batch_and_dc_none() {
    let mut rng = random::stream(3, "mix");
    let mixed = |recipe: TrainingRecipe, rng: &mut ChaCha12Rng| {
        (0..1000).filter(|_| recipe.mix(4, [1, 8, 8], rng).is_some()).count()
    };
    assert_eq!(mixed(TrainingRecipe::Dc, &mut rng), 0);
    assert!((450..550).contains(&mixed(TrainingRecipe::Idc, &mut rng)));
}

#[test]
fn a_recipe_that_is_none_is_told_the_nearest() {
    assert_eq!("IDC".parse::<TrainingRecipe>().unwrap(), TrainingRecipe::Idc);
    let e = "icd".parse::<TrainingRecipe>().unwrap_err().to_string();
    assert!(e.contains("recipe") && e.contains("'icd'") && e.contains("idc"), "{e}");
}
