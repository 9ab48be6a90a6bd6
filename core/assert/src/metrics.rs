//! Numbers of a scenario by name, and which way is better.

use crate::{CgroupStats, DetailKind, Outcome, ScenarioStats, Verdict};
use std::fmt::Write;

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polarity {
    /// More is better.
    HigherBetter,
    /// Less is better.
    LowerBetter,
}

/// A number of a scenario.
#[derive(Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit; empty for a count or a ratio.
    pub unit: &'static str,
    /// Which way it is better.
    pub polarity: Polarity,
    of: fn(&ScenarioStats) -> Option<f64>,
}

const HIGHER: Polarity = Polarity::HigherBetter;
const LOWER: Polarity = Polarity::LowerBetter;

const fn metric(
    name: &'static str,
    unit: &'static str,
    polarity: Polarity,
    of: fn(&ScenarioStats) -> Option<f64>,
) -> Metric {
    Metric { name, unit, polarity, of }
}

/// Every metric that has a direction. Of latencies, gaps and spreads the worst cgroup counts.
pub const METRICS: &[Metric] = &[
    metric("total_iterations", "", HIGHER, |s| some(!s.is_empty(), s.total_iterations())),
    metric("total_work_units", "", HIGHER, |s| {
        some(!s.is_empty(), s.cgroups.iter().fold(0, |sum, c| sum.saturating_add(c.total_work_units)))
    }),
    metric("worst_spread", "%", LOWER, ScenarioStats::worst_spread),
    metric("worst_gap_ms", "ms", LOWER, |s| some(!s.is_empty(), s.worst_gap_ms())),
    metric("p99_wake_latency_us", "us", LOWER, |s| worst(s, |c| measured(c.p99_wake_latency_us))),
    metric("median_wake_latency_us", "us", LOWER, |s| worst(s, |c| measured(c.median_wake_latency_us))),
    metric("wake_latency_cv", "", LOWER, |s| worst(s, |c| c.wake_latency_cv)),
    metric("mean_run_delay_us", "us", LOWER, |s| worst(s, |c| c.mean_run_delay_us)),
    metric("worst_run_delay_us", "us", LOWER, |s| worst(s, |c| c.worst_run_delay_us)),
    metric("total_migrations", "", LOWER, |s| some(!s.is_empty(), s.total_migrations())),
    metric("migration_ratio", "", LOWER, |s| worst(s, |c| c.migration_ratio)),
    metric("page_locality", "", HIGHER, |s| {
        s.cgroups.iter().filter_map(|c| c.page_locality).reduce(f64::min)
    }),
];

fn some(is: bool, number: u64) -> Option<f64> {
    is.then_some(number as f64)
}

fn measured(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

fn worst(stats: &ScenarioStats, of: impl Fn(&CgroupStats) -> Option<f64>) -> Option<f64> {
    stats.cgroups.iter().filter_map(of).reduce(f64::max)
}

impl Metric {
    /// The metric of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        METRICS.iter().find(|m| m.name == name)
    }

    /// Its value; `None` if it was not measured.
    pub fn of(&self, stats: &ScenarioStats) -> Option<f64> {
        (self.of)(stats)
    }

    /// By which part of `base` a value is better; negative if it is worse. `None` where that
    /// can't be said.
    pub fn gain(&self, value: f64, base: f64) -> Option<f64> {
        let better_by = match self.polarity {
            Polarity::HigherBetter => value - base,
            Polarity::LowerBetter => base - value,
        };
        let gain = better_by / base.abs();
        gain.is_finite().then_some(gain)
    }
}

/// An open claim that a number is better than another.
#[must_use = "a claim checks nothing until it is compared, as in `.than(base)`"]
#[derive(Debug)]
pub struct BetterClaim<'v> {
    verdict: &'v mut Verdict,
    metric: String,
    value: Option<f64>,
}

impl Verdict {
    /// Opens a claim that a metric is better than in another run; its name (one of
    /// [`METRICS`]) says which way is better. A value that was not measured, or a name that
    /// is not known, makes it inconclusive.
    pub fn claim_better(
        &mut self,
        metric: impl Into<String>,
        value: impl Into<Option<f64>>,
    ) -> BetterClaim<'_> {
        BetterClaim { verdict: self, metric: metric.into(), value: value.into() }
    }
}

impl BetterClaim<'_> {
    /// It is better than `base`.
    pub fn than(self, base: impl Into<Option<f64>>) {
        self.settle(base.into(), None);
    }

    /// It is better than `base` by at least this part of it: 0.10 is ten percent.
    pub fn than_by(self, base: impl Into<Option<f64>>, part: f64) {
        self.settle(base.into(), Some(part));
    }

    fn settle(self, base: Option<f64>, part: Option<f64>) {
        let Self { verdict, metric: name, value } = self;
        let found = Metric::by_name(&name).filter(|_| part.is_none_or(|p| p.is_finite() && p >= 0.0));
        let (outcome, text) = match (found, value, base) {
            (None, ..) if part.is_some_and(|p| !(p.is_finite() && p >= 0.0)) => {
                let text = format!("{name}: expected a part of at least 0 to be better by, got {part:?}");
                (Outcome::Inconclusive, text)
            }
            (None, ..) => {
                let known: Vec<&str> = METRICS.iter().map(|m| m.name).collect();
                let text = format!(
                    "{name}: nobody knows which way it is better; known metrics: {}",
                    known.join(", ")
                );
                (Outcome::Inconclusive, text)
            }
            (_, None, _) => (Outcome::Inconclusive, format!("{name}: nothing was measured")),
            (_, _, None) => (Outcome::Inconclusive, format!("{name}: there is no number to compare with")),
            (Some(metric), Some(value), Some(base)) => judged(metric, value, base, part),
        };
        verdict.settle(outcome, DetailKind::Claim, || text);
    }
}

fn judged(metric: &Metric, value: f64, base: f64, part: Option<f64>) -> (Outcome, String) {
    let (name, unit) = (metric.name, metric.unit);
    let expected = match part {
        Some(part) => format!("better than {base}{unit} by at least {:.1} %", part * 100.0),
        None => format!("better than {base}{unit}"),
    };
    let way = match metric.polarity {
        Polarity::HigherBetter => "higher",
        Polarity::LowerBetter => "lower",
    };
    let holds = match (part, metric.gain(value, base)) {
        (Some(part), Some(gain)) => gain >= part,
        (None, Some(gain)) => gain > 0.0,
        // Nothing is a part of 0; what is better than it still is.
        (_, None) => match metric.polarity {
            Polarity::HigherBetter => value > base,
            Polarity::LowerBetter => value < base,
        },
    };
    let outcome = if holds { Outcome::Pass } else { Outcome::Fail };
    (outcome, format!("{name}: expected {expected} ({way} is better), got {value}{unit}"))
}

/// The metrics of two runs side by side, with how much better (+) or worse (-) the second is.
pub fn render_comparison(names: (&str, &str), base: &ScenarioStats, other: &ScenarioStats) -> String {
    let mut table = vec![["metric".to_string(), names.0.to_string(), names.1.to_string(), String::new()]];
    for metric in METRICS {
        let (a, b) = (metric.of(base), metric.of(other));
        if a.is_none() && b.is_none() {
            continue;
        }
        let number = |n: Option<f64>| n.map_or("-".to_string(), |n| format!("{}{}", short(n), metric.unit));
        let gain = a.zip(b).and_then(|(a, b)| metric.gain(b, a));
        let gain = gain.map_or(String::new(), |gain| match gain {
            g if g >= 0.0005 => format!("{:.1} % better", g * 100.0),
            g if g <= -0.0005 => format!("{:.1} % worse", -g * 100.0),
            _ => "the same".to_string(),
        });
        table.push([metric.name.to_string(), number(a), number(b), gain]);
    }
    let width = |i: usize| table.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let (w0, w1, w2) = (width(0), width(1), width(2));
    let mut text = String::new();
    for [metric, a, b, gain] in &table {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}", format!("{metric:<w0$}  {a:>w1$}  {b:>w2$}  {gain}").trim_end());
    }
    text
}

fn short(n: f64) -> String {
    if n.fract() == 0.0 && n.abs() < 1e15 {
        format!("{n}")
    } else if n.abs() >= 100.0 {
        format!("{n:.0}")
    } else {
        format!("{n:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn outcome(claim: impl FnOnce(&mut Verdict)) -> (Outcome, String) {
        let mut v = Verdict::new();
        claim(&mut v);
        let result = v.into_result();
        (result.outcome, result.details.first().map(|d| d.message.clone()).unwrap_or_default())
    }

    #[test]
    fn the_name_says_which_way_is_better() {
        assert_eq!(outcome(|v| v.claim_better("total_iterations", 11.0).than(10.0)).0, Outcome::Pass);
        assert_eq!(outcome(|v| v.claim_better("worst_gap_ms", 9.0).than(10.0)).0, Outcome::Pass);
        let (o, text) = outcome(|v| v.claim_better("worst_gap_ms", 11.0).than(10.0));
        assert_eq!(o, Outcome::Fail);
        assert_eq!(text, "worst_gap_ms: expected better than 10ms (lower is better), got 11ms");
        assert_eq!(outcome(|v| v.claim_better("worst_gap_ms", 10.0).than(10.0)).0, Outcome::Fail, "equal");
    }

    #[test]
    fn better_by_a_part() {
        let by = |value: f64| outcome(|v| v.claim_better("p99_wake_latency_us", value).than_by(100.0, 0.1)).0;
        assert_eq!((by(90.0), by(91.0)), (Outcome::Pass, Outcome::Fail));
        assert_eq!(
            outcome(|v| v.claim_better("worst_gap_ms", 1.0).than_by(2.0, -0.1)).0,
            Outcome::Inconclusive
        );
    }

    #[test]
    fn what_is_not_known_decides_nothing() {
        let (o, text) = outcome(|v| v.claim_better("speed", 1.0).than(0.5));
        assert_eq!(o, Outcome::Inconclusive);
        assert!(text.contains("which way it is better; known metrics: total_iterations"), "{text}");
        assert_eq!(outcome(|v| v.claim_better("worst_spread", None).than(1.0)).0, Outcome::Inconclusive);
        assert_eq!(outcome(|v| v.claim_better("worst_spread", 1.0).than(None)).0, Outcome::Inconclusive);
    }

    #[test]
    fn two_runs_side_by_side() {
        let stats = |gap, iterations, p99| ScenarioStats {
            cgroups: vec![CgroupStats {
                max_gap_ms: gap,
                total_iterations: iterations,
                p99_wake_latency_us: p99,
                spread: Some(12.34),
                ..CgroupStats::default()
            }],
        };
        let (eevdf, fixture) = (stats(40, 1000, 250.0), stats(60, 1100, 0.0));
        insta::assert_snapshot!(render_comparison(("eevdf", "fixture"), &eevdf, &fixture));
    }

    proptest! {
        #[test]
        fn one_of_two_different_values_is_the_better_one(a in 0.001f64..1e6, b in 0.001f64..1e6, i in 0..METRICS.len()) {
            prop_assume!(a != b);
            let name = METRICS[i].name;
            let better = |x: f64, y: f64| outcome(|v| v.claim_better(name, x).than(y)).0 == Outcome::Pass;
            prop_assert!(better(a, b) != better(b, a));
            prop_assert!(!better(a, a));
        }
    }
}
