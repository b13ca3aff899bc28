//! The suite: starts contenders, has the generator measure them, repeats, and writes what came out. Knows contenders as
//! processes and the generator as a program with JSON on its stdout; it measures nothing by itself.

mod against;
mod attempts;
mod chart;
mod contenders;
mod format;
mod machine;
mod plan;
mod process;
mod progress;
mod report;
mod results;
mod statistics;
mod targets;

use attempts::{Patience, settle};
use clap::Args;
use contenders::{Addresses, Places};
use plan::{Choice, Contender, SCENARIOS, Scenario, Step};
use process::{Interrupt, Server, Trouble};
use progress::Progress;
use results::{Parameters, Results, Skipped};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Where results of a whole run belong.
const WHOLE: &str = "bench";
/// Where those of a part go, so that nobody overwrites the whole by trying something.
const PART: &str = "target/bench";
/// Beyond the seconds of load, what a generator may take to connect and to end.
const LOAD_MAX: Duration = Duration::from_secs(150);
/// For `--quick`.
const QUICK_SECONDS: f64 = 2.0;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Only these scenarios, with commas between them.
    #[arg(long, value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Only these contenders, with commas between them.
    #[arg(long, value_delimiter = ',')]
    contenders: Vec<String>,
    /// Seconds of load instead of each scenario's own.
    #[arg(long)]
    seconds: Option<f64>,
    /// Factor for rooms, members and connections.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Folder for RESULTS.json, RESULTS.md and charts. Default: `bench` for the whole, `target/bench` for a part.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Earlier results to compare with. Exit status 1 if roomcast got slower.
    #[arg(long)]
    against: Option<PathBuf>,
    /// One short repetition of what the targets need, about three minutes.
    #[arg(long)]
    quick: bool,
    /// Go on with what the folder has.
    #[arg(long)]
    resume: bool,
    /// Measure nothing: write the report from what the folder has, and compare.
    #[arg(long)]
    report: bool,
    /// Share of other load on the cores above which a measurement is repeated.
    #[arg(long, default_value_t = 0.03)]
    foreign_max: f64,
    /// Attempts at a measurement.
    #[arg(long, default_value_t = 3)]
    tries: usize,
    /// The server. Default: `roomcast` beside this program.
    #[arg(long)]
    roomcast: Option<PathBuf>,
    /// The folder of the peers.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/peers"))]
    peers: PathBuf,
}

impl Options {
    /// True if not everything is measured as it should be.
    fn is_part(&self) -> bool {
        let all = self.scenarios.is_empty() && self.contenders.is_empty() && self.seconds.is_none();
        self.quick || !all || self.scale != 1.0
    }

    fn out(&self) -> PathBuf {
        self.out.clone().unwrap_or_else(|| PathBuf::from(if self.is_part() { PART } else { WHOLE }))
    }

    fn seconds(&self) -> Option<f64> {
        self.seconds.or(self.quick.then_some(QUICK_SECONDS))
    }

    fn parameters(&self) -> Parameters {
        Parameters {
            repetitions: if self.quick { 1 } else { self.repetitions },
            seconds: self.seconds(),
            scale: self.scale,
            foreign_max: self.foreign_max,
        }
    }

    /// What is chosen, if all names are known.
    fn choice(&self) -> Result<Choice, String> {
        let known = |names: Vec<&str>, name: &str| format!("{name}: not one of {}", names.join(", "));
        let scenario = |name: &String| {
            let names = || SCENARIOS.iter().map(|scenario| scenario.name).collect();
            Scenario::from_name(name).ok_or_else(|| known(names(), name))
        };
        let contender = |name: &String| {
            let names = || Contender::ALL.map(Contender::name).to_vec();
            Contender::from_name(name).ok_or_else(|| known(names(), name))
        };
        let mut scenarios: Vec<&'static Scenario> = SCENARIOS.iter().collect();
        if !self.scenarios.is_empty() {
            let chosen: Vec<_> = self.scenarios.iter().map(scenario).collect::<Result<_, _>>()?;
            scenarios.retain(|scenario| chosen.iter().any(|chosen| chosen.name == scenario.name));
        }
        let contenders = match self.contenders.is_empty() {
            true => Contender::ALL.to_vec(),
            false => self.contenders.iter().map(contender).collect::<Result<_, _>>()?,
        };
        Ok(Choice { scenarios, contenders, needed_only: self.quick, repetitions: self.parameters().repetitions })
    }
}

/// Measures, reports, compares. Results of before the end are on disk whatever happens.
pub fn run(options: &Options) -> Result<(), String> {
    if options.repetitions == 0 || !options.scale.is_finite() || options.scale <= 0.0 {
        return Err("repetitions and scale must be positive".to_owned());
    }
    // What is to be compared with must be there before minutes are spent, and must not be overwritten.
    let old = options.against.as_deref().map(Results::load).transpose()?;
    let out = options.out();
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let results = if options.report { Results::load(&out.join("RESULTS.json"))? } else { measure(options, &out)? };
    write_report(&results, &out)?;
    let Some(old) = old else { return Ok(()) };
    against::comparable(&old, &results)?;
    let (text, worse) = against::report(&old, &results);
    print!("{text}");
    if worse == 0 { Ok(()) } else { Err(format!("roomcast got worse in {worse} figures")) }
}

fn write_report(results: &Results, out: &Path) -> Result<(), String> {
    let folder = out.join("charts");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut charts = Vec::new();
    for scenario in &SCENARIOS {
        if let Some(svg) = chart::chart(results, scenario) {
            results::replace(&folder.join(format!("{}.svg", scenario.name)), &svg)?;
            charts.push(scenario.name);
        }
    }
    results::replace(&out.join("RESULTS.md"), &report::markdown(results, &charts))?;
    eprintln!("{} and charts beside it are written", out.join("RESULTS.md").display());
    Ok(())
}

/// What all measurements need.
struct Bench {
    places: Places,
    /// For configs and what programs say on stderr.
    folder: PathBuf,
    interrupt: Interrupt,
    cores: Vec<usize>,
    options: Options,
}

fn measure(options: &Options, out: &Path) -> Result<Results, String> {
    let mut choice = options.choice()?;
    let bench = std::env::current_exe().map_err(|error| format!("this program's path: {error}"))?;
    let beside = bench.with_file_name("roomcast");
    let roomcast = options.roomcast.clone().unwrap_or(beside);
    let places = Places { roomcast, bench, peers: options.peers.clone() };
    let cores = process::cores();
    let skipped = skip(&mut choice, &places, cores.len());
    let path = out.join("RESULTS.json");
    let mut results = begin(options, &choice, &places, skipped, &path)?;

    let limit = process::raise_descriptor_limit();
    eprintln!("{} cores, {limit} descriptors; server on the first core, generator on the next", cores.len());
    let folder = std::env::temp_dir().join(format!("roomcast-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let bench = Bench { places, folder, interrupt: Interrupt::register()?, cores, options: options.clone() };
    let outcome = measure_all(&bench, &choice, &mut results, &path);
    // It is temporary anyway.
    let _ = fs::remove_dir_all(&bench.folder);
    outcome?;
    results.save(&path)?;
    Ok(results)
}

/// Takes out who cannot be measured, and says so.
fn skip(choice: &mut Choice, places: &Places, cores: usize) -> Vec<Skipped> {
    let mut skipped = Vec::new();
    choice.contenders.retain(|contender| {
        let too_few = (cores < contender.cores()).then(|| format!("there is {cores} core"));
        let Some(why) = too_few.or_else(|| places.missing(*contender)) else { return true };
        eprintln!("WARNING: {} is not measured: {why}", contender.name());
        skipped.push(Skipped { contender: contender.name().to_owned(), why });
        false
    });
    skipped
}

/// Empty results, or those to go on with.
fn begin(
    options: &Options,
    choice: &Choice,
    places: &Places,
    skipped: Vec<Skipped>,
    path: &Path,
) -> Result<Results, String> {
    let mut new = Results::new();
    new.started = machine::now();
    new.commit = machine::commit(Path::new(env!("CARGO_MANIFEST_DIR")));
    new.machine = machine::machine();
    new.parameters = options.parameters();
    new.skipped = skipped;
    let versions: BTreeMap<_, _> = choice.contenders.iter().flat_map(|c| places.versions(*c)).collect();
    new.versions = versions;
    if !options.resume || !path.exists() {
        return Ok(new);
    }
    let old = Results::load(path)?;
    let differs = [
        ("commit", old.commit != new.commit),
        ("machine", old.machine != new.machine),
        ("parameters", old.parameters != new.parameters),
    ];
    if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
        return Err(format!("{} was begun with another {what}: leave --resume out", path.display()));
    }
    eprintln!("going on after {} runs", old.runs.len());
    new.started = old.started;
    new.runs = old.runs;
    new.versions.extend(old.versions);
    Ok(new)
}

fn measure_all(bench: &Bench, choice: &Choice, results: &mut Results, path: &Path) -> Result<(), String> {
    let steps: Vec<Step> = plan::steps(choice).into_iter().filter(|step| results.run(step).is_none()).collect();
    if steps.is_empty() && results.runs.is_empty() {
        return Err("none of the contenders chosen is in the scenarios chosen".to_owned());
    }
    let patience = Patience { foreign_max: bench.options.foreign_max, tries: bench.options.tries };
    let mut progress = Progress::new(&steps, |step| bench.seconds(step));
    for step in &steps {
        let begin = Instant::now();
        progress.begin(step);
        match settle(step, patience, || bench.attempt(step)) {
            Ok(run) => {
                progress.end(step, &run, begin.elapsed());
                results.runs.push(run);
                results.finished = machine::now();
                results.save(path)?;
            }
            Err(Trouble::Failed(why)) => return Err(why),
            Err(Trouble::Interrupted) => {
                return Err(format!("interrupted; {} has what was measured, --resume goes on", path.display()));
            }
        }
    }
    Ok(())
}

impl Bench {
    fn seconds(&self, step: &Step) -> f64 {
        self.options.seconds().unwrap_or(step.scenario.seconds)
    }

    /// The server's cores and the generator's. If none is left for the generator, it runs on whichever of the server's
    /// has time.
    fn pinned(&self, contender: Contender) -> (Vec<usize>, Vec<usize>) {
        let (server, others) = self.cores.split_at(contender.cores());
        (server.to_vec(), others.first().map_or(server.to_vec(), |core| vec![*core]))
    }

    /// One measurement: a fresh server, and the generator against it.
    fn attempt(&self, step: &Step) -> Result<Value, Trouble> {
        let contender = step.entry.contender;
        let [listen, ingest, ops] = process::free_addresses()?;
        let (server_cores, generator_cores) = self.pinned(contender);
        let launch = self.places.launch(contender, &Addresses { listen, ingest, ops }, &self.folder)?;
        let stderr = self.folder.join("server.stderr");
        let server =
            Server::start(launch.command, &server_cores, launch.ready, &[listen, ingest], &stderr, &self.interrupt)?;
        let seconds = self.seconds(step);
        let cores: Vec<String> = server_cores.iter().map(usize::to_string).collect();
        let mut load = Command::new(&self.places.bench);
        load.args(["load", step.entry.load.unwrap_or(step.scenario.name), "--json"])
            .args(["--dialect", step.entry.dialect.name(), "--pid", &server.pid().to_string()])
            .args(["--listen", &listen.to_string(), "--ingest", &ingest.to_string()])
            .args(["--server-cores", &cores.join(","), "--seconds", &seconds.to_string()])
            .args(["--scale", &self.options.scale.to_string()]);
        let time_max = LOAD_MAX + Duration::from_secs_f64(seconds.clamp(0.0, 3600.0));
        let stderr = self.folder.join("load.stderr");
        let outcome = process::run(load, &generator_cores, time_max, &stderr, &self.interrupt);
        let with_server =
            |why: String| Trouble::Failed(server.has_ended().map_or(why.clone(), |ended| format!("{why}; {ended}")));
        match outcome {
            Err(Trouble::Failed(why)) => Err(with_server(why)),
            Err(trouble) => Err(trouble),
            Ok((status, stdout, said)) => measurement(&stdout)
                .ok_or_else(|| with_server(format!("the generator measured nothing and ended with {status}{said}"))),
        }
    }
}

/// The generator's one object. Its status says the same as its counts of losses, and is not looked at.
fn measurement(stdout: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(stdout).ok()?;
    value.is_object().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Line::try_parse_from(std::iter::once("suite").chain(line.split_whitespace())).unwrap().options
    }

    #[test]
    fn a_part_does_not_overwrite_the_whole() {
        for (line, out) in [
            ("", WHOLE),
            ("--repetitions 3", WHOLE),
            ("--quick", PART),
            ("--scenarios storm", PART),
            ("--contenders bun,ws", PART),
            ("--scale 0.1", PART),
            ("--seconds 1", PART),
            ("--quick --out elsewhere", "elsewhere"),
        ] {
            assert_eq!(options(line).out(), Path::new(out), "{line}");
        }
    }

    #[test]
    fn choices_are_by_name_and_in_the_order_of_the_plan() {
        let choice = options("--scenarios slow,trains --contenders floor-send,nats").choice().unwrap();
        assert_eq!(choice.scenarios.iter().map(|scenario| scenario.name).collect::<Vec<_>>(), ["trains", "slow"]);
        assert_eq!(choice.contenders, [Contender::FloorSend, Contender::Nats]);
        assert_eq!(options("").choice().unwrap().scenarios.len(), SCENARIOS.len());
        for line in ["--scenarios nothing", "--contenders nobody"] {
            assert!(options(line).choice().unwrap_err().contains("not one of"), "{line}");
        }
        let quick = options("--quick");
        assert_eq!((quick.choice().unwrap().repetitions, quick.seconds()), (1, Some(QUICK_SECONDS)));
    }

    #[test]
    fn servers_and_generator_share_a_core_only_if_there_are_too_few() {
        // (cores, contender, server's, generator's)
        type Row = (&'static [usize], Contender, &'static [usize], &'static [usize]);
        let table: [Row; 5] = [
            (&[0, 1], Contender::Roomcast, &[0], &[1]),
            (&[0, 1], Contender::Roomcast2, &[0, 1], &[0, 1]),
            (&[0, 1, 2], Contender::Roomcast2, &[0, 1], &[2]),
            (&[4, 6], Contender::Bun, &[4], &[6]),
            (&[3], Contender::Bun, &[3], &[3]),
        ];
        for (cores, contender, server, generator) in table {
            let places = Places { roomcast: "".into(), bench: "".into(), peers: "".into() };
            let (interrupt, cores) = (Interrupt::default(), cores.to_vec());
            let bench = Bench { places, folder: "".into(), interrupt, cores, options: options("") };
            assert_eq!(bench.pinned(contender), (server.to_vec(), generator.to_vec()));
        }
    }

    #[test]
    fn only_an_object_is_a_measurement() {
        assert!(measurement("{\"lost\":3}\n").is_some());
        for text in ["", "3", "{\"lost\":3", "{} {}"] {
            assert!(measurement(text).is_none(), "{text}");
        }
    }
}
