//! `distill(...)` and `distill.*` as a query sees them.

mod arguments;
mod cancellation;
mod determinism;
mod extractors;
mod failures;
mod imbalance;
mod memory;
mod mosaic;
mod ncfm;
mod output;
mod passes;
mod plans;
mod queries;
mod ridge;
mod selection;
mod settings;
mod sources;
mod tables;
mod threads;
mod union_agg;
mod unroll;
