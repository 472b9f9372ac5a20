//! A plot of bars as SVG: a group for each load, a bar for each server, a line from the least to the most.

use std::fmt::Write as _;

use super::{label, short};
use crate::turns::Line;

const WIDTH: f64 = 860.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 130.0;
const LENGTH: f64 = 620.0;
const BAR: f64 = 16.0;
const GAP: f64 = 4.0;
/// Height of a load's name.
const NAME: f64 = 26.0;

/// The plot of a scenario's first figure.
pub(super) fn bars(title: &str, loads: &[(&str, Vec<&Line>)]) -> String {
    let figure = loads.first().and_then(|(_, lines)| lines[0].figures.first());
    let figure = figure.map_or(String::new(), |figure| label(&figure.name));
    let spread = |line: &Line| line.figures.first().map_or((0.0, 0.0, 0.0), |figure| figure.spread());
    let all = loads.iter().flat_map(|(_, lines)| lines);
    let scale =
        LENGTH / all.map(|line| spread(line).2).filter(|most| most.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let mut body = String::new();
    let mut y = 34.0;
    for (load, lines) in loads {
        text(&mut body, (8.0, y + 16.0), "font-weight=\"bold\"", load);
        y += NAME;
        for line in lines {
            let (median, least, most) = spread(line);
            let middle = y + BAR / 2.0;
            text(&mut body, (LEFT - 8.0, middle + 4.0), "text-anchor=\"end\"", &line.server);
            let (width, color) = ((median * scale).max(1.0), color(&line.server));
            let _ = writeln!(body, r#"<rect x="{LEFT}" y="{y}" width="{width:.1}" height="{BAR}" fill="{color}"/>"#);
            let (from, to) = (LEFT + least * scale, LEFT + most * scale);
            let _ = writeln!(
                body,
                r##"<path d="M{from:.1} {middle}H{to:.1}M{from:.1} {}v6M{to:.1} {}v6" stroke="#333"/>"##,
                middle - 3.0,
                middle - 3.0
            );
            text(&mut body, (to.max(LEFT + width) + 6.0, middle + 4.0), "", &short(median));
            y += BAR + GAP;
        }
        y += GAP;
    }
    let height = y + 8.0;
    let mut heading = String::new();
    text(&mut heading, (8.0, 20.0), "font-size=\"14\"", &format!("{title}: {figure}, less is better"));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n{heading}{body}</svg>\n"
    )
}

fn text(into: &mut String, (x, y): (f64, f64), more: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(into, r##"<text x="{x:.1}" y="{y:.1}" fill="#222" {more}>{text}</text>"##);
}

fn color(server: &str) -> &'static str {
    match server {
        "floor" => "#9aa0a6",
        _ if server.starts_with("trestle") => "#1f6feb",
        _ => "#d7a86e",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn the_longest_bar_is_that_of_the_most_and_every_server_has_one() {
        let report = example();
        let loads: Vec<_> = report.loads().into_iter().map(|(_, load, lines)| (load, lines)).collect();
        let plot = bars("Fan-out", &loads);
        assert_eq!(plot.matches("height=\"16\"").count(), 4);
        // 11 of at most 12.
        assert!(plot.contains(&format!("width=\"{:.1}\"", LENGTH * 11.0 / 12.0)), "{plot}");
    }
}
