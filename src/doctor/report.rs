//! A report as text for people and as JSON for programs. Does not know what is checked.

use std::fmt;

use super::{Finding, Grade, Report};
use serde::Serialize;

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Grade::Ok => "ok",
            Grade::Warning => "warning",
            Grade::Wrong => "wrong",
        })
    }
}

/// Columns before what a finding says.
const INDENT: usize = 22;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, grade, what, why, mend } in self.findings() {
            writeln!(f, "{grade:8} {check:12} {what}")?;
            for (name, text) in [("why", why), ("mend", mend)] {
                if let Some(text) = text {
                    writeln!(f, "{:INDENT$}{name:4}  {text}", "")?;
                }
            }
        }
        let [wrong, warnings, ok] = [Grade::Wrong, Grade::Warning, Grade::Ok].map(|grade| self.count(grade));
        let s = if warnings == 1 { "" } else { "s" };
        write!(f, "\n{wrong} wrong, {warnings} warning{s}, {ok} ok")
    }
}

/// The JSON's shape.
#[derive(Serialize)]
struct Json<'a> {
    /// The worst of all.
    grade: Grade,
    wrong: usize,
    warnings: usize,
    findings: &'a [Finding],
}

impl Report {
    /// One JSON object on one line: `grade` (the worst), `wrong` and `warnings` (how many) and `findings`.
    ///
    /// # Panics
    /// Never: everything in it can be written.
    #[must_use]
    pub fn json(&self) -> String {
        let findings = self.findings();
        let json = Json {
            grade: findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Ok),
            wrong: self.count(Grade::Wrong),
            warnings: self.count(Grade::Warning),
            findings,
        };
        simd_json::serde::to_string(&json).expect("strings and numbers can be written")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            findings: vec![
                Finding::ok("kernel", "Linux 6.1.0"),
                Finding::warning("sysctl", "a = 1, less than 2", "Too few \"a\".", "sysctl -w a=2"),
                Finding::wrong("port", "taken", "Nobody gets in.", "kill 7"),
            ],
        }
    }

    #[test]
    fn people_read_it_line_by_line() {
        assert_eq!(
            report().to_string(),
            "\
ok       kernel       Linux 6.1.0
warning  sysctl       a = 1, less than 2
                      why   Too few \"a\".
                      mend  sysctl -w a=2
wrong    port         taken
                      why   Nobody gets in.
                      mend  kill 7

1 wrong, 1 warning, 1 ok"
        );
    }

    #[test]
    fn programs_read_json() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!((&json["grade"], &json["wrong"], &json["warnings"]), (&"wrong".into(), &1.into(), &1.into()));
        assert_eq!(json["findings"][0], serde_json::json!({"check":"kernel","grade":"ok","what":"Linux 6.1.0"}));
        assert_eq!(json["findings"][1]["why"], "Too few \"a\".");
        assert_eq!(json["findings"][2]["mend"], "kill 7");
        assert_eq!(Report { findings: vec![] }.json(), r#"{"grade":"ok","wrong":0,"warnings":0,"findings":[]}"#);
    }
}
