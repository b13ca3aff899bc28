//! `RESULTS.json`: what was measured, on which machine, of which versions. Does not judge it.

use super::plan::{Entry, Figure, Scenario, Step};
use super::statistics::{Series, Spread, ratios};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Of this shape of the file; another one is not read.
const FORMAT: u32 = 1;

/// The machine that measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of its processor.
    pub cpu: String,
    /// Cores that the suite may use.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// How the processor's frequency is chosen, where it can be known.
    pub governor: String,
    /// Megabytes of memory.
    pub memory_mb: u64,
}

/// What the measurements depend on besides the machine and the versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parameters {
    /// How often everything was measured.
    pub repetitions: usize,
    /// Seconds of load, where not each scenario's own.
    pub seconds: Option<f64>,
    /// By which rooms, members and connections were shrunk.
    pub scale: f64,
    /// Share of other load on the cores above which a measurement was repeated.
    pub foreign_max: f64,
}

/// A contender that could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub contender: String,
    /// What is missing.
    pub why: String,
}

/// One measurement of one contender, after as many attempts as it took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its scenario's name.
    pub scenario: String,
    /// Its entry's key.
    pub entry: String,
    /// Counted from 0.
    pub repetition: usize,
    /// Shares of other load, or errors, of the attempts that were thrown away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discarded: Vec<String>,
    /// True if other load was too high in every attempt; this is the one with the least.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noisy: bool,
    /// Why there is no measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// What the generator said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurement: Option<Value>,
}

impl Run {
    /// A number of the measurement.
    #[must_use]
    pub fn number(&self, pointer: &str) -> Option<f64> {
        self.measurement.as_ref()?.pointer(pointer)?.as_f64()
    }

    /// What clients missed, got twice or in the wrong order, and connections that were closed.
    #[must_use]
    pub fn losses(&self) -> Losses {
        let count = |pointer| self.number(pointer).unwrap_or(0.0) as u64;
        Losses {
            lost: count("/lost"),
            duplicates: count("/duplicates"),
            reordered: count("/reordered"),
            closed: count("/closed"),
        }
    }
}

/// What went wrong with deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Events that a member never got.
    pub lost: u64,
    /// Events that came again.
    pub duplicates: u64,
    /// Events that came before an earlier one.
    pub reordered: u64,
    /// Connections that the server closed.
    pub closed: u64,
}

impl Losses {
    /// True if every member that stayed got everything once and in order.
    #[must_use]
    pub fn is_clean(self) -> bool {
        self == Self { closed: self.closed, ..Self::default() }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicates: self.duplicates + other.duplicates,
            reordered: self.reordered + other.reordered,
            closed: self.closed + other.closed,
        }
    }
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The file's shape.
    pub format: u32,
    /// When the suite began.
    pub started: String,
    /// When the last run ended.
    pub finished: String,
    /// The repository's commit, with `-dirty` if files differed from it.
    pub commit: String,
    /// Where.
    pub machine: Machine,
    /// Of all contenders and what they run on.
    pub versions: BTreeMap<String, String>,
    /// How.
    pub parameters: Parameters,
    /// Who is missing.
    pub skipped: Vec<Skipped>,
    /// In the order in which they were measured.
    pub runs: Vec<Run>,
}

impl Results {
    /// Nothing measured yet.
    #[must_use]
    pub fn new() -> Self {
        Self { format: FORMAT, ..Self::default() }
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let results: Self = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if results.format == FORMAT {
            Ok(results)
        } else {
            Err(format!("{}: format {}, while this program knows {FORMAT}", path.display(), results.format))
        }
    }

    /// Writes a file, or leaves the old one as it is.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let mut text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        text.push('\n');
        replace(path, &text)
    }

    /// The run of a step, if it was made.
    #[must_use]
    pub fn run(&self, step: &Step) -> Option<&Run> {
        self.of(step.scenario, &step.entry).find(|run| run.repetition == step.repetition)
    }

    /// All runs of an entry.
    pub fn of(&self, scenario: &Scenario, entry: &Entry) -> impl Iterator<Item = &Run> + use<'_> {
        let (scenario, key) = (scenario.name, entry.key());
        self.runs.iter().filter(move |run| run.scenario == scenario && run.entry == key)
    }

    /// A figure of an entry in each repetition.
    #[must_use]
    pub fn series(&self, scenario: &Scenario, entry: &Entry, figure: &Figure) -> Series {
        let number = |run: &Run| Some((run.repetition, run.number(figure.pointer)?));
        self.of(scenario, entry).filter_map(number).collect()
    }

    /// A figure of an entry divided by its reference's, repetition by repetition.
    #[must_use]
    pub fn to_reference(&self, scenario: &Scenario, entry: &Entry, figure: &Figure) -> Option<Spread> {
        let reference = scenario.reference_for(entry)?;
        let (ours, theirs) = (self.series(scenario, entry, figure), self.series(scenario, &reference, figure));
        Spread::of_series(&ratios(&ours, &theirs))
    }

    /// All that an entry lost in all repetitions.
    #[must_use]
    pub fn losses(&self, scenario: &Scenario, entry: &Entry) -> Losses {
        self.of(scenario, entry).map(Run::losses).fold(Losses::default(), Losses::plus)
    }
}

/// Writes a whole file, or leaves the old one as it is.
pub fn replace(path: &Path, text: &str) -> Result<(), String> {
    let say = |error| format!("{}: {error}", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text).map_err(say)?;
    fs::rename(&new, path).map_err(say)
}

/// Results out of thin air, for tests.
#[cfg(test)]
pub mod synthetic {
    use super::*;
    use serde_json::json;

    /// Adds a run with one number at each of the pointers.
    pub fn add(results: &mut Results, scenario: &str, entry: &str, repetition: usize, numbers: &[(&str, f64)]) {
        let mut measurement = json!({});
        for (pointer, number) in numbers {
            let mut place = &mut measurement;
            for part in pointer[1..].split('/') {
                place = &mut place[part];
            }
            *place = json!(number);
        }
        results.runs.push(Run {
            scenario: scenario.to_owned(),
            entry: entry.to_owned(),
            repetition,
            discarded: Vec::new(),
            noisy: false,
            failure: None,
            measurement: Some(measurement),
        });
    }

    /// A figure in several repetitions.
    pub fn series(results: &mut Results, scenario: &str, entry: &str, pointer: &str, values: &[f64]) {
        for (repetition, value) in values.iter().enumerate() {
            add(results, scenario, entry, repetition, &[(pointer, *value)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::CPU_PER_DELIVERY;
    use super::*;

    #[test]
    fn ratios_to_the_reference_are_taken_in_each_repetition() {
        let mut results = Results::new();
        let cpu = CPU_PER_DELIVERY.pointer;
        synthetic::series(&mut results, "firehose", "roomcast/raw", cpu, &[110.0, 240.0, 105.0]);
        synthetic::series(&mut results, "firehose", "floor-joined/raw", cpu, &[100.0, 200.0]);
        synthetic::series(&mut results, "trains", "floor-joined/raw", cpu, &[1.0, 1.0, 1.0]);
        let scenario = Scenario::from_name("firehose").unwrap();
        let entry = scenario.entries.iter().find(|entry| entry.key() == "roomcast/raw").unwrap();
        let spread = results.to_reference(scenario, entry, &CPU_PER_DELIVERY).unwrap();
        assert_eq!((spread.min, spread.max, spread.count), (1.1, 1.2, 2));
    }

    #[test]
    fn files_come_back_as_they_were_and_others_are_refused() {
        let folder = std::env::temp_dir().join(format!("roomcast-bench-results-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("RESULTS.json");
        let mut results = Results::new();
        synthetic::add(&mut results, "slow", "bun/raw", 3, &[("/latency_us/p99", 12.5), ("/lost", 3.0)]);
        results.runs[0].noisy = true;
        results.save(&path).unwrap();
        let back = Results::load(&path).unwrap();
        assert_eq!(back, results);
        assert_eq!(back.runs[0].losses(), Losses { lost: 3, ..Losses::default() });
        assert!(!back.runs[0].losses().is_clean());
        assert!(Losses { closed: 7, ..Losses::default() }.is_clean());
        results.format = FORMAT + 1;
        results.save(&path).unwrap();
        assert!(Results::load(&path).unwrap_err().contains("format"));
        fs::write(&path, "{").unwrap();
        assert!(Results::load(&path).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
