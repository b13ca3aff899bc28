//! Which of several attempts at a measurement counts. Does not know how one is made.

use super::plan::Step;
use super::process::Trouble;
use super::results::Run;
use serde_json::Value;

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Share of other load on the cores above which an attempt is thrown away.
    pub foreign_max: f64,
    /// Attempts at most; of those that measure nothing, two.
    pub tries: usize,
}

/// Whoever cannot be measured twice will not be measured the third time, and each such attempt may take minutes.
const FAILURES_MAX: usize = 2;

/// Tries until a measurement is without much other load. Losses count at once: nobody repeats until they are gone.
pub fn settle(
    step: &Step,
    patience: Patience,
    mut attempt: impl FnMut() -> Result<Value, Trouble>,
) -> Result<Run, Trouble> {
    let mut run = Run {
        scenario: step.scenario.name.to_owned(),
        entry: step.entry.key(),
        repetition: step.repetition,
        discarded: Vec::new(),
        noisy: false,
        failure: None,
        measurement: None,
    };
    let mut failures = 0;
    for _ in 0..patience.tries.max(1) {
        match attempt() {
            Err(Trouble::Interrupted) => return Err(Trouble::Interrupted),
            Err(Trouble::Failed(why)) => {
                run.discarded.push(why);
                failures += 1;
                if failures == FAILURES_MAX {
                    break;
                }
            }
            Ok(measurement) => {
                let new = Run { measurement: Some(measurement), ..run.clone() };
                let quiet = foreign(&new) <= patience.foreign_max;
                let counts = quiet || !new.losses().is_clean();
                let better = run.measurement.is_none() || foreign(&new) < foreign(&run);
                let discarded = if counts || better { &run } else { &new };
                if discarded.measurement.is_some() {
                    let share = format!("{:.1} % other load", foreign(discarded) * 100.0);
                    run.discarded.push(share);
                }
                if counts || better {
                    run.measurement = new.measurement;
                    run.noisy = !quiet;
                }
                if counts {
                    return Ok(run);
                }
            }
        }
    }
    if run.measurement.is_none() {
        run.failure = run.discarded.pop();
    }
    Ok(run)
}

/// A generator that does not know how much else ran says nothing, and is believed.
fn foreign(run: &Run) -> f64 {
    run.number("/foreign_share").unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Choice, Contender, Scenario, steps};
    use super::*;
    use serde_json::json;

    fn step() -> Step {
        let scenarios = vec![Scenario::from_name("storm").unwrap()];
        let choice = Choice { scenarios, contenders: vec![Contender::Ws], needed_only: false, repetitions: 1 };
        steps(&choice)[0]
    }

    enum Attempt {
        /// Share of other load, lost events.
        Measures(f64, u64),
        Fails,
    }
    use Attempt::{Fails, Measures};

    #[test]
    fn which_attempt_counts() {
        // (attempts, how many are made, other load of the one that counts, discarded, noisy)
        type Case<'a> = (&'a [Attempt], usize, Option<f64>, usize, bool);
        let table: [Case; 9] = [
            (&[Measures(0.01, 0)], 1, Some(0.01), 0, false),
            (&[Measures(0.2, 0), Measures(0.02, 0)], 2, Some(0.02), 1, false),
            (&[Measures(0.2, 0), Measures(0.1, 0), Measures(0.3, 0)], 3, Some(0.1), 2, true),
            (&[Fails, Measures(0.02, 0)], 2, Some(0.02), 1, false),
            (&[Fails, Fails, Measures(0.0, 0)], 2, None, 1, false),
            (&[Fails, Measures(0.2, 0), Fails], 3, Some(0.2), 2, true),
            // Losses are not repeated away, be they in a quiet attempt or in a noisy one.
            (&[Measures(0.01, 5), Measures(0.0, 0)], 1, Some(0.01), 0, false),
            (&[Measures(0.2, 5), Measures(0.0, 0)], 1, Some(0.2), 0, true),
            (&[Measures(0.1, 0), Measures(0.2, 5), Measures(0.0, 0)], 2, Some(0.2), 1, true),
        ];
        for (row, (attempts, made, counts, discarded, noisy)) in table.into_iter().enumerate() {
            let mut number = 0;
            let run = settle(&step(), Patience { foreign_max: 0.03, tries: 3 }, || {
                number += 1;
                match attempts[number - 1] {
                    Measures(foreign, lost) => Ok(json!({"foreign_share": foreign, "lost": lost})),
                    Fails => Err(Trouble::Failed("no".to_owned())),
                }
            });
            let run = run.unwrap();
            assert_eq!(number, made, "row {row}");
            assert_eq!(run.number("/foreign_share"), counts, "row {row}");
            assert_eq!(run.discarded.len(), discarded, "row {row}: {:?}", run.discarded);
            assert_eq!(run.noisy, noisy, "row {row}");
            assert_eq!(run.failure.is_some(), counts.is_none(), "row {row}");
        }
    }

    #[test]
    fn an_interrupt_ends_it() {
        let run = settle(&step(), Patience { foreign_max: 0.03, tries: 3 }, || Err(Trouble::Interrupted));
        assert_eq!(run.unwrap_err(), Trouble::Interrupted);
    }
}
