//! Compares results with earlier ones: as ratios to the floor, since machines differ in speed, and bytes as they are.
//! Reads and writes no files.

use super::format;
use super::plan::{Better, Entry, Figure, SCENARIOS, Scenario, Unit};
use super::results::Results;
use super::statistics::Spread;
use std::fmt::Write as _;

/// Less than this share is no change, however close the repetitions are to each other.
const CHANGE_MIN: f64 = 0.02;
/// The same where one of the two was measured once, so that nobody knows its spread.
const CHANGE_MIN_ONCE: f64 = 0.15;

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Or larger, or dearer.
    Slower,
    /// Or smaller, or cheaper.
    Faster,
    /// By no more than the spreads.
    Unchanged,
}

/// Old and new of one figure.
#[derive(Debug)]
pub struct Comparison {
    /// Where.
    pub scenario: &'static Scenario,
    /// Who.
    pub entry: Entry,
    /// What.
    pub figure: &'static Figure,
    /// Ratio to the floor, or the value if `is_ratio` is false.
    pub old: Spread,
    /// The same.
    pub new: Spread,
    /// True if it was divided by the floor's.
    pub is_ratio: bool,
    /// The outcome.
    pub change: Change,
}

/// All figures that both results have.
#[must_use]
pub fn compare(old: &Results, new: &Results) -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for scenario in &SCENARIOS {
        for entry in scenario.entries.iter().filter(|entry| Some(**entry) != scenario.reference_for(entry)) {
            for &figure in scenario.figures.iter().filter(|figure| figure.compared) {
                let absolute = figure.unit == Unit::Bytes;
                let value = |results: &Results| {
                    if absolute {
                        Spread::of_series(&results.series(scenario, entry, figure))
                    } else {
                        results.to_reference(scenario, entry, figure)
                    }
                };
                let (Some(old), Some(new)) = (value(old), value(new)) else { continue };
                let change = change(&old, &new, figure.better);
                comparisons.push(Comparison { scenario, entry: *entry, figure, old, new, is_ratio: !absolute, change });
            }
        }
    }
    comparisons
}

fn change(old: &Spread, new: &Spread, better: Better) -> Change {
    let difference = new.median - old.median;
    let change_min = if old.count == 1 || new.count == 1 { CHANGE_MIN_ONCE } else { CHANGE_MIN };
    let clear = difference.abs() > old.width().max(new.width()) && difference.abs() > old.median.abs() * change_min;
    match (clear, (difference > 0.0) == (better == Better::Higher)) {
        (false, _) => Change::Unchanged,
        (true, true) => Change::Faster,
        (true, false) => Change::Slower,
    }
}

/// What makes one result comparable with another.
pub fn comparable(old: &Results, new: &Results) -> Result<(), String> {
    if old.parameters.scale == new.parameters.scale {
        Ok(())
    } else {
        Err(format!("scales differ: {} and {}", old.parameters.scale, new.parameters.scale))
    }
}

/// What is to be said, and how much of it is that roomcast became worse.
#[must_use]
pub fn report(old: &Results, new: &Results) -> (String, usize) {
    let comparisons = compare(old, new);
    let mut text = format!("Against {} of {}:\n", old.commit, old.started);
    if old.parameters.seconds != new.parameters.seconds {
        text.push_str("The runs differ in length, so that small changes may come from that.\n");
    }
    let mut worse = 0;
    for (change, title) in [(Change::Slower, "slower"), (Change::Faster, "faster")] {
        for comparison in comparisons.iter().filter(|comparison| comparison.change == change) {
            let roomcast = comparison.entry.contender.is_roomcast();
            worse += usize::from(roomcast && change == Change::Slower);
            let _ = writeln!(text, "{title}: {}", line(comparison));
        }
    }
    for scenario in &SCENARIOS {
        for entry in scenario.entries.iter().filter(|entry| entry.contender.is_roomcast()) {
            let (before, after) = (old.losses(scenario, entry), new.losses(scenario, entry));
            let was_measured = old.of(scenario, entry).next().is_some();
            if was_measured && before.is_clean() && !after.is_clean() {
                worse += 1;
                let _ = writeln!(text, "loses events: {}, {}: {after:?}", scenario.name, entry.title());
            }
        }
    }
    let unchanged = comparisons.iter().filter(|comparison| comparison.change == Change::Unchanged).count();
    let _ = writeln!(text, "{unchanged} of {} figures differ by no more than the spreads.", comparisons.len());
    (text, worse)
}

fn line(comparison: &Comparison) -> String {
    let Comparison { scenario, entry, figure, old, new, is_ratio, .. } = comparison;
    let number = |spread| if *is_ratio { format::ratio(spread) } else { format::spread(figure.unit, spread) };
    let of = if *is_ratio { " ÷ the floor's" } else { "" };
    format!("{}, {}: {}{of}: {} → {}", scenario.name, entry.title(), figure.name, number(old), number(new))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{CPU_PER_DELIVERY, USER_BYTES};
    use super::super::results::synthetic::{add, series};
    use super::*;

    #[test]
    fn slower_faster_unchanged() {
        let lower = Better::Lower;
        // (old, new, which way is better, what became of it)
        let table: [(&[f64], &[f64], Better, Change); 9] = [
            (&[1.0, 1.01, 1.02], &[1.2, 1.21, 1.22], lower, Change::Slower),
            (&[1.0, 1.01, 1.02], &[0.8, 0.81, 0.82], lower, Change::Faster),
            (&[1.0, 1.01, 1.02], &[1.2, 1.21, 1.22], Better::Higher, Change::Faster),
            (&[1.0, 1.01, 1.02], &[0.8, 0.81, 0.82], Better::Higher, Change::Slower),
            // Within the old spread, within the new one, and by less than anybody can tell.
            (&[0.9, 1.0, 1.3], &[1.2, 1.21, 1.22], lower, Change::Unchanged),
            (&[1.0, 1.01, 1.02], &[1.0, 1.2, 1.3], lower, Change::Unchanged),
            (&[1.0, 1.0, 1.0], &[1.01, 1.01, 1.01], lower, Change::Unchanged),
            // Of one repetition, no spread is known.
            (&[1.0], &[1.1], lower, Change::Unchanged),
            (&[1.0], &[1.2], lower, Change::Slower),
        ];
        for (old, new, better, expected) in table {
            let of = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
            assert_eq!(change(&of(old), &of(new), better), expected, "{old:?} {new:?}");
        }
    }

    /// firehose on a machine of some speed.
    fn results(speed: f64, roomcast: &[f64], floor: &[f64]) -> Results {
        let mut results = Results::new();
        let scaled = |values: &[f64]| values.iter().map(|value| value * speed).collect::<Vec<_>>();
        series(&mut results, "firehose", "roomcast/raw", CPU_PER_DELIVERY.pointer, &scaled(roomcast));
        series(&mut results, "firehose", "floor-joined/raw", CPU_PER_DELIVERY.pointer, &scaled(floor));
        results
    }

    #[test]
    fn speed_of_the_machine_cancels_out() {
        let old = results(1.0, &[100.0, 101.0], &[100.0, 100.0]);
        let elsewhere = results(3.0, &[100.0, 101.0], &[100.0, 100.0]);
        let (text, worse) = report(&old, &elsewhere);
        assert_eq!(worse, 0, "{text}");
        assert_eq!(compare(&old, &elsewhere).len(), 1);
        let (text, worse) = report(&old, &results(0.5, &[150.0, 151.0], &[100.0, 100.0]));
        assert_eq!(worse, 1, "{text}");
        assert!(text.contains("slower: firehose, roomcast (raw): CPU per delivery"), "{text}");
        let (text, worse) = report(&results(0.5, &[150.0, 151.0], &[100.0, 100.0]), &old);
        assert_eq!(worse, 0);
        assert!(text.contains("faster: firehose"), "{text}");
    }

    #[test]
    fn bytes_are_compared_as_they_are() {
        let of = |bytes: &[f64]| {
            let mut results = Results::new();
            series(&mut results, "idle", "roomcast/raw", USER_BYTES.pointer, bytes);
            results
        };
        assert_eq!(report(&of(&[390.0, 391.0]), &of(&[450.0, 451.0])).1, 1);
        assert_eq!(report(&of(&[390.0, 391.0]), &of(&[391.0, 392.0])).1, 0);
    }

    #[test]
    fn others_may_get_slower_and_roomcast_must_not_lose_events() {
        let peer = |cpu: &[f64]| {
            let mut results = results(1.0, &[100.0, 101.0], &[100.0, 100.0]);
            series(&mut results, "firehose", "bun/raw", CPU_PER_DELIVERY.pointer, cpu);
            results
        };
        let (text, worse) = report(&peer(&[100.0, 101.0]), &peer(&[200.0, 201.0]));
        assert!(text.contains("slower: firehose, Bun") && worse == 0, "{text}");
        let mut lossy = peer(&[100.0, 101.0]);
        add(&mut lossy, "firehose", "roomcast/raw", 2, &[("/lost", 1.0)]);
        assert_eq!(report(&peer(&[100.0, 101.0]), &lossy).1, 1);
        assert_eq!(report(&lossy, &lossy).1, 0);
    }

    #[test]
    fn scales_must_agree() {
        let mut small = Results::new();
        small.parameters.scale = 0.01;
        assert!(comparable(&Results::new(), &small).is_err());
        assert!(comparable(&small, &small).is_ok());
    }
}
