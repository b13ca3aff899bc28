//! `roomcast doctor`: prints what was found. Does not know what is looked for.

use std::io::Write;

use super::args::Doctor;
use super::say;
use crate::doctor::facts::Facts;
use crate::doctor::{Grade, Report};

/// Looks at the host and the config, and prints all findings.
///
/// # Errors
/// At least one of them stops roomcast from serving.
pub(super) fn run(doctor: &Doctor, out: &mut dyn Write) -> Result<(), String> {
    let report = Report::new(&Facts::gather(&doctor.root, doctor.config.as_deref()));
    let text = if doctor.json { report.json() } else { report.to_string() };
    say(out, &text)?;
    match report.count(Grade::Wrong) {
        0 => Ok(()),
        1 => Err("one thing keeps it from serving".to_owned()),
        wrong => Err(format!("{wrong} things keep it from serving")),
    }
}
