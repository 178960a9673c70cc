//! Draws the record of real work: what each pool takes over two plain threads, by the length of a task.

use std::fmt::Write as _;

use crate::real::{ONE, POOLS};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// The corners of the diagram within the picture.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 740.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 340.0;
/// The logarithms of the least and the greatest length in seconds, and of the overhead in percent. What is beyond is drawn at the border.
const LENGTHS: [f64; 2] = [-6.3, -0.7];
const OVERHEADS: [f64; 2] = [0.0, 4.0];
/// The colours of the pools. They differ for people who cannot tell red from green.
const COLOURS: [&str; 4] = ["#0072b2", "#009e73", "#e69f00", "#cc79a7"];

/// One pool's figure for one kind of work.
struct Point {
    pool: usize,
    /// Tasks of equal length that only compute. They are joined by lines.
    is_even: bool,
    x: f64,
    y: f64,
}

/// Draws the table of a record.
pub(crate) fn svg(record: &str) -> String {
    let points = points(record);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Time over two plain threads, by the length of a task</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    axes(&mut svg);
    for (pool, (name, colour)) in POOLS.iter().zip(COLOURS).enumerate() {
        let of_pool = || points.iter().filter(|point| point.pool == pool);
        let line: Vec<String> = of_pool()
            .filter(|point| point.is_even)
            .map(|point| format!("{:.1},{:.1}", point.x, point.y))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for point in of_pool() {
            let radius = if point.is_even { 2.5 } else { 4.5 };
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{colour}\"/>",
                point.x, point.y
            );
        }
        let y = TOP + 18.0 + 20.0 * pool as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"590\" y=\"{:.1}\" width=\"14\" height=\"10\" fill=\"{colour}\"/>",
            y - 9.0
        );
        text(&mut svg, 610.0, y, "start", name);
    }
    svg + "</svg>\n"
}

/// The figures of a record. A length is what the task takes on one thread.
fn points(record: &str) -> Vec<Point> {
    let (mut points, mut is_even, mut x) = (Vec::new(), false, 0.0);
    for line in record.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", work, by, time, over, ..] = cells[..] else { continue };
        if by == ONE {
            is_even = work.contains("computing") && !work.contains(" to ");
            x = place(seconds(time).log10(), LENGTHS, [LEFT, RIGHT]);
        }
        let percent = over.split_whitespace().next().and_then(|percent| percent.parse::<f64>().ok());
        if let (Some(pool), Some(percent)) = (POOLS.iter().position(|pool| *pool == by), percent) {
            points.push(Point {
                pool,
                is_even,
                x,
                y: place(percent.max(1.0).log10(), OVERHEADS, [BOTTOM, TOP]),
            });
        }
    }
    points
}

/// A time as `digits` and a unit.
fn seconds(time: &str) -> f64 {
    let mut words = time.split_whitespace();
    let figure: f64 = words.next().and_then(|figure| figure.parse().ok()).unwrap_or(0.0);
    figure * if words.next() == Some("ms") { 1e-3 } else { 1e-6 }
}

/// Where a value is drawn.
fn place(value: f64, [least, most]: [f64; 2], [first, last]: [f64; 2]) -> f64 {
    first + (value.clamp(least, most) - least) / (most - least) * (last - first)
}

fn axes(svg: &mut String) {
    for (power, name) in (-6..).zip(["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms"]) {
        let x = place(f64::from(power), LENGTHS, [LEFT, RIGHT]);
        line(svg, [x, TOP], [x, BOTTOM]);
        text(svg, x, BOTTOM + 18.0, "middle", name);
    }
    for (power, name) in (0..).zip(["≤ 1 %", "10 %", "100 %", "1,000 %", "10,000 %"]) {
        let y = place(f64::from(power), OVERHEADS, [BOTTOM, TOP]);
        line(svg, [LEFT, y], [RIGHT, y]);
        text(svg, LEFT - 6.0, y + 4.0, "end", name);
    }
    let middle = LEFT.midpoint(RIGHT);
    text(
        svg,
        middle,
        BOTTOM + 36.0,
        "middle",
        "length of a task; time over two plain threads, with two workers",
    );
    text(
        svg,
        middle,
        BOTTOM + 53.0,
        "middle",
        "lines: tasks that only compute; large dots: hash, JSON, words, compression, image, files, uneven tasks",
    );
}

fn line(svg: &mut String, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
    let _ =
        writeln!(svg, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#ddd\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn each_picture_shows_its_record() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../record");
        let records: Vec<_> = fs::read_dir(folder)
            .expect("the folder is there")
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().ends_with("-real-work.md"))
            .collect();
        for path in records {
            let read = |path: &Path| fs::read_to_string(path).expect("it can be read");
            let record = read(&path);
            assert!(points(&record).iter().any(|point| point.is_even), "{} has figures", path.display());
            assert!(svg(&record) == read(&path.with_extension("svg")), "`compare draw {}`", path.display());
        }
    }
}
