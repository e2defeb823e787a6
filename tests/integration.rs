mod cli;
mod device;
mod hostile;
mod schemas;
mod sketches;
mod slt;
mod sql;
mod support;
