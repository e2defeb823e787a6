mod cli;
mod schemas;
mod sketches;
mod slt;
mod sql;
mod support;
