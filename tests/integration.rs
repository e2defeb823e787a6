mod cli;
mod schemas;
mod slt;
mod sql;
mod support;
