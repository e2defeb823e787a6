use candle_core::{Device, Tensor};

use super::window::{Trainee, Window};
use super::*;
use crate::extract::Scaling;
use crate::random::{normal, stream};
use crate::sketch::Numbers;

const INPUT: [usize; 3] = [1, 8, 8];
const CLASSES: usize = 3;

fn tensor(values: Vec<f32>, dims: &[usize]) -> Tensor {
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

fn pictures(n: usize, purpose: &str) -> Tensor {
    tensor(normal(&mut stream(1, purpose), n * 64), &[n, 1, 8, 8])
}

/// One of [`CLASSES`] a row, in turn.
fn shares(n: usize) -> Tensor {
    tensor(
        (0..n * CLASSES).map(|i| if i % CLASSES == i / CLASSES % CLASSES { 1.0 } else { 0.0 }).collect(),
        &[n, CLASSES],
    )
}

/// Real rows, as they are kept, and the scaling that leaves them as they are.
fn kept() -> (Vec<Numbers>, Scaling) {
    let rows = normal(&mut stream(1, "real"), 64 * 64);
    (rows.chunks(64).map(Numbers::of).collect(), Scaling::for_range((-2.0, 2.0)).unwrap())
}

fn window((kept, scaling): &(Vec<Numbers>, Scaling), learn_labels: bool) -> Window<'_> {
    let student = Student::new(INPUT, (16, 2), CLASSES, &Device::Cpu).unwrap();
    let rows = kept.iter().enumerate().map(|(i, row)| (row, i % CLASSES)).collect();
    let real = Real { rows, classes: CLASSES, scaling, input: INPUT, device: Device::Cpu };
    Window { student, real, learn_labels, parallel: false }
}

fn product(a: &Tensor, b: &Tensor) -> f64 {
    f64::from((a * b).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
}

/// The slope of the window's loss along a direction, by a difference over the whole window, against the gradient.
#[test]
fn a_window_s_gradient_is_the_slope_of_its_loss_for_rows_and_for_labels() {
    for rows in [12, 60] {
        let kept = kept();
        let window = window(&kept, true);
        let (x, y) = (pictures(rows, "x"), shares(rows));
        let trainee = Trainee::new(window.student.random(&mut stream(2, "weights")).unwrap(), 10).unwrap();
        // Held still: what standardises the rows is no part of the gradient.
        let standard = Standard::of(&x).unwrap();
        let look = |x: &Tensor, y: &Tensor| window.look(&trainee, (x, y), &standard, stream(3, "draws")).unwrap().0;
        let here = look(&x, &y).gradient;
        let by_labels = here.labels.as_ref().unwrap();
        assert_eq!((here.rows.dims(), by_labels.dims()), (x.dims(), y.dims()));
        for (gradient, of_rows, reach) in [(&here.rows, true, 0.3), (by_labels, false, 0.1)] {
            let size = window::length(gradient).unwrap();
            assert!(size > 0.0);
            let direction = (gradient / size).unwrap();
            let at = |by: f64| match of_rows {
                true => look(&(&x + (&direction * by).unwrap()).unwrap(), &y).loss,
                false => look(&x, &(&y + (&direction * by).unwrap()).unwrap()).loss,
            };
            let slope = (at(reach) - at(-reach)) / (2.0 * reach);
            // The two smooth the rectifiers' kinks differently.
            let expected = product(gradient, &direction);
            assert!((slope / expected - 1.0).abs() < 0.2, "{rows} rows, of rows {of_rows}: {slope} {expected}");
        }
    }
}

#[test]
fn a_window_trains_its_network_and_asks_for_labels_only_where_they_are_learned() {
    let kept = kept();
    let window = window(&kept, false);
    let (x, y) = (pictures(12, "x"), shares(12));
    let standard = Standard::of(&x).unwrap();
    let mut trainee = Trainee::new(window.student.random(&mut stream(2, "weights")).unwrap(), 100).unwrap();
    let loss = |trainee: &Trainee| {
        let x = standard.apply(&x).unwrap();
        window.student.gradient(&trainee.weights, &x, &y, student::Wanted::default()).unwrap().loss
    };
    let before = loss(&trainee);
    for left in [60, 20, 0] {
        let (outcome, after) = window.look(&trainee, (&x, &y), &standard, stream(3, "draws")).unwrap();
        assert!(outcome.gradient.labels.is_none() && outcome.loss.is_finite());
        trainee = after;
        assert_eq!(trainee.left, left);
    }
    assert!(loss(&trainee) < 0.7 * before, "{} {before}", loss(&trainee));
}

/// Two legs of an expert of `window`.
fn expert(window: &Window) -> Expert {
    let weights = window.student.random(&mut stream(4, "weights")).unwrap();
    let mut expert = Expert::new(weights, stream(4, "draws")).unwrap();
    let standard = window.real.standard().unwrap();
    (0..2).for_each(|_| expert.go_on(window, &standard, false).unwrap());
    expert
}

#[test]
fn an_expert_learns_the_real_rows_leg_by_leg() {
    let kept = kept();
    let window = window(&kept, false);
    let expert = expert(&window);
    let standard = window.real.standard().unwrap();
    let (x, y) = window.real.batch(&Vec::from_iter(0..64), &standard).unwrap();
    let loss = |weights: &Tensor| window.student.gradient(weights, &x, &y, student::Wanted::default()).unwrap().loss;
    let ((start, middle), (again, end)) = (expert.stretch(0, 1), expert.stretch(1, 1));
    assert_eq!(middle.to_vec1::<f32>().unwrap(), again.to_vec1::<f32>().unwrap());
    assert!(loss(middle) < 0.95 * loss(start) && loss(end) < 0.95 * loss(middle));
}

#[test]
fn experts_say_the_mean_of_their_shares_of_each_row() {
    let kept = kept();
    let window = window(&kept, false);
    let experts = [4, 5].map(|seed| {
        let weights = window.student.random(&mut stream(seed, "weights")).unwrap();
        let mut expert = Expert::new(weights, stream(seed, "draws")).unwrap();
        expert.go_on(&window, &window.real.standard().unwrap(), false).unwrap();
        expert
    });
    // More than they see at once.
    let rows = window::LARGEST_BATCH + 12;
    let (x, y) = (pictures(rows, "x"), shares(rows));
    let of = |experts: &[Expert], x: &Tensor| expert::shares(experts, &window.student, x).unwrap();
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    let both = of(&experts, &x);
    assert_eq!(both.dims(), [rows, CLASSES]);
    let apart = experts.each_ref().map(|expert| of(std::slice::from_ref(expert), &x));
    assert!(!near(&values(&apart[0]), &values(&apart[1])));
    assert!(near(&values(&both), &values(&((&apart[0] + &apart[1]).unwrap() / 2.0).unwrap())));
    assert!(near(
        &values(&both.narrow(0, rows - 2, 2).unwrap()),
        &values(&of(&experts, &x.narrow(0, rows - 2, 2).unwrap()))
    ));
    // Of one of them, after its last leg: what its loss is made of.
    let (_, end) = experts[0].stretch(0, 1);
    let loss = window.student.gradient(end, &x, &y, student::Wanted::default()).unwrap().loss;
    let expected = -product(&apart[0].log().unwrap(), &y) / rows as f64;
    assert!((f64::from(loss) - expected).abs() < 1e-4, "{loss} {expected}");
}

/// What following an expert goes down, and what the whole gradient of the same window is, for rows and for labels.
fn both_gradients(window: &Window, rows: usize, (steps, every): (usize, usize)) -> [(Tensor, Tensor); 2] {
    let (x, y) = (pictures(rows, "x"), shares(rows));
    let expert = expert(window);
    let (from, to) = expert.stretch(0, 2);
    let rate = 0.02;
    let train = |every| {
        let trainee = Trainee::new(from.clone(), 0).unwrap();
        window.train(&trainee, rate, (&x, &y), (steps, every), &mut stream(3, "draws")).unwrap()
    };
    let (after, all) = train(1);
    let (again, few) = train(every);
    assert_eq!(after.weights.to_vec1::<f32>().unwrap(), again.weights.to_vec1::<f32>().unwrap());
    assert_eq!((all.len(), few.len()), (steps, steps.div_ceil(every)));
    let a = (after.weights - to).unwrap();
    let directly = window.back_directly(few, rate, &a, (&x, &y)).unwrap();
    [directly, window.back(all, rate, a, (&x, &y)).unwrap()]
}

#[test]
fn going_back_directly_through_one_step_is_going_back() {
    let kept = kept();
    let window = window(&kept, true);
    for rows in [12, 60] {
        let [directly, whole] = both_gradients(&window, rows, (1, 1));
        for (directly, whole) in [(directly.0, whole.0), (directly.1, whole.1)] {
            let off = window::length(&(&directly - &whole).unwrap()).unwrap();
            assert!(off < 1e-4 * window::length(&whole).unwrap(), "{rows}: {off}");
        }
    }
}

#[test]
fn going_back_directly_through_a_few_steps_goes_nearly_where_the_whole_gradient_does() {
    let kept = kept();
    let window = window(&kept, true);
    let cosine = |a: &Tensor, b: &Tensor| product(a, b) / window::length(a).unwrap() / window::length(b).unwrap();
    for (rows, every, least) in [(12, 1, 0.6), (12, 8, 0.3), (60, 1, 0.6)] {
        let [directly, whole] = both_gradients(&window, rows, (40, every));
        let found = [cosine(&directly.0, &whole.0), cosine(&directly.1, &whole.1)];
        assert!(found.iter().all(|c| *c > least), "{rows} rows, every {every}: {found:?}");
    }
}

#[test]
fn following_an_expert_moves_rows_and_labels_so_that_networks_end_nearer_to_it() {
    let kept = kept();
    let window = window(&kept, true);
    let rate = 0.02;
    for rows in [12, 60] {
        // As the expert saw them.
        let (x, y) = (pictures(rows, "real"), shares(rows));
        let standard = window.real.standard().unwrap();
        let expert = expert(&window);
        let (from, to) = expert.stretch(0, 2);
        let look = |x: &Tensor, y: &Tensor, rate| {
            window.follow((from, to), rate, (x, y), &standard, stream(3, "draws")).unwrap()
        };
        let Followed { loss: before, parts, .. } = look(&x, &y, rate);
        assert_eq!(parts.len(), matching::PARTS);
        let of_both = |part: &Gradient| [(part.rows.clone(), true, 0.5), (part.labels.clone().unwrap(), false, 0.2)];
        for (gradient, of_rows, reach) in parts.iter().flat_map(of_both) {
            let step = (&gradient * (reach / window::length(&gradient).unwrap())).unwrap();
            let after = match of_rows {
                true => look(&(&x - step).unwrap(), &y, rate),
                false => look(&x, &(&y - step).unwrap(), rate),
            };
            assert!(after.loss < before, "{rows} rows, of rows {of_rows}: {} {before}", after.loss);
        }
        // Far too slow, and far too fast.
        let strides = [1e-4, 0.5].map(|rate| look(&x, &y, rate).stride);
        assert!(strides[0] > 1.5 && strides[1] < 0.5, "{strides:?}");
    }
}

#[test]
fn what_moves_all_shares_of_a_row_alike_moves_none() {
    let shares = tensor(vec![0.7, 0.3, 0.0, 0.2, 0.3, 0.5], &[2, 3]);
    let gradient = tensor(vec![3.0, -1.0, 2.0, 5.0, 5.0, 5.0], &[2, 3]);
    let found: Vec<f32> = within_sum(&gradient, &shares).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    // Of the loss <gradient, shares / sum>, by differences.
    let loss = |i: usize, by: f32| -> f32 {
        let mut moved: Vec<f32> = shares.flatten_all().unwrap().to_vec1().unwrap();
        moved[i] += by;
        let row = &moved[i / 3 * 3..i / 3 * 3 + 3];
        let along: Vec<f32> = gradient.get(i / 3).unwrap().to_vec1().unwrap();
        row.iter().zip(along).map(|(s, g)| s * g).sum::<f32>() / row.iter().sum::<f32>()
    };
    for (i, found) in found.iter().enumerate() {
        let slope = (loss(i, 1e-2) - loss(i, -1e-2)) / 2e-2;
        assert!((slope - found).abs() < 1e-2, "{i}: {slope} {found}");
    }
    assert!(found[3..].iter().all(|v| v.abs() < 1e-6));
}

#[test]
fn a_network_has_as_many_weights_as_are_drawn() {
    let student = window(&kept(), false).student;
    assert_eq!(student.random(&mut stream(1, "weights")).unwrap().dims(), [student.weights_len()]);
}

#[test]
fn more_rows_than_twenty_a_class_follow_experts_that_are_trained_for_longer() {
    assert_eq!([60, 61].map(|rows| expert::legs(rows, CLASSES)), [40, 80]);
    assert!(expert::legs(1, 1) > STRETCH);
}

#[test]
fn what_chunks_are_standardised_by_is_that_of_all_of_them() {
    let all = tensor(normal(&mut stream(5, "rows"), 10 * 3 * 16), &[10, 3, 4, 4]);
    let all = (all.affine(2.0, 0.0).unwrap()
        + tensor(vec![0.5, -1.0, 3.0], &[1, 3, 1, 1]).broadcast_as((10, 3, 4, 4)).unwrap())
    .unwrap();
    let chunks = [(0, 7), (7, 3)].map(|(from, len)| Ok(all.narrow(0, from, len).unwrap()));
    let of =
        |standard: Standard| -> Vec<f32> { standard.apply(&all).unwrap().flatten_all().unwrap().to_vec1().unwrap() };
    let (whole, parts) = (of(Standard::of(&all).unwrap()), of(Standard::of_chunks(chunks.into_iter()).unwrap()));
    assert!(whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-4));
}
