//! The files that differ most from others of their class.

use std::collections::HashMap;

use procession_examples::{content::Content, statistics::z_scores};

use crate::{
    Report, Row,
    text::{Count, MOST_NAMED, Size, WIDTH, beginning, ending},
    totals::Class,
};

/// A class with fewer files has no typical values.
const FEWEST_TO_COMPARE: usize = 8;

/// A file that differs from the others of its class.
#[derive(Debug)]
struct Unusual {
    index: usize,
    class: Class,
    /// The sum of the distances of its features from the means of the class, in standard deviations.
    score: f64,
    /// Each feature as text, and its distance, the farthest first.
    features: Vec<(String, f64)>,
}

/// Returns all files with code whose class is large enough for a comparison, the most unusual first.
///
/// Four features are compared: the logarithms of size and imports, because a few huge files would otherwise be the only unusual ones, the
/// share of code in the file, and the entropy of the code.
fn unusual(rows: &[Row]) -> Vec<Unusual> {
    let mut classes: HashMap<Class, Vec<(usize, Features)>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        let Row::Examined(report) = row else { continue };
        if let Some(features) = features_of(report) {
            classes.entry(Class::of(&report.content)).or_default().push((index, features));
        }
    }
    let mut found = Vec::new();
    for (class, members) in classes {
        if members.len() < FEWEST_TO_COMPARE {
            continue;
        }
        let scores: [Vec<f64>; 4] = std::array::from_fn(|feature| {
            z_scores(&members.iter().map(|(_, features)| features[feature].1).collect::<Vec<_>>())
        });
        for (member, (index, features)) in members.into_iter().enumerate() {
            let mut features: Vec<(String, f64)> = features
                .into_iter()
                .zip(&scores)
                .map(|((words, _), scores)| (words, scores[member]))
                .collect();
            features.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
            let score = features.iter().map(|(_, score)| score.abs()).sum();
            found.push(Unusual { index, class: class.clone(), score, features });
        }
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    found
}

/// Returns each feature as text and as the number to compare.
type Features = [(String, f64); 4];

/// Returns `None` for a file without code.
fn features_of(report: &Report) -> Option<Features> {
    let Content::Binary(binary) = &report.content else { return None };
    let entropy = binary.entropy?;
    let len_bytes = report.len_bytes as f64;
    let share = binary.sections.code as f64 / len_bytes;
    Some([
        (format!("size {}", Size(report.len_bytes)), len_bytes.ln()),
        (format!("code {:.1}%", 100.0 * share), share),
        (format!("entropy {entropy:.2}"), entropy),
        (format!("imports {}", Count(binary.imports)), (binary.imports as f64).ln_1p()),
    ])
}

impl Unusual {
    /// Returns the features that are far from the mean, or the farthest one.
    fn why(&self) -> String {
        const FAR: f64 = 1.5;

        let far = self.features.iter().take_while(|(_, score)| score.abs() >= FAR).count().max(1);
        let words: Vec<String> = self
            .features
            .iter()
            .take(far)
            .map(|(feature, score)| format!("{feature} ({score:+.1}σ)"))
            .collect();
        words.join(", ")
    }
}

/// Prints the files that differ most from others of their class, and how.
pub(crate) fn most_unusual(rows: &[Row], name: impl Fn(usize) -> String) -> String {
    let unusual = unusual(rows);
    let mut text = String::new();
    for file in unusual.iter().take(MOST_NAMED).take_while(|file| file.score > 0.0) {
        let class = format!("{} {}", file.class.what, file.class.whose);
        let path = ending(&name(file.index), WIDTH - 10 - class.chars().count());
        text += &format!("{:>6.1}  {path}  {class}\n", file.score);
        text += &format!("        {}\n", beginning(&file.why(), WIDTH - 8));
    }
    if !text.is_empty() {
        let files = Count(unusual.len() as u64);
        text.insert_str(
            0,
            &format!("\nThe most unusual of {files} files with code, each by the means of its class:\n"),
        );
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use procession_examples::content::{Binary, Sections};

    use super::*;

    pub(crate) fn row(len_bytes: u64, imports: u64) -> Row {
        let binary = Binary {
            format: "ELF".to_owned(),
            kind: "executable".to_owned(),
            machine: "x86_64".to_owned(),
            sections: Sections { code: len_bytes / 2, ..Sections::default() },
            entropy: Some(6.0),
            imports,
        };
        Row::Examined(Report { len_bytes, content: Content::Binary(binary) })
    }

    #[test]
    fn the_most_unusual_file_says_why() {
        let mut rows: Vec<Row> = (0..9).map(|_| row(1000, 10)).collect();
        assert_eq!(unusual(&rows)[0].score, 0.0);
        rows.insert(4, row(1000, 5000));
        let found = unusual(&rows);
        assert_eq!((found.len(), found[0].index), (10, 4));
        // One among ten lies three deviations from the mean, however far it is.
        assert!((found[0].score - 3.0).abs() < 1e-9, "{}", found[0].score);
        assert_eq!(found[0].why(), "imports 5,000 (+3.0σ)");
    }

    #[test]
    fn a_small_class_has_nothing_unusual() {
        let rows: Vec<Row> = (0..FEWEST_TO_COMPARE as u64 - 1).map(|n| row(1000 + n, n)).collect();
        assert!(unusual(&rows).is_empty());
    }
}
