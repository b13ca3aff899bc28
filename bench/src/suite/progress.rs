//! Lines on stderr: what is measured now, what came out, and how long the rest will take. Reads no clock.

use super::format;
use super::plan::Step;
use super::results::Run;
use std::collections::HashMap;
use std::time::Duration;

/// Beyond the seconds of load, what a step is thought to take before anything is known.
const OVERHEAD_S: f64 = 3.0;

/// Where the suite is.
#[derive(Debug)]
pub struct Progress {
    /// What remains: scenario and entry, and the seconds thought of at first.
    ahead: Vec<(String, f64)>,
    all: usize,
    /// Seconds that a scenario's entry took when it was measured last.
    took: HashMap<String, f64>,
    /// Seconds that all steps so far took, and what was thought.
    sum: (f64, f64),
}

impl Progress {
    /// At the beginning.
    pub fn new(steps: &[Step], seconds: impl Fn(&Step) -> f64) -> Self {
        let mut ahead: Vec<_> = steps.iter().map(|step| (name(step), seconds(step) + OVERHEAD_S)).collect();
        ahead.reverse();
        Self { all: ahead.len(), ahead, took: HashMap::new(), sum: (0.0, 0.0) }
    }

    /// Says what is measured now.
    pub fn begin(&self, step: &Step) {
        let number = self.all - self.ahead.len() + 1;
        eprintln!("[{number}/{}, {} left] {}, {}", self.all, minutes(self.left()), repetition(step), name(step));
    }

    /// Says what came out.
    pub fn end(&mut self, step: &Step, run: &Run, took: Duration) {
        if let Some((name, thought)) = self.ahead.pop() {
            self.sum = (self.sum.0 + took.as_secs_f64(), self.sum.1 + thought);
            self.took.insert(name, took.as_secs_f64());
        }
        eprintln!("    {}", summary(step, run));
    }

    /// Seconds that the rest will take: each as long as last time, others as the first guess, corrected by how wrong it
    /// was so far.
    fn left(&self) -> f64 {
        let correction = if self.sum.1 > 0.0 { self.sum.0 / self.sum.1 } else { 1.0 };
        self.ahead.iter().map(|(name, thought)| self.took.get(name).copied().unwrap_or(thought * correction)).sum()
    }
}

fn name(step: &Step) -> String {
    format!("{} {}", step.scenario.name, step.entry.key())
}

fn repetition(step: &Step) -> String {
    format!("repetition {}", step.repetition + 1)
}

fn minutes(seconds: f64) -> String {
    if seconds < 90.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

fn summary(step: &Step, run: &Run) -> String {
    if let Some(failure) = &run.failure {
        return format!("FAILED: {failure}");
    }
    let figure = |figure: &&super::plan::Figure| {
        Some(format!("{} {}", figure.name, format::number(figure.unit, run.number(figure.pointer)?)))
    };
    let mut parts: Vec<String> = step.scenario.figures.iter().filter_map(figure).collect();
    parts.push(format!("other load {:.1} %", run.number("/foreign_share").unwrap_or(0.0) * 100.0));
    if !run.losses().is_clean() {
        parts.push(format!("LOSS: {:?}", run.losses()));
    }
    if run.noisy {
        parts.push("NOISY".to_owned());
    }
    if !run.discarded.is_empty() {
        parts.push(format!("attempt {}", run.discarded.len() + 1));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Choice, Contender, SCENARIOS, Scenario, steps};
    use super::super::results::Results;
    use super::super::results::synthetic::add;
    use super::*;

    #[test]
    fn time_left_learns_from_what_was_measured() {
        let scenarios = vec![Scenario::from_name("storm").unwrap()];
        let contenders = vec![Contender::FloorSend, Contender::SocketIo];
        let steps = steps(&Choice { scenarios, contenders, needed_only: false, repetitions: 2 });
        let mut progress = Progress::new(&steps, |_| 7.0);
        assert_eq!(progress.left(), 50.0);
        let mut results = Results::new();
        add(&mut results, "storm", "floor-send/raw", 0, &[]);
        progress.end(&steps[0], &results.runs[0], Duration::from_secs(20));
        // Its second repetition takes as long as the first one; the others take twice of what was thought.
        assert_eq!(progress.left(), 80.0);
        assert_eq!((minutes(89.0), minutes(150.0)), ("89 s".to_owned(), "2 min".to_owned()));
    }

    #[test]
    fn losses_noise_and_failures_stand_out() {
        let step = steps(&Choice {
            scenarios: vec![&SCENARIOS[0]],
            contenders: vec![Contender::Ws],
            needed_only: false,
            repetitions: 1,
        })[0];
        let mut results = Results::new();
        add(&mut results, "trains", "ws/raw", 0, &[("/lost", 4.0), ("/cpu_ns_per_delivery", 512.0)]);
        let run = &mut results.runs[0];
        run.noisy = true;
        let text = summary(&step, run);
        assert!(text.contains("512 ns") && text.contains("LOSS") && text.contains("NOISY"), "{text}");
        run.failure = Some("no".to_owned());
        assert_eq!(summary(&step, run), "FAILED: no");
    }
}
