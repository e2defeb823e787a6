//! Training rows and test rows flow in, the accuracy of networks trained from scratch flows out.
//!
//! The recipe is that of DC and DM (Zhao and Bilen 2021, 2023), the one that most published figures are taken with: SGD, rate
//! 0.01, a tenth of it from half time on, momentum 0.9, weight decay 5e-4, batches of 256, siamese augmentation (DSA), the
//! last epoch; or that of IDC ([`TrainingRecipe`]). Standardisation comes from the training rows alone, for distilled rows and baselines alike.

mod baselines;
mod cutmix;
mod dataset;
mod lenet;
mod network;
mod recipe;
mod report;
mod resnet18;
mod training;

pub use baselines::Baseline;
pub use dataset::Dataset;
pub use network::NetworkKind;
pub use recipe::TrainingRecipe;
pub use report::Report;
pub use training::{EvaluateConfig, Progress, Scores, evaluate, evaluate_baseline};
