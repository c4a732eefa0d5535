//! Says what samples of a time say: their middle, their tail, and whether two of them are of one distribution.

/// The middle of the figures; of two in the middle the higher one. Nothing has the middle 0.
pub fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

/// The figure that so many percent of the figures are below. Nothing has 0.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let sorted = sorted(figures);
    let place = sorted.len() * percent / 100;
    sorted.get(place).or_else(|| sorted.last()).copied().unwrap_or_default()
}

/// How far two samples are apart, by the two-sample test of Kolmogorov and Smirnov.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Separation {
    /// D: the largest distance between the two distribution functions.
    pub distance: f64,
    /// How likely a distance of at least that is when both are of one distribution.
    pub p_value: f64,
}

impl Separation {
    /// Compares two samples. Nothing is apart from nothing.
    pub fn of(left: &[f64], right: &[f64]) -> Self {
        let distance = distance(&sorted(left), &sorted(right));
        let (left, right) = (left.len() as f64, right.len() as f64);
        let size = (left * right / (left + right)).sqrt();
        // Stephens's correction, which makes the limiting distribution good for samples as small as four.
        Self { distance, p_value: kolmogorov((size + 0.12 + 0.11 / size) * distance) }
    }
}

fn sorted(figures: &[f64]) -> Vec<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn distance(left: &[f64], right: &[f64]) -> f64 {
    let mut points: Vec<f64> = left.iter().chain(right).copied().collect();
    points.sort_by(f64::total_cmp);
    let share = |sample: &[f64], point: f64| {
        sample.partition_point(|figure| figure.total_cmp(&point).is_le()) as f64 / sample.len().max(1) as f64
    };
    points.iter().map(|point| (share(left, *point) - share(right, *point)).abs()).fold(0.0, f64::max)
}

/// The chance that Kolmogorov's distribution gives to a figure of at least `x`.
fn kolmogorov(x: f64) -> f64 {
    // Below, the series needs many terms, and its sum is 1 to six digits.
    if x.is_nan() || x < 0.3 {
        return 1.0;
    }
    let term = |k: i32| {
        let size = (-2.0 * f64::from(k * k) * x * x).exp();
        if k % 2 == 1 { size } else { -size }
    };
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middle_and_tail_are_those_of_a_known_sample() {
        let hundred: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(median(&hundred), 50.0);
        assert_eq!(percentile(&hundred, 99), 99.0);
        assert_eq!(percentile(&hundred, 100), 99.0);
        assert_eq!(median(&[]), 0.0);
    }

    /// The critical values of the textbooks: `P(K >= x)` of the limiting distribution.
    #[test]
    fn tail_of_the_distribution_is_the_published_one() {
        for (x, expected) in [(1.224, 0.10), (1.358, 0.05), (1.480, 0.025), (1.628, 0.01), (1.949, 0.001)] {
            let found = kolmogorov(x);
            assert!((found - expected).abs() < expected * 0.01, "{x}: {found}");
        }
        assert_eq!(kolmogorov(0.1), 1.0);
    }

    #[test]
    fn samples_of_one_kind_are_not_separated_and_shifted_ones_are() {
        let even: Vec<f64> = (0..1000).map(|n| f64::from(2 * n)).collect();
        let odd: Vec<f64> = even.iter().map(|n| n + 1.0).collect();
        let same = Separation::of(&even, &odd);
        assert!((same.distance - 0.001).abs() < 1e-9 && same.p_value > 0.999, "{same:?}");
        let shifted: Vec<f64> = even.iter().map(|n| n + 200.0).collect();
        let apart = Separation::of(&even, &shifted);
        assert!((apart.distance - 0.1).abs() < 1e-9, "{apart:?}");
        // By hand: λ is (√500 + 0.12 + 0.11/√500) · 0.1, and only the first term, 2·exp(−2λ²), counts.
        assert!((apart.p_value / 8.12e-5 - 1.0).abs() < 0.01, "{apart:?}");
        assert_eq!(Separation::of(&even, &even).distance, 0.0);
        assert_eq!(Separation::of(&[1.0], &[2.0]).distance, 1.0);
    }
}
