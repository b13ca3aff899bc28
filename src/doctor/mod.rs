//! `roomcast doctor`: what on this host keeps roomcast from serving, or from serving well. Checks are functions from
//! facts to findings; [`facts`] gathers the facts. Does not change anything.

pub mod facts;
mod interrupts;
mod kernel;
mod machine;
mod report;
mod service;
mod sysctls;

use facts::Facts;
use serde::Serialize;

/// How bad a finding is, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be, or nothing that can be told.
    Ok,
    /// roomcast serves, but worse or fewer than it could, or not for ever.
    Warning,
    /// roomcast does not start, or nobody reaches it.
    Wrong,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which one: a word that stays the same.
    pub check: &'static str,
    /// How bad it is.
    pub grade: Grade,
    /// What is there, and what is wrong with it.
    pub what: String,
    /// Why it matters; none if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The line that mends it: a command, or what to write into which file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, grade: Grade::Ok, what: what.into(), why: None, mend: None }
    }

    fn warning(
        check: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding { check, grade: Grade::Warning, what: what.into(), why: Some(why.into()), mend: Some(mend.into()) }
    }

    fn wrong(check: &'static str, what: impl Into<String>, why: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding { grade: Grade::Wrong, ..Finding::warning(check, what, why, mend) }
    }
}

/// All findings, in the order in which an operator goes through a host: kernel, limits, network, processors, service.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// Judges the facts.
    #[must_use]
    pub fn new(facts: &Facts) -> Report {
        let checks = [kernel::check, sysctls::check, interrupts::check, machine::check, service::check];
        Report { findings: checks.iter().flat_map(|check| check(facts)).collect() }
    }

    /// What was found.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// How many findings are of this grade.
    #[must_use]
    pub fn count(&self, grade: Grade) -> usize {
        self.findings.iter().filter(|finding| finding.grade == grade).count()
    }
}
