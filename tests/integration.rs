mod cli;
mod schemas;
mod sql;
mod support;
