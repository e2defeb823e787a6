mod cli;
mod slt;
mod sql;
mod support;
