mod cli;
mod sql;
mod support;
