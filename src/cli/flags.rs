//! [`SPECS`] flows in; command-line flags for the distillation options flow out, and their values back.

use std::sync::LazyLock;

use clap::{Arg, ArgGroup, ArgMatches, Args, Command, FromArgMatches};

use crate::error::Error;
use crate::options::{Kind, OptionSpec, Options, SPECS, Value, check_given};

/// The options' names with dashes.
static DASHED: LazyLock<Vec<String>> = LazyLock::new(|| SPECS.iter().map(|s| s.name.replace('_', "-")).collect());

/// A flag for every option.
#[derive(Clone, Debug)]
pub(super) struct JobFlags(Given);

/// A flag for each option that says how rows are read.
#[derive(Clone, Debug)]
pub(super) struct ReadFlags(Given);

/// A flag for each option that says what extractors are, or how the rows are read that they are for.
#[derive(Clone, Debug)]
pub(super) struct PoolFlags(Given);

const POOL: &[&str] = &[
    "label",
    "features",
    "categorical",
    "exclude",
    "classes",
    "extractors",
    "network",
    "width",
    "depth",
    "layers",
    "sizes",
    "pool",
    "perturb",
    "augment",
    "image_size",
    "ranges",
    "curve",
    "on_null",
    "seed",
    "device",
    "threads",
];

const READ: &[&str] = &["label", "features", "exclude", "classes", "image_size", "ranges", "on_null"];

/// Name and text of the options that were given.
type Given = Vec<(&'static str, String)>;

impl JobFlags {
    /// Name and text of the options that were given, each one known and well-formed.
    pub(super) fn given(&self) -> &[(&'static str, String)] {
        &self.0
    }

    /// The options, checked.
    pub(super) fn options(&self) -> Result<Options, Error> {
        let options = options(&self.0)?;
        options.check()?;
        Ok(options)
    }
}

impl PoolFlags {
    /// The options, with the defaults of those that don't matter for a pool.
    pub(super) fn options(&self) -> Result<Options, Error> {
        options(&self.0)
    }
}

impl ReadFlags {
    /// The options, with the defaults of those that don't matter for reading.
    pub(super) fn options(&self) -> Result<Options, Error> {
        options(&self.0)
    }
}

fn options(given: &Given) -> Result<Options, Error> {
    check_given(given.iter().map(|(name, _)| *name))?;
    let mut options = Options::default();
    for (name, text) in given {
        options.set(name, &Value::Text(text.clone()))?;
    }
    Ok(options)
}

macro_rules! as_clap_args {
    ($flags:ident, $heading:literal, $chosen:expr) => {
        impl Args for $flags {
            fn augment_args(command: Command) -> Command {
                arguments(command, $heading, $chosen)
            }

            fn augment_args_for_update(command: Command) -> Command {
                arguments(command, $heading, $chosen)
            }
        }

        impl FromArgMatches for $flags {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(given(matches, $chosen)))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0 = given(matches, $chosen);
                Ok(())
            }
        }
    };
}

as_clap_args!(JobFlags, "Distillation options", |_| true);
as_clap_args!(PoolFlags, "What the extractors are", |spec: &OptionSpec| POOL.contains(&spec.name));
as_clap_args!(ReadFlags, "How rows are read", |spec: &OptionSpec| READ.contains(&spec.name));

fn arguments(command: Command, heading: &'static str, chosen: impl Fn(&OptionSpec) -> bool) -> Command {
    let mut command = command.next_help_heading(heading);
    for (spec, dashed) in SPECS.iter().zip(DASHED.iter()).filter(|(spec, _)| chosen(spec)) {
        let value = match spec.kind {
            Kind::Integer => "N",
            Kind::Number => "X",
            Kind::Text => "TEXT",
            Kind::List => "A,B",
            Kind::Choice(_) => "CHOICE",
        };
        // Negative numbers are values, and not well-formed ones: the option's own message says so.
        let arg = Arg::new(spec.name).long(dashed.as_str()).value_name(value).help(spec.doc).allow_hyphen_values(true);
        command = command.arg(arg);
    }
    // How many rows is what a job can't be without.
    if SPECS.iter().any(|spec| spec.name == "ipc" && chosen(spec)) {
        command = command.group(ArgGroup::new("amount").args(["ipc", "rows"]).required(true));
    }
    command
}

fn given(matches: &ArgMatches, chosen: impl Fn(&OptionSpec) -> bool) -> Given {
    let value = |spec: &OptionSpec| matches.get_one::<String>(spec.name).map(|text| (spec.name, text.clone()));
    SPECS.iter().filter(|spec| chosen(spec)).filter_map(value).collect()
}
