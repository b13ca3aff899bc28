//! A scenario as bars in SVG: values, whiskers from the smallest to the largest, roomcast's bars set off, colours for
//! light and dark. Knows no files.

use super::format;
use super::plan::{Better, Entry, Figure, Scenario};
use super::results::Results;
use super::statistics::Spread;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
/// Where bars begin; the longest title of an entry ends before it.
const LEFT: f64 = 224.0;
/// Where the longest bar or whisker ends; values stand behind.
const RIGHT: f64 = 566.0;
const MARGIN: f64 = 18.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
/// Title and subtitle.
const HEAD: f64 = 62.0;
/// A figure's name above its bars, and space before the next figure.
const PANEL_HEAD: f64 = 30.0;
const PANEL_GAP: f64 = 16.0;
const FOOT: f64 = 34.0;

const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;fill:#1f2328}\
.title{font-size:17px;font-weight:600}.figure{font-weight:600}.small{font-size:12px;fill:#59636e}\
.ours-text{font-weight:600}.page{fill:#ffffff}.ours{fill:#d1480b}.peer{fill:#7d8fa6}.floor{fill:#c9d3de}\
.axis{stroke:#8c959f}.whisker{stroke:#1f2328;stroke-width:1.5}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.small{fill:#9198a1}.page{fill:#0d1117}.ours{fill:#ff7b3d}\
.peer{fill:#6b7f99}.floor{fill:#37424f}.axis{stroke:#656c76}.whisker{stroke:#e6edf3}}";

struct Bar {
    entry: Entry,
    spread: Spread,
    remark: String,
}

/// The chart of a scenario; [`None`] if nothing of it was measured.
#[must_use]
pub fn chart(results: &Results, scenario: &Scenario) -> Option<String> {
    let panels: Vec<(&Figure, Vec<Bar>)> = scenario
        .charted
        .iter()
        .map(|figure| (*figure, bars(results, scenario, figure)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if panels.is_empty() {
        return None;
    }
    let rows: usize = panels.iter().map(|(_, bars)| bars.len()).sum();
    let height = HEAD + rows as f64 * ROW + panels.len() as f64 * (PANEL_HEAD + PANEL_GAP) + FOOT;
    let (name, work) = (format::xml(scenario.name), format::xml(scenario.work));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"title work\">\n\
         <title id=\"title\">{name}</title>\n<desc id=\"work\">{work}</desc>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n"
    );
    text(&mut svg, MARGIN, 30.0, "title", "start", scenario.name);
    text(&mut svg, MARGIN, 50.0, "small", "start", scenario.work);
    let mut y = HEAD;
    for (figure, bars) in &panels {
        y = panel(&mut svg, y + PANEL_GAP, figure, bars);
    }
    legend(&mut svg, height - 14.0, results);
    svg.push_str("</svg>\n");
    Some(svg)
}

/// The best first.
fn bars(results: &Results, scenario: &Scenario, figure: &Figure) -> Vec<Bar> {
    let bar = |entry: &Entry| {
        let spread = Spread::of_series(&results.series(scenario, entry, figure))?;
        let losses = results.losses(scenario, entry);
        let mut remark = String::new();
        if losses.lost > 0 {
            let _ = write!(remark, ", {} lost", format::grouped(losses.lost as f64));
        }
        Some(Bar { entry: *entry, spread, remark })
    };
    let mut bars: Vec<Bar> = scenario.entries.iter().filter_map(bar).collect();
    bars.sort_by(|a, b| match figure.better {
        Better::Lower => a.spread.median.total_cmp(&b.spread.median),
        Better::Higher => b.spread.median.total_cmp(&a.spread.median),
    });
    bars
}

/// Draws the bars of one figure below `y`, and returns where they end.
fn panel(svg: &mut String, y: f64, figure: &Figure, bars: &[Bar]) -> f64 {
    let direction = match figure.better {
        Better::Lower => "shorter is better",
        Better::Higher => "longer is better",
    };
    text(svg, MARGIN, y + 16.0, "figure", "start", figure.name);
    text(svg, WIDTH - MARGIN, y + 16.0, "small", "end", direction);
    let top = y + PANEL_HEAD;
    let max = bars.iter().map(|bar| bar.spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + (RIGHT - LEFT) * (value / max).clamp(0.0, 1.0);
    for (index, bar) in bars.iter().enumerate() {
        let middle = top + (index as f64 + 0.5) * ROW;
        let contender = bar.entry.contender;
        let (class, text_class) = match (contender.is_roomcast(), contender.is_floor()) {
            (true, _) => ("ours", "ours-text"),
            (_, true) => ("floor", "other-text"),
            _ => ("peer", "other-text"),
        };
        let Spread { median, min, max, count } = bar.spread;
        text(svg, LEFT - 8.0, middle + 4.5, text_class, "end", &bar.entry.title());
        // What is too small to be seen is a hair all the same.
        let width = (x(median) - LEFT).max(1.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\"/>",
            middle - BAR / 2.0
        );
        if count > 1 {
            whisker(svg, x(min), x(max), middle);
        }
        let value = format!("{}{}", format::number(figure.unit, median), bar.remark);
        let behind = if count > 1 { x(max) } else { LEFT + width };
        text(svg, behind + 8.0, middle + 4.5, text_class, "start", &value);
    }
    let bottom = top + bars.len() as f64 * ROW;
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {top:.1}V{bottom:.1}\"/>");
    bottom
}

fn whisker(svg: &mut String, from: f64, to: f64, middle: f64) {
    let (top, bottom) = (middle - 4.0, middle + 4.0);
    let _ = writeln!(
        svg,
        "<path class=\"whisker\" fill=\"none\" d=\"M{from:.1} {top:.1}V{bottom:.1}M{from:.1} {middle:.1}H{to:.1}\
         M{to:.1} {top:.1}V{bottom:.1}\"/>"
    );
}

fn legend(svg: &mut String, baseline: f64, results: &Results) {
    let mut x = MARGIN;
    for (class, name) in [("ours", "roomcast"), ("floor", "floor: no protocol work"), ("peer", "others")] {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{:.1}\" width=\"11\" height=\"11\" rx=\"2\"/>",
            baseline - 10.0
        );
        text(svg, x + 16.0, baseline, "small", "start", name);
        x += 34.0 + 6.3 * name.chars().count() as f64;
    }
    let repetitions = results.parameters.repetitions;
    let note = if repetitions == 1 {
        "one repetition".to_owned()
    } else {
        format!("medians of {repetitions} repetitions, whiskers: smallest and largest")
    };
    text(svg, WIDTH - MARGIN, baseline, "small", "end", &note);
}

fn text(svg: &mut String, x: f64, y: f64, class: &str, anchor: &str, content: &str) {
    let content = format::xml(content);
    let _ =
        writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
}

#[cfg(test)]
mod tests {
    use super::super::plan::SCENARIOS;
    use super::super::results::synthetic::series;
    use super::*;

    /// Every figure of every entry: the more, the later it stands.
    fn everything(repetitions: usize) -> Results {
        let mut results = Results::new();
        results.parameters.repetitions = repetitions;
        for scenario in &SCENARIOS {
            for (index, entry) in scenario.entries.iter().enumerate() {
                for figure in scenario.charted {
                    let values: Vec<f64> = (0..repetitions).map(|r| (100 * (index + 1) + r) as f64).collect();
                    series(&mut results, scenario.name, &entry.key(), figure.pointer, &values);
                }
            }
        }
        results
    }

    #[test]
    fn charts_are_well_formed_and_show_everybody() {
        for repetitions in [1, 3] {
            let results = everything(repetitions);
            for scenario in &SCENARIOS {
                let svg = chart(&results, scenario).unwrap();
                let document = roxmltree::Document::parse(&svg).unwrap();
                let count = |tag: &str, class: &str| {
                    let of_class = |node: &roxmltree::Node| {
                        node.has_tag_name(("http://www.w3.org/2000/svg", tag)) && node.attribute("class") == Some(class)
                    };
                    document.descendants().filter(of_class).count()
                };
                let bars = scenario.entries.len() * scenario.charted.len();
                // Three stand in the legend.
                assert_eq!(count("rect", "ours") + count("rect", "peer") + count("rect", "floor"), bars + 3);
                assert_eq!(count("path", "whisker"), if repetitions == 1 { 0 } else { bars });
                let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
                for entry in scenario.entries {
                    assert!(texts.contains(&entry.title().as_str()), "{}", entry.title());
                }
            }
        }
        assert_eq!(chart(&Results::new(), &SCENARIOS[0]), None);
    }

    #[test]
    fn the_best_stands_first() {
        let results = everything(1);
        for scenario in &SCENARIOS {
            for figure in scenario.charted {
                let bars = bars(&results, scenario, figure);
                let expected =
                    if figure.better == Better::Lower { scenario.entries.first() } else { scenario.entries.last() };
                assert_eq!(bars[0].entry, *expected.unwrap());
            }
        }
    }

    #[test]
    fn bars_stay_inside_whatever_the_numbers_are() {
        let mut results = Results::new();
        results.parameters.repetitions = 2;
        let scenario = &SCENARIOS[0];
        let pointer = scenario.charted[0].pointer;
        series(&mut results, scenario.name, "roomcast/raw", pointer, &[0.0, 0.0]);
        series(&mut results, scenario.name, "bun/raw", pointer, &[1e12, 3e12]);
        series(&mut results, scenario.name, "bun/raw", "/lost", &[7.0, 8.0]);
        let svg = chart(&results, scenario).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        for rect in document.descendants().filter(|node| node.attribute("class") == Some("peer")) {
            let number = |name| rect.attribute(name).unwrap().parse::<f64>().unwrap();
            assert!(number("x") + number("width") <= WIDTH && number("width") > 0.0);
        }
        assert!(svg.contains(", 15 lost"), "{svg}");
    }
}
