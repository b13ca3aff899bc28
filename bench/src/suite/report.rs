//! `RESULTS.md`: what was measured, in tables; which targets are met; where roomcast loses. All of it from the data.

use super::format;
use super::plan::{Better, Contender, Dialect, Entry, Figure, OTHERS_EVERY, SCENARIOS, Scenario};
use super::results::{Losses, Results};
use super::statistics::{Spread, ratios};
use super::targets::{Subject, TARGETS, Target, Verdict};
use std::fmt::Write as _;

/// From this share of its core on, the generator is what holds up a closed loop, as long as the server is less busy.
const GENERATOR_IS_FULL: f64 = 0.97;

/// The page. `charts` are the scenarios that have one.
#[must_use]
pub fn markdown(results: &Results, charts: &[&str]) -> String {
    let mut page = String::new();
    head(&mut page, results);
    targets(&mut page, results);
    losing(&mut page, results);
    for scenario in SCENARIOS.iter().filter(|scenario| results.runs.iter().any(|run| run.scenario == scenario.name)) {
        let chart = charts.contains(&scenario.name);
        table(&mut page, results, scenario, chart);
    }
    remarks(&mut page, results);
    page
}

fn head(page: &mut String, results: &Results) {
    let Results { machine, parameters, .. } = results;
    let _ = writeln!(page, "# Results\n");
    let _ = writeln!(
        page,
        "Written by `bench/run`; how to read it is in [README.md](README.md), raw measurements are in RESULTS.json.\n"
    );
    let _ = writeln!(
        page,
        "Each contender did the same work, one after the other, {} times in rotating order: a fresh process on core 0, \
         clients and publisher on core 1. CPU is the server's and ksoftirqd's. Figures are medians (smallest–largest); \
         ratios are taken within a repetition, since the machine's speed drifts. A measurement with more than {} of \
         other load was repeated. Contenders that no target asks about ran in one of {} repetitions. The floor does no \
         protocol work: it sends ready frames.\n",
        parameters.repetitions,
        format::percent(parameters.foreign_max),
        OTHERS_EVERY
    );
    let _ = writeln!(page, "| | |\n|---|---|");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(page, "| {} | {} |", format::markdown(name), format::markdown(value));
    };
    row("date", &format!("{} to {}", results.started, results.finished));
    row("commit", &results.commit);
    row("machine", &format!("{}, {} cores, {} MB", machine.cpu, machine.cores, machine.memory_mb));
    row("kernel", &format!("Linux {}, frequency governor: {}", machine.kernel, machine.governor));
    let versions: Vec<String> = results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    row("versions", &versions.join(", "));
    if parameters.scale != 1.0 {
        row("scale", &format!("{}: rooms, members and connections are fewer than below", parameters.scale));
    }
    if let Some(seconds) = parameters.seconds {
        row("seconds", &format!("{seconds} for each measurement"));
    }
    for skipped in &results.skipped {
        let _ = writeln!(
            page,
            "| **not measured** | {}: {} |",
            format::markdown(&skipped.contender),
            format::markdown(&skipped.why)
        );
    }
}

fn targets(page: &mut String, results: &Results) {
    let _ = writeln!(page, "\n## Targets\n\n| scenario | target | measured | |\n|---|---|---|---|");
    for target in &TARGETS {
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            target.scenario,
            format::markdown(target.text),
            measured(target, results),
            target.verdict(results).text()
        );
    }
}

fn measured(target: &Target, results: &Results) -> String {
    let Some(spread) = target.measured(results) else { return "–".to_owned() };
    match &target.subject {
        Subject::Ratio(..) => format!("{} ×", format::fine_ratio(&spread)),
        Subject::Value(figure, _) => format::spread(figure.unit, &spread),
        Subject::Losses(_) => format!("{} in the worst repetition", format::grouped(spread.max)),
    }
}

/// Another contender that is better at something in every repetition.
#[derive(Debug)]
struct Defeat {
    figure: &'static Figure,
    ours: Entry,
    theirs: Entry,
    /// Theirs ÷ ours.
    ratio: Spread,
}

/// The first line of a wire that both are compared on: a raw client's choice is another server for raw clients.
fn same_wire(ours: Dialect, theirs: Dialect) -> bool {
    (ours == Dialect::SocketIo) == (theirs == Dialect::SocketIo)
}

fn defeats(results: &Results, scenario: &'static Scenario) -> Vec<Defeat> {
    let mut defeats = Vec::new();
    let own = |entry: &&Entry| entry.contender == Contender::Roomcast && entry.load.is_none();
    let other = |entry: &&Entry| !entry.contender.is_roomcast() && !entry.contender.is_floor();
    for figure in scenario.figures.iter().filter(|figure| figure.compared) {
        for ours in scenario.entries.iter().filter(own) {
            let our_series = results.series(scenario, ours, figure);
            for theirs in scenario.entries.iter().filter(other).filter(|e| same_wire(ours.dialect, e.dialect)) {
                let ratios = ratios(&results.series(scenario, theirs, figure), &our_series);
                let Some(ratio) = Spread::of_series(&ratios) else { continue };
                let better = match figure.better {
                    Better::Lower => ratio.max < 1.0,
                    Better::Higher => ratio.min > 1.0,
                };
                if better {
                    defeats.push(Defeat { figure, ours: *ours, theirs: *theirs, ratio });
                }
            }
        }
    }
    defeats
}

fn losing(page: &mut String, results: &Results) {
    let _ = writeln!(page, "\n## Where roomcast loses\n");
    let mut lines = Vec::new();
    for target in TARGETS.iter().filter(|target| target.verdict(results) == Verdict::Missed) {
        lines.push(format!(
            "**{}**, target missed: {}; measured: {}",
            target.scenario,
            format::markdown(target.text),
            measured(target, results)
        ));
    }
    for scenario in &SCENARIOS {
        for entry in scenario.entries.iter().filter(|entry| entry.contender.is_roomcast()) {
            let losses = results.losses(scenario, entry);
            if !losses.is_clean() {
                lines.push(format!("**{}**, {}: {}", scenario.name, entry.title(), loss_text(losses)));
            }
        }
        for defeat in defeats(results, scenario) {
            let value = |entry: &Entry| {
                let spread = Spread::of_series(&results.series(scenario, entry, defeat.figure));
                spread.map_or(String::new(), |spread| format::number(defeat.figure.unit, spread.median))
            };
            let losses = results.losses(scenario, &defeat.theirs);
            let mut line = format!(
                "**{}**, {}: {} has {}, {} has {}, {} ×",
                scenario.name,
                defeat.figure.name,
                defeat.theirs.title(),
                value(&defeat.theirs),
                defeat.ours.title(),
                value(&defeat.ours),
                format::ratio(&defeat.ratio),
            );
            if !losses.is_clean() {
                let _ = write!(line, "; but {} has {}", defeat.theirs.title(), loss_text(losses));
            }
            lines.push(line);
        }
    }
    if lines.is_empty() {
        let _ = writeln!(
            page,
            "Nowhere in what was measured: no target is missed, no contender is better in all repetitions."
        );
    } else {
        let _ = writeln!(
            page,
            "Missed targets, and figures in which another contender than a floor is better in every repetition \
             (raw with raw and NATS, Socket.IO with Socket.IO).\n"
        );
        bullets(page, &lines);
    }
}

fn loss_text(losses: Losses) -> String {
    let Losses { lost, duplicates, reordered, closed } = losses;
    let parts =
        [(lost, "lost"), (duplicates, "duplicate"), (reordered, "out of order"), (closed, "connections closed")];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{} {name}", format::grouped(count as f64)))
        .collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// roomcast, floors, others; in each of these, as the plan has them.
fn ordered(scenario: &'static Scenario) -> Vec<&'static Entry> {
    let mut entries: Vec<&Entry> = scenario.entries.iter().collect();
    entries.sort_by_key(|entry| (!entry.contender.is_roomcast(), !entry.contender.is_floor()));
    entries
}

fn table(page: &mut String, results: &Results, scenario: &'static Scenario, chart: bool) {
    let name = scenario.name;
    let _ = writeln!(page, "\n## {name}\n\n{}.\n", format::markdown(scenario.work));
    if chart {
        let _ = writeln!(page, "![{name}: {}](charts/{name}.svg)\n", format::markdown(scenario.work));
    }
    if let Some(reference) = scenario.reference {
        let other = |entry: &Entry| *entry != reference && scenario.reference_for(entry) == Some(*entry);
        let of_dialect = if scenario.entries.iter().any(other) { ", of Socket.IO's to that for Socket.IO" } else { "" };
        let _ = writeln!(page, "× is the ratio to “{}” in the same repetition{}.\n", reference.title(), of_dialect);
    }
    let figures: String = scenario.figures.iter().map(|figure| format!(" {} |", figure.name)).collect();
    let _ = writeln!(page, "| |{figures} loss | server, generator busy |");
    let _ = writeln!(page, "|---|{}---|---|", "---|".repeat(scenario.figures.len()));
    let mut full = false;
    for entry in ordered(scenario) {
        let mut runs = results.of(scenario, entry).peekable();
        if runs.peek().is_none() {
            continue;
        }
        let measured = runs.filter(|run| run.measurement.is_some()).count();
        let share = |pointer| Spread::of(results.of(scenario, entry).filter_map(|run| run.number(pointer)));
        let (server, generator) = (share("/cpu_share"), share("/generator_share"));
        let limited = generator.is_some_and(|share| share.median >= GENERATOR_IS_FULL)
            && server.is_some_and(|share| share.median < GENERATOR_IS_FULL);
        full |= limited;
        let title = if entry.contender.is_roomcast() { format!("**{}**", entry.title()) } else { entry.title() };
        let mark = if limited { " †" } else { "" };
        let cells: String =
            scenario.figures.iter().map(|figure| format!(" {} |", cell(results, scenario, entry, figure))).collect();
        let losses = if measured == 0 { "–".to_owned() } else { loss_text(results.losses(scenario, entry)) };
        let busy = |share: Option<Spread>| share.map_or("–".to_owned(), |share| format::percent(share.median));
        let _ = writeln!(page, "| {title}{mark} |{cells} {losses} | {}, {} |", busy(server), busy(generator));
    }
    if full {
        let _ = writeln!(page, "\n† The generator was the limit, not the server: its rate could be higher.");
    }
}

fn cell(results: &Results, scenario: &Scenario, entry: &Entry, figure: &Figure) -> String {
    let Some(spread) = Spread::of_series(&results.series(scenario, entry, figure)) else { return "–".to_owned() };
    let value = format::spread(figure.unit, &spread);
    let is_reference = scenario.reference_for(entry) == Some(*entry);
    match results.to_reference(scenario, entry, figure) {
        Some(ratio) if !is_reference && figure.compared => format!("{value}<br>{} ×", format::ratio(&ratio)),
        _ => value,
    }
}

/// What happened on the way.
fn remarks(page: &mut String, results: &Results) {
    let mut lines = Vec::new();
    if results.runs.iter().any(|run| run.entry.starts_with(Contender::Roomcast2.name())) && results.machine.cores < 3 {
        lines.push(
            "Two-core figures: this machine has two cores, so the generator shared them with the server. \
             Each of them had less than what it says."
                .to_owned(),
        );
    }
    let noisy: Vec<_> = results.runs.iter().filter(|run| run.noisy).collect();
    if !noisy.is_empty() {
        lines.push(format!(
            "{} of {} measurements had more than {} of other load in every attempt; the quietest counts.",
            noisy.len(),
            results.runs.len(),
            format::percent(results.parameters.foreign_max)
        ));
    }
    for run in &noisy {
        let share = run.number("/foreign_share").unwrap_or(0.0);
        let (place, number) = (place(&run.scenario, &run.entry), run.repetition + 1);
        lines.push(format!("Noisy: {place}, repetition {number}: {} of other load.", format::percent(share)));
    }
    for run in &results.runs {
        if let Some(failure) = &run.failure {
            let (place, number) = (place(&run.scenario, &run.entry), run.repetition + 1);
            lines.push(format!("**Failed**: {place}, repetition {number}: {}", format::markdown(failure)));
        }
    }
    let discarded: usize = results.runs.iter().map(|run| run.discarded.len()).sum();
    if discarded > 0 {
        lines.push(format!("{discarded} attempts were thrown away; RESULTS.json says why."));
    }
    if !lines.is_empty() {
        let _ = writeln!(page, "\n## Remarks\n");
        bullets(page, &lines);
    }
}

fn bullets(page: &mut String, lines: &[String]) {
    for line in lines {
        let _ = writeln!(page, "* {line}");
    }
}

fn place(scenario: &str, entry: &str) -> String {
    format!("{}, {}", format::markdown(scenario), format::markdown(entry))
}

#[cfg(test)]
mod tests {
    use super::super::results::Skipped;
    use super::super::results::synthetic::{add, series};
    use super::*;

    fn cpu(results: &mut Results, entry: &str, values: &[f64]) {
        series(results, "firehose", entry, "/cpu_ns_per_delivery", values);
    }

    fn losing_of(results: &Results) -> String {
        let mut page = String::new();
        losing(&mut page, results);
        page
    }

    #[test]
    fn losing_is_said_plainly() {
        // (roomcast, its floor, Bun, what is said, what is not)
        type Case<'a> = (&'a [f64], &'a [f64], &'a [f64], &'a [&'a str], &'a [&'a str]);
        let table: [Case; 4] = [
            (&[100.0, 200.0], &[100.0, 200.0], &[90.0, 190.0], &["Bun has", "0.93 (0.90–0.95) ×"], &["target missed"]),
            // Better in one repetition of two is within the spread.
            (&[100.0, 200.0], &[100.0, 200.0], &[90.0, 210.0], &["Nowhere"], &["Bun has"]),
            (&[120.0, 240.0], &[100.0, 200.0], &[200.0, 400.0], &["target missed", "1.20"], &["Bun has"]),
            (&[100.0], &[100.0], &[], &["Nowhere"], &["Bun has", "target missed"]),
        ];
        for (ours, floor, bun, said, unsaid) in table {
            let mut results = Results::new();
            cpu(&mut results, "roomcast/raw", ours);
            cpu(&mut results, "floor-joined/raw", floor);
            cpu(&mut results, "bun/raw", bun);
            let text = losing_of(&results);
            assert!(said.iter().all(|words| text.contains(words)), "{text}");
            assert!(!unsaid.iter().any(|words| text.contains(words)), "{text}");
        }
    }

    #[test]
    fn floors_and_other_wires_are_no_defeat_and_losses_are_named() {
        let mut results = Results::new();
        cpu(&mut results, "roomcast/raw", &[100.0]);
        cpu(&mut results, "floor-uring/raw", &[50.0]);
        cpu(&mut results, "socketioxide/socket-io", &[50.0]);
        assert!(losing_of(&results).contains("Nowhere"));
        add(&mut results, "firehose", "nats/nats", 0, &[("/cpu_ns_per_delivery", 50.0), ("/lost", 1234.0)]);
        let text = losing_of(&results);
        assert!(text.contains("NATS has 50.0 ns") && text.contains("but NATS has 1,234 lost"), "{text}");
        add(&mut results, "storm", "roomcast/raw", 0, &[("/reordered", 2.0)]);
        assert!(losing_of(&results).contains("**storm**, roomcast (raw): 2 out of order"));
    }

    #[test]
    fn the_page_has_everything_and_escapes_what_comes_from_outside() {
        let mut results = Results::new();
        results.parameters.repetitions = 2;
        results.parameters.scale = 1.0;
        results.parameters.foreign_max = 0.03;
        results.machine.cpu = "CPU | <fast>".to_owned();
        results.machine.cores = 2;
        results.skipped.push(Skipped { contender: "bun".to_owned(), why: "a|b".to_owned() });
        for (repetition, share) in [(0, 1.0), (1, 0.99)] {
            let numbers = [("/deliveries_per_s", 3e6), ("/generator_share", share), ("/cpu_share", 0.8)];
            add(&mut results, "firehose", "roomcast/raw", repetition, &numbers);
            add(&mut results, "firehose", "floor-joined/raw", repetition, &[("/deliveries_per_s", 3.1e6)]);
        }
        add(&mut results, "firehose", "roomcast-2/raw", 0, &[("/foreign_share", 0.2)]);
        results.runs.last_mut().unwrap().noisy = true;
        add(&mut results, "firehose", "ws/raw", 0, &[]);
        results.runs.last_mut().unwrap().failure = Some("it said: a|b".to_owned());
        results.runs.last_mut().unwrap().measurement = None;
        let page = markdown(&results, &["firehose"]);
        for words in [
            "CPU \\| &lt;fast&gt;",
            "| **not measured** | bun: a\\|b |",
            "charts/firehose.svg",
            "3.00 M (3.00–3.00)<br>0.97 (0.97–0.97) ×",
            "**roomcast (raw)** †",
            "† The generator was the limit",
            "Noisy: firehose, roomcast-2/raw, repetition 1: 20 %",
            "**Failed**: firehose, ws/raw, repetition 1: it said: a\\|b",
            "shared them with the server",
            "| firehose | raw: CPU per delivery ≤ 1.03 × the coalescing floor | – | not measured |",
        ] {
            assert!(page.contains(words), "{words} is missing in\n{page}");
        }
        assert!(!page.contains("## trains"));
        // Every row of a table has as many cells as its head.
        let mut columns = 0;
        for line in page.lines() {
            let cells = line.replace("\\|", "").matches('|').count();
            if !line.starts_with('|') {
                columns = 0;
            } else if columns == 0 {
                columns = cells;
            }
            assert!(cells == columns, "{line}");
        }
    }
}
