//! Computes the entropy of bytes, and how far each number of a sample is from the others.

/// Counts how often each byte occurs.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u64; 256],
}

impl Histogram {
    /// Creates an empty count.
    #[must_use]
    pub fn new() -> Self {
        Self { counts: [0; 256] }
    }

    /// Adds these bytes to the count.
    pub fn add(&mut self, bytes: &[u8]) {
        // Four rows of counters, because a run of equal bytes would otherwise wait for its own previous store at each byte.
        let mut rows = [[0_u64; 256]; 4];
        let mut quads = bytes.chunks_exact(4);
        for quad in &mut quads {
            for (row, &byte) in rows.iter_mut().zip(quad) {
                row[usize::from(byte)] += 1;
            }
        }
        for &byte in quads.remainder() {
            rows[0][usize::from(byte)] += 1;
        }
        for row in rows {
            for (count, more) in self.counts.iter_mut().zip(row) {
                *count += more;
            }
        }
    }

    /// Returns the number of bytes counted.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns Shannon's entropy in bits per byte, from 0 (one value only) to 8 (all values equally frequent), or `None` if there are no bytes.
    #[must_use]
    pub fn entropy(&self) -> Option<f64> {
        let total = self.len_bytes();
        if total == 0 {
            return None;
        }
        let bits = self.counts.iter().filter(|&&count| count > 0).map(|&count| {
            let share = count as f64 / total as f64;
            -share * share.log2()
        });
        // A sum that consists only of `-1 * 0` is negative zero, which would be printed with its sign.
        Some(bits.sum::<f64>().max(0.0))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the mean, or `None` of an empty sample.
#[must_use]
pub fn mean(sample: &[f64]) -> Option<f64> {
    if sample.is_empty() {
        return None;
    }
    Some(sample.iter().sum::<f64>() / sample.len() as f64)
}

/// Returns how many standard deviations each number is above the sample's mean. All are 0 if all numbers are equal.
#[must_use]
pub fn z_scores(sample: &[f64]) -> Vec<f64> {
    let Some(mean) = mean(sample) else {
        return Vec::new();
    };
    let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / sample.len() as f64;
    let deviation = variance.sqrt();
    // Equal numbers may differ from their own mean in the last bit, which is not a deviation.
    let noise = mean.abs() * 1e-12;
    sample.iter().map(|x| if deviation > noise { (x - mean) / deviation } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Option<f64>) {
        let mut histogram = Histogram::new();
        histogram.add(bytes);
        assert_eq!(histogram.len_bytes(), bytes.len() as u64);
        match (histogram.entropy(), expected) {
            (Some(found), Some(expected)) => {
                assert!((found - expected).abs() < 1e-12, "{found}, not {expected}")
            }
            (found, expected) => assert_eq!(found, expected),
        }
    }

    #[test]
    fn entropy_of_known_bytes() {
        let every_byte: Vec<u8> = (0..=255).collect();
        check(b"", None);
        check(b"aaaaaaa", Some(0.0));
        check(b"abababab", Some(1.0));
        check(b"abcdabcdabcd", Some(2.0));
        check(b"aaab", Some(2.0 - 0.75 * 3_f64.log2()));
        check(&every_byte, Some(8.0));
    }

    #[test]
    fn a_histogram_grows_with_each_part() {
        let mut whole = Histogram::new();
        whole.add(b"the whole of it");
        let mut parts = Histogram::new();
        parts.add(b"the who");
        parts.add(b"le of it");
        assert_eq!(parts.counts, whole.counts);
    }

    #[test]
    fn z_scores_of_known_numbers() {
        assert_eq!(
            z_scores(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]),
            [-1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 1.0, 2.0]
        );
        assert_eq!(z_scores(&[0.1; 3]), [0.0; 3]);
        assert_eq!(z_scores(&[7.0]), [0.0]);
        assert!(z_scores(&[]).is_empty());
    }

    #[test]
    fn the_mean_of_nothing_is_nothing() {
        assert_eq!(mean(&[]), None);
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
    }
}
