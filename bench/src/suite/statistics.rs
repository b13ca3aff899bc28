//! Medians and spreads of a few repetitions, and ratios within them. Does not know what the numbers mean.

/// What a figure was in the repetitions: (repetition, value).
pub type Series = Vec<(usize, f64)>;

/// The middle of some values, and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// How many there are; of one value, no spread is known.
    pub count: usize,
}

impl Spread {
    /// Of all values that are numbers; [`None`] if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max, count: values.len() })
    }

    /// Of a series.
    #[must_use]
    pub fn of_series(series: &[(usize, f64)]) -> Option<Self> {
        Self::of(series.iter().map(|(_, value)| *value))
    }

    /// From the smallest to the largest.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.max - self.min
    }
}

/// `ours` ÷ `theirs` in each repetition that has both: a machine's speed drifts, so values of different repetitions
/// have nothing to say to each other. What is not positive has no ratio: memory may seem to shrink next to other load.
#[must_use]
pub fn ratios(ours: &[(usize, f64)], theirs: &[(usize, f64)]) -> Series {
    let partner = |repetition| theirs.iter().find(|(other, value)| *other == repetition && *value > 0.0);
    ours.iter()
        .filter(|(_, value)| *value > 0.0)
        .filter_map(|(repetition, value)| partner(*repetition).map(|(_, other)| (*repetition, value / other)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_and_spread() {
        // (values, median, min, max)
        let table: [(&[f64], f64, f64, f64); 5] = [
            (&[3.0], 3.0, 3.0, 3.0),
            (&[4.0, 1.0], 2.5, 1.0, 4.0),
            (&[9.0, 1.0, 5.0], 5.0, 1.0, 9.0),
            (&[4.0, 1.0, 2.0, 100.0], 3.0, 1.0, 100.0),
            (&[f64::NAN, 2.0, f64::INFINITY], 2.0, 2.0, 2.0),
        ];
        for (values, median, min, max) in table {
            let spread = Spread::of(values.iter().copied()).unwrap();
            assert_eq!((spread.median, spread.min, spread.max), (median, min, max), "{values:?}");
        }
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        assert_eq!(Spread::of([2.0, 5.0]).unwrap().width(), 3.0);
        assert_eq!(Spread::of([2.0, f64::NAN, 5.0]).unwrap().count, 2);
    }

    #[test]
    fn ratios_are_of_one_repetition() {
        // The machine was twice as slow in repetition 1; repetition 2 has no partner, the others are not positive.
        let ours = [(0, 10.0), (1, 20.0), (2, 5.0), (3, 1.0), (4, -1.0), (5, 1.0)];
        let theirs = [(3, 0.0), (1, 10.0), (0, 5.0), (4, 1.0), (5, -1.0)];
        assert_eq!(ratios(&ours, &theirs), [(0, 2.0), (1, 2.0)]);
        assert_eq!(ratios(&ours, &[]), []);
    }
}
