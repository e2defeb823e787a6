//! `distill(...)` and `distill.*` as a query sees them.

mod arguments;
mod cancellation;
mod determinism;
mod failures;
mod memory;
mod output;
mod plans;
mod queries;
mod settings;
mod sources;
mod threads;
mod union_agg;
