//! Training and test files flow in, a table of accuracies flows out.

use std::io::Write;
use std::ops::ControlFlow;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::flags::ReadFlags;
use crate::cli::session::{session, threads};
use crate::cli::usage::{human_bytes, human_count};
use crate::cli::{progress, read, table};
use crate::error::Error;
use crate::evaluate::{Baseline, Dataset, EvaluateConfig, NetworkKind, Report, TrainingRecipe, evaluate_baseline};
use crate::extract::device;
use crate::options::{Options, Value};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The recipe is that of DC and DM: SGD with momentum 0.9 and weight decay 5e-4, a tenth of the learning \
    rate from half time on, siamese augmentation, the last epoch; or that of IDC, DREAM and DANCE (--recipe idc): batches of 64, a fifth of the rate from two thirds on and a twenty-fifth from \
    five sixths, flip, colours and one of crop, scale and rotation together, CutMix of every other batch. Pictures that hold several (mosaic) are decoded, soft labels trained on; rows are standardised by mean and deviation of the \
    training rows alone, baselines by their own.\n\nExamples:\n  \
    distill evaluate small.parquet --test test.parquet\n  \
    distill evaluate small.parquet --test test.parquet --baseline random,herding --from train.parquet\n  \
    distill evaluate small.parquet --test \"(SELECT * FROM 'all.parquet' WHERE split = 'test')\" --network mlp --json"
)]
pub(super) struct EvaluateArgs {
    /// The rows to train on: a path, or a query in parentheses.
    train: String,

    /// The rows to test on, of the same shape and with the same labels: a path, or a query in parentheses.
    #[arg(long, value_name = "TEST")]
    test: String,

    /// The network: convnet (the default for pictures), lenet, resnet18, mlp (the default for lists of numbers: 3 layers of 128 units) or linear.
    #[arg(long, value_name = "NETWORK")]
    network: Option<NetworkKind>,

    /// Channels or units of each layer [default: 128].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    width: Option<u16>,

    /// Blocks or layers [default: by the picture's size; 3 for mlp].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    depth: Option<u8>,

    /// How they are trained: dc, or idc (pictures only); see below.
    #[arg(long, value_name = "RECIPE", default_value = "dc")]
    recipe: TrainingRecipe,

    /// Passes over the training rows.
    #[arg(long, value_name = "N", default_value_t = 300)]
    epochs: usize,

    /// Networks to train, each from weights of its own.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,

    /// Rows of a training batch [default: 256; 64 by recipe idc].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch: Option<u32>,

    /// Learning rate of the first epoch; it falls as the recipe says.
    #[arg(long, value_name = "X", default_value_t = 0.01)]
    learning_rate: f64,

    /// Augmentation of training pictures: 'none', or some of color, crop, cutout, flip, scale, rotate joined by '_' [default: all of them; all but cutout by recipe idc].
    #[arg(long, value_name = "TEXT")]
    augment: Option<String>,

    /// Seed of weights, batches, augmentation and baselines.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Real rows to train on for comparison, chosen anew for each network: some of random, herding, k_center and k_means. The last two
    /// choose among at most 5,000 rows of a class, drawn from the seed.
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "from")]
    baseline: Vec<Baseline>,

    /// Where baselines are chosen from: the rows that TRAIN was distilled from.
    #[arg(long, value_name = "ORIGINAL", requires = "baseline")]
    from: Option<String>,

    /// Rows per class of the baselines [default: the most that TRAIN stores of a class].
    #[arg(long, value_name = "N", requires = "baseline", value_parser = clap::value_parser!(u32).range(1..))]
    ipc: Option<u32>,

    /// Where networks are trained: auto, cpu, cuda, cuda:N or metal.
    #[arg(long, value_name = "TEXT", default_value = "auto")]
    device: String,

    /// CPU threads; they don't change the result [default: all cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,

    /// Print one JSON object a line, the file's first, instead of a table.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    reading: ReadFlags,
}

pub(super) fn evaluate(args: EvaluateArgs, quiet: bool) -> Outcome {
    let options = args.reading.options()?;
    let config = config(&args)?;
    let threads = threads(args.threads.map(usize::from));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let sets = pool.install(|| Sets::read(&args, &options))?;

    let runs = 1 + args.baseline.len();
    let bar = progress::evaluation_bar(quiet || args.json, runs * config.epochs * config.repeats);
    let mut out = std::io::stdout();
    let mut reports = vec![];
    for run in 0..runs {
        let name = if run == 0 { args.train.as_str() } else { args.baseline[run - 1].as_str() };
        let mut observer = |p: crate::evaluate::Progress| {
            bar.set_message(format!("{name}: network {} of {}, loss {:.4}", p.repeat + 1, p.repeats, p.loss));
            bar.inc(1);
            ControlFlow::Continue(())
        };
        let report = pool.install(|| sets.report(&args, run, &config, &mut observer));
        if report.is_err() {
            bar.finish_and_clear();
        }
        let report = report?;
        for warning in report.warnings.iter().filter(|_| !quiet) {
            bar.suspend(|| tracing::warn!("{warning}"));
        }
        if args.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        }
        reports.push(report);
    }
    bar.finish_and_clear();
    if !args.json {
        write!(out, "{}", shown(&reports, &config, sets.test.len()))?;
    }
    Ok(())
}

fn config(args: &EvaluateArgs) -> Outcome<EvaluateConfig> {
    // Through the options of distill, so that augmentations and devices are checked and named alike everywhere.
    let mut options = Options::default();
    if let Some(augment) = &args.augment {
        options.set("augment", &Value::Text(augment.clone()))?;
    }
    options.set("device", &Value::Text(args.device.clone()))?;
    if !(args.learning_rate > 0.0 && args.learning_rate.is_finite()) {
        return Err(
            Error::option("learning_rate", format!("expected more than 0, found {}", args.learning_rate)).into()
        );
    }
    Ok(EvaluateConfig {
        network: args.network,
        width: args.width.map(usize::from),
        depth: args.depth.map(usize::from),
        recipe: args.recipe,
        epochs: args.epochs,
        repeats: args.repeats as usize,
        batch: args.batch.map_or(args.recipe.batch(), |n| n as usize),
        learning_rate: args.learning_rate,
        augment: args.augment.as_ref().map(|_| options.augment.clone()),
        seed: args.seed,
        device: device(&options.device)?,
    })
}

struct Sets {
    train: Dataset,
    test: Dataset,
    original: Option<Dataset>,
}

impl Sets {
    fn read(args: &EvaluateArgs, options: &Options) -> Outcome<Self> {
        // One partition: rows keep the order of their file, and with it the batches that a seed draws.
        let ctx = session(1, None, None)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(async {
            let sources: Vec<&str> =
                [args.train.as_str(), args.test.as_str()].into_iter().chain(args.from.as_deref()).collect();
            let mut sets = read::datasets(&ctx, &sources, options).await?.into_iter();
            let (Some(train), Some(test)) = (sets.next(), sets.next()) else {
                return Err(Failure::new("no rows were read"));
            };
            let original = sets.next();
            Ok(Self { train, test, original })
        })
    }

    /// The file's report for run 0, those of the baselines after it.
    fn report(
        &self,
        args: &EvaluateArgs,
        run: usize,
        config: &EvaluateConfig,
        observer: &mut dyn FnMut(crate::evaluate::Progress) -> ControlFlow<()>,
    ) -> Outcome<Report> {
        if run == 0 {
            let mut report = crate::evaluate::evaluate(&args.train, &self.train, &self.test, config, observer)?;
            report.bytes = read::file_bytes(&args.train);
            return Ok(report);
        }
        let (baseline, Some(original)) = (args.baseline[run - 1], &self.original) else {
            return Err(Failure::new("--baseline needs --from, the rows to choose from"));
        };
        let most = self.train.stored.iter().copied().max().unwrap_or(1);
        let ipc = args.ipc.map_or(most, |n| n as usize);
        Ok(evaluate_baseline(baseline, original, ipc, &self.test, config, observer)?)
    }
}

fn shown(reports: &[Report], config: &EvaluateConfig, test_rows: usize) -> String {
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|r| {
            let (fewest, most) = r.rows_per_class;
            vec![
                r.name.clone(),
                match r.stored_rows == r.rows {
                    true => human_count(r.rows as u64),
                    false => format!("{} in {} stored", human_count(r.rows as u64), human_count(r.stored_rows as u64)),
                },
                if fewest == most { fewest.to_string() } else { format!("{fewest} to {most}") },
                r.bytes.map_or_else(|| "-".into(), human_bytes),
                format!("{:.1} %", 100.0 * r.mean),
                r.deviation.map_or_else(|| "-".into(), |d| format!("{:.1}", 100.0 * d)),
                format!("{:.1}", r.cpu_seconds),
            ]
        })
        .collect();
    let header = ["training rows", "rows", "per class", "file", "accuracy", "+-", "CPU-s"];
    let network = reports.first().map_or("", |r| r.network.as_str());
    let networks = if config.repeats == 1 { "1 network".into() } else { format!("{} networks", config.repeats) };
    format!(
        "{network}, {networks}, recipe {}, {} epochs, {} test rows; accuracy of the last epoch, mean +- standard deviation\n\n{}",
        config.recipe.as_str(),
        config.epochs,
        human_count(test_rows as u64),
        table::aligned(&header, &rows)
    )
}
