//! `docs/flags.md`, written from the flags themselves so that the two cannot disagree.

use std::fmt::Write as _;

use clap::{Arg, Args as _, Command};

use super::{
    ControllerFlags,
    build::{Effect, GATES},
};

const HEAD: &str = "# Flags of the controller

This file is generated from `src/controller/runtime/flags.rs`; `cargo xtask generate` updates it.

`albatross controller` takes the flags of aws-load-balancer-controller; so does `albatross` without a subcommand, so that its Deployment works with
this image. Every flag with a name in the column *environment* can be set there too; the command line wins.

| flag | environment | default | what it does |
|---|---|---|---|
";

const WITHOUT_EFFECT: &str = "
## Without effect

These flags of aws-load-balancer-controller are accepted, whatever their value, and do nothing. The log names those that were given when the
controller starts. None of them is read from the environment.

";

const GATES_HEAD: &str = "
## Feature gates

The gates of `--feature-gates` are those of aws-load-balancer-controller, with its defaults. The log names those that were given and have no effect.

| gate | default | what it does |
|---|---|---|
";

const AWS: &str = "
## What else is read

Credentials, region, VPC, proxies and endpoints: [aws-access.md](aws-access.md).
";

/// Returns the document.
#[must_use]
pub fn render_markdown() -> String {
    let command = ControllerFlags::augment_args(Command::new("albatross"));
    let (without_effect, flags): (Vec<&Arg>, Vec<&Arg>) = command.get_arguments().partition(|flag| flag.is_hide_set());
    let mut out = HEAD.to_owned();
    for flag in flags {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "| `--{}` | {} | {} | {} |",
            flag.get_long().unwrap_or_default(),
            flag.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default(),
            default(flag),
            help(flag).replace('|', "\\|"),
        );
    }
    out.push_str(WITHOUT_EFFECT);
    for flag in without_effect {
        let _ = writeln!(out, "- `--{}`", flag.get_long().unwrap_or_default());
    }
    out.push_str(GATES_HEAD);
    for gate in GATES {
        let effect = match gate.effect {
            Effect::Does(what) => format!("{what}."),
            Effect::No(why) => format!("No effect: {why}."),
        };
        let _ = writeln!(out, "| `{}` | `{}` | {effect} |", gate.name, gate.default);
    }
    out + AWS
}

fn default(flag: &Arg) -> String {
    if flag.is_required_set() {
        return "required".to_owned();
    }
    let values: Vec<String> =
        flag.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    match values.join(",").as_str() {
        "" => "none".to_owned(),
        value => format!("`{value}`"),
    }
}

fn help(flag: &Arg) -> String {
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let values = flag.get_possible_values();
    let words: Vec<String> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
    // The words of a boolean say nothing that the default does not, and some texts name their words.
    if words.is_empty() || words.iter().any(|word| word == "`true`" || help.contains(word)) {
        return help;
    }
    format!("{help}: {}", words.join(" or "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_of_the_flags_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/flags.md");
        assert!(
            std::fs::read_to_string(file).unwrap_or_default() == super::render_markdown(),
            "docs/flags.md is not what the code generates: run `cargo xtask generate`"
        );
    }
}
