//! The table of totals: one line for each class of files.

use std::collections::BTreeMap;

use procession_examples::{
    content::{Content, Sections},
    statistics::mean,
};

use crate::{
    Report, Row,
    text::{Count, Size},
};

/// The number of lines in the table of totals. Rarer classes share the last line.
const MOST_CLASSES: usize = 24;

/// The class of a file. Files are compared within their class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Class {
    pub(crate) what: String,
    /// The machine, or the interpreter of a script.
    pub(crate) whose: String,
}

impl Class {
    pub(crate) fn of(content: &Content) -> Self {
        let (what, whose) = match content {
            Content::Binary(binary) => {
                (format!("{} {}", binary.format, binary.kind), binary.machine.as_str())
            }
            Content::Script { interpreter } => ("script".to_owned(), interpreter.as_str()),
            Content::Data => ("data".to_owned(), ""),
            Content::Damaged(_) => ("damaged".to_owned(), ""),
        };
        Self { what, whose: whose.to_owned() }
    }
}

/// One line of the table of totals.
#[derive(Debug, Default)]
struct Line {
    files: u64,
    len_bytes: u64,
    sections: Sections,
    entropies: Vec<f64>,
    imports: u64,
}

impl Line {
    fn add(&mut self, report: &Report) {
        self.files += 1;
        self.len_bytes += report.len_bytes;
        if let Content::Binary(binary) = &report.content {
            self.add_sizes(binary.sections);
            self.entropies.extend(binary.entropy);
            self.imports += binary.imports;
        }
    }

    fn add_sizes(&mut self, sections: Sections) {
        let sum = &mut self.sections;
        sum.code = sum.code.saturating_add(sections.code);
        sum.constants = sum.constants.saturating_add(sections.constants);
        sum.variables = sum.variables.saturating_add(sections.variables);
    }

    fn merge(&mut self, other: &Self) {
        self.files += other.files;
        self.len_bytes += other.len_bytes;
        self.add_sizes(other.sections);
        self.entropies.extend(&other.entropies);
        self.imports += other.imports;
    }

    fn cells(&self) -> [String; 7] {
        let size = |len_bytes| if len_bytes == 0 { String::new() } else { Size(len_bytes).to_string() };
        [
            Count(self.files).to_string(),
            size(self.len_bytes),
            size(self.sections.code),
            size(self.sections.constants),
            size(self.sections.variables),
            mean(&self.entropies).map(|bits| format!("{bits:.2}")).unwrap_or_default(),
            if self.imports == 0 { String::new() } else { Count(self.imports).to_string() },
        ]
    }
}

/// Computes the table of totals, with the largest class first.
pub(crate) fn totals(rows: &[Row]) -> String {
    let mut lines: BTreeMap<Class, Line> = BTreeMap::new();
    for row in rows {
        if let Row::Examined(report) = row {
            lines.entry(Class::of(&report.content)).or_default().add(report);
        }
    }
    let mut lines: Vec<(Class, Line)> = lines.into_iter().collect();
    lines.sort_by_key(|(_, line)| std::cmp::Reverse(line.files));

    let mut all = Line::default();
    for (_, line) in &lines {
        all.merge(line);
    }
    if lines.len() > MOST_CLASSES {
        let mut others = Line::default();
        let rest = lines.split_off(MOST_CLASSES - 1);
        let class = Class { what: format!("{} other classes", rest.len()), whose: String::new() };
        for (_, line) in &rest {
            others.merge(line);
        }
        lines.push((class, others));
    }
    lines.push((Class { what: "all".to_owned(), whose: String::new() }, all));

    let mut table = String::new();
    let mut print = |what: &str, whose: &str, cells: [String; 7]| {
        let [files, bytes, code, constants, variables, entropy, imports] = cells;
        let line = format!(
            "{what:<18} {whose:<16}{files:>7}{bytes:>9}{code:>9}{constants:>10}{variables:>10}{entropy:>8}{imports:>10}"
        );
        table.push_str(line.trim_end());
        table.push('\n');
    };
    let heads = ["files", "bytes", "code", "constants", "variables", "entropy", "imports"];
    print("", "", heads.map(str::to_owned));
    for (class, line) in &lines {
        print(&class.what, &class.whose, line.cells());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{text::WIDTH, unusual::tests::row};

    #[test]
    fn the_table_keeps_to_its_columns() {
        let mut rows: Vec<Row> = (0..100).map(|n| row(u64::from(u32::MAX) << (n % 8), 123_456)).collect();
        rows.extend((0..40).map(|n| {
            let content = Content::Script { interpreter: format!("interpreter-{n:04}") };
            Row::Examined(Report { len_bytes: 1, content })
        }));
        let table = totals(&rows);
        assert_eq!(table.lines().count(), MOST_CLASSES + 2);
        assert!(table.lines().all(|line| line.chars().count() <= WIDTH), "{table}");
        assert!(
            table.lines().last().is_some_and(|line| line.starts_with("all") && line.contains(" 140 ")),
            "{table}"
        );
    }
}
