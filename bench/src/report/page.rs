//! The page `docs/benchmarks.md`, and its plots.

use std::{fmt::Write as _, fs};

use anyhow::Context as _;

use super::{
    Report, label, over_floor, plot, short, spread,
    target::verdicts,
    words::{STORIES, Story},
};
use crate::{process, turns::Line};

/// The loads of one scenario, each with its lines.
type Loads<'a> = Vec<(&'a str, Vec<&'a Line>)>;

impl Report {
    /// Writes the page, and a plot for each scenario that was measured.
    ///
    /// # Errors
    /// If `docs/` cannot be written.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let docs = process::root()?.join("docs");
        let plots = docs.join("benchmarks");
        fs::create_dir_all(&plots).context("docs/benchmarks")?;
        for (story, loads) in self.stories() {
            fs::write(plots.join(format!("{}.svg", story.name)), plot::bars(story.title, &loads))?;
        }
        fs::write(docs.join("benchmarks.md"), self.page()).context("docs/benchmarks.md")
    }

    /// What was measured, a scenario after the other.
    fn stories(&self) -> Vec<(&'static Story, Loads<'_>)> {
        let loads = self.loads();
        let of = |story: &Story| {
            let mine = loads.iter().filter(|(scenario, ..)| *scenario == story.name);
            mine.map(|(_, load, lines)| (*load, lines.clone())).collect::<Vec<_>>()
        };
        STORIES.iter().map(|story| (story, of(story))).filter(|(_, loads)| !loads.is_empty()).collect()
    }

    fn page(&self) -> String {
        let mut page = String::from(
            "# Benchmarks\n\nPrinted by `cargo run --release -p trestle-bench -- all --report`; see \
             [bench](../bench/README.md) for how it is done, and [peers](../bench/peers/README.md) for how each peer is \
             set up. Each figure is the median of the rounds, with the least and the most. Times differ between \
             machines; the ratios, taken in one run, are what to compare. **floor** is a minimal program of this \
             project that does the same work and nothing else: the limit.\n",
        );
        if self.machine.quick {
            page += "\n**From a short run (`--quick`): it shows that the bench works, and no more.**\n";
        }
        self.machine(&mut page);
        self.targets(&mut page);
        for (story, loads) in self.stories() {
            let Story { name, title, work, not } = story;
            let _ = write!(page, "\n## {title}\n\n{work}\n\n![{title}](benchmarks/{name}.svg)\n");
            for (load, lines) in loads {
                table(&mut page, load, &lines);
            }
            let _ = write!(page, "\nWhat it does not do: {not}\n");
        }
        page
    }

    fn machine(&self, page: &mut String) {
        let machine = &self.machine;
        let versions: Vec<_> = machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let _ = write!(
            page,
            "\n## Machine and versions\n\n{}, {} cores, {} GiB, {}, Linux {}; all on loopback, {} open files a process. \
             Commit {}. {}. {}.\n",
            machine.processor,
            machine.cores,
            machine.memory_gib,
            machine.system,
            machine.kernel,
            machine.descriptors,
            machine.commit,
            versions.join(", "),
            machine.tools.join(", ")
        );
        for peer in &machine.missing {
            let _ = write!(page, "\nMissing on this machine: {peer}\n");
        }
        for fault in &self.faults {
            let _ = write!(page, "\nCould not be measured: {fault}\n");
        }
    }

    fn targets(&self, page: &mut String) {
        *page += "\n## Targets\n\n| work | target | measured | |\n| --- | --- | --: | --- |\n";
        for verdict in verdicts(&self.lines) {
            let (word, value) = verdict.words();
            let _ = writeln!(page, "| {} | {} | {value} | {word} |", verdict.work, verdict.target);
        }
        let lost: u64 = self.lines.iter().filter(|line| line.server.starts_with("trestle")).map(|line| line.lost).sum();
        let word = if lost == 0 { "met" } else { "missed" };
        let _ = writeln!(page, "| messages and connections lost, all scenarios | 0 | {lost} | {word} |");
    }
}

fn table(page: &mut String, load: &str, lines: &[&Line]) {
    let figures: Vec<_> = lines[0].figures.iter().map(|figure| label(&figure.name)).collect();
    let _ = write!(
        page,
        "\n{load}:\n\n| | {} | x floor | lost |\n| --- |{}\n",
        figures.join(" | "),
        " --: |".repeat(figures.len() + 2)
    );
    for line in lines {
        let values: Vec<_> = line.figures.iter().map(spread).collect();
        let ratio = over_floor(line, lines).map_or(String::new(), short);
        let _ = writeln!(page, "| {} | {} | {ratio} | {} |", line.server, values.join(" | "), line.lost);
    }
}

#[cfg(test)]
mod tests {
    use crate::report::tests::example;

    #[test]
    fn the_page_has_its_targets_and_a_table_for_each_load() {
        let page = example().page();
        assert!(page.contains("| fan-out, 1 at once, CPU | <= 1.1 x floor | 1.10 | met |"), "{page}");
        assert!(page.contains("| trestle | 11.0 (10.0..12.0) | 1.10 | 0 |"), "{page}");
        assert_eq!(page.matches("| trestle |").count(), 2);
        assert!(!page.contains("short run"));
    }
}
