//! Numbers and words as people read them, in Markdown and elsewhere.

use super::plan::Unit;
use super::statistics::Spread;

/// Of a range, the dash between its ends.
const DASH: char = '–';

/// A number with its unit, in three significant digits.
#[must_use]
pub fn number(unit: Unit, value: f64) -> String {
    let (digits, suffix) = parts(unit, value);
    digits + suffix
}

/// Digits and unit of a number.
fn parts(unit: Unit, value: f64) -> (String, &'static str) {
    // (from which value on, what it is worth, name)
    let steps: &[(f64, f64, &str)] = match unit {
        Unit::CpuNs => &[(1e9, 1e9, " s"), (1e6, 1e6, " ms"), (1e4, 1e3, " µs"), (0.0, 1.0, " ns")],
        Unit::Us => &[(1e6, 1e6, " s"), (1e3, 1e3, " ms"), (0.0, 1.0, " µs")],
        Unit::Bytes => &[(1e6, 1e6, " MB"), (1e4, 1e3, " kB"), (0.0, 1.0, " B")],
        Unit::PerSecond => &[(1e6, 1e6, " M"), (1e4, 1e3, " k"), (0.0, 1.0, "")],
    };
    let last = steps[steps.len() - 1];
    let (_, worth, suffix) = steps.iter().copied().find(|(from, ..)| value.abs() >= *from).unwrap_or(last);
    (digits(value / worth), suffix)
}

/// Three significant digits, and all of those before the point.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || size == 0.0 => grouped(value.round()),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with commas between thousands.
#[must_use]
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Median and, of several, the ends of the spread.
#[must_use]
pub fn spread(unit: Unit, spread: &Spread) -> String {
    let (median, suffix) = parts(unit, spread.median);
    let ((min, min_suffix), (max, max_suffix)) = (parts(unit, spread.min), parts(unit, spread.max));
    if spread.count == 1 {
        median + suffix
    } else if (min_suffix, max_suffix) == (suffix, suffix) {
        format!("{median}{suffix} ({min}{DASH}{max})")
    } else {
        format!("{median}{suffix} ({min}{min_suffix}{DASH}{max}{max_suffix})")
    }
}

/// A ratio that a bound near 1 judges: two digits behind the point would show 1.034 as 1.03.
#[must_use]
pub fn fine_ratio(spread: &Spread) -> String {
    let fine = |value: f64| if value < 2.0 { format!("{value:.3}") } else { digits(value) };
    let (median, min, max) = (fine(spread.median), fine(spread.min), fine(spread.max));
    if spread.count == 1 { median } else { format!("{median} ({min}{DASH}{max})") }
}

/// Median and, of several, the ends of the spread of a ratio.
#[must_use]
pub fn ratio(spread: &Spread) -> String {
    if spread.count == 1 {
        digits(spread.median)
    } else {
        format!("{} ({}{DASH}{})", digits(spread.median), digits(spread.min), digits(spread.max))
    }
}

/// A share.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// Text that may stand in a cell of a Markdown table and means nothing but itself.
#[must_use]
pub fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '*' | '_' | '`' | '[' | ']' | '#' | '~' => escaped.extend(['\\', c]),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// Text that may stand in XML, in an element or an attribute.
#[must_use]
pub fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        let table = [
            (Unit::CpuNs, 512.4, "512 ns"),
            (Unit::CpuNs, 9_999.0, "9,999 ns"),
            (Unit::CpuNs, 12_345.0, "12.3 µs"),
            (Unit::CpuNs, 2_500_000.0, "2.50 ms"),
            (Unit::Us, 0.5, "0.50 µs"),
            (Unit::Us, 850.0, "850 µs"),
            (Unit::Us, 1_250.0, "1.25 ms"),
            (Unit::Us, 2e6, "2.00 s"),
            (Unit::Bytes, 396.2, "396 B"),
            (Unit::Bytes, 25_600.0, "25.6 kB"),
            (Unit::Bytes, 2_560_000.0, "2.56 MB"),
            (Unit::PerSecond, 950.0, "950"),
            (Unit::PerSecond, 81_000.0, "81.0 k"),
            (Unit::PerSecond, 812_000.0, "812 k"),
            (Unit::PerSecond, 3_140_000.0, "3.14 M"),
            (Unit::PerSecond, 0.0, "0"),
        ];
        for (unit, value, text) in table {
            assert_eq!(number(unit, value), text);
        }
        for (value, text) in [(0.0, "0"), (999.0, "999"), (1_000.0, "1,000"), (-1_234_567.0, "-1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn spreads_are_told_of_several() {
        let of = |values: &[f64]| Spread::of(values.iter().copied()).unwrap();
        assert_eq!(spread(Unit::CpuNs, &of(&[500.0, 520.0, 510.0])), "510 ns (500–520)");
        assert_eq!(spread(Unit::Us, &of(&[900.0, 1_100.0])), "1.00 ms (900 µs–1.10 ms)");
        assert_eq!(spread(Unit::CpuNs, &of(&[500.0])), "500 ns");
        assert_eq!(ratio(&of(&[1.0, 1.1, 1.02])), "1.02 (1.00–1.10)");
        assert_eq!(ratio(&of(&[12.345])), "12.3");
        assert_eq!(fine_ratio(&of(&[1.034, 1.0, 12.0])), "1.034 (1.000–12.0)");
        assert_eq!(fine_ratio(&of(&[0.5994])), "0.599");
        assert_eq!(percent(0.034), "3 %");
    }

    #[test]
    fn markdown_and_xml_mean_nothing_but_themselves() {
        assert_eq!(markdown("a|b\nc*d_`[x](<y>)&"), "a\\|b c\\*d\\_\\`\\[x\\](&lt;y&gt;)&amp;");
        assert_eq!(markdown("Intel(R) Xeon(R) @ 2.50GHz, ≤ 3 %"), "Intel(R) Xeon(R) @ 2.50GHz, ≤ 3 %");
        assert_eq!(xml("<a b=\"c\">&\u{1}"), "&lt;a b=&quot;c&quot;&gt;&amp; ");
    }
}
